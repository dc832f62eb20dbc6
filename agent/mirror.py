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
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path

from agent.session import SESSIONS, Session
from persistence import quarantine
from persistence.clock import iso_ms
from persistence.codec import Fact
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
    return {"type": "session", "version": 3, "id": session, "timestamp": iso_ms(created_at), "cwd": str(cwd)}


def fact_of(record: Record) -> Fact:
    """The record as its JSON says it; one that was recovered, as what it was, in its new place."""
    said = as_said(record)
    return Fact(said.entry, said.seq, said.time, said.event.kind, said.event.model_dump(mode="json"))


def line(fact: Fact, leaf: str | None, said: Fact | None = None, *, recovered: bool = False) -> Line | None:
    """The line that a record adds below `leaf`, or None. `said` is the message that it gives its place.

    What was `recovered` brings its own place along. Raises KeyError where a field is not there.
    """
    kind, data = fact.kind, fact.data
    if kind in TAKES_UP and said is not None:
        return _message(said, data["parent"], fact.seq, _user(said))
    if recovered:
        made = _recovered(fact)
        return {**made, "finnRecovered": True} if made else None
    if kind in MESSAGES:
        return _message(fact, data["parent"], fact.seq, MESSAGES[kind](fact))
    if kind == NoteAdded.kind:
        note = {"customType": "finn.note", "content": data["text"], "display": True}
        return _entry(fact, data["parent"], fact.seq, "custom_message", **note)
    if kind == SessionRenamed.kind:
        return _entry(fact, leaf, fact.seq, "session_info", name=data["title"])
    if kind == ContextCut.kind:
        cut = {"firstKept": data["first_kept"], "leftOut": data["left_out"]}
        return _entry(fact, leaf, fact.seq, "custom", customType="finn.context_cut", data=cut)
    return None


def _recovered(fact: Fact) -> Line | None:
    if fact.kind == UserMessage.kind:
        return _message(fact, fact.data["parent"], fact.seq, _user(fact))
    return line(fact, None) if fact.kind in (*MESSAGES, NoteAdded.kind) else None


def _back(made: Line, leaf: str | None) -> Line:
    """The line after a recovered one, for the last line is the leaf."""
    data = {"after": made["id"]}
    own = {"type": "custom", "id": f"{made['id']}-leaf", "parentId": leaf, "timestamp": made["timestamp"]}
    return {**own, "customType": "finn.leaf", "data": data, "finnSeq": made["finnSeq"]}


def _entry(fact: Fact, parent: str | None, seq: int, kind: str, **fields: Json) -> Line:
    stamp = iso_ms(fact.time)
    return {"type": kind, "id": fact.entry, "parentId": parent, "timestamp": stamp, **fields, "finnSeq": seq}


def _message(fact: Fact, parent: str | None, seq: int, message: Json) -> Line:
    return _entry(fact, parent, seq, "message", message=message)


def _user(fact: Fact) -> Json:
    return {"role": "user", "content": [{"type": "text", "text": fact.data["text"]}], "timestamp": fact.time}


def _assistant(fact: Fact) -> Json:
    said = fact.data
    return {
        "role": "assistant",
        "content": [{name: one for name, one in block.items() if one is not None} for block in said["content"]],
        "api": said["api"],
        "provider": said["provider"],
        "model": said["model"],
        # Pi wants a cost always; one that is unknown is shown as none.
        "usage": {**said["usage"], "cost": said["usage"]["cost"] or FREE},
        "stopReason": STOP_REASONS[said["stop_reason"]],
        **({"errorMessage": said["error"]["message"]} if said["error"] else {}),
        "timestamp": fact.time,
    }


def _result(fact: Fact) -> Json:
    said = fact.data
    return {
        "role": "toolResult",
        "toolCallId": said["call"],
        "toolName": said["name"],
        "content": [{"type": "text", "text": said["result"]}],
        **({"details": said["details"]} if said["details"] else {}),
        "isError": said["is_error"],
        "timestamp": fact.time,
    }


TAKES_UP = (TurnStarted.kind, SteerTaken.kind)  #: give a message that waited its place
MESSAGES: Mapping[str, Callable[[Fact], Json]] = {AssistantMessage.kind: _assistant, ToolEnded.kind: _result}


