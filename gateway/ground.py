"""Where in its store this process finds the past, and where it writes; and in whose name.

a log that was claimed there                     there, and fenced
none, and the store refuses a second create      the same: it is the first
none, and the store does not                     the best of unfenced/*, and a new prefix of this writer alone
"""

from collections.abc import Iterator
from dataclasses import dataclass

from persistence import cascade, unfenced
from persistence.claim import Claimed, claim
from persistence.clock import Clock, Entropy
from persistence.disk import Disk
from persistence.errors import Damaged, NotFound
from persistence.layout import HINT
from persistence.probe import probe
from persistence.remote import Tip, look
from persistence.replay import Paths
from persistence.store import Found, Store


@dataclass(frozen=True)
class Writer:
    """Who writes, and with what."""

    name: str
    release: str
    paths: Paths
    disk: Disk
    clock: Clock
    entropy: Entropy


@dataclass(frozen=True)
class Ground:
    """`past` is read at a start, `own` is written. `conditional` False: nobody can be fenced here.

    `problems` are sentences about other writers' pasts that cannot be used.
    """

    past: Store
    own: Store
    conditional: bool = True
    problems: tuple[str, ...] = ()

    def get(self, key: str) -> bytes:
        """An object of ours, or of the past. Raises NotFound, StoreError."""
        try:
            return self.own.get(key)
        except NotFound:
            if self.conditional:
                raise  # it is the same place
            return self.past.get(key)

    def claim(self, writer: Writer, tip: Tip | None, floor: int) -> Claimed:
        """Takes the next epoch for a writer, after what a look found. Raises what `claim` raises."""
        return claim(
            self.own,
            tip,
            writer=writer.name,
            release=writer.release,
            entropy=writer.entropy,
            clock=writer.clock,
            floor=floor,
            start=cascade.beginning(writer.disk, writer.paths),
            conditional=self.conditional,
        )


def find(store: Store, writer: Writer) -> Ground:
    """One request where a log is there already; some twenty for a new prefix. Raises StoreError, Newer."""
    try:
        return Ground(_Hinted(store, store.get(HINT)), store)
    except NotFound:
        pass  # it is advice: that it is not there says nothing
    try:
        if look(store, clock=writer.clock) is not None:
            return Ground(store, store)
    except Damaged:
        return Ground(store, store)  # a log was claimed there once; what to do about it is the recovery's to decide
    survey = unfenced.survey(store, clock=writer.clock)
    if survey.best is None and probe(store, writer.entropy):
        return Ground(store, store, problems=survey.problems)
    own = unfenced.own(store, writer.name)
    return Ground(survey.best.store if survey.best else own, own, conditional=False, problems=survey.problems)


class _Hinted:
    """The store, with HINT as it was just read: whoever looks next need not ask for it again."""

    def __init__(self, store: Store, hint: bytes) -> None:
        self._store = store
        self._hint: bytes | None = hint

    @property
    def url(self) -> str:
        return self._store.url

    def get(self, key: str, first: int = 0, count: int | None = None) -> bytes:
        if key == HINT and self._hint is not None:
            hint, self._hint = self._hint, None
            return hint
        return self._store.get(key, first, count)

    def create(self, key: str, data: bytes) -> None:
        self._store.create(key, data)

    def put(self, key: str, data: bytes) -> None:
        self._store.put(key, data)

    def list(self, prefix: str, after: str = "") -> Iterator[Found]:
        return self._store.list(prefix, after)

    def delete(self, key: str) -> None:
        self._store.delete(key)

    def close(self) -> None:
        self._store.close()
