"""What the records tell an operator: numbers for /metrics, and a line in the log where a turn or a breaker changed.

    record ─▶ follow ─┬▶ observe("turns", 1, stop_reason="stop")
                      └▶ {"msg":"a turn ended","session":"01J…","turn":"01J…","stop_reason":"stop","ms":2150,…}

Nothing below has to count: whatever happened is a record anyway. What began before this process is not timed.
"""

import logging
from collections.abc import Collection

from gateway.metrics import OTHER
from persistence.events import (
    BreakerChanged,
    CallFailed,
    OwnerTold,
    Problem,
    Record,
    TokenCreated,
    TokenRevoked,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    TurnStarted,
    Usage,
)
from persistence.measure import Observe

log = logging.getLogger("finn.tally")


class Tally:
    """Listens to a journal. `tools` are the names that may be counted one by one: a model may ask for anything."""

    def __init__(self, observe: Observe, tools: Collection[str]) -> None:
        self._observe = observe
        self._tools = frozenset(tools)
        self._began: dict[str, int] = {}  # turns and calls that run, and when they began, in milliseconds

    def follow(self, record: Record) -> None:
        """Takes a record, in the order of the log."""
        match record.event:
            case TurnStarted() as turn:
                self._began[turn.turn] = record.time
            case ToolStarted() as call:
                self._began[call.call] = record.time
            case ToolEnded() as call:
                self._end_call(call, self._since(call.call, record))
            case TurnEnded() as turn:
                self._end_turn(record.stream, turn, self._since(turn.turn, record))
            case CallFailed() as failed:
                self._observe("model_failures", 1, code=failed.error.code)
                log.warning("a model call failed", extra={"session": record.stream, **_problem(failed.error)})
            case BreakerChanged() as breaker:
                level = logging.WARNING if breaker.state == "open" else logging.INFO
                log.log(level, "a breaker is %s", breaker.state, extra=breaker.model_dump())
            case OwnerTold() as told:
                log.info("the owner is told", extra={"status": told.status})
            case TokenCreated() as token:
                log.info("a token was made", extra={"token": token.id, "scope": token.scope, "by": record.by.actor})
            case TokenRevoked() as token:
                log.info("a token was revoked", extra={"token": token.id, "by": record.by.actor})

    def _since(self, what: str, record: Record) -> float | None:
        """Seconds; a clock that went back meanwhile counts as none."""
        began = self._began.pop(what, None)
        return None if began is None else max(0.0, (record.time - began) / 1000)

    def _end_call(self, call: ToolEnded, seconds: float | None) -> None:
        tool = call.name if call.name in self._tools else OTHER
        self._observe("tool_calls", 1, tool=tool, outcome="error" if call.is_error else "ok")
        if seconds is not None:
            self._observe("tool_seconds", seconds, tool=tool)

    def _end_turn(self, session: str | None, turn: TurnEnded, seconds: float | None) -> None:
        self._observe("turns", 1, stop_reason=turn.stop_reason)
        if seconds is not None:
            self._observe("turn_seconds", seconds)
        for kind, tokens in _tokens(turn.usage).items():
            self._observe("tokens", tokens, kind=kind)
        if turn.usage.cost is not None:
            self._observe("cost_dollars", turn.usage.cost.total)
        log.log(
            logging.WARNING if turn.error else logging.INFO,
            "a turn ended",
            extra={
                "session": session,
                "turn": turn.turn,
                "stop_reason": turn.stop_reason,
                "ms": None if seconds is None else round(seconds * 1000),
                "tokens": turn.usage.totalTokens,
                **(_problem(turn.error) if turn.error else {}),
            },
        )


def _tokens(usage: Usage) -> dict[str, int]:
    return {
        "input": usage.input,
        "output": usage.output,
        "cache_read": usage.cacheRead,
        "cache_write": usage.cacheWrite,
    }


def _problem(problem: Problem) -> dict[str, str]:
    return {"code": problem.code, "problem": problem.message}
