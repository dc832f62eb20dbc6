"""What contradicts itself in the beads, put right."""

from collections.abc import Sequence

import pytest

from persistence import amends
from persistence.amends import Edit, edits, put, undone
from persistence.bead import Bead, fault
from persistence.errors import Conflict
from persistence.merge import merge
from persistence.own_beads import trip
from persistence.rfc3339 import SECOND, rfc3339
from tests.persistence.beads import NOW, bead, by_id

LATER = NOW + 100 * SECOND


def done(amend: amends.Amend, *beads: Bead) -> Sequence[Bead]:
    """What changes. It is sound, later than before, and leaves nothing to be done."""
    board = by_id(*beads)
    changed = amend(board, LATER)
    assert all(not fault(one.data) and one.updated > board[one.id].updated for one in changed)
    assert amend({**board, **by_id(*changed)}, LATER) == []
    return changed


def test_of_two_current_runs_the_younger_goes_on_and_the_other_is_halted_and_says_why() -> None:
    old = bead("bd-1", issue_type="epic", status="in_progress", labels=["home", "run:current"])
    young = bead("bd-2", NOW + 1000, issue_type="epic", status="in_progress", labels=["run:current"])
    (halted,) = done(amends.rivals, old, young)
    assert (halted.id, halted.labels, halted.status) == ("bd-1", ("home", "run:halted"), "blocked")
    assert [one["text"] for one in halted.comments] == [
        "run:current went from here: bd-2 has it, and was changed later"
    ]


def test_of_three_sprints_in_progress_one_stays_in_progress() -> None:
    sprints = [bead(f"bd-{n}", NOW + n * 1000, status="in_progress", labels=["sprint:in_progress"]) for n in range(3)]
    waiting = done(amends.rivals, *sprints)
    assert [(one.id, one.labels, one.status) for one in waiting] == [
        ("bd-0", ("sprint:pending",), "open"),
        ("bd-1", ("sprint:pending",), "open"),
    ]
    assert len({one["id"] for each in waiting for one in each.comments}) == 2


def test_a_bead_that_gives_way_in_two_kinds_gives_way_in_both() -> None:
    both = ["run:current", "sprint:in_progress"]
    old, young = (bead(f"bd-{n}", NOW + n * 1000, issue_type="epic", labels=both) for n in (1, 2))
    (changed,) = done(amends.rivals, old, young)
    assert changed.labels == ("run:halted", "sprint:pending")
    assert len(changed.comments) == 2


def test_one_bead_alone_speaks_of_health_and_a_closed_one_is_no_rival() -> None:
    old, young = bead("bd-1", labels=["health:ok"]), bead("bd-2", NOW + 1000, labels=["health:degraded"])
    (changed,) = done(amends.rivals, old, young)
    assert (changed.id, changed.labels) == ("bd-1", ())
    assert done(amends.rivals, bead("bd-1", status="closed", labels=["run:current"]), young) == []


@pytest.mark.parametrize(
    ("status", "labels", "kept"),
    [
        ("in_progress", ["task:ready", "task:in_progress"], ("task:in_progress",)),
        ("open", ["task:ready", "task:in_progress", "x"], ("task:ready", "x")),
        ("deferred", ["sprint:pending", "sprint:complete"], ("sprint:complete",)),
        ("open", ["health:ok", "health:degraded"], ("health:degraded",)),
        ("open", ["sprint:1", "sprint:2", "sprint:pending"], None),
    ],
)
def test_of_two_states_the_one_that_the_status_means_stays_else_the_furthest(
    status: str, labels: list[str], kept: tuple[str, ...] | None
) -> None:
    changed = done(amends.undecided, bead("bd-1", status=status, labels=labels))
    assert [one.labels for one in changed] == ([] if kept is None else [kept])


