"""The log read through once, from its first byte to its last: every checksum, the chain, the order.

    a line ─ exactly the bytes that its place, its seq and the digest before it ask for ─▶ the next one
           └ anything else ─▶ recovery.inspect reads the whole log again: it knows every shape of damage

Nothing is written, and a finn that writes meanwhile is not disturbed.
"""

import json
import re
from binascii import hexlify
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from zlib import crc32

from persistence.disk import Disk, read
from persistence.errors import Damaged
from persistence.frame import GENESIS, PREFIX_BYTES, encode
from persistence.recovery import Report, inspect
from persistence.scan import Damage, Good, segment_name, segments
from persistence.snapshot import Snapshot, decode, listed
from persistence.wal import Head

TRIES = 3  #: of reading, where finn prunes what is being read
TOLD = 5  #: places that are named one by one

_RECORD = re.compile(rb'\{"seq":(\d+),"id":"[^"]*","ts":(\d+),"epoch":(\d+),"d":\d+,')


@dataclass(slots=True)
class Order:
    """Whether times and reigns go up, as the records come."""

    records: int = 0
    time: int = 0
    epoch: int = 0
    earlier: list[int] = field(default_factory=list)  #: seqs of records that say an earlier time than one before
    back_ms: int = 0  #: the longest such way back
    reigns: list[int] = field(default_factory=list)  #: seqs of records of an older reign than one before

    def see(self, seq: int, time: int, epoch: int) -> None:
        """The next record."""
        self.records += 1
        if time < self.time:
            self.earlier.append(seq)
            self.back_ms = max(self.back_ms, self.time - time)
        else:
            self.time = time
        if epoch < self.epoch:
            self.reigns.append(seq)
        else:
            self.epoch = epoch


@dataclass(frozen=True)
class Log:
    """What the log is, whole. `report` is recovery's, as it would be at a start that remembers nothing."""

    report: Report
    bases: tuple[int, ...]
    bytes: int
    order: Order

    @property
    def last(self) -> int:
        """The last seq."""
        return self.report.head.seq

    @property
    def lost(self) -> tuple[tuple[int, int], ...]:
        """The records that cannot be read, declared or not."""
        return _ranges_of(self.report.damage)

    @property
    def gaps(self) -> tuple[tuple[int, int], ...]:
        """Those of them that the log declares."""
        undeclared = _ranges_of(self.report.lost)
        return tuple(one for one in self.lost if one not in undeclared)

    def has_lost(self, seq: int) -> bool:
        """Whether there was such a record, and it cannot be read."""
        return any(first <= seq <= last for first, last in self.lost)


def _ranges_of(damage: Iterable[Damage]) -> tuple[tuple[int, int], ...]:
    """The records that are lost by it."""
    whom = ((one.first, one.last) for one in damage if not one.usable)
    return tuple((first, last) for first, last in whom if first is not None and last is not None)


def read_log(disk: Disk, wal_dir: Path) -> Log:
    """Reads and proves all of it. Raises OSError."""
    for left in reversed(range(TRIES)):
        try:
            return _read(disk, wal_dir)
        except FileNotFoundError:  # pruned since it was listed
            if not left:
                raise
    raise AssertionError("unreachable")


def _read(disk: Disk, wal_dir: Path) -> Log:
    bases, order, size = segments(disk, wal_dir), Order(), 0
    seq, chain = (bases[0] - 1, GENESIS if bases[0] == 1 else None) if bases else (0, GENESIS)
    sound = True
    for base in bases:
        data = read(disk, wal_dir / segment_name(base))
        size += len(data)
        end = _sound(data, base, seq, chain, order) if sound else None
        if end is None:
            sound = False
        else:
            seq, chain = end
    if sound:
        return Log(Report(Head(seq, chain or GENESIS, seq), None, 0, (), (), ()), tuple(bases), size, order)
    order = Order()
    report = inspect(disk, wal_dir, follow=lambda found: _follow(found, order))
    return Log(report, tuple(bases), size, order)


