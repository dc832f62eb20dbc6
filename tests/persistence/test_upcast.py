from typing import ClassVar

import pytest

from persistence.events import EVENTS, OWNER, SYSTEM, EntryRecovered, Event, FileChanged, Json, Record, Unknown
from persistence.upcast import KINDS, UPCASTS, Step, as_said, lift
from tests.persistence.journals import prompt


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


def test_a_file_of_an_older_release_is_no_link() -> None:
    data: dict[str, Json] = {"root": "workspace", "path": "a", "sha256": "0" * 64, "bytes": 3, "executable": True}
    assert lift("file_changed", 1, data) == FileChanged(
        root="workspace", path="a", sha256="0" * 64, bytes=3, executable=True, link=None
    )


def recovered(kind: str, data: dict[str, Json]) -> Record:
    event = EntryRecovered(origin="3-40", type=kind, version=1, data=data, at=5, by=OWNER, parent="4-7")
    return Record(50, "id", 9, 4, 49, "s", SYSTEM, event.kind, event.v, event, "", b"")


def test_a_recovered_record_is_what_it_was_in_its_new_place() -> None:
    said = prompt("hi")
    back = as_said(recovered(said.kind, said.model_dump(mode="json")))
    assert back.event == said.model_copy(update={"parent": "4-7"})
    assert (back.entry, back.time, back.by, back.type) == ("4-50", 5, OWNER, said.kind)


def test_a_recovered_record_of_a_kind_that_nobody_knows_is_kept() -> None:
    assert as_said(recovered("dreamed", {"of": "sheep"})).event == Unknown(data={"of": "sheep"})


def test_any_other_record_is_itself() -> None:
    record = recovered("dreamed", {})._replace(event=prompt("hi"))
    assert as_said(record) is record
