import asyncio
import threading

import pytest

from persistence.lanes import LANES, PART, PART_BYTES, Lanes, parts


@pytest.mark.parametrize("count", [0, 1, LANES, LANES + 1, 5 * LANES, LANES * PART, LANES * PART * 3 + 1])
def test_parts_are_all_of_it_in_order_and_every_lane_has_one_where_there_are_enough(count: int) -> None:
    made = list(parts(range(count), lambda _: 1))
    assert [one for part in made for one in part] == list(range(count))
    assert len(made) >= min(count, LANES) // 2
    assert all(0 < len(part) <= PART for part in made)


def test_what_is_large_is_a_part_of_its_own() -> None:
    sizes = [1, 1, PART_BYTES * 4, 1, PART_BYTES, *[1] * 3 * LANES]
    made = list(parts(sizes, lambda size: size))
    assert made[:4] == [[1, 1], [PART_BYTES * 4], [1], [PART_BYTES]]
    assert [one for part in made for one in part] == sizes


async def test_lanes_go_side_by_side() -> None:
    together = threading.Barrier(LANES, timeout=30)
    with Lanes("test") as lanes:
        await asyncio.gather(*(lanes.run(together.wait) for _ in range(LANES)))


async def test_what_a_lane_raises_is_raised() -> None:
    with Lanes("test") as lanes, pytest.raises(ZeroDivisionError):
        await lanes.run(divmod, 1, 0)
