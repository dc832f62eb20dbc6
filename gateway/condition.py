"""The health task: once a minute finn is looked at, and what held for two looks is so.

    look ─▶ premises (a thread) ─▶ judge all facts ─┬▶ twice the same: the agent's bead says ok or degraded
                                                     └▶ the owner's own watch is shown the report, whatever it says

Between two looks /health judges the same facts live; only what a look measured is as old as the look. Whoever is told
gets a little time: one that fails or hangs is logged and holds up neither the others nor the next look.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from gateway.threads import Thread
from persistence.beads import Beads
from persistence.clock import Clock
from persistence.errors import Fenced, FinnError
from scheduler.health import Fact, Held, Report, Source, judge

DISK_S = 15.0  #: for a look at the machine; more than that is no disk to keep anything on
LISTENER_S = 5.0  #: for whoever is told

Look = Callable[[], Sequence[Fact]]
Sources = Callable[[], Sequence[Source]]
Heed = Callable[[Report], Coroutine[Any, Any, None]]

log = logging.getLogger("finn.health")


async def nobody(report: Report) -> None:
    """There is no owner to be told."""


class Condition:
    """How finn is, in one life. `look` is what the health task runs; `facts` are what its last look measured."""

    def __init__(
        self,
        look: Look,
        sources: Sources,
        beads: Beads,
        clock: Clock,
        heed: Heed = nobody,
        *,
        leaving: Callable[[], bool] = lambda: False,
        disk_s: float = DISK_S,
        patience_s: float = LISTENER_S,
    ) -> None:
        """`look` waits for the disk; `heed` is awaited after every look; while `leaving`, nothing is looked at."""
        self._look = look
        self._sources = sources
        self._beads = beads
        self._clock = clock
        self._heed = heed
        self._leaving = leaving
        self._disk_s = disk_s
        self._patience_s = patience_s
        self._thread = Thread("finn-look")
        self._measured: Sequence[Fact] = ()
        self._trouble = ""
        self._held = Held()
        self._telling: dict[str, asyncio.Task[None]] = {}

    def facts(self) -> Iterable[Fact]:
        """What the last look measured, and what stood in its way."""
        yield from self._measured
        if self._trouble:
            yield Fact("disk:error", self._trouble, output=self._trouble)

    async def look(self) -> None:
        """Measures, judges and tells. Raises Fenced."""
        if self._leaving():
            return  # a stop is no illness
        await self._measure()
        report = judge(self._sources(), self._clock.now())
        self._held = self._held.seen(report.status)
        degraded = self._held.degraded
        if degraded is not None:
            await self._tell("the agent's bead", lambda: self._beads.set_health(degraded=degraded))
        await self._tell("the owner's watch", lambda: self._heed(report))

    async def _measure(self) -> None:
        """What is in its way is a fact of its own: a disk that hangs is just when somebody should hear of it."""
        try:
            async with asyncio.timeout(self._disk_s):
                self._measured = await self._thread.run(self._look)
            self._trouble = ""
        except TimeoutError:
            self._trouble = f"the disk has not answered within {self._disk_s:g} s"
        except (FinnError, OSError) as error:
            self._trouble = f"the disk cannot be looked at: {error}"

    async def _tell(self, whom: str, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Tells somebody. Who has not answered the last time is waited for, not told twice. Raises Fenced."""
        telling = self._telling.get(whom)
        if telling is None:
            telling = self._telling[whom] = asyncio.create_task(step(), name=whom)
            telling.add_done_callback(_heard)
        await asyncio.wait([telling], timeout=self._patience_s)
        if not telling.done():
            log.warning("%s has not answered within %g s", whom, self._patience_s)
            return
        del self._telling[whom]
        error = None if telling.cancelled() else telling.exception()
        if isinstance(error, Fenced):
            raise error
        if error is not None:
            log.warning("%s could not be told: %s", whom, error, exc_info=error)

    def end(self) -> None:
        """Lets go, waiting for nothing."""
        self._thread.end()
        for telling in self._telling.values():
            telling.cancel()


def _heard(done: "asyncio.Task[None]") -> None:
    """Its error is told by the look that waits for it; that none does any more is no reason for a warning."""
    if not done.cancelled():
        done.exception()
