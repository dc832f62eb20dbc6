"""Three versions of the beads become one."""

import random

import pytest

from persistence.bead import Bead
from persistence.issues import read, written
from persistence.merge import both, merge
from persistence.rfc3339 import SECOND, rfc3339
from tests.conftest import count
from tests.persistence.beads import NOW, bead, by_id, ids

LATER = NOW + 100 * SECOND


def one(name: str = "bd-1", at: int = NOW, *, title: str = "t", **fields: object) -> Bead:
    return bead(name, at, title=title, **fields)


def merged(base: Bead | None, ours: Bead | None, theirs: Bead | None, *, deleting: bool = True) -> Bead | None:
    """What becomes of one bead; None: it stays as it is."""
    some = [by_id(*([each] if each else [])) for each in (base, ours, theirs)]
    found = merge(some[0], some[1], some[2], LATER, deleting=deleting)
    assert len(found) <= 1
    return found[0] if found else None


def test_what_did_not_change_stays() -> None:
    assert merged(one(), one(), one()) is None


def test_what_changed_here_alone_stays() -> None:
    assert merged(one(), one(at=NOW + 1, title="ours"), one()) is None


def test_what_changed_in_the_file_alone_is_taken() -> None:
    theirs = one(at=NOW + SECOND, title="theirs")
    assert merged(one(), one(), theirs) == theirs


def test_what_was_edited_by_hand_is_later_than_before_all_the_same() -> None:
    taken = merged(one(), one(), one(title="theirs"))
    assert taken is not None
    assert (taken.title, taken.updated) == ("theirs", NOW + 1000)


def test_of_two_changes_the_younger_one_is_taken_and_ours_if_they_are_of_one_time() -> None:
    ours, theirs = one(at=NOW + 5, title="ours"), one(at=NOW + 9, title="theirs")
    assert merged(one(), ours, theirs) == theirs
    assert merged(one(), one(at=NOW + 9, title="ours"), one(at=NOW + 5, title="theirs")) is None
    assert merged(one(), one(at=NOW + 5, title="ours"), one(at=NOW + 5, title="theirs")) is None


def test_what_is_new_in_the_file_is_taken_and_what_is_new_here_stays() -> None:
    assert ids(merge({}, by_id(one("bd-1")), by_id(one("bd-2")), LATER)) == ["bd-2"]


def test_a_line_that_is_gone_is_a_bead_that_was_deleted_with_all_that_it_said() -> None:
    gone = merged(one(labels=["a"]), one(labels=["a"]), None)
    assert gone is not None
    assert (gone.status, gone.labels, gone.text("original_type"), gone.text("deleted_at")) == (
        "tombstone",
        ("a",),
        "task",
        rfc3339(LATER),
    )


def test_a_line_that_is_gone_from_a_damaged_file_means_nothing() -> None:
    assert merged(one(), one(), None, deleting=False) is None


def test_what_changed_here_is_not_deleted_by_a_line_that_is_gone() -> None:
    assert merged(one(), one(at=NOW + 1, title="ours"), None) is None


def test_a_tombstone_wins_on_either_side() -> None:
    stone = one(at=NOW + 1, status="tombstone")
    assert merged(one(), one(at=NOW + 9, title="ours"), stone) is not None
    assert merged(one(), stone, one(at=NOW + 9, title="theirs")) is None


def test_labels_of_both_are_kept_and_of_a_state_the_younger_one() -> None:
    base = one(labels=["a", "b", "sprint:pending"])
    ours = one(at=NOW + 5, labels=["a", "b", "c", "sprint:in_progress"])
    theirs = one(at=NOW + 9, labels=["b", "d", "sprint:pending"])
    found = merged(base, ours, theirs)
    assert found is not None
    assert found.labels == ("b", "c", "d", "sprint:pending")
    assert found.updated > theirs.updated


def test_comments_and_dependencies_of_both_are_kept() -> None:
    def comment(number: int, text: str) -> dict[str, object]:
        said = {"id": number, "issue_id": "bd-1", "author": "a", "text": text}
        return {**said, "created_at": rfc3339(NOW + number)}

    ours = one(at=NOW + 5, comments=[comment(1, "x"), comment(2, "ours")], blocks=["bd-2"])
    theirs = one(at=NOW + 9, comments=[comment(1, "x"), comment(2, "theirs")], blocks=["bd-3"])
    found = merged(one(), ours, theirs)
    assert found is not None
    assert [(each["id"], each["text"]) for each in found.comments] == [(1, "x"), (3, "ours"), (2, "theirs")]
    assert [edge["depends_on_id"] for edge in found.edges] == ["bd-2", "bd-3"]


def test_a_log_that_is_older_than_what_was_written_last_takes_the_file() -> None:
    written_last = one(at=NOW + 9, title="written last")
    assert merged(written_last, one(), written_last) == written_last
    assert merged(written_last, None, written_last) == written_last


def test_what_is_computed_for_the_file_is_no_change() -> None:
    shown = one(labels=["health:ok", "sync:pending"])
    assert merged(shown, one(labels=["health:ok"]), shown) is None


def test_a_second_external_ref_is_left_out() -> None:
    here = by_id(one("bd-1", external_ref="x"))
    (found,) = merge({}, here, by_id(one("bd-0", external_ref="x")), LATER)
    assert (found.id, found.text("external_ref")) == ("bd-0", "")


@pytest.mark.parametrize("times", [(3, 5), (5, 3)])
def test_merging_is_the_same_from_both_sides_and_again(seed: int, times: tuple[int, int]) -> None:
    rng = random.Random(seed)
    for _ in range(count(300, 10_000)):
        base, ours, theirs = some(rng, 0), some(rng, times[0]), some(rng, times[1])
        found = both(base, ours, theirs)
        assert found == both(base, theirs, ours)
        assert both(base, found, theirs).labels == found.labels
        assert merge(by_id(base), by_id(found), by_id(found), LATER) == []


def test_any_three_versions_come_to_one_that_a_file_holds(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(count(300, 10_000)):
        base, ours, theirs = (
            {f"bd-{n}": some(rng, rng.randrange(3), f"bd-{n}") for n in range(5) if rng.random() < 0.7}
            for _ in range(3)
        )
        after = {**ours, **by_id(*merge(base, ours, theirs, LATER))}
        assert set(after) >= set(ours) | set(theirs)
        found = read(written(after.values()))
        assert (found.beads, found.faults) == (after, ())
        assert merge(after, after, after, LATER) == []


def some(rng: random.Random, at: int, name: str = "bd-1") -> Bead:
    labels = [label for label in ("a", "b", "c", "sprint:pending", "task:ready") if rng.random() < 0.4]
    said = [n for n in range(4) if rng.random() < 0.4]
    comments = [
        {"id": n, "issue_id": name, "author": "a", "text": str(n), "created_at": rfc3339(NOW + n)} for n in said
    ]
    blocks = [other for other in ("bd-x", "bd-y") if rng.random() < 0.3]
    return one(name, NOW + at, title=rng.choice("xyz"), labels=labels, comments=comments, blocks=blocks)
