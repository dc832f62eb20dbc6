"""What the store holds, asked once for all checks: the end of the log there, or why nobody knows it.

open ─▶ look ─▶ a tip                           what a claim would find
             ├▶ none: unfenced/…, the best       a store that takes no conditions
             ├▶ none at all                      the store is empty
             └▶ an error                         silent, refused, or damaged
"""

from collections.abc import Callable
from dataclasses import dataclass

from persistence import unfenced
from persistence.clock import Clock
from persistence.errors import Damaged, FinnError, Newer, StoreRefused
from persistence.remote import Tip, look
from persistence.store import Store
from scheduler.patience import within


@dataclass(frozen=True)
class There:
    """A store as one look found it. `tip` None without an `error`: it holds no log."""

    store: Store | None = None
    tip: Tip | None = None
    error: FinnError | None = None

    @property
    def answers(self) -> bool:
        """Whether it said anything about this agent, be it that its objects are damaged."""
        return self.store is not None and (self.error is None or isinstance(self.error, Damaged | Newer))

    @property
    def refused(self) -> bool:
        """Whether it answered that it will not."""
        return isinstance(self.error, StoreRefused)


def asked(opener: Callable[[], Store], clock: Clock, limit_s: float) -> There:
    """What is there. Raises nothing that a store can be the cause of."""
    try:
        store = opener()
    except (FinnError, ImportError) as error:
        return There(error=error if isinstance(error, FinnError) else StoreRefused(f"no store can be used: {error}"))
    try:
        return There(*within(limit_s, store.url, lambda: _found(store, clock)))
    except FinnError as error:
        return There(store, error=error)


def _found(store: Store, clock: Clock) -> tuple[Store, Tip | None]:
    tip = look(store, clock=clock)
    if tip is not None:
        return store, tip
    best = unfenced.survey(store, clock=clock).best
    return (best.store, best.tip) if best else (store, None)
