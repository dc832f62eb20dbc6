"""Where the bodies of a stream are: sealed chunks, then the tail in the log. And the reigns of the log's writers.

stream   [chunk first..last][chunk first..last] ··· tail_first ─▶ now
reigns   epoch 1 from seq 1, epoch 3 from seq 871, …
"""

from dataclasses import dataclass
from itertools import pairwise

from persistence.chunks import ChunkRef
from persistence.events import EVENTS, ChunkSealed, Record, Unknown
from persistence.fold import Fold


@dataclass(frozen=True, slots=True)
class Stream:
    """The chunks of a stream, and how much of it is still only in the log."""

    chunks: tuple[ChunkRef, ...] = ()
    tail_first: int | None = None
    tail_count: int = 0
    tail_bytes: int = 0


def follow(stream: Stream, record: Record) -> Stream:
    """The stream after one of its records."""
    event = record.event
    if isinstance(event, ChunkSealed):
        chunk = ChunkRef(event.sha256, event.first, event.last, event.count, event.bytes)
        count = stream.tail_count - event.tail_count
        return Stream(
            tuple(sorted((*stream.chunks, chunk), key=lambda one: one.first)),
            _rest(stream, event) if count else None,
            count,
            stream.tail_bytes - event.tail_bytes,
        )
    first = record.seq if stream.tail_first is None else stream.tail_first
    return Stream(stream.chunks, first, stream.tail_count + 1, stream.tail_bytes + len(record.line))


def _rest(stream: Stream, event: ChunkSealed) -> int:
    """Where the tail begins behind a seal; before it, where an earlier seal was lost with its record."""
    first = stream.tail_first
    return first if first is not None and first < event.first else event.last + 1


@dataclass(frozen=True, slots=True)
class Reign:
    """A writer's time: its epoch and the first seq it wrote."""

    epoch: int
    first_seq: int


@dataclass(frozen=True, slots=True)
class Reigns:
    """Every reign of this log's history, in order."""

    reigns: tuple[Reign, ...] = ()

    def holds(self, epoch: int, seq: int, head: int) -> bool:
        """Whether a reader who saw `seq` under `epoch` saw a part of this history."""
        for index, reign in enumerate(self.reigns):
            if reign.epoch == epoch:
                later = self.reigns[index + 1 :]
                return seq <= (later[0].first_seq - 1 if later else head)
        return seq == 0

    def last_of(self, epoch: int) -> int:
        """Where a reader of `epoch` goes on whose cursor is not part of this history: at the end of that reign.

        At 0 where this history never had it, or has no later one: nobody can tell what such a reader saw.
        """
        for reign, later in pairwise(self.reigns):
            if reign.epoch == epoch:
                return later.first_seq - 1
        return 0

    def until(self, epoch: int, head: int) -> "Reigns":
        """With the reign of a writer whose first record comes after `head`, if it is not among them."""
        if self.reigns and self.reigns[-1].epoch == epoch:
            return self
        return Reigns((*self.reigns, Reign(epoch, head + 1)))


def reign(reigns: Reigns, record: Record) -> Reigns:
    """The reigns after a record."""
    if reigns.reigns and reigns.reigns[-1].epoch == record.epoch:
        return reigns
    return Reigns((*reigns.reigns, Reign(record.epoch, record.seq)))


STREAMS = Fold("stream", 1, Stream, Stream(), follow, True, (*EVENTS, Unknown))
REIGNS = Fold("reigns", 1, Reigns, Reigns(), reign, False, (*EVENTS, Unknown))