def encode(lines: Iterable[Line]) -> bytes:
    """The file's bytes."""
    return b"".join(json.dumps(one, ensure_ascii=False).encode(errors="replace") + b"\n" for one in lines)


async def lines(journal: Journal, session: str, after: int, leaf: str | None) -> AsyncIterator[Line]:
    """The lines for everything durable after a seq."""
    drawn = Drawn(leaf)
    while page := await journal.read(session, after=after, limit=PAGE):
        for record in page:
            fact = fact_of(record)
            if fact.kind in TAKES_UP and not drawn.heard(fact):
                drawn.recall(await _said(journal, session, fact.data["entry"]))
            for made in drawn.next(fact, recovered=isinstance(record.event, EntryRecovered)):
                yield made
        after = page[-1].seq


class Drawn:
    """The lines of one session as its records come, one after the other."""

    def __init__(self, leaf: str | None = None) -> None:
        self.leaf = leaf  #: the id of the last line
        self._heard: dict[str, Fact] = {}  # messages that have no place yet

    def heard(self, fact: Fact) -> bool:
        """Whether the message that the record gives its place was among those that came."""
        return fact.data["entry"] in self._heard

    def recall(self, said: Fact | None) -> None:
        """A message that waits since before the first record that came here."""
        if said is not None:
            self._heard[said.entry] = said

    def next(self, fact: Fact, *, recovered: bool = False) -> list[Line]:
        """The lines that the next record adds: none, one, or two where one leads back to the leaf."""
        if fact.kind == UserMessage.kind and not recovered:
            self._heard[fact.entry] = fact
            return []
        said = self._heard.pop(fact.data["entry"], None) if fact.kind in TAKES_UP else None
        made = line(fact, self.leaf, said, recovered=recovered)
        if made is None:
            return []
        found = [made, _back(made, self.leaf)] if recovered else [made]
        self.leaf = found[-1]["id"]
        return found


async def _said(journal: Journal, session: str, entry: str) -> Fact | None:
    """The message of an entry; None where its record is lost, which the health tells."""
    try:
        record = await journal.record_at(session, seq_of(entry))
    except NotFound:
        return None
    return fact_of(record) if isinstance(record.event, UserMessage) else None


async def export(journal: Journal, session: str, state: Session, cwd: Path) -> bytes:
    """The whole session as Pi's file. A message that still waits stands at the end."""
    found = [header(session, state.created_at, cwd), *[one async for one in lines(journal, session, 0, None)]]
    for waiting in state.waiting:
        said = await journal.record_at(session, seq_of(waiting.entry))
        if isinstance(said.event, UserMessage):
            parent, fact = (found[-1]["id"] if len(found) > 1 else None), fact_of(said)
            found.append(_message(fact, parent, fact.seq, _user(fact)))
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
        self._resting = asyncio.Event()  # nothing is behind

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
            self._resting.set()
            self._wake.clear()
            await self._wake.wait()

    async def anew(self) -> None:
        """Looks at every file as a start does, and returns when all have caught up."""
        self._written = {}  # not cleared: a file that is being written now would be noted as it was
        self._note(self._journal.streams(SESSIONS))
        await self._resting.wait()

    def _follow(self, record: Record) -> None:
        if record.stream is not None:
            self._note([record.stream])

    def _note(self, sessions: Iterable[str]) -> None:
        self._behind.update(dict.fromkeys(sessions))
        self._resting.clear()
        self._wake.set()

    async def _catch_up(self, session: str) -> None:
        state = self._journal.streams(SESSIONS).get(session)
        if state is None or not state.created_seq:
            return
        path, written = self._folder / f"{session}.jsonl", self._written
        if session not in written:
            written[session] = await asyncio.to_thread(self._position, path)
        seq, leaf = written[session]
        made = [one async for one in lines(self._journal, session, seq, leaf)]
        if seq == 0:
            made.insert(0, header(session, state.created_at, self._cwd))
            await asyncio.to_thread(replace, self._disk, path, encode(made))
        elif made:
            await asyncio.to_thread(_append, path, encode(made))
        last = made[-1] if made and "finnSeq" in made[-1] else None
        written[session] = (last["finnSeq"], last["id"]) if last else (seq, leaf)

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
