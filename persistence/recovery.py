"""What state a log is in, and the one thing that is done about it.

    inspect ─▶ Report ─▶ repair ─▶ Repaired ─▶ the journal records what was lost (gap_declared)

    damaged bytes                               what they are     what is done
    a later line says they were durable         a loss            copied to quarantine; the records are declared a gap
    nothing says so, they look unwritten        a torn tail       copied to quarantine, cut off with all behind them
    nothing says so, they look written          a loss, perhaps   as a loss: never taken for unacknowledged
    only the frame around a whole JSON          a flaw            reported; the record is served

Only the last segment has a torn tail: a write that a crash interrupted, of which a power cut may keep any block and
lose any other, so that good lines may follow the hole. What is durable is said by every record's `d`, by watermarks and
footers, and by the mere existence of a later segment. `inspect` writes nothing; `repair` only copies and cuts, can be
interrupted anywhere and done again, and then finds nothing to do. Bytes of a loss stay where they are as well.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from persistence import quarantine
from persistence.disk import Disk, read_range, refused
from persistence.frame import GENESIS
from persistence.scan import Control, Damage, Found, Good, segment_name, segments, walk
from persistence.wal import Head


class Gap(NamedTuple):
    """Records `first`..`last` are lost, and the next one builds on `resume` (None: not known)."""

    first: int
    last: int
    resume: str | None
    quarantine: str  #: the file that holds their bytes; empty where there were none


@dataclass(frozen=True, slots=True)
class Report:
    """What `inspect` found. `damage` is everything wrong but a torn tail, `lost` the part of it not yet declared."""

    head: Head
    torn: Damage | None
    torn_bytes: int
    damage: tuple[Damage, ...]
    lost: tuple[Damage, ...]
    declared: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Repaired:
    """The end of the log after `repair`, and what the journal has to declare."""

    head: Head
    torn_bytes: int
    gaps: tuple[Gap, ...]
    torn: str  #: the file in quarantine that holds the tail; empty without one


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of `finn verify`. `gaps` are the losses that the log declares, `damage` is everything else."""

    ok: bool
    last_seq: int
    first_bad_seq: int | None
    gaps: tuple[tuple[int, int], ...]
    damage: tuple[str, ...]


def inspect(
    disk: Disk,
    wal_dir: Path,
    from_segment: int | None = None,
    known: Head | None = None,
    follow: Callable[[Good], None] | None = None,
    before: str = GENESIS.hex(),
) -> Report:
    """Reads the log, or its end from a segment on, and classifies what is wrong with it. Raises OSError.

    `known` is the head that something else remembers, such as a snapshot: a log that ends before it, or begins later
    than behind it, has lost records.
    `follow` is called with every record that can be served, also with those behind a torn place, which `repair` cuts.
    `before` is the digest that `from_segment` builds on, for a segment of which not even the header came to the disk.
    """
    bases = [base for base in segments(disk, wal_dir) if base >= (from_segment or 0)]
    if not bases:
        return _empty(known)
    # A later segment is begun when all before it is durable.
    view = _View(seq=bases[0] - 1, durable=bases[-1] - 1, checksum=before)
    if known and known.seq < view.seq:
        view.damage.append(Damage("missing", bases[0], 0, 0, known.seq + 1, view.seq))
    for found in walk(disk, wal_dir, bases):
        view.see(found, last=found.segment == bases[-1])
        if follow and isinstance(found, Good):
            follow(found)
    end = next((cut for cut in view.cuts if cut.seq >= view.durable), None)
    seq, chain = (end.seq, end.chain) if end else (view.seq, view.chain)
    damage = view.damage[: end.damages] if end else view.damage
    size = _size(disk, wal_dir, bases[-1])
    if known and known.seq > seq:
        damage.append(Damage("missing", bases[-1], size, 0, seq + 1, known.seq, resume=chain.hex()))
        seq = known.seq
    return Report(
        head=Head(seq, chain, min(view.durable, seq)),
        torn=end.damage if end else None,
        torn_bytes=size - end.damage.offset if end else 0,
        damage=tuple(damage),
        lost=tuple(one for one in damage if not one.usable and not _covered(one, view.declared)),
        declared=tuple(view.declared),
    )


def verify(disk: Disk, wal_dir: Path) -> Verdict:
    """Whether the log proves itself: every checksum and the chain, but for the gaps it declares. Raises OSError.

    A torn tail is no fault: it is what a crash leaves, or the write that a running process is about to finish.
    """
    report = inspect(disk, wal_dir)
    faults = [one for one in report.damage if one.usable or one in report.lost]
    seqs = [one.first for one in faults if one.first is not None]
    return Verdict(not faults, report.head.seq, min(seqs, default=None), report.declared, tuple(map(str, faults)))


