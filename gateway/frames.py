"""What a socket shows of the log: one frame for each record and moment that people see.

record ─ frame ─▶ {"type","turn","seq","data"}        kept, replayed, the same bytes every time
moment ─ frame ─▶ {"type","turn","data"}              passing
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from persistence.events import (
    AssistantMessage,
    CallFailed,
    ContextCut,
    EntryRecovered,
    Event,
    Json,
    NoteAdded,
    Problem,
    Record,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    TurnStarted,
    UserMessage,
)
from persistence.subscription import Moment
from persistence.upcast import as_said

Frame = dict[str, Json]

SHOWN_BYTES = 64 * 1024  #: of a tool's arguments and result; the whole is had by REST


def frame(item: Record | Moment) -> Frame | None:
    """The frame of a record or moment; None for a record that has none."""
    if isinstance(item, Moment):
        return {"type": item.type, **({"turn": item.turn} if item.turn else {}), "data": item.data}
    make = FRAMES.get(type(item.event))
    made = make(item, item.event) if make else None
    if made is None:
        return None
    kind, data = made
    return {"type": kind, "turn": getattr(item.event, "turn", None), "seq": item.seq, "data": data}


Made = tuple[str, dict[str, Json]] | None


def _user_message(record: Record, event: UserMessage) -> Made:
    return "user_message", {
        "id": record.entry,
        "parent": event.parent,
        "text": event.text,
        "request_id": event.request_id,
        "mode": event.mode,
    }


def _turn_start(record: Record, event: TurnStarted) -> Made:
    """The turn of a message begins, and the message has its place."""
    return "turn_start", {"id": event.entry, "parent": event.parent}


def _message(record: Record, event: AssistantMessage) -> Made:
    return "message", {
        "id": record.entry,
        "parent": event.parent,
        "text": event.text,
        **({"thinking": event.thinking} if event.thinking else {}),
        "model": event.model,
        "usage": event.usage.model_dump(mode="json"),
        "stop_reason": event.stop_reason,
        **failure(event.error),
    }


def _tool_start(record: Record, event: ToolStarted) -> Made:
    return "tool_start", {"call": event.call, "name": event.name, "args": clip(json.dumps(event.args))[0]}


def _tool_end(record: Record, event: ToolEnded) -> Made:
    result, clipped = clip(event.result)
    return "tool_end", {
        "id": record.entry,
        "parent": event.parent,
        "call": event.call,
        "name": event.name,
        "result": result,
        "truncated": event.truncated or clipped,
        "is_error": event.is_error,
        **({"details": event.details} if event.details and len(json.dumps(event.details)) <= SHOWN_BYTES else {}),
    }


def _turn_end(record: Record, event: TurnEnded) -> Made:
    return "turn_end", {
        "stop_reason": event.stop_reason,
        **failure(event.error),
        "usage": event.usage.model_dump(mode="json"),
    }


def _retry(record: Record, event: CallFailed) -> Made:
    """The text streamed so far is worthless. The last failure has no frame: a message with its error follows."""
    if event.retry_in_s is None:
        return None
    return "retry", {
        "attempt": event.attempt,
        "delay_ms": round(event.retry_in_s * 1000),
        "code": event.error.code,
        "message": event.error.message,
    }


def _note(record: Record, event: NoteAdded) -> Made:
    return "note", {"id": record.entry, "parent": event.parent, "text": event.text}


def _recovered(record: Record, event: EntryRecovered) -> Made:
    """Whoever watches hears of it as of a note: no turn of this history belongs to it."""
    said = as_said(record).event
    if not isinstance(said, UserMessage | AssistantMessage):
        return None
    who = "You said" if isinstance(said, UserMessage) else "The answer was"
    text = f"Recovered from an instance that lost its place. {who}: {clip(said.text)[0]}"
    return "note", {"id": record.entry, "parent": event.parent, "text": text, "recovered": True}


def _context_cut(record: Record, event: ContextCut) -> Made:
    return "context_cut", {"first_kept": event.first_kept, "left_out": event.left_out}


FRAMES: Mapping[type[Event], Callable[[Record, Any], Made]] = {
    UserMessage: _user_message,
    TurnStarted: _turn_start,
    AssistantMessage: _message,
    ToolStarted: _tool_start,
    ToolEnded: _tool_end,
    TurnEnded: _turn_end,
    CallFailed: _retry,
    NoteAdded: _note,
    ContextCut: _context_cut,
    EntryRecovered: _recovered,
}


def failure(error: Problem | None) -> dict[str, Json]:
    """The field that an error adds; none where there was none."""
    return {"error": error.model_dump()} if error else {}


def clip(text: str) -> tuple[str, bool]:
    """The text within SHOWN_BYTES, and whether something was cut off."""
    data = text.encode()
    if len(data) <= SHOWN_BYTES:
        return text, False
    return data[:SHOWN_BYTES].decode(errors="ignore"), True
