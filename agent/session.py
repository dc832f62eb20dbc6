"""A session: one conversation, folded from its records.

    session_created ─▶ idle ── user_message ─▶ queued ── turn_started ─▶ running ── turn_ended ─▶ idle
                        ▲                        └ steer_taken: the waiting message joins the running turn
                        └── session_deleted hides it, session_restored brings it back

    entry_recovered     a message that a fenced writer had acknowledged: counted and shown, but a branch of its own

The state holds no body and no row per message: a title, the leaf, counts, what waits, the turn that runs, and the last
request ids with the hash of their text.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from persistence.events import (
    AssistantMessage,
    CallFailed,
    ContextCut,
    Cost,
    EntryRecovered,
    Event,
    Json,
    MessageCheckpointed,
    NoteAdded,
    PromptMode,
    Record,
    SessionCreated,
    SessionDeleted,
    SessionRenamed,
    SessionRestored,
    SteerTaken,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    TurnStarted,
    Usage,
    UserMessage,
)
from persistence.fold import Fold, changed
from persistence.upcast import as_said

REQUESTS_KEPT = 1000  #: request ids of a session that are remembered
TITLE_CHARS = 60  #: of the first prompt, where nobody gave a title
QUEUED_CHARS = 200  #: of a waiting message, for the queue that people see
Changes = dict[str, Any]  #: new values of some fields of a session

NOTHING = Usage()


@dataclass(frozen=True, slots=True)
class Waiting:
    """A durable message that is not yet part of the conversation."""

    entry: str
    turn: str
    mode: PromptMode
    request_id: str
    text: str  #: its beginning


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A tool call that was started and has no result yet."""

    call: str
    name: str


@dataclass(frozen=True)
class Running:
    """The turn that runs, as the log knows it."""

    turn: str
    entry: str
    calls: tuple[OpenCall, ...] = ()
    checkpoint: int | None = None  #: seq of the newest checkpoint of an unfinished message


@dataclass(frozen=True, slots=True)
class Request:
    """A request id that was accepted, and what it was answered."""

    request_id: str
    turn: str
    seq: int
    text_sha: str


@dataclass(frozen=True)
class Session:
    """One conversation. Times are milliseconds since 1970."""

    title: str = ""
    created_at: int = 0
    updated_at: int = 0
    created_seq: int = 0
    messages: int = 0
    leaf: str | None = None
    context_from: str | None = None
    running: Running | None = None
    waiting: tuple[Waiting, ...] = ()
    requests: tuple[Request, ...] = ()
    usage: Usage = NOTHING
    deleted: bool = False

    @property
    def exists(self) -> bool:
        """Whether people see it."""
        return self.created_seq > 0 and not self.deleted

    def request(self, request_id: str) -> Request | None:
        """What that request id was answered, if it is remembered."""
        return next((one for one in reversed(self.requests) if one.request_id == request_id), None)


def queue(session: Session) -> list[dict[str, Json]]:
    """The messages that wait, as people see them."""
    return [
        {"id": one.entry, "turn": one.turn, "text": one.text, "request_id": one.request_id, "mode": one.mode}
        for one in session.waiting
    ]


