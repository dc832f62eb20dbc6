"""Reads a log from disk, whatever state it is in, and never writes.

    0000000000000001.wal   header ─ record 1 ─ record 2 ─ watermark ─ record 3 … ─ footer      sealed
    0000000000010234.wal   header ─ record 10234 …                                             the last one grows

A segment is named by its first seq. `walk` gives what it finds in order: Good (a record that can be served), Control (a
control line) and Damage. What is found is judged by the line that follows: only that one tells whether the bytes
between two good lines were a record, some, or a control line. So damage is held back until the next good line, the next
segment or the end. Memory stays constant while a log is sound; one that is not is read whole from its first fault on.
"""

import operator
import os
import re
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from persistence.disk import CHUNK_BYTES, Disk, read_range
from persistence.frame import GENESIS, PREFIX_BYTES, Bad, Frame, encode, parse

SUFFIX = ".wal"
BLOCK_BYTES = 512  #: the smallest piece that a medium writes
WHOLE_BYTES = 16 << 20  #: what is read at once where a segment is not sound

_NAME = re.compile(r"\d{16}\.wal")
_RECORD = re.compile(rb'\{"seq":(\d+),"id":"[^"]*","ts":\d+,"epoch":\d+,"d":(\d+),')
_BASE = re.compile(rb'"base_sha":"([0-9a-f]{64})"')
_CHAIN = re.compile(rb'"chain":"([0-9a-f]{64})"')
_ZEROS = re.compile(rb"\0+")
_CONTROLS = (  # how the JSON begins, what the line is, where it names a seq
    (b'{"segment":', "header", re.compile(rb'"base_seq":(\d+)')),
    (b'{"w":', "watermark", re.compile(rb'"w":(\d+)')),
    (b'{"sealed":', "footer", re.compile(rb'"last_seq":(\d+)')),
)


class Good(NamedTuple):
    """A record that can be served. `offset` and `length` are of its whole frame, `line` is its JSON, `checksum` hex."""

    seq: int
    segment: int
    offset: int
    length: int
    line: bytes
    checksum: str
    durable: int


class Control(NamedTuple):
    """A control line: every record up to `seq` was durable when it was written, and the chain stood at `chain`."""

    kind: str
    seq: int
    segment: int
    offset: int
    length: int
    chain: bytes


class Damage(NamedTuple):
    """Bytes that are not what was written.

    `kind` is bytes (a line that cannot be read), missing (no bytes where records should be), order (a seq that was
    there before), chain (a segment that does not follow the one before), or the part of a line that is wrong: length,
    space, crc, sha, newline. `first`..`last` are the records that it concerns, None for a control line, which `control`
    then names as far as that is known. `usable`: no record is lost by it. `unwritten`: the bytes look as if they had
    never reached the disk, cut short or zero up to the edge of a block. `resume` is the checksum that the record after
    it builds on, where that is proven.
    """

    kind: str
    segment: int
    offset: int
    length: int
    first: int | None = None
    last: int | None = None
    usable: bool = False
    unwritten: bool = False
    control: str = ""
    resume: str | None = None

    def __str__(self) -> str:
        where = f"in {segment_name(self.segment)} at byte {self.offset}"
        whom = f"record {self.first}" if self.first == self.last else f"records {self.first}..{self.last}"
        what = whom if self.first is not None else f"the {self.control or 'control'} line"
        return f"{what} {where}: {self.kind}, {'still readable' if self.usable else 'not readable'}"


Found = Good | Control | Damage


def segment_name(base: int) -> str:
    return f"{base:016d}{SUFFIX}"


def segments(disk: Disk, wal_dir: Path) -> list[int]:
    """The first seqs of the segments, in order. Raises OSError."""
    return [int(name[:16]) for name in disk.names(wal_dir) if _NAME.fullmatch(name)]


def scan(disk: Disk, wal_dir: Path, from_segment: int | None = None) -> Iterator[Good | Damage]:
    """Every record that can be served, and every damage, from the segment whose first seq is given. Raises OSError."""
    bases = [base for base in segments(disk, wal_dir) if base >= (from_segment or 0)]
    return (found for found in walk(disk, wal_dir, bases) if not isinstance(found, Control))


def walk(disk: Disk, wal_dir: Path, bases: Sequence[int]) -> Iterator[Found]:
    """Everything in these segments. Raises OSError.

    The first ones may have been pruned since they were listed; any other that is not there shows as missing records.
    """
    walker = _Walker(disk, wal_dir)
    for base in bases:
        yield from walker.segment(base)
    yield from walker.end()


