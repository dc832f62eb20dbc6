"""What can be worked on: against a computation that tries every path, on graphs of any shape."""

import random
from collections.abc import Mapping
from typing import Any

import pytest

from persistence.bead import Bead
from persistence.ready import DAY, PARENT, Query, blocked, ready, resolve, select, untouched
from persistence.rfc3339 import SECOND, rfc3339
from tests.conftest import count
from tests.persistence.beads import NOW, bead, by_id, ids

KINDS = ("blocks", "conditional-blocks", "waits-for", PARENT, "related", "discovered-from", "parent_child", "x")
STATUSES = ("open", "in_progress", "blocked", "deferred", "closed", "tombstone", "pinned", "draft", "mine")


def waits(bead: Bead, beads: Mapping[str, Bead], depth: int = 50) -> bool:
    """By walking up from the bead, without remembering anything."""
    for edge in bead.data.get("dependencies", ()):
        target = beads.get(edge["depends_on_id"])
        if edge["type"] in KINDS[:3]:
            if target is None and not edge["depends_on_id"].startswith("external:"):
                return True
            if target is not None and target.data["status"] not in ("closed", "tombstone"):
                return True
        if edge["type"] == PARENT and target is not None and depth and waits(target, beads, depth - 1):
            return True
    return False


def graph(rng: random.Random) -> dict[str, Bead]:
    """With circles, edges to nowhere and to oneself, and long lines of parents."""
    names = [f"bd-{number}" for number in range(rng.randint(1, 9))]
    targets = [*names, "bd-gone", "external:other:x"]
    found = []
    for name in names:
        edges = {rng.choice(targets): rng.choice(KINDS) for _ in range(rng.choice((0, 0, 1, 1, 2)))}
        flags: dict[str, Any] = {flag: True for flag in ("pinned", "is_template", "ephemeral") if rng.random() < 0.05}
        until: dict[str, Any] = (
            {"defer_until": rfc3339(NOW + rng.randint(-2, 2) * SECOND)} if rng.random() < 0.2 else {}
        )
        found.append(
            bead(
                name,
                edges=[(kind, target) for target, kind in edges.items()],
                status=rng.choice(STATUSES[: rng.choice((1, 5, 9))]),
                priority=rng.randint(0, 4),
                **flags,
                **until,
            )
        )
    return by_id(*found)


def test_blocked_and_ready_are_what_every_path_says(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(count(1500, 50_000)):
        beads = graph(rng)
        waiting = {name for name, one in beads.items() if waits(one, beads, len(beads))}
        assert blocked(beads) == waiting, beads
        free = {
            name
            for name, one in beads.items()
            if name not in waiting
            and one.data["status"] in ("open", "in_progress")
            and not any(one.data.get(flag) for flag in ("pinned", "is_template", "ephemeral"))
            and (not one.data.get("defer_until") or (one.instant("defer_until") or 0) <= NOW)
        }
        assert set(ids(ready(beads, NOW))) == free, beads


def test_a_circle_blocks_all_that_are_in_it() -> None:
    beads = by_id(bead("bd-1", blocks=["bd-2"]), bead("bd-2", blocks=["bd-3"]), bead("bd-3", blocks=["bd-1"]))
    assert blocked(beads) == {"bd-1", "bd-2", "bd-3"}


def test_an_open_parent_alone_holds_nothing_up() -> None:
    assert blocked(by_id(bead("bd-1"), bead("bd-2", edges=[(PARENT, "bd-1")]))) == frozenset()


def test_a_parent_hands_its_waiting_down_fifty_generations() -> None:
    line = [bead("bd-0", blocks=["bd-gone"])]
    line += [bead(f"bd-{n}", edges=[(PARENT, f"bd-{n - 1}")]) for n in range(1, 60)]
    assert blocked(by_id(*line)) == {f"bd-{n}" for n in range(51)}


def test_the_urgent_go_first_and_then_the_oldest() -> None:
    made = [
        bead("bd-1", NOW - 5, priority=2),
        bead("bd-2", NOW - 4, priority=4),
        bead("bd-3", NOW - 2, priority=0),
        bead("bd-4", NOW - 3, priority=1),
    ]
    beads = by_id(*made)
    assert ids(ready(beads, NOW)) == ["bd-4", "bd-3", "bd-1", "bd-2"]
    assert ids(ready(beads, NOW, "priority")) == ["bd-3", "bd-4", "bd-1", "bd-2"]
    assert ids(ready(beads, NOW, "oldest")) == ["bd-1", "bd-2", "bd-4", "bd-3"]


def test_untouched_is_what_was_changed_before_the_oldest_first() -> None:
    beads = by_id(
        bead("bd-1", NOW - 2 * DAY),
        bead("bd-2", NOW - 3 * DAY, status="in_progress"),
        bead("bd-3", NOW - 3 * DAY, status="closed"),
        bead("bd-4", NOW - DAY),
    )
    assert ids(untouched(beads, NOW - DAY)) == ["bd-2", "bd-1"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query(), ["bd-2", "bd-1", "bd-3"]),
        (Query(everything=True), ["bd-2", "bd-1", "bd-3", "bd-4"]),
        (Query(statuses=("closed",)), ["bd-4"]),
        (Query(labels=("a", "b")), ["bd-1"]),
        (Query(labels_any=("a", "c")), ["bd-2", "bd-1"]),
        (Query(types=("bug",)), ["bd-3"]),
        (Query(priorities=(0, 3)), ["bd-2", "bd-3"]),
        (Query(title_contains="BEAD BD-1"), ["bd-1"]),
        (Query(assignee="ann"), ["bd-3"]),
        (Query(unassigned=True), ["bd-2", "bd-1"]),
        (Query(sort="title", reverse=True), ["bd-3", "bd-2", "bd-1"]),
        (Query(overdue=True), ["bd-2"]),
    ],
    ids=range(12),
)
def test_a_list_shows_what_is_asked_for(query: Query, found: list[str]) -> None:
    beads = [
        bead("bd-1", labels=["a", "b"], priority=1),
        bead("bd-2", labels=["a"], priority=0, due_at=rfc3339(NOW - 1)),
        bead("bd-3", issue_type="bug", priority=3, assignee="ann"),
        bead("bd-4", status="closed", priority=4),
        bead("bd-5", status="tombstone"),
        bead("bd-6", is_template=True),
    ]
    assert ids(select(beads, query, NOW)) == found


def test_a_part_of_a_name_is_enough_where_it_is_one_beads() -> None:
    beads = by_id(bead("bd-4k2"), bead("bd-4k3"), bead("bd-x"))
    assert [resolve(name, beads) for name in ("bd-4k2", "4k2", "k", "X", "", "zz")] == [
        ["bd-4k2"],
        ["bd-4k2"],
        ["bd-4k2", "bd-4k3"],
        ["bd-x"],
        [],
        [],
    ]
