"""What stored bytes need besides themselves, read from the bytes: the names of other bytes, and where a log begins.

    snapshot ─▶ chunks, blobs        chunk ─▶ blobs        log, segment ─▶ chunks, blobs

Two readings of the same thing. What is sent to the store along with something is `quoted` in it: a JSON string that is
a hash and nothing else. What is never deleted from the store is whatever is `mentioned` anywhere: 64 hex digits. The
second takes in far more than the first, on purpose: keeping too much costs a cent, keeping too little costs a memory.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from persistence.errors import Damaged
from persistence.events import Json
from persistence.snapshot import OTHERWISE, Snapshot, inflated, parse
from persistence.streams import STREAMS

SLICE_BYTES = 64 << 10  #: searched at once: a search holds up every other thread

_QUOTED = re.compile(rb'"([0-9a-f]{64})"')
_MENTIONED = re.compile(rb"[0-9a-f]{64}")


def quoted(data: bytes) -> frozenset[str]:
    """The hashes that stand in these JSON bytes as whole strings."""
    return frozenset(found.decode() for found in _QUOTED.findall(data))


def mentioned(data: bytes) -> frozenset[str]:
    """Everything in these bytes that could be a hash."""
    slices = (data[at : at + SLICE_BYTES + 63] for at in range(0, len(data), SLICE_BYTES))
    return frozenset(found.decode() for piece in slices for found in _MENTIONED.findall(piece))


def opened(data: bytes, name: str) -> tuple[Snapshot, bytes]:
    """The snapshot in these bytes, and its JSON. Raises Damaged."""
    text = inflated(data, name)
    return parse(text, name), text


def floor(snapshot: Snapshot) -> int:
    """The first seq that a start from the snapshot reads in the log: the oldest record that is in no chunk.

    Raises Damaged.
    """
    with _streams(snapshot) as streams:
        tails: list[int] = [one["tail_first"] for one in streams.values() if one["tail_first"] is not None]
        return min([snapshot.seq + 1, *tails])


def chunks(snapshot: Snapshot) -> tuple[str, ...]:
    """The chunks that the snapshot's state leans on, in the order of their first use. Raises Damaged."""
    with _streams(snapshot) as streams:
        return tuple(dict.fromkeys(chunk["sha256"] for stream in streams.values() for chunk in stream["chunks"]))


@contextmanager
def _streams(snapshot: Snapshot) -> Iterator[Mapping[str, Json]]:
    """The snapshot's streams as they stand in it: whatever they turn out not to be is damage, and not a fault here."""
    try:
        yield snapshot.folds.get(STREAMS.name, {}).get("state", {})
    except (AttributeError, KeyError, TypeError) as error:
        raise Damaged(f"the snapshot of record {snapshot.seq} has no state: {error!r}", hint=OTHERWISE) from error
