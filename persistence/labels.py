"""Labels of beads, and the states that some of them are.

    run      (none) ─▶ current ◀─▶ halted      current ─▶ complete            an epic; one of them current at a time
    sprint   (none) ─▶ pending ─▶ in_progress ─▶ complete                     one in progress at a time
    session  (none) ─▶ active ◀─▶ idle ─▶ expired ─▶ closed                   a session of work, not a chat
    task     (none) ─▶ proposed ─▶ ready ─▶ in_progress ─▶ done | blocked     blocked, in_progress ─▶ ready
    health   ok ◀─▶ degraded                                                  on one bead, the agent's
    sync     pending | complete                                               computed when the file is written

A state is a label `dimension:value`, at most one of a dimension on a bead: setting the next one takes the last one
away, and only along the arrows. Any other label is just a label: `sprint:165` is no state. `circuit-breaker:NAME` marks
a bead of its own, open as long as the breaker is.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from persistence.errors import IllegalTransition, Invalid

LABEL = re.compile(r"[A-Za-z0-9_:-]{1,50}")
STALE = "stale:true"
BREAKER = "circuit-breaker:"
NONE = ""  #: no state of the dimension


@dataclass(frozen=True, slots=True)
class Dimension:
    """The states of one kind, the arrows between them, and what each means for the bead's status.

    `end` is the state that closing the bead brings, `anew` the one that opening it again does.
    """

    moves: Mapping[str, tuple[str, ...]]
    status: Mapping[str, str] = field(default_factory=dict)
    alone: tuple[str, ...] = ()  #: states that one bead alone may be in
    end: str = NONE
    anew: str = NONE

    @property
    def values(self) -> frozenset[str]:
        return frozenset({*self.moves, *(to for many in self.moves.values() for to in many)}) - {NONE}


DIMENSIONS: Mapping[str, Dimension] = {
    "run": Dimension(
        {NONE: ("current",), "current": ("halted", "complete"), "halted": ("current",)},
        {"current": "in_progress", "halted": "blocked", "complete": "closed"},
        alone=("current",),
        end="complete",
    ),
    "sprint": Dimension(
        {NONE: ("pending", "in_progress"), "pending": ("in_progress", NONE), "in_progress": ("complete",)},
        {"pending": "open", "in_progress": "in_progress", "complete": "closed"},
        alone=("in_progress",),
        end="complete",
        anew="pending",
    ),
    "session": Dimension(
        {NONE: ("active",), "active": ("idle", "expired"), "idle": ("active", "expired"), "expired": ("closed",)},
        {"active": "in_progress", "closed": "closed"},
        end="closed",
    ),
    "task": Dimension(
        {
            NONE: ("proposed", "ready"),
            "proposed": ("ready", NONE),
            "ready": ("in_progress", NONE),
            "in_progress": ("done", "blocked", "ready"),
            "blocked": ("ready",),
        },
        {
            "proposed": "deferred",
            "ready": "open",
            "in_progress": "in_progress",
            "blocked": "blocked",
            "done": "closed",
        },
        end="done",
    ),
    "health": Dimension({NONE: ("ok", "degraded"), "ok": ("degraded",), "degraded": ("ok",)}, alone=("ok", "degraded")),
    "sync": Dimension({NONE: ("pending", "complete")}),
}
COMPUTED = "sync"  #: nobody sets it; it is no part of the state


def state(label: str) -> tuple[str, str] | None:
    """Dimension and value of a label that is a state, else None."""
    dimension, _, value = label.partition(":")
    return (dimension, value) if dimension in DIMENSIONS and value in DIMENSIONS[dimension].values else None


def states(labels: Iterable[str]) -> dict[str, str]:
    """The state in each dimension."""
    return dict(found for label in labels if (found := state(label)) is not None)


def checked(label: str) -> str:
    """The label, if it is one. Raises Invalid."""
    if not LABEL.fullmatch(label):
        raise Invalid(
            f"{label[:60]!r} is no label",
            hint="a label has 1 to 50 letters, digits, _, - and :; write bd-4k2_1 for bd-4k2.1",
        )
    return label


def moved(labels: Iterable[str], add: Iterable[str], remove: Iterable[str]) -> tuple[str, ...]:
    """The labels afterwards, sorted. Raises Invalid, IllegalTransition."""
    before, added, removed = set(labels), {checked(label) for label in add}, set(remove)
    now, then = states(before), states(added)
    _refuse_two(added)
    after = (before - removed) | added
    for dimension in {**now, **then}:
        target = then.get(dimension) or (NONE if f"{dimension}:{now.get(dimension)}" in removed else now[dimension])
        move(dimension, now.get(dimension, NONE), target)
        after = {label for label in after if (state(label) or ("",))[0] != dimension}
        after |= {f"{dimension}:{target}"} if target else set()
    return tuple(sorted(after))


def move(dimension: str, now: str, then: str) -> None:
    """Returns where there is an arrow, or nothing changes. Raises IllegalTransition."""
    if now == then:
        return
    if dimension == COMPUTED:
        raise IllegalTransition(f"{COMPUTED}: is not set by hand", hint="finn computes it from what the copies have")
    ways = DIMENSIONS[dimension].moves.get(now, ())
    if then not in ways:
        named = ", ".join(f"{dimension}:{way}" for way in ways if way) or "nothing"
        raise IllegalTransition(
            f"{dimension} does not go from {now or 'no state'} to {then or 'no state'}",
            hint=f"from here it goes to {named}",
        )


def closing(labels: Iterable[str], *, ended: bool) -> tuple[str, ...]:
    """The labels of a bead that is closed (`ended`) or opened again: whoever may do that ends or begins what it is."""
    after = set(labels) - {STALE}
    for dimension, value in states(after).items():
        known = DIMENSIONS[dimension]
        target = known.end if ended else known.anew if value == known.end else value
        if known.end:
            after = after - {f"{dimension}:{value}"} | ({f"{dimension}:{target}"} if target else set())
    return tuple(sorted(after))


def status(before: Iterable[str], after: Iterable[str]) -> str:
    """The status that a changed state brings with it; empty where it brings none."""
    then = states(before)
    brought = [
        DIMENSIONS[dimension].status.get(value, "")
        for dimension, value in states(after).items()
        if then.get(dimension) != value
    ]
    return next(filter(None, brought), "")


def _refuse_two(added: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for label in sorted(added):
        if (found := state(label)) is not None and seen.setdefault(found[0], label) != label:
            raise Invalid(f"{seen[found[0]]} and {label} cannot both be set", hint="a bead is in one state of a kind")
