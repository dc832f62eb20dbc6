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
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pydantic_core import from_json

from persistence import needs, segment
from persistence.disk import Disk, refused, write_all
from persistence.errors import Damaged
from persistence.frame import PREFIX_BYTES
from persistence.layout import NOTHING, PROVE, LogObject
from persistence.remote import Tip, together
from persistence.scan import segment_name
from persistence.segment import Span
from persistence.shelf import Piece, Shelf, Unusable
from persistence.snapshot import Snapshot, path_of
from persistence.store import Store


@dataclass(frozen=True, slots=True)
class Built:
    """The log that was made. `problems` is what could not be used on the way, `holes` the records that nothing had."""

    seq: int
    chain: str
    snapshot: Snapshot | None
    bytes: int
    problems: tuple[str, ...]
    holes: tuple[tuple[int, int], ...]


class Wanted(NamedTuple):
    """The records first..last. A start folds those after `seen`; `known` are checksums that some of them must have."""

    first: int
    last: int
    seen: int
    known: Mapping[int, str]


class Site(NamedTuple):
    """The folder in which a log is built. `ms` is the time that its segments are marked with."""

    into: Path
    disk: Disk
    ms: int

    @property
    def wal(self) -> Path:
        return self.into / "wal"


def restore(
    store: Store, tip: Tip, into: Path, disk: Disk, *, ms: int, at: int | None = None, before: int | None = None
) -> Built:
    """Writes wal/, snapshots/ and blobs/ below `into`, not yet durable. `ms` is the time that segments are marked with.

    `at` is the last record that is wanted; with `before` the state is folded from a snapshot before that seq. Raises
    Damaged where no snapshot and log can be had that fit together, NotFound where `at` lies before everything that is
    kept, StoreError, StorageError.
    """
    last = tip.seq if at is None else min(at, tip.seq)
    shelf, site = Shelf(store, tip), Site(into, disk, ms)
    snapshot, data = shelf.snapshot(last if before is None else min(last, before - 1))
    first = needs.floor(snapshot) if snapshot else 1
    known = {snapshot.seq: snapshot.chain} if snapshot else {}
    seen = snapshot.seq if snapshot else 0
    laid = _lay(shelf, Wanted(first, last, seen, known), site)
    if snapshot:
        written(disk, path_of(into / "snapshots", snapshot.seq), data)
    return _built(shelf, laid or [_begun(shelf, snapshot, last, site)], snapshot, len(data))


def extend(store: Store, tip: Tip, into: Path, disk: Disk, *, after: int, ms: int) -> Built:
    """Writes wal/ and blobs/ below `into` with what the store has behind the record `after` of the same log.

    Raises as `restore` does.
    """
    shelf, site = Shelf(store, tip), Site(into, disk, ms)
    laid = _lay(shelf, Wanted(after + 1, tip.seq, after, {}), site, beside=_names(disk, site.wal))
    return _built(shelf, laid, None, 0)


def records(store: Store, tip: Tip, first: int, last: int) -> Span | None:
    """What the store has of the records first..last, in memory; None where it has none of them. Raises StoreError."""
    shelf = Shelf(store, tip)
    last = min(last, tip.seq)
    for pieces, _ in shelf.coverings(first, last) if first <= last else ():
        try:
            spans = [shelf.span(piece, {}) for piece in pieces]
        except Unusable:
            continue
        found = _joined(spans, first - 1, last, tip.manifest.writer) if spans else None
        return found if found and found.body else None
    return None


def _lay(shelf: Shelf, wanted: Wanted, site: Site, beside: Set[str] = frozenset()) -> list[tuple[Span, int]]:
    """Writes segments that have the wanted records, beside those of these names, and no others.

    With them come the long texts of the records that a start folds: it must need nobody's answer for that, or what it
    says of a text that did not come would be part of the state. Returns the spans, without their bodies, and their
    sizes.
    """
    for pieces, holes in shelf.coverings(wanted.first, wanted.last):
        groups = list(_groups(pieces, wanted.first))
        lay = partial(_lay_one, shelf, wanted, site)
        try:
            made = together([partial(lay, *group, growing=group is groups[-1]) for group in groups])
        except Unusable:
            continue
        _only(site.disk, site.wal, beside | {segment_name(span.first) for span, _ in made})
        shelf.holes = tuple(sorted({*holes, *(hole for span, _ in made for hole in span.holes)}))
        return made
    raise Damaged(f"{shelf.url} does not hold a log that can be restored", hint=PROVE)


def _lay_one(
    shelf: Shelf, wanted: Wanted, site: Site, group: Sequence[Piece], after: int, *, growing: bool
) -> tuple[Span, int]:
    """Writes one segment with what the group has of the wanted records behind `after`. Raises Unusable."""
    spans = [shelf.span(piece, wanted.known) for piece in group]
    span = _joined(spans, after, wanted.last, group[0].key)
    size = _segment(shelf, span, site, growing=growing)
    for sha in _texts(span, wanted.seen):
        if (text := shelf.text(sha)) is not None:
            written(site.disk, site.into / "blobs" / sha[:2] / sha[2:], text)
    return span._replace(body=b""), size


def _begun(shelf: Shelf, snapshot: Snapshot | None, last: int, site: Site) -> tuple[Span, int]:
    """A log of which the snapshot sums up everything: an empty segment says that it goes on there."""
    chain = snapshot.chain if snapshot else NOTHING
    empty = Span(last + 1, last, chain, chain, b"")
    return empty, _segment(shelf, empty, site, growing=True)


def _segment(shelf: Shelf, span: Span, site: Site, *, growing: bool) -> int:
    """Writes a segment that holds the span; its size."""
    form = segment.growing if growing else segment.sealed
    whole = form(span, epoch=shelf.manifest.epoch, writer=shelf.manifest.writer, ms=site.ms)
    written(site.disk, site.wal / segment_name(span.first), whole)
    return len(whole)


def _texts(span: Span, seen: int) -> dict[str, None]:
    """The blobs that hold long texts of the span's records after `seen`."""
    lines = span.body.split(b"\n") if b'"blobs":' in span.body else []
    said = [from_json(line[PREFIX_BYTES:]) for line in lines if b'"blobs":' in line]
    return dict.fromkeys(sha for body in said if body["seq"] > seen for sha in body.get("blobs", {}).values())


def _built(shelf: Shelf, laid: Sequence[tuple[Span, int]], snapshot: Snapshot | None, size: int) -> Built:
    end = laid[-1][0]
    size += sum(count for _, count in laid)
    return Built(end.last, end.chain_out, snapshot, size, tuple(shelf.problems), shelf.holes)


# ---------------------------------------------------------------- what goes into which file


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


def _only(disk: Disk, folder: Path, names: Set[str]) -> None:
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
