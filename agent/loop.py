"""One turn: model, tools, model, … until the agent is idle.

    ┌────────────▶ call the model ──── answer ────▶ tool calls? ── no ──▶ said meanwhile? ── no ──▶ ended
    │                │  ▲ again, later                │ yes                  │ yes
    │             failed ┘                            ▼                      │
    └──────── take what was said meanwhile ◀──── run them, side by side ◀────┘

The loop knows neither disk nor socket: `Channel.record` makes an event durable before it returns, `Channel.show` is for
what only passes by. A prompt is durable before the model is called, a call before it runs, and what was streamed is
checkpointed every two seconds.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from typing import Protocol

from agent.context import Entry, cut, entry_of, messages
from agent.gate import EVERYTHING, Prepared, Refusal, check
from agent.model import Answer, Model, Request, TextDelta, ThinkingDelta
from agent.session import add
from agent.tool import Capability, Site, Tool, ToolResult
from persistence.clock import Clock, Entropy
from persistence.errors import FinnError, ModelCut, ModelError
from persistence.events import (
    AGENT,
    SYSTEM,
    TOOL,
    AssistantMessage,
    Block,
    By,
    CallFailed,
    ContextCut,
    Event,
    Json,
    MessageCheckpointed,
    MessageStop,
    NoteAdded,
    Problem,
    PromptMode,
    Record,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolEnded,
    ToolStarted,
    TurnStop,
    Usage,
)


@dataclass(frozen=True)
class Limits:
    """What bounds a turn."""

    rounds: int = 50  #: model calls with tools in one turn
    identical: int = 3  #: the same call with the same arguments, before the model is told
    attempts: int = 4  #: of one model call
    retry_s: float = 2.0  #: before the second attempt; doubled for each further one
    retry_most_s: float = 60.0  #: the longest wait, also where the provider asks for more
    checkpoint_s: float = 2.0


class Channel(Protocol):
    """What a turn tells and hears: durable events, passing moments, and what was said meanwhile."""

    async def record(self, event: Event, by: By) -> Record:
        """Makes an event durable and visible. Finishes also when the turn is cancelled meanwhile."""

    def show(self, kind: str, data: dict[str, Json]) -> None:
        """Shows something that is not kept."""

    async def take(self, mode: PromptMode, parent: str | None) -> tuple[Record, ...]:
        """What was said to this turn in that mode and not yet heard, now placed below `parent`."""


@dataclass(frozen=True)
class Agent:
    """What every turn works with."""

    model: Model
    tools: tuple[Tool, ...]
    site: Site
    clock: Clock
    entropy: Entropy
    changed: Callable[[], Awaitable[None]]  #: called after a tool that may have written files
    allowed: frozenset[Capability] = EVERYTHING
    limits: Limits = Limits()

    @cached_property
    def fixed_chars(self) -> int:
        """What the tools take of every request, in characters."""
        return sum(
            len(tool.declaration.description) + len(json.dumps(tool.declaration.parameters)) for tool in self.tools
        )


@dataclass
class Live:
    """The message that is being written and the calls that run: what a newcomer must be told."""

    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    calls: dict[str, ToolCallBlock] = field(default_factory=dict)

    def clear(self) -> None:
        """Forgets the message: it is finished or worthless."""
        self.text.clear()
        self.thinking.clear()

    def blocks(self) -> tuple[Block, ...]:
        """What was streamed so far, as content."""
        thinking, text = "".join(self.thinking), "".join(self.text)
        return (
            *((ThinkingBlock(thinking=thinking),) if thinking else ()),
            *((TextBlock(text=text),) if text else ()),
        )


class Turn:
    """One turn of one session. `run` takes it to its end and says how it ended."""

    def __init__(
        self, agent: Agent, channel: Channel, turn: str, session: str, system: str, entries: list[Entry]
    ) -> None:
        self.id = turn
        self.live = Live()
        self.usage = Usage()
        self._agent = agent
        self._channel = channel
        self._session = session
        self._system = system
        self._entries = entries
        self._seen: Counter[str] = Counter()
        self._done: dict[str, ToolResult] = {}  # results on their way into the log
        self._writing = asyncio.Lock()  # each entry names the one before it as its parent

    @property
    def _leaf(self) -> str | None:
        return self._entries[-1].id if self._entries else None

    async def run(self) -> tuple[TurnStop, Problem | None]:
        """Runs the turn. Raises StorageError; cancelled, it leaves open what `abandon` then closes."""
        await self._cut()
        for _ in range(self._agent.limits.rounds):
            answer = await self._ask()
            calls = [block for block in answer.content if isinstance(block, ToolCallBlock)]
            if answer.stop_reason == "error":
                return "error", answer.error
            if calls:
                await self._act(calls)
                await self._hear("steer")
            elif not (await self._hear("steer") or await self._hear("follow_up")):
                return _end(answer)
        return "tool_limit", Problem(
            code="tool_limit",
            message=f"the turn took {self._agent.limits.rounds} rounds of tools and was ended",
            hint="say `go on` to let it continue",
        )

    async def abandon(self, stop: MessageStop, reason: str) -> None:
        """Closes what a turn left open: the message keeps its beginning, a call that has no result gets `reason`."""
        blocks = self.live.blocks()
        if blocks:
            await self._answer(blocks, Usage(), stop, None)
        for call in list(self.live.calls.values()):
            await self._result(call, self._done.get(call.id) or ToolResult(reason, is_error=True))

    # ------------------------------------------------------------ the context

    async def _cut(self) -> None:
        left_out = cut(self._entries, len(self._system) + self._agent.fixed_chars, self._agent.model.about.window)
        if left_out:
            event = ContextCut(turn=self.id, first_kept=self._entries[left_out].id, left_out=left_out)
            await self._channel.record(event, SYSTEM)
            del self._entries[:left_out]

    async def _hear(self, mode: PromptMode) -> bool:
        """Takes what was said meanwhile; whether there was anything."""
        taken = await self._channel.take(mode, self._leaf)
        for record in taken:
            said = entry_of(record)
            if said is not None:
                self._entries.append(replace(said, parent=self._leaf, turn=self.id))
        return bool(taken)

    async def _write(self, make: Callable[[str | None], Event], by: By) -> Event:
        """Adds an entry below the leaf and gives it as it was recorded. `make` gives the event for a parent."""
        async with self._writing:
            record = await self._channel.record(make(self._leaf), by)
            entry = entry_of(record)
            if entry is not None:
                self._entries.append(entry)
            return record.event

    # ------------------------------------------------------------ the model

    async def _ask(self) -> AssistantMessage:
        """One answer, asked for as often as it takes; the last failure is an answer of its own kind."""
        request = Request(
            self._system,
            messages(self._entries),
            tuple(tool.declaration for tool in self._agent.tools),
            self._session,
        )
        for attempt in count(1):
            try:
                answer = await self._stream(request)
                break
            except ModelError as error:
                problem, wait = Problem.of(error), self._wait(attempt, error)
                failed = CallFailed(turn=self.id, attempt=attempt, error=problem, retry_in_s=wait)
                await self._channel.record(failed, SYSTEM)
                if wait is None:
                    return await self._answer(self.live.blocks(), Usage(), "error", problem)
                self.live.clear()
                await self._agent.clock.sleep(wait)
        if answer.stop_reason == "refused":
            return await self._answer(answer.content, answer.usage, "stop", REFUSED)
        return await self._answer(answer.content, answer.usage, answer.stop_reason, None)

    async def _stream(self, request: Request) -> Answer:
        """Streams one answer and shows it. Raises ModelError."""
        live = self.live
        ticking = asyncio.create_task(self._checkpoints())
        try:
            async with aclosing(self._agent.model.stream(request)) as deltas:
                async for delta in deltas:
                    if isinstance(delta, Answer):
                        return delta
                    if isinstance(delta, TextDelta):
                        live.text.append(delta.text)
                        self._channel.show("text_delta", {"delta": delta.text})
                    elif isinstance(delta, ThinkingDelta):
                        live.thinking.append(delta.text)
                        self._channel.show("thinking_delta", {"delta": delta.text})
            raise ModelCut("the model ended its stream without an answer", hint="it is asked again")
        finally:
            ticking.cancel()
            await asyncio.wait([ticking])
            if not ticking.cancelled():
                ticking.result()

    async def _checkpoints(self) -> None:
        """Records what has been streamed, every two seconds while there is more of it."""
        kept = ("", "")
        while True:
            await self._agent.clock.sleep(self._agent.limits.checkpoint_s)
            now = ("".join(self.live.text), "".join(self.live.thinking))
            if now != kept:
                kept = now
                event = MessageCheckpointed(turn=self.id, parent=self._leaf, text=now[0], thinking=now[1])
                await self._channel.record(event, AGENT)

    def _wait(self, attempt: int, error: ModelError) -> float | None:
        """Seconds until the next attempt, or None: exponential with jitter, at least what the provider asks for."""
        limits = self._agent.limits
        if not error.retryable or attempt >= limits.attempts:
            return None
        if error.retry_after is not None and error.retry_after > limits.retry_most_s:
            return None
        jitter = 0.75 + self._agent.entropy(1)[0] / 512
        wait: float = limits.retry_s * 2 ** (attempt - 1) * jitter
        return max(min(wait, limits.retry_most_s), error.retry_after or 0.0)

    async def _answer(
        self, content: tuple[Block, ...], usage: Usage, stop: MessageStop, error: Problem | None
    ) -> AssistantMessage:
        about = self._agent.model.about
        self.usage = add(self.usage, usage)

        def made(parent: str | None) -> AssistantMessage:
            return AssistantMessage(
                turn=self.id,
                parent=parent,
                content=content,
                api=about.api,
                provider=about.provider,
                model=about.name,
                usage=usage,
                stop_reason=stop,
                error=error,
            )

        self.live.calls = {block.id: block for block in content if isinstance(block, ToolCallBlock)}
        answer = await self._write(made, AGENT)
        self.live.clear()
        assert isinstance(answer, AssistantMessage)
        return answer  # without secrets: what is done is what was recorded

    # ------------------------------------------------------------ the tools

    async def _act(self, calls: list[ToolCallBlock]) -> None:
        """Runs the calls of one message side by side, or one after the other where one of them must be alone."""
        checked = [(call, self._check(call)) for call in calls]
        if any(isinstance(one, Prepared) and one.tool.declaration.alone for _, one in checked):
            for call, one in checked:
                await self._call(call, one)
        else:
            async with asyncio.TaskGroup() as group:
                for call, one in checked:
                    group.create_task(self._call(call, one))
        await self._repeated(calls)

    def _check(self, call: ToolCallBlock) -> Prepared | Refusal:
        agent = self._agent
        return check(call.name, call.arguments, tools=agent.tools, allowed=agent.allowed, site=agent.site)

    async def _call(self, call: ToolCallBlock, checked: Prepared | Refusal) -> None:
        """The intent, the effect, the result."""
        started = ToolStarted(turn=self.id, call=call.id, name=call.name, args=call.arguments)
        await self._channel.record(started, AGENT)
        if isinstance(checked, Refusal):
            await self._result(call, ToolResult(checked.text, is_error=True))
            return

        def show(text: str) -> None:
            self._channel.show("tool_update", {"call": call.id, "delta": text})

        try:
            result = await checked.tool.run(checked.args, self._agent.site, show)
        except (FinnError, OSError, ValueError) as error:
            result = ToolResult(f"{call.name} failed: {error}", is_error=True)
        await self._result(call, result)
        if checked.tool.declaration.capabilities & {"write", "exec"}:
            await self._agent.changed()

    async def _result(self, call: ToolCallBlock, result: ToolResult) -> None:
        def made(parent: str | None) -> ToolEnded:
            return ToolEnded(
                turn=self.id,
                parent=parent,
                call=call.id,
                name=call.name,
                result=result.text,
                is_error=result.is_error,
                truncated=result.truncated,
                details=result.details,
            )

        self._done[call.id] = result
        await self._write(made, TOOL)
        self.live.calls.pop(call.id, None)
        del self._done[call.id]

    async def _repeated(self, calls: Iterable[ToolCallBlock]) -> None:
        """Tells the model when it makes the very same call for the third time."""
        for call in calls:
            key = call.name + json.dumps(call.arguments, sort_keys=True)
            self._seen[key] += 1
            if self._seen[key] == self._agent.limits.identical:
                await self._note(
                    f"this is call number {self._seen[key]} of {call.name} with the same arguments in this turn. "
                    "The result will not change by itself: try another way, or say what stands in the way."
                )

    async def _note(self, text: str) -> None:
        await self._write(lambda parent: NoteAdded(turn=self.id, parent=parent, text=text), SYSTEM)


REFUSED = Problem(
    code="refused",
    message="the model's provider refused to answer",
    hint="say it in another way, or use another model",
)


def _end(answer: AssistantMessage) -> tuple[TurnStop, Problem | None]:
    """How a turn ends that ends by itself."""
    if answer.error is not None:
        return "refused", answer.error
    return ("length", None) if answer.stop_reason == "length" else ("stop", None)
