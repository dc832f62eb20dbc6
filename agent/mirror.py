"""Each session as a file that Pi's own SessionManager opens: a mirror of the log, never a source.

    state/sessions/<id>.jsonl
    {"type":"session","version":3,"id":…,"timestamp":…,"cwd":…}                      the header
    {"type":"message","id":"1-42","parentId":"1-40","timestamp":…,"message":{…},"finnSeq":42}   one line an entry

`finnSeq` is the seq that the line was written for, so a start knows where to go on. The last line is the leaf, so what
was recovered from a fenced writer (`finnRecovered`) is followed by one that leads back. A last line that is torn or not
ours makes the file suspect: it goes to quarantine, and the mirror is written anew from the log.
"""

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from agent.session import SESSIONS, Session
from persistence import quarantine
from persistence.clock import iso
from persistence.disk import Disk, replace
from persistence.errors import FinnError, NotFound
from persistence.events import (
    AssistantMessage,
    ContextCut,
    EntryRecovered,
    Json,
    NoteAdded,
    Record,
    SessionRenamed,
    SteerTaken,
    ToolEnded,
    TurnStarted,
    Usage,
    UserMessage,
    seq_of,
)
from persistence.journal import Journal
from persistence.upcast import as_said

PAGE = 500  #: records read at once

STOP_REASONS = {
    "stop": "stop",
    "length": "length",
    "tool_use": "toolUse",
    "abort": "aborted",
    "error": "error",
    "interrupted": "aborted",
}
FREE = {"input": 0.0, "output": 0.0, "cacheRead": 0.0, "cacheWrite": 0.0, "total": 0.0}

log = logging.getLogger("finn.mirror")

Line = dict[str, Json]


def header(session: str, created_at: int, cwd: Path) -> Line:
    """The first line of a session's file."""
    return {"type": "session", "version": 3, "id": session, "timestamp": iso(created_at / 1000), "cwd": str(cwd)}


def line(record: Record, leaf: str | None, said: Record | None = None) -> Line | None:
    """The line that a record adds below `leaf`, or None. `said` is the message that it gives its place."""
    event = record.event
    if isinstance(event, TurnStarted | SteerTaken) and said is not None and isinstance(said.event, UserMessage):
        return _entry(said, event.parent, record.seq, "message", message=_user(said, said.event))
    if isinstance(event, EntryRecovered):
        return _recovered(as_said(record), leaf)
    if isinstance(event, AssistantMessage):
        return _entry(record, event.parent, record.seq, "message", message=_assistant(record, event))
    if isinstance(event, ToolEnded):
        return _entry(record, event.parent, record.seq, "message", message=_result(record, event))
    if isinstance(event, NoteAdded):
        note = {"customType": "finn.note", "content": event.text, "display": True}
        return _entry(record, event.parent, record.seq, "custom_message", **note)
    if isinstance(event, SessionRenamed):
        return _entry(record, leaf, record.seq, "session_info", name=event.title)
    if isinstance(event, ContextCut):
        data = {"firstKept": event.first_kept, "leftOut": event.left_out}
        return _entry(record, leaf, record.seq, "custom", customType="finn.context_cut", data=data)
    return None


def _recovered(said: Record, leaf: str | None) -> Line | None:
    if isinstance(said.event, UserMessage):
        made: Line | None = _entry(said, said.event.parent, said.seq, "message", message=_user(said, said.event))
    else:
        made = line(said, leaf) if isinstance(said.event, AssistantMessage | ToolEnded | NoteAdded) else None
    return {**made, "finnRecovered": True} if made else None


def _back(made: Line, leaf: str | None) -> Line:
    """The line after a recovered one, for the last line is the leaf."""
    data = {"after": made["id"]}
    own = {"type": "custom", "id": f"{made['id']}-leaf", "parentId": leaf, "timestamp": made["timestamp"]}
    return {**own, "customType": "finn.leaf", "data": data, "finnSeq": made["finnSeq"]}


def _entry(record: Record, parent: str | None, seq: int, kind: str, **fields: Json) -> Line:
    stamp = iso(record.time / 1000)
    return {"type": kind, "id": record.entry, "parentId": parent, "timestamp": stamp, **fields, "finnSeq": seq}


def _user(record: Record, event: UserMessage) -> Json:
    return {"role": "user", "content": [{"type": "text", "text": event.text}], "timestamp": record.time}


def _assistant(record: Record, event: AssistantMessage) -> Json:
    return {
        "role": "assistant",
        "content": [block.model_dump(mode="json", exclude_none=True) for block in event.content],
        "api": event.api,
        "provider": event.provider,
        "model": event.model,
        "usage": _usage(event.usage),
        "stopReason": STOP_REASONS[event.stop_reason],
        **({"errorMessage": event.error.message} if event.error else {}),
        "timestamp": record.time,
    }


def _usage(usage: Usage) -> Json:
    """Pi wants a cost always; one that is unknown is shown as none."""
    return {**usage.model_dump(mode="json"), "cost": usage.cost.model_dump(mode="json") if usage.cost else FREE}


def _result(record: Record, event: ToolEnded) -> Json:
    return {
        "role": "toolResult",
        "toolCallId": event.call,
        "toolName": event.name,
        "content": [{"type": "text", "text": event.result}],
        **({"details": event.details} if event.details else {}),
        "isError": event.is_error,
        "timestamp": record.time,
    }


