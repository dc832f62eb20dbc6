"""Every session, from its first record to its last, beside its mirror: what the log says of it, and what the file says.

    chunks, then the tail in the log ─▶ facts ─▶ the tree: parents, calls, turns
                                              └▶ the lines of its mirror, each held against the file's

A session is read record by record, and a mirror line by line: neither is ever in memory as a whole.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from os import O_RDONLY
from pathlib import Path
from typing import Literal

from pydantic_core import from_json

from agent.mirror import Drawn, fact_of, header
from agent.mirror import Line as MirrorLine
from agent.session import SESSIONS, Session
from persistence.blobs import Blobs
from persistence.bodies import Place
from persistence.chunks import ChunkRef, Line, sealable, seq_of
from persistence.codec import Fact, decode, named_blobs, said
from persistence.disk import Disk, read_range
from persistence.errors import FinnError, NotFound
from persistence.events import (
    AssistantMessage,
    ChunkSealed,
    EntryRecovered,
    NoteAdded,
    SteerTaken,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    TurnStarted,
    UserMessage,
)
from persistence.frame import PREFIX_BYTES
from persistence.replay import Paths, Replayed
from persistence.scan import Good, scan, segment_name, segments
from persistence.streams import STREAMS, Stream
from scheduler.apart import apart, hands

MIRRORS = Path("state") / "sessions"
SUFFIX = ".jsonl"
RUN_BYTES = 1 << 20  #: of the log, read at once

Kept = Literal["same", "missing", "behind", "other"]


@dataclass(frozen=True)
class Mirrored:
    """How a mirror stands to the log: `line` is the first that differs, `only` counts lines of lost records."""

    kept: Kept
    line: int = 0
    only: int = 0


@dataclass(slots=True)
class Tree:
    """What the records of one session have said so far, and what does not fit."""

    messages: int = 0
    records: int = 0
    entries: dict[str, None] = field(default_factory=dict)
    heard: set[str] = field(default_factory=set)  #: messages that have no place yet
    turns: dict[str, set[str]] = field(default_factory=dict)  #: that run: the calls that wait for an answer
    orphans: list[tuple[str, str]] = field(default_factory=list)  #: an entry, and its parent that is not before it
    twice: list[str] = field(default_factory=list)  #: entries with two places
    unanswered: list[str] = field(default_factory=list)  #: calls without an answer when their turn ended

    def place(self, entry: str, parent: str | None) -> None:
        if entry in self.entries:
            self.twice.append(entry)
        if parent is not None and parent not in self.entries:
            self.orphans.append((entry, parent))
        self.entries[entry] = None


@dataclass(frozen=True)
class Conversation:
    """A session as it was found. `whole` is False where something of it cannot be read: then the rest says little."""

    session: str
    state: Session
    mirror: Mirrored
    records: int = 0
    messages: int = 0
    leaf: bool = True  #: whether the entry that the state goes on from is there
    orphans: tuple[tuple[str, str], ...] = ()
    twice: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()
    turns: tuple[str, ...] = ()  #: that run
    blobs: tuple[str, ...] = ()  #: that its records name
    whole: bool = True


@dataclass(frozen=True)
class Sessions:
    """The sessions of a data directory, and where their records are read from.

    `lost` and `beyond` are asked only where a file differs: whether that record is lost, and what the log's last seq
    was when it was read (what is later was said since).
    """

    disk: Disk
    paths: Paths
    past: Replayed
    lost: Callable[[int], bool] = lambda seq: False
    beyond: Callable[[], int] = lambda: 0

    def states(self) -> dict[str, Session]:
        """Those that have begun, also the deleted ones."""
        if all(fold.name != SESSIONS.name for fold in self.past.folded.folds):
            return {}
        return {name: one for name, one in self.past.folded.streams(SESSIONS).items() if one.created_seq}

    def conversations(self) -> tuple[Conversation, ...]:
        """All of them."""
        return self._read(list(self.states().items()))

    def begun(self) -> Callable[[], tuple[Conversation, ...]]:
        """What to ask for all of them, read by several processes from now on. Raises Newer, OSError."""
        states, many = list(self.states().items()), hands()
        parts = [apart(partial(self._read, states[first::many])) for first in range(many)]

        def ask() -> tuple[Conversation, ...]:
            found = {one.session: one for part in parts for one in part()}
            return tuple(found[session] for session, _ in states)

        return ask

    def _read(self, states: Iterable[tuple[str, Session]]) -> tuple[Conversation, ...]:
        return tuple(self._conversation(session, state) for session, state in states)

    def _conversation(self, session: str, state: Session) -> Conversation:
        tree, drawn, blobs = Tree(), Drawn(), dict[str, None]()
        try:
            with ExitStack() as stack:
                compared = _Compared(self, stack, session, state)
                for line in self.lines(session):
                    fact, recovered = self.fact(line, blobs)
                    tree.records += 1
                    step = STEPS.get(fact.kind)
                    if step is not None:
                        step(tree, fact, recovered)
                    for made in drawn.next(fact, recovered=recovered):
                        compared.see(made)
                mirrored = compared.end()
        except (FinnError, FileNotFoundError):  # also a segment that was pruned since
            return Conversation(session, state, Mirrored("same"), blobs=tuple(blobs), whole=False)
        return Conversation(
            session,
            state,
            mirrored,
            tree.records,
            tree.messages,
            state.leaf is None or state.leaf in tree.entries,
            tuple(tree.orphans),
            tuple(tree.twice),
            tuple(tree.unanswered),
            tuple(tree.turns),
            tuple(blobs),
        )

    def mirror(self, session: str, state: Session) -> Iterator[MirrorLine]:
        """The lines that its mirror should have. Raises FinnError, OSError."""
        drawn = Drawn()
        yield header(session, state.created_at, self.workspace)
        for line in self.lines(session):
            fact, recovered = self.fact(line)
            yield from drawn.next(fact, recovered=recovered)

    @property
    def workspace(self) -> Path:
        """Where the agent works, as its sessions' files name it."""
        return self.paths.root.resolve() / "workspace"

    # ------------------------------------------------------------ records

    def fact(self, line: bytes, named: dict[str, None] | None = None) -> tuple[Fact, bool]:
        """What a record says, and whether it was recovered from a fenced writer; its blobs go to `named`."""
        plain = said(line)
        if plain is not None and plain.kind != EntryRecovered.kind:
            return plain, False
        if named is not None:
            named.update(dict.fromkeys(named_blobs(line)))
        record = decode(line, "", Blobs(self.disk, self.paths.blobs), lambda _: None)
        return fact_of(record), isinstance(record.event, EntryRecovered)

    def lines(self, session: str) -> Iterator[bytes]:
        """The JSON of its records, in order. Raises NotFound, Damaged (a chunk), StorageError, OSError."""
        stream = self.past.folded.streams(STREAMS).get(session, STREAMS.initial)
        tail = self.past.tails.between(session, 0, self.past.head.seq + 1)
        self._need(session, stream, tail)
        if stream.chunks and tail and tail[0].seq < stream.chunks[-1].first:
            yield from self._mixed(stream, tail)
            return
        for ref in stream.chunks:
            yield from self._chunk(ref.sha256)
        yield from self._logged(tail)

    def _need(self, session: str, stream: Stream, tail: list[Place]) -> None:
        first = stream.tail_first
        if first is not None and (not tail or tail[0].seq > first) and not self.lost(first):
            raise NotFound(f"the log has no record {first} of {session}", hint="run finn verify")

    def remade(self, session: str, ref: ChunkRef) -> bytes | None:
        """The bytes of a chunk, made again from what the log has; None where that is not all of it. Raises OSError."""
        base = max((one for one in segments(self.disk, self.paths.wal) if one <= ref.first), default=None)
        blobs, lines = Blobs(self.disk, self.paths.blobs), list[Line]()
        for found in scan(self.disk, self.paths.wal, base):
            if not isinstance(found, Good) or found.seq < ref.first:
                continue
            if found.seq > ref.last:
                break
            record = decode(found.line, found.checksum, blobs, lambda _: None)
            if record.stream == session and not isinstance(record.event, ChunkSealed):
                lines.append(Line(record.seq, record.event.kind, getattr(record.event, "turn", None), record.line))
        data = b"".join(one.line + b"\n" for one in sealable(lines))
        return data if sha256(data).hexdigest() == ref.sha256 else None

    def _mixed(self, stream: Stream, tail: list[Place]) -> Iterator[bytes]:
        """A tail that lies between chunks: the record of a seal was lost."""
        found = [line for ref in stream.chunks for line in self._chunk(ref.sha256)]
        yield from sorted([*found, *self._logged(tail)], key=seq_of)

    def _chunk(self, sha: str) -> list[bytes]:
        return Blobs(self.disk, self.paths.chunks).get(sha).splitlines()

    def _logged(self, places: list[Place]) -> Iterator[bytes]:
        """Records of the log, as many at once as lie side by side."""
        for segment, run in _runs(places):
            handle = self.disk.open(self.paths.wal / segment_name(segment), O_RDONLY)
            try:
                begin = run[0].offset
                data = read_range(self.disk, handle, begin, run[-1].offset + run[-1].length - begin)
            finally:
                self.disk.close(handle)
            for place in run:
                at = place.offset - begin
                yield data[at + PREFIX_BYTES : at + place.length - 1]


