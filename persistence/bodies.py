"""Where the bodies of a stream are read from: its sealed chunks, then its tail in the log.

    chunk ── missing or damaged ──▶ made again from the log ──▶ fetched from a copy ──▶ what the log has, the loss told

The tail's index (seq, segment, offset) is derived: it is built while the log is replayed and never stored. What cannot
be read is left out and told in `lost`; everything around it is served.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from persistence.blobs import Blobs, fetched
from persistence.chunks import ChunkRef, Chunks, Line, sealable, seq_of
from persistence.codec import decode
from persistence.errors import Damaged, NotFound
from persistence.events import ChunkSealed, MessageCheckpointed, Record
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
        self.note(record.stream, record.event if isinstance(record.event, ChunkSealed) else None, place)

    def note(self, stream: str | None, sealed: ChunkSealed | None, place: Place) -> None:
        """As `follow`, for a record of which only this is known."""
        if stream is None:
            return
        if sealed is not None:
            self.drop(stream, sealed.first, sealed.last)
        else:
            self._places[stream].append(place)

    def drop(self, stream: str, first: int, last: int) -> None:
        """Forgets the places `first`..`last`: they are sealed. What lies before is not, where that seal was lost."""
        places = self._places[stream]
        begin = bisect_left(places, first, key=lambda place: place.seq)
        del places[begin : bisect_right(places, last, key=lambda place: place.seq)]

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

    def __init__(
        self, wal: Wal, chunks: Chunks, blobs: Blobs, quarantine: Path, fetch: Callable[[str], bytes] | None = None
    ) -> None:
        self.lost: dict[str, None] = {}  #: sentences, in the order in which the losses were met
        self._wal = wal
        self._chunks = chunks
        self._blobs = blobs
        self._quarantine = quarantine
        self._fetch = fetch  # of a chunk, from elsewhere
        self._rests: dict[str, list[bytes]] = {}  # what is left of a lost chunk, by its hash

    def read(
        self, name: str, stream: Stream, tail: list[Place], after: int, before: int, limit: int, last: bool
    ) -> list[Record]:
        """At most `limit` records with after < seq < before, in order: the first of them, or the last.

        `tail` is the part of the stream's tail in that range. Fewer than `limit` means that there are no more. Raises
        StorageError where the disk cannot be read, StoreError where something is only elsewhere and nothing answers.
        """
        refs = [ref for ref in stream.chunks if ref.last > after and ref.first < before]
        spots: list[ChunkRef | Place] = [*refs, *tail]
        spots.sort(key=_first)
        lines = list(islice(self._lines(name, spots, after, before, backwards=last), limit))
        return [self._record(line) for line in (reversed(lines) if last else lines)]

    def tail(self, places: list[Place]) -> list[Line]:
        """The lines of a tail, with what sealing needs to know."""
        return [_line(self._record(line)) for place in places for line in self._placed(place)]

    def chunk(self, name: str, ref: ChunkRef) -> bytes:
        """The whole of a chunk, made again where it can be. Raises NotFound, Damaged, StorageError."""
        try:
            return self._chunks.whole(ref.sha256)
        except (Damaged, NotFound):
            if not self._mended(ref, list(self._logged(name, ref))):
                raise
            return self._chunks.whole(ref.sha256)

    def _mended(self, ref: ChunkRef, lines: list[Line]) -> bool:
        """Whether the chunk is whole again, from the lines that the log has or from elsewhere."""
        if self._chunks.remake(ref, [one.line for one in sealable(lines)]):
            return True
        data = fetched(self._fetch, ref.sha256)
        if data is not None:
            self._chunks.keep(data)
        return data is not None

    def _lines(
        self, name: str, where: list[ChunkRef | Place], after: int, before: int, backwards: bool
    ) -> Iterator[bytes]:
        for spot in reversed(where) if backwards else where:
            found = self._placed(spot) if isinstance(spot, Place) else self._sealed(name, spot, after, before)
            yield from reversed(found) if backwards else found

    def _placed(self, place: Place) -> list[bytes]:
        try:
            return [self._wal.read(place.segment, place.offset, place.length)]
        except (Damaged, NotFound) as error:
            self._lose(f"record {place.seq}: {error}")
            return []

    def _sealed(self, name: str, ref: ChunkRef, after: int, before: int) -> list[bytes]:
        if ref.sha256 not in self._rests:
            try:
                return self._chunks.read(ref, after, before)
            except (Damaged, NotFound) as error:
                if self._made_again(name, ref, str(error)):
                    return self._chunks.read(ref, after, before)
        return [line for line in self._rests[ref.sha256] if after < seq_of(line) < before]

    def _made_again(self, name: str, ref: ChunkRef, reason: str) -> bool:
        """Whether the chunk could be made whole. If not, what the log has is kept in memory and the loss told."""
        lines = list(self._logged(name, ref))
        if self._mended(ref, lines):
            return True
        rest = [one.line for one in lines if one.type != MessageCheckpointed.kind]
        self._rests[ref.sha256] = rest
        self._chunks.set_aside(ref, self._quarantine, reason)
        self._lose(f"{ref.count - len(rest)} of {ref.count} records {ref.first}-{ref.last} of {name}: {reason}")
        return False

    def _logged(self, name: str, ref: ChunkRef) -> Iterator[Line]:
        """What the log still has of the tail that the chunk was sealed from."""
        own = b'"stream":"%b"' % name.encode()
        for line in self._wal.between(ref.first, ref.last):
            if own in line:  # a look that costs nothing; the record then says it itself
                record = self._record(line)
                if record.stream == name and not isinstance(record.event, ChunkSealed):
                    yield _line(record)

    def _record(self, line: bytes) -> Record:
        return decode(line, "", self._blobs, self._lose)

    def _lose(self, sentence: str) -> None:
        self.lost[sentence] = None


def _first(spot: ChunkRef | Place) -> int:
    return spot.seq if isinstance(spot, Place) else spot.first


def _line(record: Record) -> Line:
    return Line(record.seq, record.event.kind, getattr(record.event, "turn", None), record.line)
