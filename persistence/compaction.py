"""The tail put together: many small log objects become few large segments, and a manifest says so.

    log/17 … log/48 ─▶ 1.2 MB      segments   9 MB   3 MB   1 MB      the last ones that are no larger go into it
                                              └───── stay ┘ └┘
    read back ─▶ seg ─▶ chunks and blobs of the newest snapshot ─▶ snap ─▶ manifest m+1 (create) ─▶ HINT

What goes into a segment is read back from the store first: nothing is put into a manifest that was not seen there. An
object that is damaged there is made good from the local log. A manifest's segments begin at its snapshot's floor; what
lies wholly before it is in chunks. Every step may be cut short anywhere: what is named by no manifest is nothing, and
collected after a day.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, TypeVar

from persistence import needs, segment
from persistence.disk import Disk, read
from persistence.errors import Damaged, NotFound
from persistence.layout import (
    Manifest,
    Seg,
    Snap,
    blob_key,
    chunk_key,
    decode_object,
    log_key,
    seg_key,
    snap_key,
)
from persistence.replica import Laid, Replica
from persistence.segment import Span
from persistence.snapshot import DIGITS, listed
from persistence.store import Store

TAIL_OBJECTS = 32  #: more small objects than this make a start slow: each costs 2 ms to read
SEG_BYTES = 10 << 20  #: where a segment is cut

Breathe = Callable[[], None]  #: called between two calls to the store: what waits may go up first
Tell = Callable[[str], None]  #: what could not be used, as a sentence


Piece = TypeVar("Piece", Seg, Span)


@dataclass(frozen=True)
class Snapped:
    """A snapshot as it lies on the local disk, with what the store has to hold before it may be named there."""

    seq: int
    chain: str
    floor: int
    chunks: tuple[str, ...]
    data: bytes
    quoted: frozenset[str]  #: every hash in its state, of blobs among others


@dataclass(frozen=True)
class Compacted:
    """The manifest that stands now, and, as sentences, what could not be done."""

    manifest: Manifest
    problems: tuple[str, ...]


# ---------------------------------------------------------------- decisions


def due(objects: int, size: int) -> bool:
    """Whether a tail of so many objects and bytes is put together."""
    return objects >= TAIL_OBJECTS or size >= SEG_BYTES


def settled(manifest: Manifest) -> int:
    """The seq below which a local log is not needed: chunks in the store hold what came before. 0: all of it is."""
    return manifest.begins if manifest.snap else 0


def above(pieces: Iterable[Piece], floor: int) -> tuple[Piece, ...]:
    """The segments, or parts of one to come, without those that lie wholly below the floor."""
    return tuple(piece for piece in pieces if piece.last >= floor)


def split(segs: Sequence[Seg], size: int) -> tuple[tuple[Seg, ...], tuple[Seg, ...]]:
    """Which segments stay as they are, and which are merged with `size` new bytes.

    The last is merged while it is no larger than what it is merged with and both fit into one: so a byte is written
    again only when what it lies in doubles, and there are never more than a handful of small ones.
    """
    stay = len(segs)
    while size and stay and segs[stay - 1].bytes <= size and segs[stay - 1].bytes + size <= SEG_BYTES:
        stay -= 1
        size += segs[stay].bytes
    return tuple(segs[:stay]), tuple(segs[stay:])


def packed(parts: Iterable[Span]) -> tuple[Span, ...]:
    """The parts put together, in order, cut where a segment would grow beyond SEG_BYTES."""
    runs: list[list[Span]] = []
    size = 0
    for part in parts:
        if not runs or size + len(part.body) > SEG_BYTES:
            runs.append([])
            size = 0
        runs[-1].append(part)
        size += len(part.body)
    return tuple(
        Span(run[0].first, run[-1].last, run[0].chain_in, run[-1].chain_out, b"".join(one.body for one in run))
        for run in runs
    )


# ---------------------------------------------------------------- effects


def newest(disk: Disk, directory: Path, after: int = 0) -> Snapped | None:
    """The newest snapshot in a folder that holds what it says; None where there is none after that seq. Raises OSError.

    `after` spares the reading of one that the store has already.
    """
    for path in listed(directory):
        if int(path.name[:DIGITS]) <= after:
            return None
        data = read(disk, path)
        try:
            return snapped(data, path.name)
        except Damaged:
            continue  # an older one will do: what makes it good is the local log's business
    return None


def snapped(data: bytes, name: str) -> Snapped:
    """The snapshot in a file's bytes. Raises Damaged."""
    snapshot, text = needs.opened(data, name)
    floor, chunks = needs.floor(snapshot), needs.chunks(snapshot)
    state = text.rpartition(b'"state_sha":')[0]  # which is no name of anything, and neither is the digest
    return Snapped(snapshot.seq, snapshot.chain, floor, chunks, data, needs.quoted(state) - {snapshot.chain})


