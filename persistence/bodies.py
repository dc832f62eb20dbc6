"""Where the bodies of a stream are read from: its sealed chunks, then its tail in the log.

The tail's index (seq, segment, offset) is derived: it is built while the log is replayed and never stored.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from typing import NamedTuple

from persistence.blobs import Blobs
from persistence.chunks import Chunks, Line
from persistence.codec import decode
from persistence.events import ChunkSealed, Record
from persistence.streams import Stream
from persistence.wal import Wal


class Place(NamedTuple):
    """Where a record is in the log."""

    seq: int
    segment: int
    offset: int
    length: int


class Tails:
    """The places of every stream's unsealed records, in order."""

    def __init__(self) -> None:
        self._places: defaultdict[str, list[Place]] = defaultdict(list)

    def follow(self, record: Record, place: Place) -> None:
        """Notes where a stream's newest record is; a sealed chunk takes its records out of the tail."""
        if record.stream is None:
            return
        if isinstance(record.event, ChunkSealed):
            self.drop(record.stream, record.event.last)
        else:
            self._places[record.stream].append(place)

    def drop(self, stream: str, last: int) -> None:
        """Forgets the places up to `last`: they are sealed."""
        places = self._places[stream]
        del places[: bisect_right(places, last, key=lambda place: place.seq)]

    def between(self, stream: str, after: int, before: int) -> list[Place]:
        """The places with after < seq < before."""
        places = self._places.get(stream, [])
        first = bisect_right(places, after, key=lambda place: place.seq)
        return places[first : bisect_left(places, before, key=lambda place: place.seq)]

    def older_than(self, segment: int) -> list[str]:
        """The streams whose tail begins in a segment before that one."""
        return [stream for stream, places in self._places.items() if places and places[0].segment < segment]


class Bodies:
    """Reads records of a stream, wherever they are. Its methods wait for the disk: call them off the event loop."""

    def __init__(self, wal: Wal, chunks: Chunks, blobs: Blobs) -> None:
        self._wal = wal
        self._chunks = chunks
        self._blobs = blobs

    def read(self, stream: Stream, tail: list[Place], after: int, before: int, limit: int, last: bool) -> list[Record]:
        """At most `limit` records with after < seq < before, in order: the first of them, or the last.

        `tail` is the part of the stream's tail in that range. Raises Damaged or NotFound.
        """
        refs = [ref for ref in stream.chunks if ref.last > after and ref.first < before]
        lines: list[bytes | Place] = []
        if last:
            lines.extend(tail[-limit:])
            for ref in reversed(refs):
                if len(lines) >= limit:
                    break
                lines[:0] = self._chunks.read(ref, after, before)[-(limit - len(lines)) :]
        else:
            for ref in refs:
                if len(lines) >= limit:
                    break
                lines.extend(self._chunks.read(ref, after, before)[: limit - len(lines)])
            lines.extend(tail[: limit - len(lines)])
        return [decode(self._line(line), "", self._blobs) for line in lines]

    def tail(self, places: list[Place]) -> list[Line]:
        """The lines of a tail, with what sealing needs to know."""
        records = [decode(self._line(place), "", self._blobs) for place in places]
        return [Line(one.seq, one.event.kind, getattr(one.event, "turn", None), one.line) for one in records]

    def _line(self, line: bytes | Place) -> bytes:
        return self._wal.read(line.segment, line.offset, line.length) if isinstance(line, Place) else line
