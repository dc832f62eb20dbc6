"""Time, ids and randomness: the one place that asks the machine for them.

Everything else gets a `Clock`, `Ids` or `Entropy` as an argument, so that a test can hold time still and every failure
has a seed. A ULID is 48 bits of milliseconds and 80 bits of randomness, 26 characters of Crockford's base 32;
python-ulid draws anew in each call, so order within one millisecond (or under a clock that goes back) is kept here.
"""

import asyncio
import itertools
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

Entropy = Callable[[int], bytes]  #: gives so many random bytes

_LAST_TWO = ["".join(two) for two in itertools.product("0123456789ABCDEFGHJKMNPQRSTVWXYZ", repeat=2)]


class Clock(Protocol):
    """Wall time for people, monotonic time for deadlines, boot time for what others do meanwhile, and waiting."""

    def now(self) -> float:
        """Seconds since 1970, which may jump."""

    def monotonic(self) -> float:
        """Seconds since some moment, which never go back."""

    def boottime(self) -> float:
        """As monotonic, but it also goes on while the machine sleeps."""

    async def sleep(self, seconds: float) -> None:
        """Returns when so many seconds have passed."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def boottime(self) -> float:
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))  # Linux has the first

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class FakeClock:
    """A clock that moves only when it is told to, or when somebody sleeps on it."""

    def __init__(self, now: float = 1_795_000_000.0) -> None:
        self.time = now

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def boottime(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        """Moves time on by so many seconds."""
        self.time += seconds


def system_entropy(count: int) -> bytes:
    """`count` bytes from the operating system's generator, fit for secrets."""
    return os.urandom(count)


def iso(seconds: float) -> str:
    """`2026-11-20T10:00:00.000Z` for seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def iso_ms(ms: int) -> str:
    """The same for milliseconds, which is how records have it."""
    seconds, rest = divmod(ms, 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class Ids:
    """Makes ULIDs that strictly increase, whatever the clock does. Safe to call from any thread."""

    def __init__(self, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._entropy = entropy
        self._last = 0
        self._lock = threading.Lock()

    def new(self) -> str:
        """The next ULID, 26 characters."""
        return self.take(1)[0]

    def follow(self, ulid: str) -> None:
        """Every id from now on comes after `ulid`, also where the clock stands before it."""
        from ulid import ULID

        with self._lock:
            self._last = max(self._last, int(ULID.from_str(ulid)))

    def take(self, count: int) -> list[str]:
        """The next so many ULIDs, of one moment."""
        with self._lock:
            now = int(self._clock.now() * 1000)
            ahead = now > self._last >> 80
            first = now << 80 | int.from_bytes(self._entropy(10), "big") if ahead else self._last + 1
            self._last = first + count - 1
        return _texts(first, count)


def _texts(first: int, count: int) -> list[str]:
    """Consecutive ULIDs. Most differ in the last two digits only: a table of those is twenty times as fast."""
    from ulid import ULID  # imported on first use: it costs 50 ms that a start to the first answer need not pay

    texts: list[str] = []
    while len(texts) < count:
        head = str(ULID.from_int(first + len(texts)))[:-2]
        start = (first + len(texts)) % len(_LAST_TWO)
        texts += [head + two for two in _LAST_TWO[start : start + count - len(texts)]]
    return texts