def nobody_waits() -> None:
    """The breath of who has nothing to send meanwhile."""


def compact(replica: Replica, taken: Snapped | None, *, breathe: Breathe = nobody_waits) -> Compacted:
    """Puts the present tail into segments and the snapshot beside them, and commits both in a manifest.

    Called by the thread that flushes; `breathe` may flush. Raises StoreError (nothing is lost, try again), Fenced.
    """
    replica.settle()
    old, end = replica.manifest, _End(replica.n, replica.previous, replica.confirmed, replica.chain)
    problems: list[str] = []
    parts = tuple(_tail(replica, end.seq, problems.append, breathe))
    snap, segs = old.snap, old.segs
    if taken and _newer(taken, old.snap, end.seq, parts) and _sent(replica, taken, problems.append, breathe):
        snap, segs = _put_snap(replica.store, taken), above(old.segs, taken.floor)
        parts = above(parts, taken.floor)
    stay, merged = split(segs, sum(len(part.body) for part in parts))
    again = [part for seg in merged for part in _seg(replica, seg, problems.append, breathe)]
    new = [_put_seg(replica.store, part, breathe) for part in packed([*again, *parts])]
    manifest = replica.publish(
        snap=snap,
        segs=(*stay, *new),
        log_from=end.n + 1,
        log_previous=end.previous,
        log_seq=end.seq,
        log_chain=end.chain,
    )
    return Compacted(manifest, tuple(problems))


class _End(NamedTuple):
    """The last object that is put together, its hash, the last record in it and the log's digest there."""

    n: int
    previous: str
    seq: int
    chain: str


def _tail(replica: Replica, last: int, tell: Tell, breathe: Breathe) -> Iterator[Span]:
    """The records of the tail as the store has them; from the local log where it does not have them any more."""
    expected = replica.manifest.log_seq + 1
    for laid in replica.tail:
        header = laid.header
        if laid.bytes and header.last <= last:
            yield from _logged(replica, expected, header.first - 1, tell)
            yield from _read(replica, laid, tell, breathe)
            expected = header.last + 1


def _read(replica: Replica, laid: Laid, tell: Tell, breathe: Breathe) -> Iterable[Span]:
    header, key = laid.header, log_key(laid.header.n)
    breathe()
    data = _proven(replica.store, key, laid.sha256)
    if data is None:
        tell(f"{key} is damaged or gone in the store; its records come from the local log")
        return _logged(replica, header.first, header.last, tell)
    return (Span(header.first, header.last, header.chain_in, header.chain_out, decode_object(data, key).body),)


def _proven(store: Store, key: str, sha: str) -> bytes | None:
    """The object's bytes, where it is there and they have that hash."""
    try:
        data = store.get(key)
    except NotFound:
        return None
    return data if sha256(data).hexdigest() == sha else None


