"""A store, measured: how often it was called, whether it answered, how long that took, how many bytes went through.

That something is not there, or is there already, is an answer like any other; only a store that cannot be used failed.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from persistence.clock import Clock
from persistence.errors import StoreError
from persistence.measure import Observe
from persistence.store import Found, Store


class Metered:
    """Another store, and an `observe` that hears of every call.

    A listing is counted and not timed: whoever reads it takes time between two pages.
    """

    def __init__(self, store: Store, clock: Clock, observe: Observe) -> None:
        self._store = store
        self._clock = clock
        self._observe = observe

    @property
    def url(self) -> str:
        return self._store.url

    def create(self, key: str, data: bytes) -> None:
        with self._call("create"):
            self._store.create(key, data)
        self._observe("store_sent_bytes", len(data))

    def put(self, key: str, data: bytes) -> None:
        with self._call("put"):
            self._store.put(key, data)
        self._observe("store_sent_bytes", len(data))

    def get(self, key: str, first: int = 0, count: int | None = None) -> bytes:
        with self._call("get"):
            data = self._store.get(key, first, count)
        self._observe("store_received_bytes", len(data))
        return data

    def list(self, prefix: str, after: str = "") -> Iterator[Found]:
        with self._counted("list"):
            yield from self._store.list(prefix, after)

    def delete(self, key: str) -> None:
        with self._call("delete"):
            self._store.delete(key)

    def close(self) -> None:
        self._store.close()

    @contextmanager
    def _call(self, call: str) -> Iterator[None]:
        began = self._clock.monotonic()
        try:
            with self._counted(call):
                yield
        finally:
            self._observe("store_call_seconds", self._clock.monotonic() - began, call=call)

    @contextmanager
    def _counted(self, call: str) -> Iterator[None]:
        outcome = "ok"
        try:
            yield
        except StoreError:
            outcome = "failed"
            raise
        finally:
            self._observe("store_calls", 1, call=call, outcome=outcome)
