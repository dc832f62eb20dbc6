"""One bead: its line, its times, its name."""

import json
import random

import pytest

from persistence.bead import KEYS, Bead, made, parse
from persistence.bead_ids import child, hashed, length, name, prefix_of
from persistence.issues import read, written
from persistence.rfc3339 import nanoseconds, rfc3339
from tests.conftest import count
from tests.persistence.beads import NOW, REAL, bead, data_of


@pytest.mark.parametrize("line", REAL, ids=lambda line: str(data_of(line)["id"]))
def test_a_line_of_br_comes_back_to_the_byte(line: str) -> None:
    assert parse(line).line == line


@pytest.mark.parametrize("line", REAL[:5], ids=lambda line: str(data_of(line)["id"]))
def test_a_line_of_br_is_made_anew_to_the_byte(line: str) -> None:
    assert made(data_of(line)).line == line


def test_a_file_comes_back_to_the_byte() -> None:
    data = "".join(f"{line}\n" for line in sorted(REAL)).encode()
    found = read(data)
    assert (found.faults, written(found.beads.values())) == ((), data)


@pytest.mark.parametrize("line", REAL[:5], ids=lambda line: str(data_of(line)["id"]))
def test_a_name_is_the_one_that_br_gave(line: str) -> None:
    one = parse(line)
    size = len(one.id) - len("bd-")
    seed = f"{one.title}|{one.text('description')}||{one.created}|0"
    assert hashed(seed, size) == one.id.removeprefix("bd-")


def test_what_br_does_not_know_stays_where_it_stood() -> None:
    one = parse('{"id":"bd-1","x":1,"title":"t","y":{"b":1,"a":2},"created_at":"2026-01-01T00:00:00Z",'
                '"updated_at":"2026-01-01T00:00:00Z","z":null}')  # fmt: skip
    assert one.having({"status": "blocked", "labels": ["a"]}).line == (
        '{"id":"bd-1","x":1,"title":"t","y":{"b":1,"a":2},"status":"blocked","priority":0,"issue_type":"task",'
        '"created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z","z":null,"compaction_level":0,'
        '"labels":["a"]}'
    )


def test_a_made_bead_has_its_keys_in_the_order_of_br() -> None:
    full = dict.fromkeys(reversed(KEYS), "x")
    assert list(json.loads(made(full).line)) == list(KEYS)


def test_what_is_empty_is_left_out_and_a_priority_of_zero_is_not() -> None:
    one = bead("bd-1", description="", assignee=None, priority=0, labels=[], pinned=False, original_size=0)
    assert set(one.data) == {
        *("id", "title", "status", "priority", "issue_type", "created_at", "updated_at"),
        *("compaction_level", "original_size"),
    }


GOOD = '{"id":"bd-1","title":"t","created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z"%s}'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[]", "no"),
        ("{", "no"),
        ("{}", "no id"),
        (GOOD.replace("bd-1", "BD-1") % "", "id"),
        (GOOD.replace("bd-1", "bd") % "", "id"),
        (GOOD.replace("bd-1", "bd-1.x") % "", "id"),
        (GOOD.replace('"t"', '" "') % "", "no title"),
        (GOOD.replace('"t"', f'"{"é" * 250}x"') % "", "501 bytes"),
        (GOOD.replace('"t"', '"\\u0000"') % "", "NUL"),
        (GOOD.replace('"t"', '"\\ud800"') % "", "half a character"),
        (GOOD.replace("2026-01-01T00:00:00Z", "2026-13-01T00:00:00Z") % "", "time"),
        (GOOD.replace("2026-01-01T00:00:00Z", "yesterday", 1) % "", "time"),
        (GOOD.replace("2026", "2027", 1) % "", "before it was created"),
        (GOOD % ',"priority":5', "priority"),
        (GOOD % ',"priority":"2"', "priority"),
        (GOOD % ',"priority":true', "priority"),
        (GOOD % ',"priority":1.0', "priority"),
        (GOOD % ',"labels":"a"', "labels"),
        (GOOD % ',"labels":[1]', "labels"),
        (GOOD % ',"description":7', "description"),
        (GOOD % ',"external_ref":"a b"', "white space"),
        (GOOD % f',"external_ref":"{"x" * 201}"', "external_ref"),
        (GOOD % f',"description":"{"x" * 102401}"', "description"),
        (GOOD % ',"pinned":1', "pinned"),
        (GOOD % ',"estimated_minutes":-1', "estimated_minutes"),
        (GOOD % ',"dependencies":[{"depends_on_id":"bd-2"}]', "dependency"),
        (GOOD % ',"comments":[{"text":"x"}]', "comment"),
        (GOOD % ',"status":"in progress"', "status"),
        (GOOD % ',"x":NaN', "NaN"),
        (GOOD % ',"x":1e999', "1e999"),
        (GOOD % ',"x":1,"x":2', "twice"),
        (GOOD % (',"x":' + "[" * 40 + "]" * 40), "deeper"),
        (GOOD % (',"x":' + "[" * 100_000 + "]" * 100_000), "deep"),
    ],
    ids=range(33),
)
def test_what_br_would_refuse_is_told(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(line)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("2026-02-26T04:23:04.550522163Z", 1772079784550522163),
        ("2026-02-26T04:23:04.550Z", 1772079784550000000),
    ],
)
def test_a_time_is_read_and_written_to_the_nanosecond(text: str, instant: int) -> None:
    assert (nanoseconds(text), rfc3339(instant)) == (instant, text)


def test_an_offset_is_taken_off() -> None:
    assert rfc3339(nanoseconds("2026-02-26T06:23:04.5+02:00")) == "2026-02-26T04:23:04.500Z"
    assert rfc3339(nanoseconds("2026-02-25T20:23:04-08:00")) == "2026-02-26T04:23:04Z"


def test_any_instant_comes_back(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(count(500, 20_000)):
        step = 10 ** rng.randrange(10)
        instant = rng.randrange(-(10**18), 10**19) // step * step
        assert nanoseconds(rfc3339(instant)) == instant


def test_names_grow_with_the_number_of_beads() -> None:
    assert [length(beads) for beads in (0, 163, 164, 983, 984, 10**9)] == [3, 3, 4, 4, 5, 8]


def test_a_name_that_is_taken_is_not_given_twice() -> None:
    taken: set[str] = set()
    for _ in range(200):
        found = name("the same title", "", NOW, taken, "bd")
        assert found not in taken
        taken.add(found)
    assert {len(one) for one in taken} >= {6, 7, 8}


def test_a_child_is_numbered_below_its_parent() -> None:
    assert child("bd-4k2", {"bd-4k2", "bd-4k2.1", "bd-4k2.2"}) == "bd-4k2.3"


def test_new_names_begin_as_most_do() -> None:
    assert prefix_of(["loa-finn-1a", "loa-finn-2b", "bd-1"]) == "loa-finn"
    assert prefix_of([]) == "bd"


def test_two_beads_are_the_same_when_their_lines_are() -> None:
    assert Bead(REAL[0]) == parse(REAL[0]) != parse(REAL[1])
