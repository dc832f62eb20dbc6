"""What goes to the store: the log's own frames, in runs.

    …[frame][watermark][frame]┆[frame]…  ─▶  frame frame ┆ frame      control lines stay here
                                             └ one run ┘   └ the next: none reaches over lost records or a limit

Every line is proven again before it leaves. A run that goes on where the last one ended is read from there; any other
is searched for from the beginning of its segment.
"""

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from persistence.chunks import seq_of
from persistence.codec import blobs_in
from persistence.disk import Disk, refused
from persistence.errors import NotFound
from persistence.frame import PREFIX_BYTES, encode, framed
from persistence.scan import Control, Damage, Window, segment_name, segments, walk


class Run(NamedTuple):
    """The frames of the records `first`..`last`, without a hole, and the blobs that they name.

    `chain_in` and `chain_out` are the digests before and after them, in hex. `chain_in` is empty where the records
    before are lost and nothing tells what they came to: a declared gap stands further on.
    """

    first: int
    last: int
    chain_in: str
    chain_out: str
    body: bytes
    blobs: tuple[str, ...]


class _Spot(NamedTuple):
    """The line behind the record `seq`, whose digest is `chain`."""

    seq: int
    chain: bytes
    segment: int
    offset: int


class _Piece(NamedTuple):
    """A record, the digest that it builds on (None: not known), and the spot behind it."""

    line: bytes
    before: bytes | None
    spot: _Spot


class Runs:
    """Reads the log while it is written, up to what `durable` says. May be called from any thread."""

    def __init__(self, disk: Disk, directory: Path, durable: Callable[[], int]) -> None:
        self._disk = disk
        self._dir = directory
        self._durable = durable
        self._spot: _Spot | None = None  # behind the last run
        self._one = threading.Lock()

    def after(self, seq: int, limit: int) -> Run:
        """The records after `seq`: at least one, and no more than `limit` bytes of them otherwise.

        Raises NotFound where the log has not begun them or no longer has them, or StorageError.
        """
        with self._one:
            try:
                return self._after(seq, limit, self._durable())
            except OSError as error:
                raise refused(error, self._dir) from error

    def _after(self, seq: int, limit: int, durable: int) -> Run:
        pieces: list[_Piece] = []
        if self._spot is not None and self._spot.seq == seq:
            with closing(self._going_on(self._spot, durable)) as found:
                pieces = _run(found, seq, durable, limit)
        if not pieces:
            with closing(self._searched(seq)) as found:
                pieces = _run(found, seq, durable, limit)
        if not pieces:
            raise NotFound(f"there is no record after {seq} that is durable", hint="run finn verify")
        self._spot = pieces[-1].spot
        return Run(
            first=pieces[0].spot.seq,
            last=self._spot.seq,
            chain_in=(pieces[0].before or b"").hex(),
            chain_out=self._spot.chain.hex(),
            body=b"".join(framed(piece.line, piece.spot.chain) for piece in pieces),
            blobs=blobs_in(piece.line for piece in pieces),
        )

    def _going_on(self, spot: _Spot, durable: int) -> Generator[_Piece]:
        """The records behind the spot, as long as every line is exactly what it should be."""
        while spot.seq < durable:
            handle = self._disk.open(self._dir / segment_name(spot.segment), os.O_RDONLY)
            try:
                spot = yield from self._lines(Window(self._disk, handle, spot.offset), spot)
            finally:
                self._disk.close(handle)
            after = spot.seq + 1
            if after == spot.segment or after not in segments(self._disk, self._dir):
                return
            spot = spot._replace(segment=after, offset=0)

    def _lines(self, window: Window, spot: _Spot) -> Generator[_Piece, None, _Spot]:
        while (at := window.line(spot.offset)) >= 0:
            stop = window.buffer.find(b"\n", at + PREFIX_BYTES)
            line = window.buffer[at + PREFIX_BYTES : stop]
            frame, digest = encode(line, spot.chain)
            if stop < 0 or not window.buffer.startswith(frame, at):
                return spot
            before, offset = spot.chain, spot.offset + len(frame)
            if not line.startswith(b'{"seq":'):
                spot = spot._replace(offset=offset)
            elif seq_of(line) == spot.seq + 1:
                spot = _Spot(spot.seq + 1, digest, spot.segment, offset)
                yield _Piece(line, before, spot)
            else:
                return spot
        return spot

    def _searched(self, seq: int) -> Generator[_Piece]:
        """The records from the segment on that holds the one after `seq`, whatever state the log is in."""
        bases = segments(self._disk, self._dir)
        base = max((one for one in bases if one <= seq + 1), default=None)
        if base is None:
            raise NotFound(f"record {seq + 1} is no longer in the log", hint="it is in the snapshot and its chunks")
        chain: bytes | None = None
        for found in walk(self._disk, self._dir, [one for one in bases if one >= base]):
            if isinstance(found, Damage):
                chain = chain if found.usable else bytes.fromhex(found.resume) if found.resume else None
            elif isinstance(found, Control):
                chain = found.chain
            else:
                digest = bytes.fromhex(found.checksum)
                yield _Piece(found.line, chain, _Spot(found.seq, digest, found.segment, found.offset + found.length))
                chain = digest


def between(read: Callable[[int, int], Run], after: int, last: int, limit: int) -> Iterator[Run]:
    """The runs that `read` gives behind `after` up to `last`, as far as the log still has them. Raises StorageError."""
    while after < last:
        try:
            run = read(after, limit)
        except NotFound:
            return  # the end of the log is lost, and was declared so
        yield run
        after = run.last


def _run(found: Iterable[_Piece], after: int, durable: int, limit: int) -> list[_Piece]:
    """The first run among these pieces behind `after`."""
    pieces: list[_Piece] = []
    size = 0
    for piece in found:
        if piece.spot.seq <= after:
            continue
        size += PREFIX_BYTES + len(piece.line) + 1
        last = pieces[-1].spot if pieces else None
        if piece.spot.seq > durable or (last and (size > limit or (last.seq + 1, last.chain) != _follows(piece))):
            break
        pieces.append(piece)
    return pieces


def _follows(piece: _Piece) -> tuple[int, bytes | None]:
    """What a piece follows: its seq and the digest before it."""
    return piece.spot.seq, piece.before
