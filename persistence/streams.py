"""Where the bodies of a stream are: sealed chunks, then the tail in the log.

[chunk first..last][chunk first..last] ··· tail_first ─▶ now
"""

from dataclasses import dataclass

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


STREAMS = Fold("stream", 1, Stream, Stream(), follow, True, (*EVENTS, Unknown))
