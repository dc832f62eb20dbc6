"""A log to replicate, writers of it, and stores that count, fail before or after they did it, or hold races."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TypeVar

from persistence.claim import BEGINNING, Claimed, Start, claim
from persistence.clock import FakeClock
from persistence.errors import Exists, NotFound, StoreUnreachable
from persistence.frame import encode
from persistence.remote import Tip, look
from persistence.replica import Replica
from persistence.runs import Run
from persistence.store import Found, Store

T = TypeVar("T")

ARRIVES = 0.2  #: how likely a create that is on the way comes before the next call
Told = Callable[[str, str], None]  #: is told of a call and its key


class Records:
    """A log in memory: real frames, chained. `blobs` are the bytes that records may name."""

    def __init__(self, start: Start = BEGINNING) -> None:
        self.start = start
        self.blobs: dict[str, bytes] = {}
        self.named: dict[int, tuple[str, ...]] = {}
        self._frames: list[bytes] = []
        self._chains = [start.chain]

    @property
    def durable(self) -> int:
        return self.start.seq + len(self._frames)

    def say(self, *texts: str, blobs: tuple[str, ...] = ()) -> None:
        for text in texts:
            line = b'{"seq":%d,"type":"note","data":{"text":"%b"}}' % (self.durable + 1, text.encode())
            frame, digest = encode(line, bytes.fromhex(self._chains[-1]))
            self._frames.append(frame)
            self._chains.append(digest.hex())
            self.named[self.durable] = blobs

    def chain(self, seq: int) -> str:
        return self._chains[seq - self.start.seq]

    def span(self, first: int, last: int) -> bytes:
        return b"".join(self._frames[first - self.start.seq - 1 : last - self.start.seq])

    def frames(self, after: int, limit: int) -> Run:
        last = after + 1
        while last < self.durable and len(self.span(after + 1, last + 1)) <= limit:
            last += 1
        names = tuple(name for seq in range(after + 1, last + 1) for name in self.named[seq])
        return Run(after + 1, last, self.chain(after), self.chain(last), self.span(after + 1, last), names)

    def blob(self, sha: str) -> bytes:
        if sha not in self.blobs:
            raise NotFound(f"there is no blob {sha}")
        return self.blobs[sha]

    chunk = blob


class Watched:
    """A store that tells of every call: before it is made, and after it was done. Either may raise."""

    def __init__(self, store: Store, before: Told = lambda call, key: None, after: Told = lambda call, key: None):
        self.store = store
        self.before = before
        self.after = after
        self.calls: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return self.store.url

    def create(self, key: str, data: bytes) -> None:
        self._told("create", key, partial(self.store.create, key, data))

    def put(self, key: str, data: bytes) -> None:
        self._told("put", key, partial(self.store.put, key, data))

    def get(self, key: str, first: int = 0, count: int | None = None) -> bytes:
        return self._told("get", key, partial(self.store.get, key, first, count))

    def list(self, prefix: str, after: str = "") -> Iterator[Found]:
        yield from self._told("list", prefix, lambda: [*self.store.list(prefix, after)])

    def delete(self, key: str) -> None:
        self._told("delete", key, partial(self.store.delete, key))

    def close(self) -> None:
        self.store.close()

    def _told(self, call: str, key: str, act: Callable[[], T]) -> T:
        with self._lock:
            self.calls.append((call, key))
        self.before(call, key)
        result = act()
        self.after(call, key)
        return result


def lost(*keys: str, after: int = 0) -> Told:
    """For `before` or `after`: no answer, the first time that each of these keys is written `after` so many times."""
    left = dict.fromkeys(keys, after)

    def fail(call: str, key: str) -> None:
        if key in left and call in ("create", "put"):
            left[key] -= 1
            if left[key] >= 0:
                return
            del left[key]
            raise StoreUnreachable(f"{key}: no answer")

    return fail


class Writer:
    """One instance of the program, as far as the store knows it."""

    def __init__(self, store: Store, name: str, records: Records | None = None, seed: int = 0) -> None:
        self.store = store
        self.name = name
        self.records = records or Records()
        self.clock = FakeClock()
        self._random = random.Random(f"{seed} {name}")

    def look(self) -> Tip | None:
        return look(self.store, clock=self.clock, hinted=True, threads=1)

    def claim(self, tip: Tip | None = None, *, floor: int = 0, start: Start = BEGINNING) -> Claimed:
        """Looks and claims, or claims after a look that was made before."""
        return claim(
            self.store,
            tip or self.look(),
            writer=self.name,
            release="test",
            entropy=self._random.randbytes,
            clock=self.clock,
            floor=floor,
            start=start,
            threads=1,
        )

    def replica(self, claimed: Claimed | None = None) -> Replica:
        return Replica(
            self.store,
            claimed or self.claim(),
            self.records,
            release="test",
            clock=self.clock,
            entropy=self._random.randbytes,
            threads=1,
        )


class Delayed(Watched):
    """A store on whose way some creates stay: the caller gets no answer, and they arrive later, or never."""

    def __init__(self, store: Store, random: random.Random, share: float, on_the_way: list[tuple[str, bytes]]) -> None:
        super().__init__(store)
        self._random = random
        self._share = share
        self._on_the_way = on_the_way

    def create(self, key: str, data: bytes) -> None:
        if self._random.random() < self._share:
            self._on_the_way.append((key, data))
            raise StoreUnreachable(f"{key}: no answer")
        super().create(key, data)


class Race:
    """Programs that run at once, one store call at a time. A seed says whose turn it is, which answers are lost, and
    which creates arrive only after others.
    """

    def __init__(self, store: Store, seed: str, losses: float = 0.0) -> None:
        self._store = store
        self._random = random.Random(seed)
        self._losses = losses
        self._turns = threading.Condition()
        self._waiting: set[int] = set()
        self._running: set[int] = set()
        self._next: int | None = None
        self._on_the_way: list[tuple[str, bytes]] = []

    def run(self, *programs: Callable[[Store], None]) -> None:
        """Runs all to their end, and raises the first error of any."""
        self._running = set(range(len(programs)))
        errors: list[BaseException] = []
        crew = [threading.Thread(target=self._run, args=(i, one, errors)) for i, one in enumerate(programs)]
        for thread in crew:
            thread.start()
        while self._deal():
            pass
        for thread in crew:
            thread.join()
        while self._on_the_way:
            self._arrive()
        if errors:
            raise errors[0]

    def _arrive(self) -> None:
        """One of the creates that are on the way comes to the store."""
        key, data = self._on_the_way.pop(self._random.randrange(len(self._on_the_way)))
        with suppress(Exists):
            self._store.create(key, data)

    def _deal(self) -> bool:
        """Lets one program make one call, when each of them waits to make one."""
        with self._turns:
            self._turns.wait_for(lambda: self._next is None and self._waiting == self._running)
            if not self._running:
                return False
            self._next = self._random.choice(sorted(self._waiting))
            self._turns.notify_all()
            return True

    def _run(self, index: int, program: Callable[[Store], None], errors: list[BaseException]) -> None:
        def turn(call: str, key: str) -> None:
            with self._turns:
                self._waiting.add(index)
                self._turns.notify_all()
                self._turns.wait_for(lambda: self._next == index)
                self._waiting.discard(index)
                self._next = None
            if self._on_the_way and self._random.random() < ARRIVES:
                self._arrive()
            self._lose(call, key)

        delayed = Delayed(self._store, self._random, self._losses, self._on_the_way)
        try:
            program(Watched(delayed, turn, self._lose))
        except BaseException as error:  # noqa: BLE001 - raised by `run`
            errors.append(error)
        with self._turns:
            self._running.discard(index)
            self._turns.notify_all()

    def _lose(self, call: str, key: str) -> None:
        if self._random.random() < self._losses:
            raise StoreUnreachable(f"{call} {key}: no answer")


def seen(store: Store) -> Tip:
    """What a look finds, where there is something."""
    tip = look(store, clock=FakeClock(), threads=1)
    assert tip is not None
    return tip


def told(tip: Tip) -> bytes:
    """The frames of the tail."""
    return b"".join(one.body for one in tip.tail)
