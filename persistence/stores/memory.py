"""Objects in memory: for tests and simulations. What it holds is gone with it."""

import threading
from collections.abc import Iterator

from persistence.clock import Clock, SystemClock
from persistence.errors import UsageError
from persistence.store import Access, Found, absent, checked_key, checked_prefix, taken


class MemoryStore:
    """A dictionary behind a lock. `objects` is there to be looked at, copied and damaged."""

    url = "memory://"

    def __init__(self, clock: Clock | None = None) -> None:
        self.objects: dict[str, bytes] = {}
        self._modified: dict[str, float] = {}
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()

    def create(self, key: str, data: bytes) -> None:
        with self._lock:
            if checked_key(key) in self.objects:
                raise taken(key, self.url)
            self._write(key, data)

    def put(self, key: str, data: bytes) -> None:
        with self._lock:
            self._write(checked_key(key), data)

    def get(self, key: str, first: int = 0, count: int | None = None) -> bytes:
        with self._lock:
            data = self.objects.get(checked_key(key))
        if data is None:
            raise absent(key, self.url)
        return data[first:] if count is None else data[first : first + count]

    def list(self, prefix: str, after: str = "") -> Iterator[Found]:
        checked_prefix(prefix)
        with self._lock:
            keys = sorted(key for key in self.objects if key.startswith(prefix) and key > after)
            found = [Found(key, len(self.objects[key]), self._modified.get(key, 0.0)) for key in keys]
        yield from found

    def delete(self, key: str) -> None:
        with self._lock:
            self.objects.pop(checked_key(key), None)
            self._modified.pop(key, None)

    def close(self) -> None:
        """Nothing to let go of."""

    def _write(self, key: str, data: bytes) -> None:
        self.objects[key] = bytes(data)
        self._modified[key] = self._clock.now()


def opened(place: str, access: Access) -> MemoryStore:
    """A store of its own for `memory://`. Raises UsageError."""
    if place:
        raise UsageError("a store in memory has no place", hint="write memory://")
    return MemoryStore()