def _runs(places: list[Place]) -> Iterator[tuple[int, list[Place]]]:
    """Places side by side in one segment."""
    run: list[Place] = []
    for place in places:
        if run and not _beside(run[0], run[-1], place):
            yield run[0].segment, run
            run = []
        run.append(place)
    if run:
        yield run[0].segment, run


def _beside(first: Place, last: Place, place: Place) -> bool:
    near = place.segment == last.segment and place.offset == last.offset + last.length
    return near and place.offset - first.offset < RUN_BYTES


# ---------------------------------------------------------------- the tree


def _heard(tree: Tree, fact: Fact, recovered: bool) -> None:
    tree.messages += 1
    if recovered:
        tree.place(fact.entry, fact.data["parent"])
    else:
        tree.heard.add(fact.entry)


def _placed(tree: Tree, fact: Fact, recovered: bool) -> None:
    entry = fact.data["entry"]
    tree.heard.discard(entry)
    tree.place(entry, fact.data["parent"])


def _started(tree: Tree, fact: Fact, recovered: bool) -> None:
    _placed(tree, fact, recovered)
    tree.turns.setdefault(fact.data["turn"], set())


def _answered(tree: Tree, fact: Fact, recovered: bool) -> None:
    tree.messages += 1
    tree.place(fact.entry, fact.data["parent"])
    calls = tree.turns.get(fact.data["turn"])
    if calls is not None and not recovered:
        calls.update(block["id"] for block in fact.data["content"] if block["type"] == "toolCall")


