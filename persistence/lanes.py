"""Threads side by side for what waits for a disk or a store, and the parts of it that each takes.

    things ─ parts ─▶ of at most so many things and bytes ─ run ─▶ a lane each

Side by side, because a disk makes what eight threads sync durable in the time that it needs for one of them. Lanes of
its own, because asyncio's are few on a small machine, and all that is meant for a thread waits for the same ones.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

LANES = 8  #: parts that are on their way at once
PART = 32  #: things of a part
PART_BYTES = 2 << 20  #: of a part, if it is more than one thing


class Lanes:
    """The threads, which are there from the first call to the end of the `with`; no call is waited for then."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(LANES, thread_name_prefix=name)

    def __enter__(self) -> "Lanes":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """What the function returns or raises, in a lane."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)


def parts(things: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """The things in their order, in parts of which every lane has one, where there are enough."""
    waiting = list(things)
    most = min(PART, -(-len(waiting) // LANES))
    part: list[T] = []
    total = 0
    for thing in waiting:
        if part and (len(part) == most or total + size(thing) > PART_BYTES):
            yield part
            part, total = [], 0
        part.append(thing)
        total += size(thing)
    if part:
        yield part
