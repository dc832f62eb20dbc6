"""What the breakers of tasks did, on its way into the log and onto the beads. Nobody waits for it.

    scheduler ─ note ─▶ breaker_changed, durable ─▶ BREAKERS ─▶ a bead for each that is open, closed with it
                              └ refused ─▶ again, unless something newer is to be told of the same task

At level store a record is held until the store has it, and what fails then is the store itself: so a record waits in a
coroutine of its own, while it is safe on this disk already. The beads follow the log, after a crash between the two as
well.
"""

import asyncio
import logging
from collections.abc import Collection

from persistence import own_beads
from persistence.beads import Beads
from persistence.breaker import BREAKERS
from persistence.clock import Clock
from persistence.errors import Fenced, FinnError
from persistence.events import BreakerChanged
from persistence.journal import Journal

AGAIN_S = 30.0  #: before a record that the disk did not take is written again

log = logging.getLogger("finn.tasks")


class Ledger:
    """Keeps the breakers of one life. `serve` must be running; `tasks` are the names there are in it."""

    def __init__(self, journal: Journal, beads: Beads, clock: Clock, tasks: Collection[str]) -> None:
        self._journal = journal
        self._beads = beads
        self._clock = clock
        self._changes: asyncio.Queue[BreakerChanged] = asyncio.Queue()
        self._last: dict[str, BreakerChanged] = {}
        self._due = asyncio.Event()
        for task in journal.whole(BREAKERS).opened:
            if task not in tasks:  # it is no longer configured, and so nothing will ever close it
                self.note(BreakerChanged(task=task, state="closed"))

    def note(self, change: BreakerChanged) -> None:
        """A breaker has opened, again or for the first time, or closed."""
        self._last[change.task] = change
        self._changes.put_nowait(change)

    async def serve(self) -> None:
        """Writes what is noted, until it is cancelled. Raises Fenced."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            while True:
                group.create_task(self._record(await self._changes.get()))

    async def _record(self, change: BreakerChanged) -> None:
        while self._last[change.task] is change:
            try:
                await self._journal.commit(change)
                break
            except Fenced:
                raise
            except FinnError as error:
                log.error("that the breaker of %s is %s is not recorded yet: %s", change.task, change.state, error)
                await self._clock.sleep(AGAIN_S)
        self._due.set()

    async def _follow(self) -> None:
        while True:
            self._due.clear()
            try:
                await self._show()
            except Fenced:
                raise
            except FinnError as error:
                log.error("the beads do not show what breakers are open: %s", error)
                await self._clock.sleep(AGAIN_S)
                continue
            await self._due.wait()

    async def _show(self) -> None:
        opened, shown = self._journal.whole(BREAKERS).opened, own_beads.tripped(self._beads.board.beads)
        for task in sorted(opened.keys() - shown):
            await self._beads.trip(task, opened[task].error)
        for task in sorted(shown - opened.keys()):
            await self._beads.reset(task)
