"""When the owner is sent word: pure decisions over what finn is and what the owner knows.

    report ─ ailing ─▶ what is bad now ─ Watch: two looks agree ─▶ what counts ─┬─ as the owner knows it ─▶ nothing
                                                                                ├─ not so ─▶ word
                                                                                └─ not so, LIMIT used up ─▶ word later

What counts is kept by subject (the store, git, the disk), so that a bead that lies still for a week hides no store that
breaks meanwhile, and the five checks that a broken store fails are one message. What the owner knows is a fold of the
log: a restart tells nothing twice, and who was told something that may never have arrived is told how it is now.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from persistence.events import OwnerReached, OwnerTold, Record
from persistence.fold import Fold
from scheduler.health import ORDER, Report, Status

LIMIT = 10  #: messages in any DAY_MS, however it flaps
DAY_MS = 24 * 3600 * 1000

Degree = Literal["warn", "fail"]
Bad = Mapping[str, Degree]  #: what is not well, by subject

#: What a task is about; any other is a subject of its own.
TASKS: Mapping[str, str] = MappingProxyType(
    {
        "replicate": "store",
        "orphans": "store",
        "drill": "store",
        "archive": "git",
        "snapshot": "wal",
        "stale_beads": "beads",
    }
)
OWN = "owner"  #: that telling fails is no news for who cannot be told


def subject(check: str) -> str:
    """What a check is about: `store:lagSeconds` and `task:replicate` are both about the store."""
    about, _, name = check.partition(":")
    return TASKS.get(name, name) if about == "task" else about


def ailing(report: Report) -> Bad:
    """What is not well, as one look found it; each subject as bad as its worst check."""
    found: dict[str, Degree] = {}
    for check, rows in sorted(report.checks.items()):
        about = subject(check)
        for row in rows:
            if row["status"] != "pass" and about != OWN and found.get(about) != "fail":
                found[about] = row["status"]
    return found


def worst(bad: Bad) -> Status:
    """How finn is in all."""
    return max(bad.values(), key=ORDER.index, default="pass")


# ---------------------------------------------------------------- what counts


@dataclass(frozen=True, slots=True)
class Watch:
    """What counts: for each subject the middle one of what counted so far and of what the last two looks found.

    So two looks that agree decide, what flaps between well and bad stays what it was, and what flaps between warn and
    fail is a warn.
    """

    held: Bad
    last: Bad | None = None  #: what the last look found; None before the first

    def seen(self, bad: Bad) -> "Watch":
        """After one more look. The first tells nothing yet."""
        if self.last is None:
            return Watch(self.held, bad)
        names = sorted({*self.held, *self.last, *bad})
        middle = {name: _middle([each.get(name, "pass") for each in (self.held, self.last, bad)]) for name in names}
        return Watch({name: status for name, status in middle.items() if status != "pass"}, bad)


def _middle(three: Iterable[Status]) -> Status:
    return sorted(three, key=ORDER.index)[1]


# ---------------------------------------------------------------- what the owner knows


@dataclass(frozen=True, slots=True)
class Told:
    """What the owner was told last, when the last messages were (milliseconds), and whether all of it arrived."""

    bad: Mapping[str, Degree] = field(default_factory=dict)
    times: tuple[int, ...] = ()
    arrived: bool = True

    def told(self, bad: Bad, at: int) -> "Told":
        """After one more message, which is on its way."""
        return Told(dict(bad), (*self.times, at)[-LIMIT:], arrived=False)

    def reached(self) -> "Told":
        """Once all of it has arrived."""
        return replace(self, arrived=True)

    def recent(self, now: int) -> tuple[int, ...]:
        """The messages that count against the limit. A clock that was set by more than a day lets go of them."""
        return tuple(at for at in self.times if abs(now - at) < DAY_MS)


def step(told: Told, record: Record) -> Told:
    """What the owner knows after a record."""
    event = record.event
    if isinstance(event, OwnerTold):
        return told.told(event.bad, record.time)
    return told.reached()


ALERTS = Fold("alerts", 1, Told, Told(), step, False, (OwnerTold, OwnerReached))


# ---------------------------------------------------------------- what follows


def is_due(told: Told, held: Bad, now: int) -> bool:
    """Whether the owner is to be sent word now: it is not as it was said, or what was said may not have arrived."""
    return (held != told.bad or not told.arrived) and len(told.recent(now)) < LIMIT


def silent_until(told: Told, now: int) -> int | None:
    """Before when there is no other message after one that is sent now; None where the next may come at once."""
    recent = (*told.recent(now), now)
    return min(recent) + DAY_MS if len(recent) >= LIMIT else None