def _tool_started(tree: Tree, fact: Fact, recovered: bool) -> None:
    calls = tree.turns.get(fact.data["turn"])
    if calls is not None and not recovered:
        calls.add(fact.data["call"])


def _tool_ended(tree: Tree, fact: Fact, recovered: bool) -> None:
    tree.messages += 1
    tree.place(fact.entry, fact.data["parent"])
    if not recovered:
        tree.turns.get(fact.data["turn"], set()).discard(fact.data["call"])


def _noted(tree: Tree, fact: Fact, recovered: bool) -> None:
    tree.place(fact.entry, fact.data["parent"])


def _ended(tree: Tree, fact: Fact, recovered: bool) -> None:
    tree.unanswered.extend(tree.turns.pop(fact.data["turn"], ()))


STEPS: dict[str, Callable[[Tree, Fact, bool], None]] = {
    UserMessage.kind: _heard,
    TurnStarted.kind: _started,
    SteerTaken.kind: _placed,
    AssistantMessage.kind: _answered,
    ToolStarted.kind: _tool_started,
    ToolEnded.kind: _tool_ended,
    NoteAdded.kind: _noted,
    TurnEnded.kind: _ended,
}


# ---------------------------------------------------------------- the mirror


class _Compared:
    """A mirror, line by line, beside the lines that it should have. Two lines are the same when they say the same."""

    def __init__(self, sessions: Sessions, stack: ExitStack, session: str, state: Session) -> None:
        self._lost = sessions.lost
        self._beyond = sessions.beyond
        self._at = 0  # the line that was read last
        self._only = 0
        self._behind = False
        self._other = 0  # the first line that differs
        path = sessions.paths.root / MIRRORS / f"{session}{SUFFIX}"
        self._there = path.is_file() and not path.is_symlink()
        self._raw: Iterator[bytes] = iter(stack.enter_context(path.open("rb"))) if self._there else iter(())
        if self._there:
            self._begin(header(session, state.created_at, sessions.workspace))

    def _begin(self, head: MirrorLine) -> None:
        """The header; the folder that it names may have been another when it was written."""
        found = self._next()
        if {**found, "cwd": ""} != {**head, "cwd": ""}:
            self._other = 1

    def _next(self) -> MirrorLine:
        """The next line of the file; empty at its end, and where it is no line."""
        raw = next(self._raw, b"")
        if not raw:
            return {}
        self._at += 1
        try:
            found = from_json(raw, cache_strings="keys")
        except ValueError:
            found = None
        if isinstance(found, dict) and found and raw.endswith(b"\n"):
            return found
        self._differs()
        return {}

    def _differs(self) -> None:
        self._other = self._other or self._at

    def see(self, made: MirrorLine) -> None:
        """The next line that should be there."""
        if not self._there or self._other or self._behind:
            return
        found = self._next()
        while found and found != made and not self._but_for_a_loss(found, made):
            if not self._alone(found):
                self._differs()
                return
            found = self._next()
        self._behind = not found and not self._other

    def _but_for_a_loss(self, found: MirrorLine, made: MirrorLine) -> bool:
        """Whether they are the same, but for a line before them that only the file has."""
        parent = found.get("parentId")
        return isinstance(parent, str) and self._is_lost(_seq(parent)) and found == {**made, "parentId": parent}

    def _alone(self, found: MirrorLine) -> bool:
        """Whether the line is of a record that the log has lost: then the file is all that is left of it."""
        alone = self._is_lost(found.get("finnSeq"))
        self._only += alone
        return alone

    def _is_lost(self, seq: object) -> bool:
        return isinstance(seq, int) and self._lost(seq)

    def end(self) -> Mirrored:
        """How the file stands to the log, now that all has been seen."""
        if not self._there:
            return Mirrored("missing")
        while not self._other and not self._behind and (found := self._next()):
            seq = found.get("finnSeq")
            if not self._alone(found) and not (isinstance(seq, int) and seq > self._beyond()):
                self._differs()
        if self._other:
            return Mirrored("other", self._other, self._only)
        return Mirrored("behind" if self._behind else "same", self._at, self._only)


def _seq(entry: str) -> int | None:
    """The seq in the id of a line; None in one of another kind."""
    digits = entry.partition("-")[2].partition("-")[0]
    return int(digits) if digits.isdecimal() else None