def _sound(data: bytes, base: int, seq: int, chain: bytes | None, order: Order) -> tuple[int, bytes] | None:
    """The seq and the digest at the end of a segment; None if anything in it is not just as it should be."""
    find, starts, match, see = data.find, data.startswith, _RECORD.match, order.see
    at, size = 0, len(data)
    if base != seq + 1:
        return None
    while at < size:
        stop = find(b"\n", at + PREFIX_BYTES)
        line = data[at + PREFIX_BYTES : stop]
        said = match(line)
        if said is None or chain is None:
            chain = _control(data, at, stop, line, base, seq, chain)
            if chain is None:
                return None
        else:
            seq += 1
            digest = sha256(chain + line).digest()
            if int(said[1]) != seq or not starts(b"%08x %08x %b " % (len(line), crc32(line), hexlify(digest)), at):
                return None
            chain = digest
            see(seq, int(said[2]), int(said[3]))
        at = stop + 1
    return None if chain is None else (seq, chain)


def _control(data: bytes, at: int, stop: int, line: bytes, base: int, seq: int, chain: bytes | None) -> bytes | None:
    """The digest after a header, a watermark or a footer that says what is so; None for anything else."""
    try:
        said = json.loads(line)
        known = bytes.fromhex(said["base_sha"]) if chain is None else chain
        expected = (
            {"base_seq": base, "base_sha": known.hex()}
            if at == 0
            else {"w": seq, "last_seq": seq, "chain": known.hex()}
        )
        same = all(said[name] == value for name, value in expected.items() if at == 0 or name in said)
    except (ValueError, KeyError, TypeError):
        return None
    return known if stop >= 0 and same and data.startswith(encode(line, known)[0], at) else None


def _follow(found: Good, order: Order) -> None:
    said = _RECORD.match(found.line)
    if said is not None:
        order.see(found.seq, int(said[2]), int(said[3]))


@dataclass(frozen=True)
class Spot:
    """A record in the log: its digest in hex, and how many bytes of the log come after it."""

    digest: str
    after: int


def located(disk: Disk, wal_dir: Path, log: Log, seq: int) -> Spot | None:
    """Where that record is; None where the log has it no more, or not yet. Raises OSError."""
    base = max((one for one in log.bases if one <= seq), default=None)
    if base is None:
        return None
    try:
        data = read(disk, wal_dir / segment_name(base))
        later = sum((wal_dir / segment_name(one)).stat().st_size for one in log.bases if one > base)
    except FileNotFoundError:
        return None  # pruned since the log was read
    at = data.find(b' {"seq":%d,' % seq)  # a space before a brace stands nowhere but in front of a record
    if at < 0:
        return None
    return Spot(data[at - 64 : at].decode(errors="replace"), len(data) - data.find(b"\n", at) - 1 + later)


# ---------------------------------------------------------------- snapshots


@dataclass(frozen=True)
class Shot:
    """A snapshot's file: what it holds, or why that cannot be read."""

    path: Path
    snapshot: Snapshot | None
    problem: str = ""


def shots(disk: Disk, folder: Path) -> tuple[Shot, ...]:
    """Every snapshot in the folder, newest first."""
    return tuple(found for path in listed(folder) if (found := _shot(disk, path)))


def _shot(disk: Disk, path: Path) -> Shot | None:
    try:
        return Shot(path, decode(read(disk, path), path.name))
    except FileNotFoundError:
        return None  # a later one took its place since it was listed
    except (Damaged, OSError) as problem:
        return Shot(path, None, str(problem))


def ranges(pairs: Iterable[tuple[int, int]]) -> str:
    """Pairs of first and last as people write them."""
    told = [f"{first}" if first == last else f"{first}-{last}" for first, last in pairs]
    more = f" and {len(told) - TOLD} more" if len(told) > TOLD else ""
    return ", ".join(told[:TOLD]) + more
