from persistence.chunks import ChunkRef
from persistence.events import OWNER, ChunkSealed, Event, Record, Unknown
from persistence.streams import Stream, follow
from tests.persistence.journals import prompt


def record(seq: int, event: Event) -> Record:
    return Record(seq, "", 0, 1, 0, "s", OWNER, event.kind, event.v, event, "", b"x" * 10)


def test_sealing_moves_the_head_of_the_tail_into_a_chunk() -> None:
    stream = Stream()
    for seq in (3, 5, 9):
        stream = follow(stream, record(seq, prompt("hi")))
    stream = follow(stream, record(10, Unknown(data={})))
    assert stream == Stream((), 3, 4, 40)
    first = ChunkSealed(first=3, last=5, count=2, bytes=22, sha256="a", tail_count=2, tail_bytes=20)
    stream = follow(stream, record(11, first))
    assert stream == Stream((ChunkRef("a", 3, 5, 2, 22),), 6, 2, 20)
    second = ChunkSealed(first=9, last=10, count=1, bytes=11, sha256="b", tail_count=2, tail_bytes=20)
    stream = follow(stream, record(12, second))
    assert stream == Stream((ChunkRef("a", 3, 5, 2, 22), ChunkRef("b", 9, 10, 1, 11)), None, 0, 0)
