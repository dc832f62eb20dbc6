from typing import ClassVar

import pytest

from persistence.events import EVENTS, Event, Json, Unknown
from persistence.upcast import KINDS, UPCASTS, Step, lift


class Renamed(Event):
    kind = "renamed"
    v: ClassVar[int] = 3
    title: str
    by: str = ""


def _named(data: dict[str, Json]) -> dict[str, Json]:
    return {"name": data["n"]}


def _titled(data: dict[str, Json]) -> dict[str, Json]:
    return {"title": data["name"], "by": "nobody"}


STEPS: dict[tuple[str, int], Step] = {("renamed", 1): _named, ("renamed", 2): _titled}


@pytest.mark.parametrize(
    ("v", "data", "event"),
    [
        (3, {"title": "a"}, Renamed(title="a")),
        (2, {"name": "a"}, Renamed(title="a", by="nobody")),
        (1, {"n": "a"}, Renamed(title="a", by="nobody")),
        (4, {"title": "a"}, Unknown(data={"title": "a"})),
        (3, {"title": 1}, Unknown(data={"title": 1})),
        (3, {"title": "a", "new": 1}, Unknown(data={"title": "a", "new": 1})),
        (0, {"x": 1}, Unknown(data={"x": 1})),
    ],
    ids=["today's", "one step", "two steps", "newer", "does not fit", "unknown field", "no step"],
)
def test_a_version_is_lifted_step_by_step_or_kept_as_it_is(v: int, data: dict[str, Json], event: Event) -> None:
    before = dict(data)
    assert lift("renamed", v, data, {"renamed": Renamed}, STEPS) == event
    assert data == before


def test_an_unknown_kind_is_kept() -> None:
    assert lift("dreamed", 1, {"of": "sheep"}) == Unknown(data={"of": "sheep"})


def test_every_older_version_of_every_kind_has_its_step() -> None:
    assert {(event.kind, v) for event in EVENTS for v in range(1, event.v)} == set(UPCASTS)
    assert len(KINDS) == len(EVENTS)
