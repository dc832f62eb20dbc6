"""What the store holds, as far as a past can be made of it: the objects, and those that turned out to be unusable.

    manifest ─▶ snapshot, segments, tail          sound: served
       │ an object is missing or is not what it is called, twice
       └▶ the manifest before: its snapshot, its segments, the log objects since then

Nothing is believed but what its hash or the chain proves; sizes are capped before anything is read.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import NamedTuple

from persistence import segment
from persistence.blobs import Kind
from persistence.errors import Damaged, FinnError, NotFound
from persistence.layout import (
    KEPT,
    PROVE,
    LogObject,
    Manifest,
    Seg,
    Snap,
    blob_key,
    chunk_key,
    decode_manifest,
    decode_object,
    log_key,
    manifest_key,
)
from persistence.remote import Tip, together
from persistence.segment import Span
from persistence.snapshot import Snapshot
from persistence.snapshot import decode as decode_snapshot
from persistence.store import OBJECT_MAX, Store

TOTAL_MAX = 1 << 30  #: bytes of snapshot and segments; what is kept after a floor is some ten megabytes
SEG_MAX = 64 << 20  #: bytes of one segment: 10 MB and a last batch
RATIO_MAX, INFLATED_MIN = 100, 64 << 20  #: a snapshot may become so many times its size, or this many bytes


class Piece(NamedTuple):
    """An object that has the records `first`..`last`: a segment still to be fetched, or a log object that was."""

    first: int
    last: int
    chain_in: str
    of: Seg | LogObject

    @property
    def key(self) -> str:
        return self.of.key if isinstance(self.of, Seg) else log_key(self.of.header.n)


class Unusable(Exception):
    """An object turned out to be unusable; another way to cover the log has to be found. Never leaves a restoration."""


class Shelf:
    """The objects that a past can be made of, and those of them that turned out to be unusable."""

    def __init__(self, store: Store, tip: Tip) -> None:
        self.problems: list[str] = []
        self.holes: tuple[tuple[int, int], ...] = ()  #: records that nothing had, once it is known
        self.manifest = tip.manifest
        self.url = store.url
        self._store = store
        self._tip = tip
        self._line = [tip.manifest]
        self._bad: set[str] = set()
        self._older: dict[int, LogObject] = {}

    # ------------------------------------------------------------ snapshots

    def snapshot(self, last: int) -> tuple[Snapshot | None, bytes]:
        """The newest snapshot up to `last` that can be used, and its bytes; none where the whole log is there."""
        floors: list[int] = []
        for depth in range(KEPT):
            if not self._reach(depth):
                break
            snap = self._line[depth].snap
            if snap is None:
                break
            if snap.seq > last or snap.key in self._bad:
                floors.append(snap.seq)
                continue
            try:
                return self._snapshot(snap)
            except Damaged as problem:
                self._give_up(snap.key, problem)
        if self._begins() > 1 and covering(self._pieces(len(self._line) - 1), 1, last)[1]:
            oldest = f"the oldest state that can be restored is that of record {min(floors)}" if floors else PROVE
            if floors and min(floors) > last:
                raise NotFound(f"record {last} lies before what {self._store.url} keeps", hint=oldest)
            raise Damaged(f"{self._store.url} has no snapshot that can be used, nor all of the log", hint=oldest)
        return None, b""

    def _snapshot(self, snap: Snap) -> tuple[Snapshot, bytes]:
        if snap.bytes > SEG_MAX:
            raise Damaged(f"{snap.key} has {snap.bytes} bytes, more than a snapshot", hint=PROVE)
        data = verified(self._store, snap.key, snap.sha256, snap.bytes)
        return opened_snapshot(data, snap), data

    def _begins(self) -> int:
        """The first seq that the newest manifest's log has."""
        pieces = self._pieces(0)
        return min((piece.first for piece in pieces), default=1)

    def text(self, sha: str) -> bytes | None:
        """A long text's bytes; None where the store does not have them any more. Raises StoreError."""
        try:
            return verified_body(self._store, "blob", sha)
        except (NotFound, Damaged) as problem:
            self.problems.append(problem.message)
            return None

    # ------------------------------------------------------------ the log

    def coverings(self, first: int, last: int) -> Iterator[tuple[tuple[Piece, ...], tuple[tuple[int, int], ...]]]:
        """Ways to have the records first..last, the best first; the caller asks for another where one proved unusable.

        One manifest further back for every turn where something is missing; then what there is, with its holes.
        """
        depth = 0
        while True:
            bad = len(self._bad)
            pieces, holes = covering(self._pieces(depth), first, last)
            if holes and depth + 1 < KEPT and self._reach(depth + 1):
                depth += 1
                continue
            self._bound(pieces)
            yield pieces, holes
            if len(self._bad) == bad:
                return

    def span(self, piece: Piece, known: Mapping[int, str]) -> Span:
        """The piece's frames, proven. Raises Unusable after noting why."""
        try:
            if isinstance(piece.of, LogObject):
                head = piece.of.header
                ends = (head.first, head.last, head.chain_in, head.chain_out)
                return segment.proven(piece.of.body, *ends, piece.key, known)
            seg = piece.of
            if seg.bytes > SEG_MAX:
                raise Damaged(f"{seg.key} has {seg.bytes} bytes, more than a segment", hint=PROVE)
            body = verified(self._store, seg.key, seg.sha256, seg.bytes)
            return segment.vouched(body, seg.first, seg.last, seg.chain_in, seg.chain_out, seg.key, known)
        except Damaged as problem:
            self._give_up(piece.key, problem)
            raise Unusable from problem

    def _bound(self, pieces: Sequence[Piece]) -> None:
        sizes = [piece.of.bytes for piece in pieces if isinstance(piece.of, Seg)]
        if sum(size for size in sizes if size <= SEG_MAX) > TOTAL_MAX:  # a larger one is not even fetched
            raise Damaged(f"{self.url} names more than {TOTAL_MAX} bytes of log", hint=PROVE)

    def _pieces(self, depth: int) -> list[Piece]:
        segs = {seg.key: seg for manifest in self._line[: depth + 1] for seg in manifest.segs}
        objects = [*self._before(depth), *self._tip.tail]
        pieces = [
            *(Piece(seg.first, seg.last, seg.chain_in, seg) for seg in segs.values()),
            *(Piece(one.header.first, one.header.last, one.header.chain_in, one) for one in objects if one.body),
        ]
        return [piece for piece in pieces if piece.key not in self._bad and piece.first <= piece.last]

    def _before(self, depth: int) -> list[LogObject]:
        """The log objects between an older manifest and the newest one, as far as they are there still."""
        numbers = range(self._line[depth].log_from, self._line[0].log_from)
        wanted = [n for n in numbers if n not in self._older and log_key(n) not in self._bad]
        for one in together([partial(self._log, n) for n in wanted]):
            if one is not None:
                self._older[one.header.n] = one
        return [self._older[n] for n in numbers if n in self._older]

    def _log(self, n: int) -> LogObject | None:
        key = log_key(n)
        try:
            one = decode_object(self._store.get(key, 0, SEG_MAX), key)
            if one.header.n == n:
                return one
        except NotFound:
            self._bad.add(key)
            return None
        except Damaged as problem:
            self._give_up(key, problem)
            return None
        self._give_up(key, Damaged(f"{key} says that it is number {one.header.n}"))
        return None

    # ------------------------------------------------------------ manifests

    def _reach(self, depth: int) -> bool:
        """Whether so many manifests back there is one, linked to the newest by their hashes."""
        while len(self._line) <= depth:
            newer = self._line[-1]
            if newer.m <= 1:
                return False
            try:
                self._line.append(linked(self._store, newer))
            except NotFound:
                return False
            except Damaged as problem:
                self._give_up(manifest_key(newer.m - 1), problem)
                return False
        return True

    def _give_up(self, key: str, problem: FinnError) -> None:
        self._bad.add(key)
        self.problems.append(str(problem.message))


