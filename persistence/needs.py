"""What stored bytes need besides themselves, read from the bytes: the names of other bytes, and where a log begins.

    snapshot ─▶ chunks, blobs        chunk ─▶ blobs        log, segment ─▶ chunks, blobs

Two readings of the same thing. What is sent to the store along with something is `quoted` in it: a JSON string that is
a hash and nothing else. What is never deleted from the store is whatever is `mentioned` anywhere: 64 hex digits. The
second takes in far more than the first, on purpose: keeping too much costs a cent, keeping too little costs a memory.
"""

import re
from collections.abc import Mapping

from persistence.events import Json
from persistence.snapshot import Snapshot, inflated, parse
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
    """The first seq that a start from the snapshot reads in the log: the oldest record that is in no chunk."""
    tails: list[int] = [one["tail_first"] for one in _streams(snapshot).values() if one["tail_first"] is not None]
    return min([snapshot.seq + 1, *tails])


def chunks(snapshot: Snapshot) -> tuple[str, ...]:
    """The chunks that the snapshot's state leans on, in the order of their first use."""
    return tuple(dict.fromkeys(chunk["sha256"] for stream in _streams(snapshot).values() for chunk in stream["chunks"]))


def _streams(snapshot: Snapshot) -> Mapping[str, Json]:
    state: Mapping[str, Json] = snapshot.folds.get(STREAMS.name, {}).get("state", {})
    return state
