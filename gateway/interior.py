"""The place of a finn that runs, seen from within it: what its own doctor looks at.

    doctor's thread ─▶ site ─┬▶ facts, acts, changes of beads ─▶ done on finn's loop, waited for here
                             └▶ everything else as from outside (site.py), but for .env and the environment

Its environment is not asked: the secrets were taken out of it. Of `.env` it tells what would keep the next start.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import TimeoutError as TooLate
from dataclasses import dataclass

from gateway.bead_mending import within
from gateway.rooms import Rooms
from gateway.settings import Settings, read_env_file
from gateway.site import plain_site
from persistence.clock import Clock
from persistence.errors import Busy, UsageError
from persistence.events import By
from persistence.values import Json
from scheduler.health import Source
from scheduler.site import Running, Site

ACT_S = 60.0  #: for what a running finn is asked to do

Act = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Interior:
    """A finn from within. `rooms` gives None where they are not open now."""

    settings: Settings
    url: str
    clock: Clock
    rooms: Callable[[], Rooms | None]
    sources: Callable[[], Sequence[Source]]

    def site(self, loop: asyncio.AbstractEventLoop, by: By) -> Site:
        """As it is now, to be mended in the name of `by`. Called in a thread that is not the loop's."""
        rooms = self.rooms()
        return plain_site(
            self.settings,
            _wrong(self.settings),
            Running(os.getpid(), self.url, rooms.journal.epoch if rooms is not None else None, answers=True),
            again=lambda: self.site(loop, by),
            clock=self.clock,
            facts=asyncio.run_coroutine_threadsafe(self._facts(), loop).result(),
            acts={name: _acting(act, loop) for name, act in _acts(rooms).items()} if rooms is not None else {},
            change=within(rooms.beads, loop, by) if rooms is not None else None,
        )

    async def _facts(self) -> Mapping[str, Json]:
        return {fact.name: fact.value for source in self.sources() for fact in source()}


def _acts(rooms: Rooms) -> Mapping[str, Act]:
    """What a running finn can be asked to do, by the name that checks have for it."""
    return {"mirrors": rooms.mirror.anew, "snapshot": rooms.journal.snapshot, "prune": rooms.journal.save}


def _acting(act: Act, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """For the doctor's thread: has the loop do it, and waits until it is done. Raises FinnError."""

    async def do() -> None:
        await act()

    def wait() -> None:
        doing = asyncio.run_coroutine_threadsafe(do(), loop)
        try:
            doing.result(ACT_S)
        except TooLate:
            doing.cancel()
            raise Busy("finn did not come to an end with it in time", hint="look again in a minute") from None

    return wait


def _wrong(settings: Settings) -> tuple[UsageError, ...]:
    try:
        read_env_file(settings.data_dir / ".env")
    except UsageError as error:
        return (error,)
    return ()
