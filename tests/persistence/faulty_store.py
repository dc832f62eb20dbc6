"""A store that fails as the network does, by a seed: for simulations.

    500, 503, 409, reset before     nothing was done             StoreUnreachable
    reset after                     it was done, nobody knows    StoreUnreachable
    time-out                        one or the other             StoreUnreachable
    stale list                      what was there some writes ago

`FaultyStore(MemoryStore(), random.Random(seed), rate=0.1)`; `down` while the store is away, `calm()` for the end of a
run. `seen` counts the faults by name, so that a simulation can show that it met each of them.
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import TypeVar

from persistence.errors import NotFound, StoreUnreachable
from persistence.store import Found, Store

REFUSALS = ("500", "503", "409", "reset before", "time-out before")  #: the call never reached the objects
DOUBTS = ("reset after", "time-out after")  #: it did, and its answer was lost
STALE_WRITES = 8  #: how far behind a listing may be

Given = TypeVar("Given")


class FaultyStore:
    """`rate` is the share of calls that fail, `stale` the share of listings that are old."""

    def __init__(self, store: Store, rng: random.Random, *, rate: float = 0.1, stale: float = 0.2) -> None:
        self.down = False
        self.seen: Counter[str] = Counter()
        self._store = store
        self._rng = rng
        self._rate = rate
        self._stale = stale
        self._past: deque[tuple[str, int | None]] = deque(maxlen=STALE_WRITES)  # what was written, its size before

    @property
    def url(self) -> str:
        return self._store.url

    def calm(self) -> None:
        """No fault from now on."""
        self.down, self._rate, self._stale = False, 0.0, 0.0

    def create(self, key: str, data: bytes) -> None:
        self._remember(key)
        self._call(f"create {key}", lambda: self._store.create(key, data))

    def put(self, key: str, data: bytes) -> None:
        self._remember(key)
        self._call(f"put {key}", lambda: self._store.put(key, data))

    def delete(self, key: str) -> None:
        self._remember(key)
        self._call(f"delete {key}", lambda: self._store.delete(key))

    def get(self, key: str, first: int = 0, count: int | None = None) -> bytes:
        return self._call(f"get {key}", lambda: self._store.get(key, first, count))

    def list(self, prefix: str, after: str = "") -> Iterator[Found]:
        return iter(self._call(f"list {prefix}", lambda: self._listed(prefix, after)))

    def close(self) -> None:
        self._store.close()

    def _listed(self, prefix: str, after: str) -> tuple[Found, ...]:
        found = {each.key: each for each in self._store.list(prefix, after)}
        if self._past and self._rng.random() < self._stale:
            self.seen["stale list"] += 1
            for key, size in reversed(tuple(self._past)[self._rng.randrange(len(self._past)) :]):
                if size is None:
                    found.pop(key, None)
                elif key.startswith(prefix) and key > after:
                    found[key] = Found(key, size, found[key].modified if key in found else 0.0)
        return tuple(found[key] for key in sorted(found))

    def _remember(self, key: str) -> None:
        try:
            self._past.append((key, len(self._store.get(key))))
        except NotFound:
            self._past.append((key, None))

    def _call(self, what: str, call: Callable[[], Given]) -> Given:
        if self.down:
            raise self._fault("down", what)
        if self._rng.random() >= self._rate:
            return call()
        fault = self._rng.choice((*REFUSALS, *DOUBTS))
        if fault in DOUBTS:
            call()  # NotFound and Exists are answers, and come through: only a success is lost
        raise self._fault(fault, what)

    def _fault(self, fault: str, what: str) -> StoreUnreachable:
        self.seen[fault] += 1
        return StoreUnreachable(f"{what}: {fault}", hint="a fault of the simulation")
