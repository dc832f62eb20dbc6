"""One reader's view of a stream: what is durable after its cursor, then everything live, in order.

    cursor ── read from chunks and tail ──▶ head at subscribing ── records and moments as they happen ──▶

Live items wait in memory, up to BUFFER_BYTES; a reader that is further behind is cut off and comes back.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from persistence.events import Json, Record

BUFFER_BYTES = 1024 * 1024
PAGE = 500  #: records read at once for a reader that catches up


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that is shown and not kept: a delta, a queue, a notice."""

    type: str
    turn: str | None
    data: dict[str, Json]


class Overrun(Exception):
    """The reader did not keep up and was cut off."""


Page = Callable[[int, int, int], Awaitable[tuple[Record, ...]]]  #: (after, before, limit): records in order


class Subscription:
    """Iterate it once. `seq` is the head of the log at the moment of subscribing; what is at most that is replay."""

    def __init__(self, page: Page, after: int, seq: int) -> None:
        self.seq = seq
        self._page = page
        self._after = after
        self._items: deque[Record | Moment] = deque()
        self._waiting = 0
        self._wake = asyncio.Event()
        self._closed = False

    def put(self, item: Record | Moment) -> None:
        """Adds a live item; drops everything once the reader is too far behind."""
        self._waiting += weight(item)
        if self._waiting <= BUFFER_BYTES:
            self._items.append(item)
        else:
            self._items.clear()
        self._wake.set()

    def close(self) -> None:
        """Ends the iteration once what waits has been given."""
        self._closed = True
        self._wake.set()

    async def __aiter__(self) -> AsyncIterator[Record | Moment]:
        """Replay, then live items. Raises Overrun."""
        async for record in self._replay():
            yield record
        while True:
            if self._waiting > BUFFER_BYTES:
                raise Overrun
            if self._items:
                item = self._items.popleft()
                self._waiting -= weight(item)
                yield item
            elif self._closed:
                return
            else:
                self._wake.clear()
                await self._wake.wait()

    async def _replay(self) -> AsyncIterator[Record]:
        after = self._after
        while after < self.seq:
            page = await self._page(after, self.seq + 1, PAGE)
            for record in page:
                yield record
            if len(page) < PAGE:
                return
            after = page[-1].seq


def weight(item: Record | Moment) -> int:
    """About how many bytes an item holds."""
    return len(item.line) if isinstance(item, Record) else 64 + sum(len(str(value)) for value in item.data.values())
