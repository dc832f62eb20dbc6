"""Labels and the states that some of them are: the arrows of the table, and no others."""

import itertools

import pytest

from persistence.errors import IllegalTransition, Invalid
from persistence.labels import DIMENSIONS, checked, moved, state, states

#: Written down once more, from what beads are meant to do.
ARROWS = {
    "run": "-current current-halted halted-current current-complete",
    "sprint": "-pending -in_progress pending-in_progress pending- in_progress-complete",
    "session": "-active active-idle idle-active active-expired idle-expired expired-closed",
    "task": "-proposed -ready proposed-ready proposed- ready-in_progress ready- in_progress-done in_progress-blocked "
    "in_progress-ready blocked-ready",
    "health": "-ok -degraded ok-degraded degraded-ok",
    "sync": "",
}
ALL = [
    (dimension, now, then)
    for dimension in ARROWS
    for now, then in itertools.permutations(("", *sorted(DIMENSIONS[dimension].values)), 2)
]


@pytest.mark.parametrize(("dimension", "now", "then"), ALL)
def test_a_state_goes_along_the_arrows_and_nowhere_else(dimension: str, now: str, then: str) -> None:
    before = [f"{dimension}:{now}"] if now else []
    add, remove = ([f"{dimension}:{then}"], []) if then else ([], before)
    if f"{now}-{then}" in ARROWS[dimension].split():
        assert moved([*before, "home"], add, remove) == tuple(sorted([*add, "home"]))
    else:
        with pytest.raises(IllegalTransition):
            moved([*before, "home"], add, remove)


def test_the_next_state_takes_the_last_one_away() -> None:
    assert moved(["sprint:pending", "a"], ["sprint:in_progress"], []) == ("a", "sprint:in_progress")


def test_a_state_that_is_there_already_is_no_move() -> None:
    assert moved(["sprint:complete"], ["sprint:complete", "a"], []) == ("a", "sprint:complete")


def test_two_states_of_a_kind_are_refused() -> None:
    with pytest.raises(Invalid):
        moved([], ["sprint:pending", "sprint:in_progress"], [])


@pytest.mark.parametrize("label", ["sprint:165", "task:T-5-6", "sprint:C", "epic:bd-1", "session:01J", "run", "a"])
def test_a_label_that_only_looks_like_a_state_is_a_label(label: str) -> None:
    assert state(label) is None
    assert moved([label], [], [label]) == ()


@pytest.mark.parametrize("label", ["", "a.b", "a/b", "a b", "é", "x" * 51, "circuit-breaker:bd-abc.1", "a\n"])
def test_what_br_takes_for_no_label_is_none(label: str) -> None:
    with pytest.raises(Invalid) as told:
        checked(label)
    assert told.value.code == "invalid_body"


def test_the_states_of_a_bead_are_one_a_kind() -> None:
    assert states(["sprint:pending", "sprint:165", "task:ready", "x"]) == {"sprint": "pending", "task": "ready"}