def test_a_label_with_signs_that_none_has_gets_others() -> None:
    odd = bead("bd-1", labels=["circuit-breaker:bd-4k2.1", "fine", "x" * 60, "$(touch /tmp/pwn)"])
    (changed,) = done(amends.unreadable, odd)
    assert changed.labels == tuple(sorted({"circuit-breaker:bd-4k2_1", "fine", "x" * 50, "__touch__tmp_pwn_"}))


def test_closed_at_follows_the_status() -> None:
    shut, open_again = bead("bd-1", status="closed"), bead("bd-2", closed_at=rfc3339(NOW), close_reason="x")
    changed = done(amends.unclosed, shut, open_again, bead("bd-3"))
    assert [(one.id, one.text("closed_at"), one.text("close_reason")) for one in changed] == [
        ("bd-1", rfc3339(NOW), ""),
        ("bd-2", "", ""),
    ]


def test_of_two_with_one_reference_the_older_keeps_it() -> None:
    old = bead("bd-9", created_at=rfc3339(NOW - SECOND), external_ref="x:1")
    (changed,) = done(amends.twins, bead("bd-1", external_ref="x:1"), old)
    assert (changed.id, changed.text("external_ref")) == ("bd-1", "")


def test_what_is_active_where_nobody_works_has_expired() -> None:
    ended = bead("bd-2", status="closed", closed_at=rfc3339(NOW), labels=["session:active"])
    (changed,) = done(amends.ownerless, bead("bd-1", status="in_progress", labels=["session:active"]), ended)
    assert (changed.id, changed.labels) == ("bd-1", ("session:expired",))


def test_the_bead_of_a_breaker_that_is_not_open_is_closed() -> None:
    board = by_id(*trip({}, "archive", "no answer", NOW))
    board |= by_id(*trip(board, "replicate", "no answer", NOW))
    (changed,) = amends.works_again(board, LATER, {"replicate"})
    assert (changed.text("external_ref"), changed.status) == ("finn:breaker:archive", "closed")


def test_an_edit_is_put_once_refused_where_the_bead_moved_on_and_taken_back_by_another() -> None:
    before = bead("bd-1", status="closed")
    board = by_id(before)
    wanted = edits(board, amends.unclosed(board, LATER))
    (after,) = put(board, wanted, LATER)
    assert after.text("closed_at") and after.updated == LATER
    assert put(by_id(after), wanted, LATER) == []
    (back,) = put(by_id(after), undone(wanted), LATER)
    assert back.updated > after.updated
    assert back.having({"updated_at": before.text("updated_at")}).line == before.line
    with pytest.raises(Conflict, match="bd-1 was changed meanwhile"):
        put(by_id(bead("bd-1", title="another")), wanted, LATER)
    with pytest.raises(Conflict):
        put({}, (Edit(before.line, after.line),), LATER)


# ---------------------------------------------------------------- two versions of the file


def test_a_merge_leaves_one_run_current_and_the_other_says_why() -> None:
    plain = [bead(name, issue_type="epic") for name in ("bd-1", "bd-2")]
    ours = bead("bd-1", NOW + 1000, issue_type="epic", status="in_progress", labels=["run:current"])
    theirs = bead("bd-2", NOW + 2000, issue_type="epic", status="in_progress", labels=["run:current"])
    found = by_id(*merge(by_id(*plain), by_id(ours, plain[1]), by_id(plain[0], theirs), LATER))
    assert {name: one.labels for name, one in found.items()} == {"bd-1": ("run:halted",), "bd-2": ("run:current",)}
    assert "bd-2 has it" in found["bd-1"].comments[0]["text"]


def test_a_merge_leaves_one_sprint_in_progress_also_where_both_come_from_the_file() -> None:
    sprints = [bead(f"bd-{n}", NOW + n * 1000, labels=["sprint:in_progress"]) for n in (1, 2)]
    found = by_id(*merge({}, {}, by_id(*sprints), LATER))
    assert {name: one.labels for name, one in found.items()} == {
        "bd-1": ("sprint:pending",),
        "bd-2": ("sprint:in_progress",),
    }
    assert merge(found, found, found, LATER) == []