def text_sha(text: str) -> str:
    """The hash by which a repeated request is compared."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def add(left: Usage, right: Usage) -> Usage:
    """The sum of two usages; a cost that is unknown on one side counts as nothing."""
    costs = [one for one in (left.cost, right.cost) if one is not None]
    return Usage(
        input=left.input + right.input,
        output=left.output + right.output,
        cacheRead=left.cacheRead + right.cacheRead,
        cacheWrite=left.cacheWrite + right.cacheWrite,
        totalTokens=left.totalTokens + right.totalTokens,
        cost=Cost(
            input=sum(one.input for one in costs),
            output=sum(one.output for one in costs),
            cacheRead=sum(one.cacheRead for one in costs),
            cacheWrite=sum(one.cacheWrite for one in costs),
            total=sum(one.total for one in costs),
        )
        if costs
        else None,
    )


def step(session: Session, record: Record) -> Session:
    """The session after one of its records."""
    if not session.created_seq or (session.waiting and session.running is None):
        session = changed(session, _told_late(session, record))
    changes = STEPS[type(record.event)](session, record, record.event)
    changes["updated_at"] = record.time  # the step made it, and nobody else holds it
    return changed(session, changes)


def _told_late(session: Session, record: Record) -> Changes:
    """What a record tells of an earlier one that is lost: that there is a session, that a message waits no longer."""
    created = {} if session.created_seq else {"created_at": record.time, "created_seq": record.seq}
    turn = None if isinstance(record.event, UserMessage | TurnStarted) else getattr(record.event, "turn", None)
    begun = next((one for one in session.waiting if one.turn == turn and one.mode == "prompt"), None)
    if begun is None or session.running is not None:
        return created
    waiting = tuple(one for one in session.waiting if one is not begun)
    return {**created, "waiting": waiting, "running": Running(begun.turn, begun.entry)}


# What each record changes, by field: one new session for each record, however much it changes.


def _created(session: Session, record: Record, event: SessionCreated) -> Changes:
    return {"title": event.title, "created_at": record.time, "created_seq": record.seq}


def _renamed(session: Session, record: Record, event: SessionRenamed) -> Changes:
    return {"title": event.title}


def _deleted(session: Session, record: Record, event: SessionDeleted) -> Changes:
    return {"deleted": True}


def _restored(session: Session, record: Record, event: SessionRestored) -> Changes:
    return {"deleted": False}


def _heard(session: Session, record: Record, event: UserMessage) -> Changes:
    request = Request(event.request_id, event.turn, record.seq, text_sha(event.text))
    waiting = Waiting(record.entry, event.turn, event.mode, event.request_id, event.text[:QUEUED_CHARS])
    return {
        "title": session.title or title_of(event.text),
        "messages": session.messages + 1,
        "waiting": (*session.waiting, waiting),
        "requests": (*session.requests, request)[-REQUESTS_KEPT:],
    }


def title_of(text: str) -> str:
    """What a session is called after its first prompt."""
    line = " ".join(text.split())
    return line if len(line) <= TITLE_CHARS else line[: TITLE_CHARS - 1].rstrip() + "…"


def _started(session: Session, record: Record, event: TurnStarted) -> Changes:
    return {**_steered(session, record, event), "running": Running(event.turn, event.entry)}


def _steered(session: Session, record: Record, event: SteerTaken | TurnStarted) -> Changes:
    return {"waiting": tuple(one for one in session.waiting if one.entry != event.entry), "leaf": event.entry}


def _noted(session: Session, record: Record, event: NoteAdded) -> Changes:
    return {"leaf": record.entry}


def _cut(session: Session, record: Record, event: ContextCut) -> Changes:
    return {"context_from": event.first_kept}


def _checkpointed(session: Session, record: Record, event: MessageCheckpointed) -> Changes:
    return _running(session, checkpoint=record.seq)


def _answered(session: Session, record: Record, event: AssistantMessage) -> Changes:
    return {"messages": session.messages + 1, "leaf": record.entry, **_running(session, checkpoint=None)}


def _failed(session: Session, record: Record, event: CallFailed) -> Changes:
    return _running(session, checkpoint=None)


def _tool_started(session: Session, record: Record, event: ToolStarted) -> Changes:
    calls = session.running.calls if session.running else ()
    return _running(session, calls=(*calls, OpenCall(event.call, event.name)))


def _tool_ended(session: Session, record: Record, event: ToolEnded) -> Changes:
    calls = session.running.calls if session.running else ()
    rest = tuple(one for one in calls if one.call != event.call)
    return {"messages": session.messages + 1, "leaf": record.entry, **_running(session, calls=rest)}


def _ended(session: Session, record: Record, event: TurnEnded) -> Changes:
    return {"running": None, "usage": add(session.usage, event.usage)}


def _recovered(session: Session, record: Record, event: EntryRecovered) -> Changes:
    """The leaf stays where it is, and no request is remembered: under the same id it may be said again, and run."""
    said = as_said(record).event
    if isinstance(said, SessionCreated):
        return {"title": session.title or said.title}
    if isinstance(said, UserMessage):
        return {"title": session.title or title_of(said.text), "messages": session.messages + 1}
    return {"messages": session.messages + isinstance(said, AssistantMessage | ToolEnded)}


def _running(session: Session, **changes: Any) -> Changes:
    """The running turn, changed; nothing where none runs."""
    return {"running": changed(session.running, changes)} if session.running else {}


STEPS: Mapping[type[Event], Callable[[Session, Record, Any], Changes]] = {
    SessionCreated: _created,
    SessionRenamed: _renamed,
    SessionDeleted: _deleted,
    SessionRestored: _restored,
    UserMessage: _heard,
    TurnStarted: _started,
    SteerTaken: _steered,
    NoteAdded: _noted,
    ContextCut: _cut,
    MessageCheckpointed: _checkpointed,
    CallFailed: _failed,
    AssistantMessage: _answered,
    ToolStarted: _tool_started,
    ToolEnded: _tool_ended,
    TurnEnded: _ended,
    EntryRecovered: _recovered,
}

SESSIONS = Fold("session", 1, Session, Session(), step, True, tuple(STEPS))
