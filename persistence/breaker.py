"""When to leave something alone that keeps failing.

    closed ── `threshold` failures in a row ──▶ open ── `cooldown_s` ──▶ half_open ── success ──▶ closed
       ▲                                         ▲ ◀──────── failure ────────┘
       └─────────────── success ─────────────────┘

A frozen value and three transitions; time arrives as seconds that never go back. Used wherever something outside may be
away for hours: the store, the archive's remote, tasks. Those of tasks are in the log as well, each opening and closing
a record, so that a restart does not try at once what was to be left alone: `BREAKERS` is what the log says of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from persistence.events import BreakerChanged, Record
from persistence.fold import Fold

THRESHOLD = 5
COOLDOWN_S = 30.0

BreakerState = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Breaker:
    """How often in a row something failed, and since when it is left alone (None: it is not)."""

    threshold: int = THRESHOLD
    cooldown_s: float = COOLDOWN_S
    failures: int = 0
    opened_at: float | None = None

    def state(self, now: float) -> BreakerState:
        """`open`: leave it alone; `half_open`: one attempt may show whether it is well again."""
        if self.opened_at is None:
            return "closed"
        return "open" if now < self.opened_at + self.cooldown_s else "half_open"

    def wait_s(self, now: float) -> float:
        """How long it is to be left alone still; 0 where an attempt may be made."""
        return 0.0 if self.opened_at is None else max(0.0, self.opened_at + self.cooldown_s - now)

    def success(self) -> "Breaker":
        """It worked: everything is forgiven."""
        return replace(self, failures=0, opened_at=None)

    def failure(self, now: float) -> "Breaker":
        """It failed. A failed probe opens it again at once."""
        failures = self.failures + 1
        trips = failures >= self.threshold or self.opened_at is not None
        return replace(self, failures=failures, opened_at=now if trips else None)

    def probe(self, now: float) -> "Breaker":
        """Somebody wants to know now: an open one is half open from this moment."""
        return self if self.state(now) != "open" else replace(self, opened_at=now - self.cooldown_s)

    def resumed(self, opened: "Opened", wall: float, now: float) -> "Breaker":
        """As a process before this one left it; `wall` is the time of day, in seconds since 1970.

        Only that clock knows how long ago it was, and it may have been set: whatever it says, what is left of the
        cooldown is neither longer than a whole one nor less than nothing.
        """
        ago = min(max(0.0, wall - opened.at), self.cooldown_s)
        return replace(self, failures=opened.failures, opened_at=now - ago)


# ---------------------------------------------------------------- what the log says


@dataclass(frozen=True)
class Opened:
    """A task's breaker that opened `at` (seconds since 1970), after so many failures, the last with `error`."""

    at: float
    failures: int
    error: str


@dataclass(frozen=True)
class Breakers:
    """Those of tasks that are open, by the task's name."""

    opened: Mapping[str, Opened] = field(default_factory=dict)


def keep(breakers: Breakers, record: Record) -> Breakers:
    """The breakers after a record."""
    event = record.event
    if not isinstance(event, BreakerChanged):
        return breakers
    others = {task: opened for task, opened in breakers.opened.items() if task != event.task}
    if event.state == "closed":
        return Breakers(others)
    return Breakers({**others, event.task: Opened(record.time / 1000, event.failures, event.error)})


#: Who comes from a release without them had none open.
BREAKERS = Fold(
    "breakers", 1, Breakers, Breakers(), keep, False, (BreakerChanged,), lifts={0: lambda _: {"opened": {}}}
)
