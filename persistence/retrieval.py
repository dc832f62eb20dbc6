"""A data directory from a commit of the archive.

    STATE.json ─▶ snapshot.json, proven by its hash ─▶ snapshots/S
                  chunks, files, long texts, each proven by the hash under which the snapshot knows it ─▶ chunks/ blobs/
                  tails ─▶ chunks/, and a log that begins behind S with the records that seal them

What the tails held was in no chunk, and the log that held it is gone: so it is sealed at once, whole, also where an
answer is unfinished. Names in the tree are looked up, never used; what the snapshot does not name is left alone. Files
are written to grimoires/ and workspace/ by whoever opens the journal, from the blobs.
"""

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from persistence import snapshot, tree
from persistence.blobs import Blobs
from persistence.chunks import Line, sealable, seq_of
from persistence.codec import rest
from persistence.disk import replace
from persistence.errors import Damaged, StorageError
from persistence.events import SYSTEM, ChunkSealed
from persistence.git import OBJECT_BYTES, Git
from persistence.picture import Picture, of
from persistence.replay import Means, Paths
from persistence.scan import segment_name
from persistence.segment import Span, growing
from persistence.streams import Stream
from persistence.tree import BLOBS, SNAPSHOT, Entry, State
from persistence.wal import Head, Pending, Wal, Written

# A remote is not to be believed: what it sends is bounded before it is read.
MEMBERS = 1_000_000
MEMBER_BYTES = OBJECT_BYTES
SNAPSHOT_BYTES = 128 << 20
TOTAL_BYTES = 16 << 30


class Member(NamedTuple):
    """A file of a commit's tree: the id of its object, and its size."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Retrieved:
    """What was built. `seq` is the last record of the log there, `state` what it was restored from.

    `missing` are the hashes of chunks and blobs that the state names and the archive does not have.
    """

    state: State
    seq: int
    bytes: int
    missing: tuple[str, ...]
    problems: tuple[str, ...]


def unpacked(git: Git, commit: str) -> Iterator[tuple[str, Member]]:
    """The files of a commit's tree with their paths. Raises ArchiveError."""
    for line in git.ask("ls-tree", "-r", "-z", "-l", "--full-tree", commit).split(b"\0"):
        head, _, path = line.partition(b"\t")
        fields = head.split()
        if len(fields) == 4 and fields[1] == b"blob":
            yield path.decode(errors="surrogateescape"), Member(fields[2].decode(), int(fields[3]))


def _bounded(git: Git, commit: str) -> dict[str, Member]:
    members = dict(unpacked(git, commit))
    sizes = [member.bytes for member in members.values()]
    if len(members) > MEMBERS or sum(sizes) > TOTAL_BYTES or max(sizes, default=0) > MEMBER_BYTES:
        raise Damaged(f"commit {commit[:12]} holds more than an archive can", hint="another source is used")
    return members


def retrieve(git: Git, state: State, into: Path, means: Means, epoch: int) -> Retrieved:
    """Builds wal, snapshots, chunks and blobs in the empty `into`. Raises Damaged, ArchiveError, StorageError."""
    paths, members = Paths(into), _bounded(git, state.commit)
    for folder in (paths.wal, paths.snapshots, paths.chunks, paths.blobs):
        means.disk.mkdir(folder)
    [text] = git.objects([_member(members, SNAPSHOT).name], SNAPSHOT_BYTES)
    taken = tree.snapshot_of(state, text)
    picture = of(taken)
    unpacking = _Unpacking(git, means, paths, members)
    unpacking.bodies(picture)
    snapshot.write(means.disk, paths.snapshots, taken)
    tails = unpacking.tails(state)
    seq = _seal(paths, means, picture, tails, epoch)
    size = len(text) + unpacking.bytes
    return Retrieved(state, seq, size, tuple(unpacking.missing), tuple(unpacking.problems))


