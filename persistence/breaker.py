"""When to leave something alone that keeps failing.

    closed ── `threshold` failures in a row ──▶ open ── `cooldown_s` ──▶ half_open ── success ──▶ closed
       ▲                                         ▲ ◀──────── failure ────────┘
       └─────────────── success ─────────────────┘

A frozen value and three transitions; time arrives as seconds that never go back. Used wherever something outside may be
away for hours: the store, the archive's remote, tasks.
"""

from dataclasses import dataclass, replace
from typing import Literal

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