def encode(lines: Iterable[Line]) -> bytes:
    """The file's bytes."""
    return b"".join(json.dumps(one, ensure_ascii=False).encode(errors="replace") + b"\n" for one in lines)


async def lines(journal: Journal, session: str, after: int, leaf: str | None) -> AsyncIterator[Line]:
    """The lines for everything durable after a seq."""
    known: dict[str, Record] = {}
    while page := await journal.read(session, after=after, limit=PAGE):
        for record in page:
            event = record.event
            said = None
            if isinstance(event, UserMessage):
                known[record.entry] = record
            elif isinstance(event, TurnStarted | SteerTaken):
                said = known.pop(event.entry, None) or await _said(journal, session, event.entry)
            made = line(record, leaf, said)
            if made is None:
                continue
            yield made
            if "finnRecovered" in made:
                made = _back(made, leaf)
                yield made
            leaf = made["id"]
        after = page[-1].seq


async def _said(journal: Journal, session: str, entry: str) -> Record | None:
    """The message of an entry; None where its record is lost, which the health tells."""
    try:
        return await journal.record_at(session, seq_of(entry))
    except NotFound:
        return None


async def export(journal: Journal, session: str, state: Session, cwd: Path) -> bytes:
    """The whole session as Pi's file. A message that still waits stands at the end."""
    found = [header(session, state.created_at, cwd), *[one async for one in lines(journal, session, 0, None)]]
    for waiting in state.waiting:
        said = await journal.record_at(session, seq_of(waiting.entry))
        if isinstance(said.event, UserMessage):
            parent = found[-1]["id"] if len(found) > 1 else None
            found.append(_entry(said, parent, said.seq, "message", message=_user(said, said.event)))
    return encode(found)


class Mirror:
    """Keeps the files of all sessions up with the log. `serve` must be running."""

    def __init__(self, journal: Journal, disk: Disk, folder: Path, quarantine: Path, cwd: Path) -> None:
        self._journal = journal
        self._disk = disk
        self._folder = folder
        self._quarantine = quarantine
        self._cwd = cwd
        self._written: dict[str, tuple[int, str | None]] = {}  # session: (seq, leaf) of the last line
        self._behind: dict[str, None] = {}  # in the order in which they fell behind
        self._wake = asyncio.Event()

    async def serve(self) -> None:
        """Catches up with what an earlier process left, then follows the log, until it is cancelled."""
        self._journal.listen(self._follow)
        self._behind.update(dict.fromkeys(self._journal.streams(SESSIONS)))
        while True:
            while self._behind:
                session = next(iter(self._behind))
                del self._behind[session]
                try:
                    await self._catch_up(session)
                except (OSError, FinnError) as error:
                    # A mirror is derived: the log goes on without it, and the next record looks at the file anew.
                    self._written.pop(session, None)
                    log.error("mirror of %s is behind: %s", session, error)
            self._wake.clear()
            await self._wake.wait()

    def _follow(self, record: Record) -> None:
        if record.stream is not None:
            self._behind[record.stream] = None
            self._wake.set()

    async def _catch_up(self, session: str) -> None:
        state = self._journal.streams(SESSIONS).get(session)
        if state is None or not state.created_seq:
            return
        path = self._folder / f"{session}.jsonl"
        if session not in self._written:
            self._written[session] = await asyncio.to_thread(self._position, path)
        seq, leaf = self._written[session]
        made = [one async for one in lines(self._journal, session, seq, leaf)]
        if seq == 0:
            made.insert(0, header(session, state.created_at, self._cwd))
            await asyncio.to_thread(replace, self._disk, path, encode(made))
        elif made:
            await asyncio.to_thread(_append, path, encode(made))
        last = made[-1] if made and "finnSeq" in made[-1] else None
        self._written[session] = (last["finnSeq"], last["id"]) if last else (seq, leaf)

    def _position(self, path: Path) -> tuple[int, str | None]:
        """Where the file ends; a file that is not as we left it goes to quarantine and is begun anew."""
        if not path.exists():
            return 0, None
        try:
            if not path.is_file():
                raise ValueError("it is no plain file")
            last = json.loads(_last_line(path))
            if last["type"] == "session":
                return 0, None
            if last["finnSeq"] > self._journal.seq:
                raise ValueError("the last line is of a record that is not in the log")
            return last["finnSeq"], last["id"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            self._set_aside(path, f"{type(error).__name__}: {error}")
            return 0, None

    def _set_aside(self, path: Path, reason: str) -> None:
        name = f"mirror-{path.name}-{path.stat().st_mtime_ns}"
        quarantine.move(self._disk, path, self._quarantine, name, why=reason)
        log.warning("%s is not as finn left it; it is %s in quarantine, written anew", path.name, name)


def _last_line(path: Path) -> bytes:
    """The last line of a file; raises ValueError where it is not whole."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        tail = b""
        while size and tail.count(b"\n") < 2:
            step = min(size, 64 * 1024)
            size -= step
            file.seek(size)
            tail = file.read(step) + tail
    if not tail.endswith(b"\n"):
        raise ValueError("the last line is torn")
    return tail[:-1].rpartition(b"\n")[2]


def _append(path: Path, data: bytes) -> None:
    """Raises FileNotFoundError where somebody removed the file: without its header it would be none."""
    with open(path, "ab", opener=lambda name, flags: os.open(name, flags & ~os.O_CREAT | os.O_CLOEXEC)) as file:
        file.write(data)
