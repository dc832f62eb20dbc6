"""What a benchmark gives: figures taken in alternating rounds beside an anchor, and whether they reach a goal.

    round 1: anchor, ours    round 2: anchor, ours    …    ─▶ the median of what is judged, and where most rounds lay

Another program may slow the machine at any moment. It then slows both halves of a round, so what is judged is the
ratio within a round where a goal is a ratio, and the median over the rounds in any case.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

Judged = Literal["ratio", "ours"]


@dataclass(frozen=True)
class Round:
    """One pair of figures; `anchor` None where the goal stands alone."""

    anchor: float | None
    ours: float

    def judged(self, what: Judged) -> float:
        """The figure that the goal is about."""
        return self.ours if what == "ours" or self.anchor is None else self.ours / self.anchor


@dataclass(frozen=True)
class Goal:
    """What is to be reached. Without a limit the figure is only told."""

    judged: Judged
    most: float | None = None
    least: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a figure reaches it."""
        return (self.most is None or value <= self.most) and (self.least is None or value >= self.least)

    def __str__(self) -> str:
        sign, limit = ("≤", self.most) if self.most is not None else ("≥", self.least)
        return "" if limit is None else f"{sign} {limit:g}{' ×' if self.judged == 'ratio' else ''}"


@dataclass(frozen=True)
class Measured:
    """One line of the table. `load` is the machine's load when it was taken."""

    what: str
    unit: str
    anchor: str
    rounds: Sequence[Round]
    goal: Goal
    load: float = field(default_factory=lambda: os.getloadavg()[0])

    @property
    def value(self) -> float:
        """The median of what is judged."""
        return median(one.judged(self.goal.judged) for one in self.rounds)

    @property
    def spread(self) -> tuple[float, float]:
        """Where the middle four fifths of the rounds lie."""
        judged = sorted(one.judged(self.goal.judged) for one in self.rounds)
        cut = len(judged) // 10
        return judged[cut], judged[-1 - cut]

    def cells(self) -> tuple[str, ...]:
        """The line as the table shows it."""
        anchors = [one.anchor for one in self.rounds if one.anchor is not None]
        low, high = self.spread
        return (
            self.what,
            f"{self.anchor} {shown(median(anchors))}" if anchors else "",
            f"{shown(median(one.ours for one in self.rounds))} {self.unit}",
            f"{median(one.judged('ratio') for one in self.rounds):.2f}" if anchors else "",
            str(self.goal),
            "" if not str(self.goal) else "yes" if self.goal.holds(self.value) else "NO",
            f"{shown(low)} to {shown(high)}",
            f"{self.load:.1f}",
        )


HEADINGS = ("what", "anchor", "ours", "ratio", "goal", "ok?", "spread", "load")


def table(rows: Sequence[Measured]) -> str:
    """The rows as a Markdown table."""
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    padded = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    rule = "-|-".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in (padded[0], rule, *padded[1:]))


def shown(value: float) -> str:
    """Three digits are all that a noisy machine can tell."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
