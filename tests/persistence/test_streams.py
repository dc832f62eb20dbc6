import pytest

from persistence.chunks import ChunkRef
from persistence.events import OWNER, ChunkSealed, Event, Record, Unknown
from persistence.streams import Reign, Reigns, Stream, follow, reign
from tests.persistence.journals import prompt

REIGNS = Reigns((Reign(1, 1), Reign(3, 11), Reign(4, 21)))
HEAD = 30


@pytest.mark.parametrize(
    ("epoch", "seq", "holds"),
    [
        *((1, seq, seq <= 10) for seq in (0, 1, 10, 11, 30)),
        *((3, seq, seq <= 20) for seq in (10, 11, 20, 21)),
        *((4, seq, seq <= HEAD) for seq in (20, 21, 30, 31)),
        *((epoch, seq, seq == 0) for epoch in (0, 2, 5) for seq in (0, 1, 10, 31)),
    ],
)
def test_a_cursor_belongs_to_this_history_up_to_the_end_of_its_reign(epoch: int, seq: int, holds: bool) -> None:
    assert REIGNS.holds(epoch, seq, HEAD) is holds


@pytest.mark.parametrize(("epoch", "last"), [(0, 0), (1, 10), (2, 0), (3, 20), (4, 0), (9, 0)])
def test_a_reader_of_an_ended_reign_goes_on_where_it_ended(epoch: int, last: int) -> None:
    assert REIGNS.last_of(epoch) == last


def record(seq: int, event: Event, epoch: int = 1) -> Record:
    return Record(seq, "", 0, epoch, 0, "s", OWNER, event.kind, event.v, event, "", b"x" * 10)


def test_a_reign_begins_with_the_first_record_of_its_epoch() -> None:
    reigns = Reigns()
    for seq, epoch in enumerate((1, 1, 2, 2, 5), start=1):
        reigns = reign(reigns, record(seq, prompt("hi"), epoch))
    assert reigns == Reigns((Reign(1, 1), Reign(2, 3), Reign(5, 5)))


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
