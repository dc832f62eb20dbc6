"""What is counted and measured on the way, told to whoever wants to know.

A room is handed an `Observe` and calls it with a name and a number: how many, how much, how long. What becomes of that
is decided above (gateway/metrics.py has the table of names). It never waits and never fails, in any thread.
"""

from typing import Protocol


class Observe(Protocol):
    """Takes one number. `labels` are few and from closed sets: never an id, a path, or anything that somebody typed."""

    def __call__(self, name: str, value: float, /, **labels: str) -> None: ...


def unobserved(name: str, value: float, /, **labels: str) -> None:
    """Nobody wants to know."""
