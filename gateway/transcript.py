"""A session's messages as REST gives them: pages over the log, forwards from a cursor or backwards from the end.

A message that waited gets its parent from the turn that took it, which may stand further on in the log. What a fenced
writer had acknowledged and this history took up is shown like any other, with `recovered`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gateway.frames import failure
from persistence.clock import iso
from persistence.events import (
    AssistantMessage,
    ContextCut,
    EntryRecovered,
    Event,
    Json,
    NoteAdded,
    Record,
    SteerTaken,
    ToolEnded,
    TurnEnded,
    TurnStarted,
    UserMessage,
)
from persistence.journal import Journal
from persistence.upcast import as_said

PAGE = 500  #: records read at once
SAID = (UserMessage, AssistantMessage, ToolEnded)
ALSO = (NoteAdded, ContextCut)  #: said by nobody; only on request


@dataclass(frozen=True)
class Transcript:
    """One page: the messages in order, and the cursors of the pages after and before it."""

    messages: list[dict[str, Json]]
    next: str | None
    prev: str | None


async def forwards(journal: Journal, session: str, after: int, limit: int, notes: bool) -> Transcript:
    """The first `limit` messages after a seq."""
    found: list[Record] = []
    places: dict[str, str | None] = {}
    cursor, more = after, True
    while more and len(found) <= limit:
        page = await journal.read(session, after=cursor, limit=PAGE)
        _collect(page, found, places, notes)
        more = len(page) == PAGE
        cursor = page[-1].seq if page else cursor
    shown = found[:limit]
    await _place_waiting(journal, session, shown, places, cursor)
    rest = len(found) > limit
    return Transcript(
        [view(one, places) for one in shown], str(shown[-1].seq) if rest and shown else None, _first(shown)
    )


async def backwards(journal: Journal, session: str, before: int, limit: int, notes: bool) -> Transcript:
    """The last `limit` messages before a seq."""
    found: list[Record] = []
    places: dict[str, str | None] = {}
    cursor, more, size = before, True, min(PAGE, 2 * limit + 2)  # every other record or so is a message
    while more and len(found) <= limit:
        page = await journal.read(session, before=cursor, limit=size, last=True)
        older: list[Record] = []
        _collect(page, older, places, notes)
        found[:0] = older
        more = len(page) == size
        cursor = page[0].seq if page else cursor
    shown = found[-limit:]
    await _place_waiting(journal, session, shown, places, before - 1)
    return Transcript([view(one, places) for one in shown], None, _first(shown) if len(found) > limit else None)


def _first(shown: list[Record]) -> str | None:
    return str(shown[0].seq) if shown else None


def _collect(page: Iterable[Record], found: list[Record], places: dict[str, str | None], notes: bool) -> None:
    for record in page:
        event = as_said(record).event
        if isinstance(event, SAID) or (notes and (isinstance(event, ALSO) or _ended_badly(event))):
            found.append(record)
        elif isinstance(record.event, TurnStarted | SteerTaken):
            places[record.event.entry] = record.event.parent


def _ended_badly(event: Event) -> bool:
    return isinstance(event, TurnEnded) and event.stop_reason != "stop"


async def _place_waiting(
    journal: Journal, session: str, shown: list[Record], places: dict[str, str | None], cursor: int
) -> None:
    """Reads on until every message that is shown has its place, or the log ends."""
    while any(isinstance(one.event, UserMessage) and one.entry not in places for one in shown):
        page = await journal.read(session, after=cursor, limit=PAGE)
        _collect(page, [], places, notes=False)
        if not page:
            return
        cursor = page[-1].seq


def view(record: Record, places: dict[str, str | None]) -> dict[str, Json]:
    """One message, as the contract has it."""
    if isinstance(record.event, EntryRecovered):
        return {**view(as_said(record), places), "recovered": True}
    event: Any = record.event
    shared = {
        "id": record.entry,
        "parent": places.get(record.entry, getattr(event, "parent", None)),
        "seq": record.seq,
        "turn": event.turn,
        "created_at": iso(record.time / 1000),
    }
    if isinstance(event, UserMessage):
        return {**shared, "role": "user", **_text(event.text), "request_id": event.request_id, "mode": event.mode}
    if isinstance(event, ToolEnded):
        return {
            **shared,
            "role": "toolResult",
            **_text(event.result),
            "tool_call_id": event.call,
            "tool_name": event.name,
            "is_error": event.is_error,
            "truncated": event.truncated,
            **({"details": event.details} if event.details else {}),
        }
    if isinstance(event, AssistantMessage):
        return {
            **shared,
            "role": "assistant",
            "text": event.text,
            "content": [block.model_dump(mode="json", exclude_none=True) for block in event.content],
            "usage": event.usage.model_dump(mode="json"),
            "stop_reason": event.stop_reason,
            "model": event.model,
            **failure(event.error),
        }
    if isinstance(event, NoteAdded):
        return {**shared, "role": "note", **_text(event.text)}
    if isinstance(event, ContextCut):
        return {**shared, "role": "context_cut", "left_out": event.left_out, "first_kept": event.first_kept}
    return {**shared, "role": "turn_end", "stop_reason": event.stop_reason, **failure(event.error)}


def _text(text: str) -> dict[str, Json]:
    return {"text": text, "content": [{"type": "text", "text": text}]}
