"""From the files of the data directory to the state they mean.

    lock ─▶ inspect, repair ─▶ newest snapshot that holds ─▶ the log after it, folded; the log before it, indexed

The same steps whatever happened before: a clean stop, a kill, a power cut. Nothing is written but what repair mends.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from persistence.blobs import Blobs, Kind
from persistence.bodies import Place, Tails
from persistence.clock import Clock, Ids
from persistence.codec import Lost, decode, place_of
from persistence.disk import Disk, refused
from persistence.errors import Damaged, NotFound, StoreError
from persistence.events import ChunkSealed, Unknown
from persistence.fold import Fold, Folded, OtherRelease
from persistence.frame import GENESIS
from persistence.lock import Lock, hold
from persistence.measure import Observe, unobserved
from persistence.recovery import Repaired, Report, inspect, repair
from persistence.redact import Redactor
from persistence.reigns import REIGNS
from persistence.scan import Damage, Good, segments
from persistence.sealed import proven
from persistence.snapshot import Held, Snapshot, listed
from persistence.snapshot import decode as decode_snapshot
from persistence.streams import STREAMS
from persistence.wal import Head

Fetch = Callable[[Kind, str], bytes]  #: what it is, its hash ─▶ its bytes
Admit = Callable[[], Awaitable[None]]


async def _nobody_to_ask() -> None:
    """There is no store, so nobody can have taken over."""


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

    def make(self, disk: Disk) -> None:
        """They are there afterwards. Raises StorageError."""
        for folder in (self.wal, self.snapshots, self.chunks, self.blobs, self.quarantine):
            try:
                disk.mkdir(folder)
            except OSError as error:
                raise refused(error, folder) from error


@dataclass(frozen=True)
class Means:
    """What a journal works with.

    `fetch` gives the bytes of a chunk or blob that is missing here, from a copy elsewhere; it is called in threads and
    raises NotFound or StoreError. With a store the log is pruned only below what the store is said to have.
    `observe` is told what is appended. `admit` asks whether this writer still is the one; it raises Fenced.
    """

    disk: Disk
    clock: Clock
    ids: Ids
    redactor: Redactor
    fetch: Fetch | None = None
    replicated: bool = False
    observe: Observe = unobserved
    admit: Admit = _nobody_to_ask

    def fetching(self, kind: Kind) -> Callable[[str], bytes] | None:
        """`fetch` for one kind of bytes."""
        return None if self.fetch is None else partial(self.fetch, kind)


@dataclass(frozen=True)
class Replayed:
    """The state of the log as it was found, and what was wrong with it: `damage` is all of that, also the usable.

    `last_id` is that of the last record; empty where nothing tells.
    """

    folded: Folded
    tails: Tails
    head: Head
    epoch: int
    held: tuple[Held, ...]
    foreign: Mapping[str, Any]
    problems: tuple[str, ...]
    repaired: Repaired
    damage: tuple[Damage, ...] = ()
    last_id: str = ""


def prepare(
    paths: Paths, folds: tuple[Fold[Any], ...], means: Means, lock: Lock | None = None
) -> tuple[Lock, Replayed]:
    """Makes the folders, takes the lock (unless it is held already) and replays. Waits for the disk.

    Raises Locked, StorageError, OSError, and then the lock is free.
    """
    paths.make(means.disk)
    lock = lock or hold(paths.wal)
    try:
        return lock, replay(paths, folds, means)
    except BaseException:
        lock.release()
        raise


def replay(paths: Paths, folds: tuple[Fold[Any], ...], means: Means) -> Replayed:
    """Repairs the log and folds it, in one walk."""
    return _replayed(paths, folds, means, partial(repair, means.disk, paths.wal, paths.quarantine))


def survey(paths: Paths, folds: tuple[Fold[Any], ...], means: Means) -> Replayed:
    """What `replay` would come to, with everything left as it is: for who looks on, also while somebody writes.

    `repaired` tells what is wrong; nothing was mended. Raises Newer, OSError.
    """
    return _replayed(paths, folds, means, lambda report: Repaired(report.head, report.torn_bytes, (), ""))


def _replayed(
    paths: Paths,
    folds: tuple[Fold[Any], ...],
    means: Means,
    mend: Callable[[Report], Repaired],
    end: Damage | None = None,
) -> Replayed:
    """Folds the log up to `end`, if it is known already that it ends there."""
    base, folded, problems = _base(means.disk, paths, folds)
    blobs = Blobs(means.disk, paths.blobs, _answering(means.fetching("blob")))
    walk = _Walk(base, folded, blobs, problems.append)
    known = Head(base.seq, bytes.fromhex(base.chain), base.seq)
    first = _first_segment(means.disk, paths.wal, base, folded)
    first, walk.newest = _indexed(means.disk, paths.wal, first, base.seq, walk.tails, walk.follow)
    follow = walk.follow if end is None else partial(_until, end, walk.follow)
    report = inspect(means.disk, paths.wal, first, known, follow, _before(first, base, walk.newest))
    repaired = mend(report)
    if walk.newest and report.torn and _behind(walk.newest, report.torn):
        # Whole records behind the hole were folded before anything could tell that they go with it: once more, without.
        again = _replayed(paths, folds, means, mend, report.torn)
        return replace(again, repaired=repaired, damage=report.damage)
    epoch, last_id = walk.end()
    if last_id:
        means.ids.follow(last_id)
    for stream, state in folded.streams(STREAMS).items():
        for chunk in state.chunks:
            walk.tails.drop(stream, chunk.first, chunk.last)
    problems += _tails_gone(folded, segments(means.disk, paths.wal))
    names = {fold.name for fold in folded.folds}
    return Replayed(
        folded=folded,
        tails=walk.tails,
        head=repaired.head,
        epoch=epoch,
        last_id=last_id,
        held=tuple(walk.held),
        foreign={name: {"seq": base.seq, **section} for name, section in base.folds.items() if name not in names},
        problems=tuple(problems),
        repaired=repaired,
        damage=report.damage,
    )


class _Walk:
    """What comes together on the way through the log: where the tails are, the state, what nobody here understands."""

    def __init__(self, base: Snapshot, folded: Folded, blobs: Blobs, lose: Lost) -> None:
        self.tails = Tails()
        self.held = [one for one in base.held if not _understood(one, folded, blobs, lose)]
        self.newest: Good | None = None
        self._base = base
        self._folded = folded
        self._blobs = blobs
        self._lose = lose

    def follow(self, found: Good) -> None:
        """Takes the next record."""
        self.newest = found
        place = Place(found.seq, found.segment, found.offset, found.length)
        if found.seq <= self._base.seq:  # it is in the state: where it lies is all that is asked of it
            stream, kind = place_of(found.line)
            if kind != ChunkSealed.kind:
                self.tails.note(stream, None, place)
                return
        record = decode(found.line, found.checksum, self._blobs, self._lose)
        self.tails.follow(record, place)
        if found.seq > self._base.seq:
            self._folded.step(record)
            if isinstance(record.event, Unknown):
                self.held.append(Held(record.seq, record.stream, record.line.decode()))

    def end(self) -> tuple[int, str]:
        """The highest epoch and the last id; empty where nothing tells."""
        if self.newest is None:
            return self._base.epoch, self._base.id
        last = from_json(self.newest.line)
        return max(self._base.epoch, last["epoch"]), max(self._base.id, last["id"])


def _tails_gone(folded: Folded, bases: list[int]) -> list[str]:
    """What the state knows to be in no chunk and the log no longer has."""
    begin = bases[0] if bases else 1
    streams = folded.streams(STREAMS).items()
    gone = [name for name, state in streams if state.tail_first is not None and state.tail_first < begin]
    return [f"the log begins at record {begin} and has not all of {name}" for name in gone]


def _indexed(
    disk: Disk, wal: Path, first: int | None, seq: int, tails: Tails, seal: Callable[[Good], None]
) -> tuple[int | None, Good | None]:
    """Indexes the segments from `first` on that hold nothing after `seq` and prove themselves.

    Returns where the rest begins, and the last record before it.
    """
    newest: Good | None = None
    for base, after in pairwise(one for one in segments(disk, wal) if first is not None and one >= first):
        sealed = proven(disk, wal, base, after) if after <= seq + 1 else None
        last = sealed.index(tails, seal) if sealed else None
        if last is None:
            break
        first, newest = after, last
    return first, newest


def _answering(fetch: Callable[[str], bytes] | None) -> Callable[[str], bytes] | None:
    """A start waits for nobody: what no copy gives now counts as missing, and is told."""
    if fetch is None:
        return None

    def answer(sha: str) -> bytes:
        try:
            return fetch(sha)
        except StoreError as error:
            raise NotFound(f"{sha} is not here, and {error.message}", hint=error.hint) from error

    return answer


def _until(end: Damage, follow: Callable[[Good], None], found: Good) -> None:
    if not _behind(found, end):
        follow(found)


def _behind(found: Good, torn: Damage) -> bool:
    return found.segment == torn.segment and found.offset > torn.offset


def _first_segment(disk: Disk, wal: Path, base: Snapshot, folded: Folded) -> int | None:
    """Where replay begins: at the oldest record that is in no chunk, or at the first after the snapshot."""
    tails = [state.tail_first for state in folded.streams(STREAMS).values() if state.tail_first is not None]
    floor = min([base.seq + 1, *tails])
    return max((one for one in segments(disk, wal) if one <= floor), default=None)


def _before(first: int | None, base: Snapshot, newest: Good | None) -> str:
    """The digest of the record before the segment `first`, as the index or the snapshot has it."""
    if newest is not None:
        return newest.checksum
    return base.chain if first == base.seq + 1 else GENESIS.hex()


def _base(disk: Disk, paths: Paths, folds: tuple[Fold[Any], ...]) -> tuple[Snapshot, Folded, list[str]]:
    """The newest snapshot whose state today's folds can take, that state, and what was wrong with newer ones.

    Where none is and the log no longer has its beginning, as much as fits of the newest sound one. Raises Newer.
    """
    problems: list[str] = []
    sound: Snapshot | None = None
    for path in listed(paths.snapshots):
        folded = Folded((STREAMS, REIGNS, *folds))
        try:
            snapshot = decode_snapshot(path.read_bytes(), path.name)
            sound = sound or snapshot
            folded.load(snapshot.folds)
        except OtherRelease:  # after an update, or back from one: the log has it all, and is folded anew
            continue
        except (Damaged, KeyError, ValueError, OSError) as problem:
            problems.append(f"{path.name}: {problem}")
            continue
        return snapshot, folded, problems
    folded = Folded((STREAMS, REIGNS, *folds))
    if sound and segments(disk, paths.wal)[:1] != [1]:
        return sound, folded, [*problems, *folded.load_what_fits(sound.folds)]
    return Snapshot(0, bytes(32).hex(), 1, {}), folded, problems


def _understood(held: Held, folded: Folded, blobs: Blobs, lose: Lost) -> bool:
    """Folds a record that an older program could only carry, if this one knows it."""
    record = decode(held.line.encode(), "", blobs, lose)
    if isinstance(record.event, Unknown):
        return False
    folded.catch_up(record)
    return True