def repair(disk: Disk, wal_dir: Path, aside: Path, report: Report) -> Repaired:
    """Copies what cannot be used to the folder `aside`, durably, and cuts off a torn tail. Raises StorageError.

    Whatever interrupts it, `inspect` and `repair` once more come to the same end.
    """
    try:
        gaps = tuple(_gap(disk, wal_dir, aside, damage) for damage in report.lost)
        tail = _cut(disk, wal_dir, aside, report.torn) if report.torn else ""
    except OSError as error:
        raise refused(error, wal_dir) from error
    return Repaired(report.head, report.torn_bytes, gaps, tail)


# ---------------------------------------------------------------- looking


class _Cut(NamedTuple):
    """A place where the log might end: where it stood before, and how much damage had been seen."""

    damage: Damage
    seq: int
    chain: bytes
    damages: int


@dataclass
class _View:
    """What has been seen of a log up to some line."""

    seq: int
    durable: int
    checksum: str = GENESIS.hex()
    damage: list[Damage] = field(default_factory=list)
    cuts: list[_Cut] = field(default_factory=list)
    declared: list[tuple[int, int]] = field(default_factory=list)

    @property
    def chain(self) -> bytes:
        """The digest after the last line."""
        return bytes.fromhex(self.checksum)

    def see(self, found: Found, last: bool) -> None:
        """Takes the next line. This is called for every record of a start."""
        if isinstance(found, Good):
            self.seq, self.checksum = found.seq, found.checksum
            if found.durable > self.durable:
                self.durable = found.durable
            if b'"gap_declared"' in found.line:
                self.declared.extend(_declared(found.line))
        elif isinstance(found, Control):
            self.seq, self.checksum = max(self.seq, found.seq), found.chain.hex()
            self.durable = max(self.durable, found.seq)
        else:
            if last and found.unwritten:
                self.cuts.append(_Cut(found, self.seq, self.chain, len(self.damage)))
            self.damage.append(found)
            self.seq = max(self.seq, found.last or 0)


def _declared(line: bytes) -> list[tuple[int, int]]:
    """The gap that a record declares, of which it has the words. They alone prove nothing: a message may quote them."""
    record = json.loads(line)
    return [(record["data"]["first"], record["data"]["last"])] if record.get("type") == "gap_declared" else []


def _covered(damage: Damage, declared: list[tuple[int, int]]) -> bool:
    """Whether the gaps that are declared hold all the records that this damage lost."""
    assert damage.first is not None and damage.last is not None
    reach = damage.first
    for first, last in sorted(declared):
        if first <= reach:
            reach = max(reach, last + 1)
    return reach > damage.last


def _empty(known: Head | None) -> Report:
    """No segment at all: a log that has not begun, or one that is gone."""
    if known is None or known.seq == 0:
        return Report(Head(0, GENESIS, 0), None, 0, (), (), ())
    gone = (Damage("missing", 1, 0, 0, 1, known.seq, resume=known.checksum.hex()),)
    return Report(Head(known.seq, known.checksum, known.seq), None, 0, gone, gone, ())


def _size(disk: Disk, wal_dir: Path, base: int) -> int:
    handle = disk.open(wal_dir / segment_name(base), os.O_RDONLY)
    try:
        return disk.size(handle)
    finally:
        disk.close(handle)


# ---------------------------------------------------------------- mending


def _gap(disk: Disk, wal_dir: Path, aside: Path, damage: Damage) -> Gap:
    assert damage.first is not None and damage.last is not None
    name = _keep(disk, wal_dir, aside, damage, damage.length, "lost") if damage.length else ""
    return Gap(damage.first, damage.last, damage.resume, name)


def _cut(disk: Disk, wal_dir: Path, aside: Path, torn: Damage) -> str:
    """Copied first, cut afterwards: at no moment is the disk without the bytes."""
    length = _size(disk, wal_dir, torn.segment) - torn.offset
    name = _keep(disk, wal_dir, aside, torn, length, "torn")
    handle = disk.open(wal_dir / segment_name(torn.segment), os.O_RDWR)
    try:
        disk.ftruncate(handle, torn.offset)
        disk.fdatasync(handle)
    finally:
        disk.close(handle)
    disk.sync_folder(wal_dir)
    return name


def _keep(disk: Disk, wal_dir: Path, aside: Path, damage: Damage, length: int, what: str) -> str:
    """A copy of the bytes, and a note that says where they were. Its name follows from its content."""
    path = wal_dir / segment_name(damage.segment)
    handle = disk.open(path, os.O_RDONLY)
    try:
        data = read_range(disk, handle, damage.offset, length)
    finally:
        disk.close(handle)
    sha = sha256(data).hexdigest()
    name = f"wal-{damage.segment:016d}-{damage.offset}-{sha[:12]}.{what}"
    where = {"from": path.name, "offset": damage.offset, "length": length, "sha256": sha}
    quarantine.keep(disk, aside, name, data, **where, why=str(damage))
    return name
