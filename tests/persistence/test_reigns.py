import pytest

from persistence.events import OWNER, Record
from persistence.reigns import Reign, Reigns, reign
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


def test_a_reign_begins_with_the_first_record_of_its_epoch() -> None:
    reigns, said = Reigns(), prompt("hi")
    for seq, epoch in enumerate((1, 1, 2, 2, 5), start=1):
        reigns = reign(reigns, Record(seq, "", 0, epoch, 0, "s", OWNER, said.kind, said.v, said, "", b""))
    assert reigns == Reigns((Reign(1, 1), Reign(2, 3), Reign(5, 5)))
