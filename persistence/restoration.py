"""Makes a log from what the store holds.

    manifest ─▶ snapshot ─▶ floor ─▶ what covers floor … end: segments (8 at once), the tail ─▶ wal/*.wal, snapshots/*
       │ an object is missing or is not what it is called, twice
       └▶ the manifest before: its snapshot, its segments, the log objects since then: the same end     told in problems

Nothing in the store is believed but what its hash or the chain proves: names are made from numbers and compared, never
followed; sizes are capped before anything is read; JSON is the only thing that is parsed. What is written is an
ordinary log, which `inspect` proves once more. Chunks and blobs are not fetched here: they come when they are read.
"""

import itertools
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from pydantic_core import from_json

from persistence import needs, segment
from persistence.blobs import Kind
from persistence.disk import Disk, refused, write_all
from persistence.errors import Damaged, FinnError, NotFound
from persistence.frame import PREFIX_BYTES
from persistence.layout import (
    KEPT,
    NOTHING,
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
from persistence.scan import segment_name
from persistence.segment import Span
from persistence.snapshot import Snapshot, path_of
from persistence.snapshot import decode as decode_snapshot
from persistence.store import OBJECT_MAX, Store

TOTAL_MAX = 1 << 30  #: bytes of snapshot and segments; what is kept after a floor is some ten megabytes
SEG_MAX = 64 << 20  #: bytes of one segment: 10 MB and a last batch
RATIO_MAX, INFLATED_MIN = 100, 64 << 20  #: a snapshot may become so many times its size, or this many bytes


@dataclass(frozen=True, slots=True)
class Built:
    """The log that was made. `problems` is what could not be used on the way, `holes` the records that nothing had."""

    seq: int
    chain: str
    snapshot: Snapshot | None
    bytes: int
    problems: tuple[str, ...]
    holes: tuple[tuple[int, int], ...]


class Piece(NamedTuple):
    """An object that has the records `first`..`last`: a segment still to be fetched, or a log object that was."""

    first: int
    last: int
    chain_in: str
    of: Seg | LogObject

    @property
    def key(self) -> str:
        return self.of.key if isinstance(self.of, Seg) else log_key(self.of.header.n)


def restore(
    store: Store, tip: Tip, into: Path, disk: Disk, *, ms: int, at: int | None = None, before: int | None = None
) -> Built:
    """Writes wal/, snapshots/ and blobs/ below `into`, not yet durable. `ms` is the time that segments are marked with.

    `at` is the last record that is wanted; with `before` the state is folded from a snapshot before that seq. Raises
    Damaged where no snapshot and log can be had that fit together, NotFound where `at` lies before everything that is
    kept, StoreError, StorageError.
    """
    last = tip.seq if at is None else min(at, tip.seq)
    shelf = Shelf(store, tip)
    snapshot, data = shelf.snapshot(last if before is None else min(last, before - 1))
    first = needs.floor(snapshot) if snapshot else 1
    known = {snapshot.seq: snapshot.chain} if snapshot else {}
    seen = snapshot.seq if snapshot else 0
    laid = _lay(shelf, first, last, known, into / "wal", set(), disk, ms, seen=seen)
    if snapshot:
        written(disk, path_of(into / "snapshots", snapshot.seq), data)
    return _built(shelf, laid or [_begun(shelf, snapshot, last, into / "wal", disk, ms)], snapshot, len(data))


def extend(store: Store, tip: Tip, into: Path, disk: Disk, *, after: int, ms: int) -> Built:
    """Writes wal/ and blobs/ below `into` with what the store has behind the record `after` of the same log.

    Raises as `restore` does.
    """
    shelf = Shelf(store, tip)
    there = _names(disk, into / "wal")
    laid = _lay(shelf, after + 1, tip.seq, {}, into / "wal", there, disk, ms, seen=after)
    return _built(shelf, laid, None, 0)


def records(store: Store, tip: Tip, first: int, last: int) -> Span | None:
    """What the store has of the records first..last, in memory; None where it has none of them. Raises StoreError."""
    shelf = Shelf(store, tip)
    last = min(last, tip.seq)
    for pieces, _ in shelf.coverings(first, last) if first <= last else ():
        try:
            spans = [shelf.span(piece, {}) for piece in pieces]
        except _Unusable:
            continue
        found = _joined(spans, first - 1, last, tip.manifest.writer) if spans else None
        return found if found and found.body else None
    return None


def _lay(
    shelf: "Shelf",
    first: int,
    last: int,
    known: Mapping[int, str],
    wal: Path,
    there: set[str],
    disk: Disk,
    ms: int,
    *,
    seen: int,
) -> list[tuple[Span, int]]:
    """Writes segments that have the records first..last, beside those that are `there` already, and no others.

    With them come the long texts of the records after `seen`, which a start folds: it must need nobody's answer for
    that, or what it says of a text that did not come would be part of the state. Returns the spans, without their
    bodies, and their sizes.
    """
    manifest = shelf.manifest

    def make(group: Sequence[Piece], seq: int, *, growing: bool) -> tuple[Span, int]:
        span = _joined([shelf.span(piece, known) for piece in group], seq, last, group[0].key)
        form = segment.growing if growing else segment.sealed
        whole = form(span, epoch=manifest.epoch, writer=manifest.writer, ms=ms)
        written(disk, wal / segment_name(span.first), whole)
        for sha in _texts(span, seen):
            if (text := shelf.text(sha)) is not None:
                written(disk, wal.parent / "blobs" / sha[:2] / sha[2:], text)
        return span._replace(body=b""), len(whole)

    for pieces, holes in shelf.coverings(first, last):
        groups = list(_groups(pieces, first))
        try:
            made = together([partial(make, *group, growing=group is groups[-1]) for group in groups])
        except _Unusable:
            continue
        _only(disk, wal, there | {segment_name(span.first) for span, _ in made})
        shelf.holes = tuple(sorted({*holes, *(hole for span, _ in made for hole in span.holes)}))
        return made
    raise Damaged(f"{shelf.url} does not hold a log that can be restored", hint=PROVE)


def _begun(shelf: "Shelf", snapshot: Snapshot | None, last: int, wal: Path, disk: Disk, ms: int) -> tuple[Span, int]:
    """A log of which the snapshot sums up everything: an empty segment says that it goes on there."""
    chain = snapshot.chain if snapshot else NOTHING
    empty = Span(last + 1, last, chain, chain, b"")
    whole = segment.growing(empty, epoch=shelf.manifest.epoch, writer=shelf.manifest.writer, ms=ms)
    written(disk, wal / segment_name(last + 1), whole)
    return empty, len(whole)


def _texts(span: Span, seen: int) -> dict[str, None]:
    """The blobs that hold long texts of the span's records after `seen`."""
    lines = span.body.split(b"\n") if b'"blobs":' in span.body else []
    said = [from_json(line[PREFIX_BYTES:]) for line in lines if b'"blobs":' in line]
    return dict.fromkeys(sha for body in said if body["seq"] > seen for sha in body.get("blobs", {}).values())


def _built(shelf: "Shelf", laid: Sequence[tuple[Span, int]], snapshot: Snapshot | None, size: int) -> Built:
    end = laid[-1][0]
    size += sum(count for _, count in laid)
    return Built(end.last, end.chain_out, snapshot, size, tuple(shelf.problems), shelf.holes)


class _Unusable(Exception):
    """An object turned out to be unusable; another way to cover the log has to be found. Never leaves this file."""


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
        """The piece's frames, proven. Raises _Unusable after noting why."""
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
            raise _Unusable from problem

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


# ---------------------------------------------------------------- which pieces, in which files


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


def _groups(pieces: Sequence[Piece], first: int) -> Iterator[tuple[list[Piece], int]]:
    """What goes into one file each, and the seq after which its records are wanted.

    A segment is one, log objects in a row are another; behind lost records nothing can begin, for a segment's header
    says what its first record builds on.
    """
    group: list[Piece] = []
    begin = reach = first - 1
    for piece in pieces:
        whole = piece.first <= reach + 1 and bool(piece.chain_in)
        alike = bool(group) and isinstance(piece.of, LogObject) and isinstance(group[-1].of, LogObject)
        if group and whole and not alike:
            yield group, begin
            group, begin = [], reach
        group.append(piece)
        reach = piece.last
    if group:
        yield group, begin


def _joined(spans: Sequence[Span], seq: int, last: int, name: str) -> Span:
    """One run of records of the spans' records behind `seq` and up to `last`."""
    kept: list[Span] = []
    reach = seq
    for span in spans:
        kept.append(segment.until(segment.after(span, reach, name), last, name))
        reach = kept[-1].last
    gaps = [(one.last + 1, other.first - 1) for one, other in itertools.pairwise(kept)]
    holes = [hole for span in kept for hole in span.holes] + [gap for gap in gaps if gap[0] <= gap[1]]
    return Span(
        kept[0].first,
        kept[-1].last,
        kept[0].chain_in,
        kept[-1].chain_out,
        b"".join(span.body for span in kept),
        tuple(sorted(holes)),
    )


def _names(disk: Disk, folder: Path) -> set[str]:
    try:
        return set(disk.names(folder))
    except OSError as error:
        raise refused(error, folder) from error


def _only(disk: Disk, folder: Path, names: set[str]) -> None:
    """What an attempt before this one wrote goes, so far as this one does not need it. Raises StorageError."""
    try:
        for name in disk.names(folder):
            if name not in names:
                disk.unlink(folder / name)
    except OSError as error:
        raise refused(error, folder) from error


def written(disk: Disk, path: Path, data: bytes) -> None:
    """A file of a log that is being built; whoever moves it in makes it durable. Raises StorageError."""
    try:
        disk.mkdir(path.parent)
        handle = disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            write_all(disk, handle, data)
        finally:
            disk.close(handle)
    except OSError as error:
        raise refused(error, path) from error