def linked(store: Store, newer: Manifest) -> Manifest:
    """The manifest before, which `newer` names by its hash. Raises NotFound, Damaged, StoreError."""
    key = manifest_key(newer.m - 1)
    found = decode_manifest(store.get(key), key)
    if found.m != newer.m - 1 or found.self_sha256 != newer.previous:
        raise Damaged(f"{key} is not the one that manifest {newer.m} builds on", hint=PROVE)
    return found


def verified(store: Store, key: str, sha: str, size: int) -> bytes:
    """The object's bytes, which have this hash and size. Asked for twice. Raises Damaged, StoreError."""
    for _ in range(2):
        try:
            data = store.get(key, 0, size + 1)
        except NotFound as error:
            raise Damaged(f"{key} is not in {store.url}", hint=PROVE) from error
        if len(data) == size and sha256(data).hexdigest() == sha:
            return data
    raise Damaged(f"{key} in {store.url} is not what was written", hint=PROVE)


def verified_body(store: Store, kind: Kind, sha: str) -> bytes:
    """A chunk's or a blob's bytes. Raises NotFound, Damaged, StoreError."""
    key = chunk_key(sha) if kind == "chunk" else blob_key(sha)
    for _ in range(2):
        data = store.get(key, 0, OBJECT_MAX)
        if sha256(data).hexdigest() == sha:
            return data
    raise Damaged(f"{key} in {store.url} does not hold what its name says", hint=PROVE)


def opened_snapshot(data: bytes, snap: Snap) -> Snapshot:
    """The snapshot in bytes that are what their name says, if it is one and does not swell. Raises Damaged."""
    unpacking = zlib.decompressobj()
    try:
        unpacking.decompress(data, max(INFLATED_MIN, RATIO_MAX * len(data)))
        if not unpacking.eof:
            raise Damaged(f"{snap.key} becomes far larger than a snapshot is, or ends too soon", hint=PROVE)
        snapshot = decode_snapshot(data, snap.key)
    except (zlib.error, RecursionError, AttributeError) as error:
        raise Damaged(f"{snap.key} cannot be read: {error}", hint=PROVE) from error
    if (snapshot.seq, snapshot.chain) != (snap.seq, snap.chain):
        raise Damaged(f"{snap.key} is the snapshot of another record", hint=PROVE)
    return snapshot


def covering(pieces: Sequence[Piece], first: int, last: int) -> tuple[tuple[Piece, ...], tuple[tuple[int, int], ...]]:
    """The fewest pieces that have the records first..last, in order, and the records that none of them has."""
    chosen: list[Piece] = []
    holes: list[tuple[int, int]] = []
    seq = first - 1
    while seq < last:
        at_hand = [piece for piece in pieces if piece.first <= seq + 1 and piece.last > seq]
        later = [piece for piece in pieces if seq + 1 < piece.first <= last]
        if at_hand:
            chosen.append(max(at_hand, key=lambda piece: piece.last))
        elif later:
            chosen.append(min(later, key=lambda piece: (piece.first, -piece.last)))
            holes.append((seq + 1, chosen[-1].first - 1))
        else:
            holes.append((seq + 1, last))
            break
        seq = chosen[-1].last
    return tuple(chosen), tuple(holes)