class _Unpacking:
    """Takes objects out of the repository and into the folders of chunks and blobs."""

    def __init__(self, git: Git, means: Means, paths: Paths, members: Mapping[str, Member]) -> None:
        self.bytes = 0
        self.missing: list[str] = []
        self.problems: list[str] = []
        self._git = git
        self._members = members
        self._chunks = Blobs(means.disk, paths.chunks)
        self._blobs = Blobs(means.disk, paths.blobs)

    def bodies(self, picture: Picture) -> None:
        """Every chunk, file and long text."""
        wanted = {path: entry for path, entry in tree.entries(picture).items() if entry.kind != "text"}
        wanted |= {
            path: Entry(tree.PLAIN, path.removeprefix(BLOBS).replace("/", ""), "blob") for path in self._blob_paths()
        }
        there = [path for path in wanted if path in self._members]
        self._miss({path: entry for path, entry in wanted.items() if path not in self._members})
        for path, data in zip(there, self._objects(there), strict=True):
            entry = wanted[path]
            if sha256(data).hexdigest() != entry.sha256:
                self._miss({path: entry})
            else:
                (self._chunks if entry.kind == "chunk" else self._blobs).put(data)

    def tails(self, state: State) -> dict[str, list[bytes]]:
        """The lines of every tail, by session."""
        found: dict[str, list[bytes]] = {}
        names = [name for name in state.tails if tree.tail_path(name) in self._members]
        for name, data in zip(names, self._objects([tree.tail_path(name) for name in names]), strict=True):
            if sha256(data).hexdigest() == state.tails[name]:
                found[name] = data.splitlines()
        for name in state.tails.keys() - found.keys():
            self.problems.append(f"the newest records of session {name} are not in the archive")
        return found

    def _blob_paths(self) -> Iterator[str]:
        return (path for path in self._members if path.startswith(BLOBS))

    def _objects(self, paths: list[str]) -> Iterator[bytes]:
        for data in self._git.objects(self._members[path].name for path in paths):
            self.bytes += len(data)
            yield data

    def _miss(self, entries: Mapping[str, Entry]) -> None:
        self.missing += [entry.sha256 for entry in entries.values()]
        self.problems += [f"{path!a} is not in the archive as the snapshot knows it" for path in entries]


def _member(members: Mapping[str, Member], path: str) -> Member:
    if path not in members:
        raise Damaged(f"the archive has no {path}", hint="another source is used")
    return members[path]


def _seal(paths: Paths, means: Means, picture: Picture, tails: Mapping[str, list[bytes]], epoch: int) -> int:
    """Begins a log behind the snapshot and seals there what the tails held. Returns its last seq."""
    seq, chain = picture.seq, picture.chain
    segment = paths.wal / segment_name(seq + 1)
    empty = Span(seq + 1, seq, chain, chain, b"")
    ms = int(means.clock.now() * 1000)
    replace(means.disk, segment, growing(empty, epoch=epoch, writer=means.ids.new(), ms=ms))
    chunks = Blobs(means.disk, paths.chunks)
    left = {name: stream for name, stream in picture.streams.items() if stream.tail_first is not None}
    seals = [
        (name, seal)
        for name, stream in sorted(left.items())
        for seal in _sealed(chunks, stream, tails.get(name, []), seq)
    ]
    return _append(paths, means, Head(seq, bytes.fromhex(chain), seq), epoch, seals)


def _sealed(chunks: Blobs, stream: Stream, lines: list[bytes], seq: int) -> Iterator[ChunkSealed]:
    """The seals of a whole tail: one, but where the seal of a chunk was lost and so the tail goes around another."""
    whole = [_line(line) for line in lines]
    firsts = [chunk.first for chunk in stream.chunks]
    runs = [list(run) for _, run in groupby(whole, key=lambda line: bisect_left(firsts, line.seq))] or [[]]
    count, size = stream.tail_count, stream.tail_bytes
    for run in runs:
        head = sealable(run)
        kept = [*head, *(one for one in run if not head or one.seq > head[-1].seq)]
        data = b"".join(one.line + b"\n" for one in kept)
        last = run is runs[-1]
        assert stream.tail_first is not None
        yield ChunkSealed(
            first=run[0].seq if run else stream.tail_first,
            last=run[-1].seq if run else seq,
            count=len(kept),
            bytes=len(data),
            sha256=chunks.put(data),
            # The last one takes out of the count what the tail has lost as well.
            tail_count=count if last else len(run),
            tail_bytes=size if last else sum(len(one.line) for one in run),
        )
        count, size = count - len(run), size - sum(len(one.line) for one in run)


def _line(line: bytes) -> Line:
    record = json.loads(line)
    return Line(seq_of(line), record["type"], record["data"].get("turn"), line)


def _append(paths: Paths, means: Means, head: Head, epoch: int, seals: list[tuple[str, ChunkSealed]]) -> int:
    failures: list[StorageError] = []

    def deliver(_: list[Written], error: StorageError | None, __: list[Pending]) -> None:
        if error:
            failures.append(error)

    wal = Wal.open(means.disk, paths.wal, head=head, epoch=epoch, ids=means.ids, clock=means.clock, deliver=deliver)
    for name, event in seals:
        wal.append(Pending(rest(event, name, SYSTEM), None))
    wal.close()
    if failures:
        raise failures[0]
    return wal.head.seq
