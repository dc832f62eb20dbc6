"""From the files of the data directory to the state they mean.

    lock ─▶ inspect, repair ─▶ newest snapshot that holds ─▶ the log after it, folded; the log before it, indexed

The same steps whatever happened before: a clean stop, a kill, a power cut. Nothing is written but what repair mends.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from persistence.blobs import Blobs
from persistence.bodies import Place, Tails
from persistence.clock import Clock, Ids
from persistence.codec import Lost, decode
from persistence.disk import Disk
from persistence.errors import Damaged
from persistence.events import Record, Unknown
from persistence.fold import Fold, Folded
from persistence.lock import Lock, hold
from persistence.recovery import Repaired, inspect, repair
from persistence.redact import Redactor
from persistence.scan import Damage, Good, segments
from persistence.snapshot import Held, Snapshot, listed
from persistence.snapshot import decode as decode_snapshot
from persistence.streams import REIGNS, STREAMS
from persistence.wal import Head


@dataclass(frozen=True)
class Paths:
    """The folders of the data directory that persistence owns."""

    root: Path

    @property
    def wal(self) -> Path:
        return self.root / "wal"

    @property
    def snapshots(self) -> Path:
        return self.root / "snapshots"

    @property
    def chunks(self) -> Path:
        return self.root / "chunks"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine"


@dataclass(frozen=True)
class Means:
    """What a journal works with."""

    disk: Disk
    clock: Clock
    ids: Ids
    redactor: Redactor


@dataclass(frozen=True)
class Replayed:
    """The state of the log as it was found, and what was found wrong with it."""

    folded: Folded
    tails: Tails
    head: Head
    epoch: int
    held: tuple[Held, ...]
    foreign: Mapping[str, Any]
    snapshot_seq: int
    problems: tuple[str, ...]
    repaired: Repaired


def prepare(
    paths: Paths, folds: tuple[Fold[Any], ...], means: Means, lock: Lock | None = None
) -> tuple[Lock, Replayed]:
    """Makes the folders, takes the lock (unless it is held already) and replays. Waits for the disk.

    Raises Locked, StorageError, OSError, and then the lock is free.
    """
    for folder in (paths.wal, paths.snapshots, paths.chunks, paths.blobs, paths.quarantine):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = lock or hold(paths.wal)
    try:
        return lock, replay(paths, folds, means)
    except BaseException:
        lock.release()
        raise


def replay(paths: Paths, folds: tuple[Fold[Any], ...], means: Means) -> Replayed:
    """Repairs the log and folds it, in one walk."""
    base, folded, problems = _base(paths.snapshots, folds)
    lose = problems.append
    known = Head(base.seq, bytes.fromhex(base.chain), base.seq)
    first = _first_segment(means.disk, paths.wal, base, folded)
    blobs, tails = Blobs(means.disk, paths.blobs), Tails()
    held = [one for one in base.held if not _understood(one, folded, blobs, lose)]
    newest: tuple[Record, Place] | None = None

    def follow(found: Good) -> None:
        nonlocal newest
        record = decode(found.line, found.checksum, blobs, lose)
        place = Place(found.seq, found.segment, found.offset, found.length)
        newest = record, place
        tails.follow(record, place)
        if found.seq > base.seq:
            folded.step(record)
            if isinstance(record.event, Unknown):
                held.append(Held(record.seq, record.stream, record.line.decode()))

    report = inspect(means.disk, paths.wal, first, known, follow)
    repaired = repair(means.disk, paths.wal, paths.quarantine, report)
    if newest and report.torn and _behind(newest[1], report.torn):
        # Whole records behind the hole were folded before anything could tell that they go with it: once more, without.
        return replace(replay(paths, folds, means), repaired=repaired)
    epoch = newest[0].epoch if newest and newest[0].seq > base.seq else base.epoch
    if newest:
        means.ids.follow(newest[0].id)
    for stream, state in folded.streams(STREAMS).items():
        for chunk in state.chunks:
            tails.drop(stream, chunk.first, chunk.last)
    names = {fold.name for fold in folded.folds}
    foreign = {name: {"seq": base.seq, **section} for name, section in base.folds.items() if name not in names}
    return Replayed(folded, tails, repaired.head, epoch, tuple(held), foreign, base.seq, tuple(problems), repaired)


def _behind(place: Place, torn: Damage) -> bool:
    return place.segment == torn.segment and place.offset > torn.offset


def _first_segment(disk: Disk, wal: Path, base: Snapshot, folded: Folded) -> int | None:
    """Where replay begins: at the oldest record that is in no chunk, or at the first after the snapshot."""
    tails = [state.tail_first for state in folded.streams(STREAMS).values() if state.tail_first is not None]
    floor = min([base.seq + 1, *tails])
    return max((one for one in segments(disk, wal) if one <= floor), default=None)


def _base(directory: Path, folds: tuple[Fold[Any], ...]) -> tuple[Snapshot, Folded, list[str]]:
    """The newest snapshot whose state today's folds can take, that state, and what was wrong with newer ones."""
    problems: list[str] = []
    for path in listed(directory):
        folded = Folded((STREAMS, REIGNS, *folds))
        try:
            snapshot = decode_snapshot(path.read_bytes(), path.name)
            folded.load(snapshot.folds)
        except (Damaged, KeyError, ValueError, OSError) as problem:
            problems.append(f"{path.name}: {problem}")
            continue
        return snapshot, folded, problems
    return Snapshot(0, bytes(32).hex(), 1, {}), Folded((STREAMS, REIGNS, *folds)), problems


def _understood(held: Held, folded: Folded, blobs: Blobs, lose: Lost) -> bool:
    """Folds a record that an older program could only carry, if this one knows it."""
    record = decode(held.line.encode(), "", blobs, lose)
    if isinstance(record.event, Unknown):
        return False
    folded.catch_up(record)
    return True