def _logged(replica: Replica, first: int, last: int, tell: Tell) -> Iterator[Span]:
    """What the local log has of the records first..last, once their blobs are up: those may have gone with them.

    What it has not is a gap that was told when it was found.
    """
    while first <= last:
        try:
            run = replica.source.frames(first - 1, SEG_BYTES)
        except (NotFound, Damaged) as error:
            tell(f"records {first}-{last} are not in the store and not in the local log: {error}")
            return
        if run.first <= last:
            for sha in run.blobs:
                replica.upload(blob_key(sha), partial(replica.source.blob, sha))
            span = Span(run.first, run.last, run.chain_in, run.chain_out, run.body)
            yield segment.until(span, last, "the local log")
        first = run.last + 1


def _seg(replica: Replica, seg: Seg, tell: Tell, breathe: Breathe) -> Iterable[Span]:
    breathe()
    body = _proven(replica.store, seg.key, seg.sha256)
    if body is None:
        tell(f"{seg.key} is damaged or gone in the store; its records come from the local log")
        return _logged(replica, seg.first, seg.last, tell)
    return (Span(seg.first, seg.last, seg.chain_in, seg.chain_out, body),)


def _put_seg(store: Store, part: Span, breathe: Breathe) -> Seg:
    breathe()
    sha = sha256(part.body).hexdigest()
    key = seg_key(part.first, sha)
    store.put(key, part.body)
    return Seg(key, sha, len(part.body), part.first, part.last, part.chain_in, part.chain_out)


# ---------------------------------------------------------------- the snapshot


def _newer(taken: Snapped, snap: Snap | None, confirmed: int, parts: Sequence[Span]) -> bool:
    """Whether the snapshot is of this log, wholly in the store, and newer than the one there."""
    if taken.seq > confirmed or (snap and taken.seq <= snap.seq):
        return False
    holding = next((part for part in parts if part.first <= taken.seq <= part.last), None)
    return holding is None or segment.digests(holding.body).get(taken.seq) == taken.chain


def _put_snap(store: Store, taken: Snapped) -> Snap:
    sha = sha256(taken.data).hexdigest()
    key = snap_key(taken.seq, sha)
    store.put(key, taken.data)
    return Snap(key, sha, len(taken.data), taken.seq, taken.chain)


def _sent(replica: Replica, taken: Snapped, tell: Tell, breathe: Breathe) -> bool:
    """Puts every chunk and blob that the snapshot leans on where it is not known to be; whether it may be named now."""
    _learn(replica)
    for sha in taken.chunks:
        if chunk_key(sha) not in replica.known and not _send_chunk(replica, sha, tell, breathe):
            return False
    for sha in taken.quoted.difference(taken.chunks):
        _send_blob(replica, sha, breathe)
    return True


def _learn(replica: Replica) -> None:
    """What the snapshot in the store leans on is there: it was put before the manifest that names it."""
    snap = replica.manifest.snap
    if snap is None or snap.key in replica.known:
        return
    try:
        there = snapped(replica.store.get(snap.key), snap.key)
    except (Damaged, NotFound):
        return  # nothing is known, so everything is sent again
    replica.known.update(chunk_key(sha) for sha in there.chunks)
    replica.known.update(blob_key(sha) for sha in there.quoted.difference(there.chunks))
    replica.known.add(snap.key)


def _send_chunk(replica: Replica, sha: str, tell: Tell, breathe: Breathe) -> bool:
    """Whether the chunk is in the store. Where it is lost, the segments that made it must stay there."""
    try:
        data = replica.source.chunk(sha)
    except (Damaged, NotFound) as error:
        tell(f"no newer snapshot goes to the store, for a chunk of it is lost: {error}")
        return False
    for blob in needs.quoted(data):
        _send_blob(replica, blob, breathe)
    breathe()
    replica.store.put(chunk_key(sha), data)
    replica.known.add(chunk_key(sha))
    return True


def _send_blob(replica: Replica, sha: str, breathe: Breathe) -> None:
    """Puts the blob of that name, if there is one: not every hash in a text is a blob's."""
    if blob_key(sha) in replica.known:
        return
    try:
        data = replica.source.blob(sha)
    except (Damaged, NotFound):
        return
    breathe()
    replica.store.put(blob_key(sha), data)
    replica.known.add(blob_key(sha))
