"""What another's archive is to this log."""

import pytest

from persistence.ancestry import Kin, Place, kin
from persistence.reigns import Reign, Reigns

OURS, OTHERS = frozenset({"a", "b"}), frozenset({"x"})
REIGNS = Reigns((Reign(1, 1), Reign(3, 50)))
MINE = Place(3, 100, "c" * 64, OURS)


@pytest.mark.parametrize(
    ("theirs", "chain", "found"),
    [
        (Place(4, 40, "d", OURS), None, Kin.LATER),
        (Place(4, 40, "d", frozenset()), "e", Kin.LATER),
        (Place(4, 40, "d", OTHERS), None, Kin.FOREIGN),  # another agent's reign is no fence for ours
        (Place(3, 60, "d", OURS), "d", Kin.PAST),
        (Place(3, 60, "d", frozenset()), "d", Kin.PAST),
        (Place(3, 60, "d", OURS), "e", Kin.FOREIGN),
        (Place(3, 60, "d", OURS), None, Kin.PAST),
        (Place(1, 49, "d", OURS), None, Kin.PAST),
        (Place(1, 50, "d", OURS), None, Kin.FOREIGN),  # a part of epoch 1 that is not in our history
        (Place(2, 40, "d", OURS), None, Kin.FOREIGN),
        (Place(3, 101, "d", OURS), None, Kin.FOREIGN),
        (Place(3, 60, "d", OTHERS), None, Kin.FOREIGN),
        (Place(3, 60, "d", frozenset()), None, Kin.FOREIGN),
    ],
)
def test_what_they_are_to_us(theirs: Place, chain: str | None, found: Kin) -> None:
    assert kin(MINE, REIGNS, theirs, chain) is found
