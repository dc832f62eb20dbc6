"""Which segments of the log nobody needs any more.

    snapshots   oldest kept ─── newer ─── newest
    log         [ below its floor ][ from its floor on ································ ]
                  may go, once        a start from any kept snapshot finds all it needs
                  the store has it

A snapshot's floor is the oldest record that a start from it reads: the first after it, or of a tail in no chunk. What
the records of a segment became, the chunks, is read back before the segment goes: from then on they are the only copy.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from persistence import needs
from persistence.bodies import Bodies
from persistence.snapshot import KEPT, decode, listed
from persistence.streams import Stream
from persistence.wal import Segment, Wal


def floor(snapshots: Path) -> int:
    """The first seq that a start from any kept snapshot could need; 0 while there are not enough of them.

    Raises Damaged, OSError.
    """
    kept = listed(snapshots)[:KEPT]
    if len(kept) < KEPT:
        return 0
    return min(needs.floor(decode(path.read_bytes(), path.name)) for path in kept)


def below(segments: list[Segment], seq: int) -> list[Segment]:
    """The finished segments at the beginning of the log that end below that seq."""
    return [one for one in segments if one.last is not None and one.last < seq]


def prune(wal: Wal, snapshots: Path, streams: Mapping[str, Stream], bodies: Bodies, confirmed: int | None) -> int:
    """Drops what can go, oldest first; how many segments. Waits for the disk.

    `confirmed` is the floor of what the store has for good; None without a store. Raises Damaged, NotFound,
    StorageError or OSError with nothing lost: what was not dropped stays.
    """
    if len(wal.segments()) == 1:
        return 0
    seq = floor(snapshots)
    dropped = below(wal.segments(), seq if confirmed is None else min(seq, confirmed))
    for segment in dropped:
        _prove(segment, streams, bodies.chunk)
        wal.drop(segment.base)
    return len(dropped)


def _prove(segment: Segment, streams: Mapping[str, Stream], read: Callable[..., bytes]) -> None:
    """Reads every chunk that has records of the segment. Raises Damaged, NotFound, StorageError."""
    assert segment.last is not None
    for name, stream in streams.items():
        for ref in stream.chunks:
            if ref.first <= segment.last and ref.last >= segment.base:
                read(name, ref)