class Window:
    """A moving view on a file: `buffer` holds the bytes from `start` on; `whole`, that it holds the end of the file."""

    def __init__(self, disk: Disk, handle: int, start: int = 0) -> None:
        self._disk = disk
        self._handle = handle
        self.start = start
        self.buffer = b""
        self.whole = False

    def line(self, offset: int) -> int:
        """Where in the buffer the line at `offset` begins, once all of it is there. -1 at the end of the file."""
        while not self.whole and self.buffer.find(b"\n", offset - self.start + PREFIX_BYTES) < 0:
            self._more(offset, CHUNK_BYTES)
        return offset - self.start if offset < self.start + len(self.buffer) else -1

    def rest(self, offset: int) -> bytes:
        """Everything from `offset` to the end of the file."""
        while not self.whole:
            self._more(offset, WHOLE_BYTES)
        return self.buffer[offset - self.start :]

    def _more(self, offset: int, count: int) -> None:
        new = read_range(self._disk, self._handle, self.start + len(self.buffer), count)
        self.whole = len(new) < count
        self.buffer = self.buffer[offset - self.start :] + new
        self.start = offset


class _Region(NamedTuple):
    """Bytes that are no line, not yet judged. `records`: how many they may have been, if nothing else tells."""

    offset: int
    length: int
    records: int
    unwritten: bool
    control: str


class _Walker:
    """Where the walk stands: the last seq, the digests that the next line may build on, and the damage held back.

    There is one such digest while all is well, and none before the first header. After a line whose digest does not fit
    there are two, for either the field was damaged or the chain was cut before it: the next line decides. Behind lost
    records the chain is loose: the digest of the next line cannot be held against anything.
    """

    def __init__(self, disk: Disk, wal_dir: Path) -> None:
        self._disk = disk
        self._dir = wal_dir
        self._base = 0  # the segment; 0 before the first
        self._seq = 0
        self._anchors: tuple[bytes, ...] = ()
        self._held: list[_Region] = []
        self._loose = False

    def segment(self, base: int) -> Iterator[Found]:
        try:
            handle = self._disk.open(self._dir / segment_name(base), os.O_RDONLY)
        except FileNotFoundError:
            return
        if self._base == 0:
            self._base, self._seq, self._anchors = base, base - 1, (GENESIS,) if base == 1 else ()
        try:
            yield from self._judge(base, None, 0)
            self._base = base
            yield from self._lines(Window(self._disk, handle))
        finally:
            self._disk.close(handle)

    def end(self) -> Iterator[Damage]:
        """No line follows that could tell what was held, so it counts for what it looks like."""
        resume = self._anchors[0].hex() if self._anchors else None
        for region in self._held:
            first, self._seq = self._seq + 1, self._seq + region.records
            yield self._lost(region, first, self._seq, resume)

    # ------------------------------------------------------------ lines

    def _lines(self, window: Window) -> Iterator[Found]:
        offset = 0
        while (at := window.line(offset := (yield from self._run(window, offset)))) >= 0:
            frame = self._sound(window.buffer, at)
            found = frame or parse(window.rest(offset), 0, self._expected(window.buffer, at))
            length = found.end - (at if frame else 0)
            if isinstance(found, Bad):
                self._hold(window.rest(offset), offset, found)
            else:
                yield from self._line(found, offset, length)
            offset += length

    def _run(self, window: Window, offset: int) -> Generator[Good, None, int]:
        """The records from `offset` on as long as each is exactly what comes next; where that ends. The hot loop."""
        if len(self._anchors) != 1 or self._held or self._loose:
            return offset
        while (at := window.line(offset)) >= 0:
            buffer = window.buffer
            stop = buffer.find(b"\n", at + PREFIX_BYTES)
            line = buffer[at + PREFIX_BYTES : stop]
            said = _RECORD.match(line)
            if said is None or int(said[1]) != self._seq + 1:
                break
            frame, digest = encode(line, self._anchors[0])
            if not buffer.startswith(frame, at):
                break
            self._seq, self._anchors, size = self._seq + 1, (digest,), len(frame)
            yield Good(self._seq, self._base, offset, size, line, frame[18:82].decode(), int(said[2]))
            offset += size
        return offset

    def _expected(self, buffer: bytes, at: int) -> tuple[bytes, ...]:
        """What the line may build on. A header says it itself."""
        stop = buffer.find(b"\n", at)
        base = _BASE.search(buffer, at, stop) if buffer.startswith(_CONTROLS[0][0], at + PREFIX_BYTES) else None
        return (*self._anchors, bytes.fromhex(base[1].decode())) if base else self._anchors

    def _sound(self, buffer: bytes, at: int) -> Frame | None:
        """The line, if nothing is wrong with it: its JSON encoded again gives the same bytes."""
        stop = buffer.find(b"\n", at + PREFIX_BYTES)
        line = buffer[at + PREFIX_BYTES : stop]
        for anchor in self._anchors if line.startswith(b'{"seq":') else self._expected(buffer, at):
            frame, digest = encode(line, anchor)
            if buffer.startswith(frame, at):
                return Frame(stop + 1, line, (), anchor, digest, digest)
        return None

    def _line(self, frame: Frame, offset: int, length: int) -> Iterator[Found]:
        record = _RECORD.match(frame.line)
        if record is None:
            yield from self._control(frame, offset, length)
        elif (seq := int(record[1])) <= self._seq:
            yield Damage("order", self._base, offset, length, seq, seq, usable=True)
        else:
            yield from self._record(frame, offset, length, seq, int(record[2]))

    def _record(self, frame: Frame, offset: int, length: int, seq: int, durable: int) -> Iterator[Found]:
        yield from self._judge(seq, frame.anchor, offset)
        for flaw in self._flaws(frame):
            yield Damage(flaw, self._base, offset, length, seq, seq, usable=True)
        self._anchors = _next(frame, self._loose)
        self._seq, self._loose = seq, False
        yield Good(seq, self._base, offset, length, frame.line, self._anchors[0].hex(), durable)

    def _control(self, frame: Frame, offset: int, length: int) -> Iterator[Found]:
        kind, named = _control_of(frame.line)
        seq = self._seq if named is None else named
        yield from self._judge(seq + 1, frame.anchor, offset)
        for flaw in self._flaws(frame):
            yield Damage(flaw, self._base, offset, length, usable=True, control=kind)
        stands = _BASE.search(frame.line) or _CHAIN.search(frame.line)
        chain = bytes.fromhex(stands[1].decode()) if stands else frame.anchor
        if chain is not None:
            if self._anchors and chain not in self._anchors and not self._loose:
                yield Damage("chain", self._base, offset, length, usable=True, control=kind)
            self._anchors, self._loose = (chain,), False
        if self._anchors:
            yield Control(kind, seq, self._base, offset, length, self._anchors[0])

    def _flaws(self, frame: Frame) -> list[str]:
        return [flaw for flaw in frame.flaws if not (flaw == "sha" and self._loose)]

    # ------------------------------------------------------------ damage

    def _hold(self, rest: bytes, offset: int, bad: Bad) -> None:
        data = rest[: bad.end]
        control = "header" if offset == 0 else _looks_like(data[PREFIX_BYTES:])
        unwritten = _is_unwritten(data, offset, last=bad.end == len(rest))
        records = 0 if control else 1 if bad.whole else max(1, data.count(b"\n"))
        self._held.append(_Region(offset, bad.end, records, unwritten, control))
        if bad.stated:
            self._anchors = (*self._anchors[:1], *self._anchors[1:][-1:], bad.stated)

    def _judge(self, seq: int, anchor: bytes | None, offset: int) -> Iterator[Damage]:
        """The next good line is (or follows) `seq`: what was held and what is missing before it."""
        first, last = self._seq + 1, seq - 1
        held, self._held = self._held, []
        self._loose = self._loose or bool(held) or last >= first
        resume = anchor.hex() if anchor else None
        if last < first:
            yield from (self._lost(region, first, last, None) for region in held)
            return
        self._seq = last
        yield self._lost(_joined(held) or _Region(offset, 0, 0, False, ""), first, last, resume)

    def _lost(self, region: _Region, first: int, last: int, resume: str | None) -> Damage:
        kind = "bytes" if region.length else "missing"
        place = (self._base, region.offset, region.length)
        if last < first:
            return Damage(kind, *place, usable=True, unwritten=region.unwritten, control=region.control or "control")
        return Damage(kind, *place, first, last, unwritten=region.unwritten, resume=resume)


