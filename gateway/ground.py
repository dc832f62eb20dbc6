"""Where in its store this process finds the past, and where it writes.

a log that was claimed there              there, and fenced
none, and the store refuses a second create      the same: it is the first
none, and the store does not              the best of unfenced/*, and a new prefix of this writer alone
"""

from dataclasses import dataclass

from persistence import unfenced
from persistence.clock import Clock, Entropy
from persistence.errors import NotFound
from persistence.layout import HINT
from persistence.probe import probe
from persistence.remote import look
from persistence.store import Store


@dataclass(frozen=True)
class Ground:
    """`past` is read at a start, `own` is written. `conditional` False: nobody can be fenced here."""

    past: Store
    own: Store
    conditional: bool = True


def find(store: Store, writer: str, *, clock: Clock, entropy: Entropy) -> Ground:
    """One request where a log is there already; some twenty for a new prefix. Raises StoreError, Damaged, Newer."""
    if _is_claimed(store, clock):
        return Ground(store, store)
    best = unfenced.survey(store, clock=clock).best
    if best is None and probe(store, entropy):
        return Ground(store, store)
    own = unfenced.own(store, writer)
    return Ground(best.store if best else own, own, conditional=False)


def _is_claimed(store: Store, clock: Clock) -> bool:
    """Whether there is a log. HINT is advice, so its absence says nothing."""
    try:
        store.get(HINT)
    except NotFound:
        return look(store, clock=clock) is not None
    return True
