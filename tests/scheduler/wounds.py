"""What breaks a data directory for the doctor's tests: bytes of the log, of snapshots, of mirrors.

`appended` goes on with the log as a finn would, so that everything it says is whole; what it says need not make sense.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from agent.mirror import encode as encode_mirror
from gateway.folds import FOLDS
from persistence.codec import rest
from persistence.disk import SystemDisk
from persistence.events import SYSTEM, Event
from persistence.frame import encode, parse
from persistence.journal import Journal
from persistence.replay import Paths
from persistence.scan import Good, scan, segment_name, segments
from persistence.snapshot import Snapshot, decode, listed, path_of
from scheduler.conversations import MIRRORS
from tests.benchmarks.history import means
from tests.scheduler.ward import Ward

DISK = SystemDisk()


def records(root: Path) -> list[Good]:
    """Every record of the log that can be read."""
    return [found for found in scan(DISK, root / "wal") if isinstance(found, Good)]


def last_segment(root: Path) -> Path:
    return root / "wal" / segment_name(segments(DISK, root / "wal")[-1])


def place(one: Good, root: Path) -> Path:
    return root / "wal" / segment_name(one.segment)


def outside_sessions(root: Path) -> Good:
    """A record in the middle of the log that is of no session: what is folded of it is in the snapshot."""
    found = records(root)
    return next(one for one in found[1:] if b'"stream":null' in one.line and one.seq < found[-1].seq)


def overwritten(path: Path, offset: int, data: bytes) -> None:
    """Other bytes at that place of a file."""
    whole = path.read_bytes()
    path.write_bytes(whole[:offset] + data + whole[offset + len(data) :])


def flipped(path: Path, offset: int, mask: int = 1) -> None:
    """One changed byte."""
    overwritten(path, offset, bytes([path.read_bytes()[offset] ^ mask]))


def garbled(root: Path, one: Good) -> None:
    """A record of which too much is changed to be found again."""
    overwritten(place(one, root), one.offset + one.length - 40, b"~" * 20)


def appended(root: Path, *events: tuple[Event, str | None], epoch: int | None = None, back_ms: int = 0) -> list[str]:
    """Records at the end of the log; the ids that they have as entries."""
    return raw(root, *[rest(event, stream, SYSTEM) for event, stream in events], epoch=epoch, back_ms=back_ms)


def raw(root: Path, *rests: bytes, epoch: int | None = None, back_ms: int = 0) -> list[str]:
    """The same, each from its sixth field on."""
    before = records(root)[-1]
    seq, chain, entries, frames = before.seq, bytes.fromhex(before.checksum), [], []
    head = before.line.split(b",")
    moment = head[1][6:16]  # the first ten letters of its id
    time, reign = int(head[2][5:]) - back_ms, int(head[3][8:]) if epoch is None else epoch
    for one in rests:
        seq += 1
        line = b'{"seq":%d,"id":"%bZZ%014d","ts":%d,"epoch":%d,"d":%d,' % (seq, moment, seq, time, reign, seq - 1) + one
        frame, chain = encode(line, chain)
        frames.append(frame)
        entries.append(f"{reign}-{seq}")
    with last_segment(root).open("ab") as file:
        file.write(b"".join(frames))
    return entries


def reheaded(root: Path, **fields: object) -> None:
    """A header that says something else, whole."""
    import json

    path = last_segment(root)
    data = path.read_bytes()
    found = parse(data, 0, ())
    said = json.loads(found.line)  # type: ignore[union-attr]
    frame, _ = encode(json.dumps({**said, **fields}, separators=(",", ":")).encode(), bytes.fromhex(said["base_sha"]))
    path.write_bytes(frame + data[found.end :])


def snapshot(root: Path) -> Snapshot:
    """The newest snapshot."""
    path = listed(root / "snapshots")[0]
    return decode(path.read_bytes(), path.name)


def written(root: Path, one: Snapshot) -> Path:
    """A snapshot's file, whole."""
    path = path_of(root / "snapshots", one.seq)
    path.write_bytes(one.encode())
    path.chmod(0o600)
    return path


def sessions(ward: Ward) -> Sequence[str]:
    """The ids of the ward's sessions."""
    return list(ward.site().sessions.states())


def mirror(ward: Ward, session: str) -> Path:
    return ward.root / MIRRORS / f"{session}.jsonl"


def mirrored(ward: Ward) -> None:
    """The mirrors have caught up with the log."""
    found = ward.site().sessions
    for session, state in found.states().items():
        mirror(ward, session).write_bytes(encode_mirror(found.mirror(session, state)))


def lived(root: Path, deed: Callable[[Journal], Awaitable[object]]) -> None:
    """A journal opened on the directory, for a moment, and closed."""

    async def live() -> None:
        journal = await Journal.open(root, FOLDS, means())
        try:
            await deed(journal)
        finally:
            await journal.close()

    asyncio.run(live())


def sealed(ward: Ward) -> Mapping[str, Path]:
    """Every session is in a chunk: the chunk's file, by session."""
    names = sessions(ward)

    async def seal(journal: Journal) -> None:
        for session in names:
            await journal.seal(session)

    lived(ward.root, seal)
    refs = ward.site().bodies.refs
    chunks = Paths(ward.root).chunks
    return {session: chunks / sha[:2] / sha[2:] for sha, (session, _) in refs.items()}