def _next(frame: Frame, loose: bool) -> tuple[bytes, ...]:
    """What the line after this one may build on, the likelier first."""
    if frame.anchor or not frame.stated or frame.stated == frame.digest:
        return (frame.digest,)
    return (frame.stated, frame.digest) if loose else (frame.digest, frame.stated)


def _control_of(line: bytes) -> tuple[str, int | None]:
    """What a control line is and the last seq before it. One of a later version is kept and says nothing."""
    for start, kind, field in _CONTROLS:
        if line.startswith(start) and (seq := field.search(line)):
            return kind, int(seq[1]) - (kind == "header")
    return "unknown", None


def _looks_like(data: bytes) -> str:
    """The control line that begins like this, but for one byte."""
    for start, kind, _ in _CONTROLS:
        if len(data) >= len(start) and sum(map(operator.ne, data, start)) <= 1:
            return kind
    return ""


def _is_unwritten(data: bytes, offset: int, last: bool) -> bool:
    """Whether this looks like bytes that a crash kept from the disk: cut short, or zero up to the edge of a block."""
    if last and not data.endswith(b"\n"):
        return True
    edges = (zeros.end() for zeros in _ZEROS.finditer(data))
    return any((offset + edge) % BLOCK_BYTES == 0 for edge in edges)


def _joined(held: list[_Region]) -> _Region | None:
    if not held:
        return None
    length = held[-1].offset + held[-1].length - held[0].offset
    return held[0]._replace(length=length, unwritten=any(region.unwritten for region in held))
