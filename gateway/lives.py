"""One life after the other, for as long as the process lives.

    stand by ─▶ recover ─▶ open ─▶ a life ─┬▶ cancelled: the process ends
       ▲                                   │
       └──── retire ◀── Fenced ────────────┘  another instance has taken over

What ends it otherwise ends the process.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import models
from gateway.equipment import Equipment
from gateway.life import Life
from gateway.opening import open_rooms
from gateway.presence import Presence
from gateway.rooms import Rooms
from persistence.errors import Fenced, FinnError, first
from persistence.fold import Fold
from persistence.journal import Journal
from persistence.replay import Means, Paths
from persistence.swap import RESTORED, RESTORING
from scheduler.health import Source

if TYPE_CHECKING:
    from persistence.cascade import Recovered

QUIET_S = 10.0  #: a start that takes longer says where it is before it is ready
ASK_AGAIN_S = (0.2, 1.0, 2.0, 5.0)  #: between two attempts to learn the past, where no copy answers
LETTING_GO_S = 1.0  #: a turn that waits for a full disk only lets go when the log is closed

log = logging.getLogger("finn.lives")


class Lives:
    """The lives of a process. `life` is the one there is now, `failure` what ended the last one for good."""

    def __init__(
        self,
        own: Equipment,
        presence: Presence,
        sources: Callable[[], Sequence[Source]],
    ) -> None:
        """`sources` are everything that is so in the process."""
        self.life: Life | None = None
        self.failure: BaseException | None = None
        self._own = own
        self._presence = presence
        self._sources = sources

    @property
    def rooms(self) -> Rooms | None:
        """The rooms that are open now."""
        return None if self.life is None else self.life.rooms

    @asynccontextmanager
    async def going_on(self, on_failure: Callable[[], None]) -> AsyncIterator[None]:
        """While this is entered, finn lives. Calls `on_failure` where it cannot go on."""
        living, storage = asyncio.create_task(self._live(on_failure)), self._own.storage
        try:
            yield
        finally:
            living.cancel()
            await asyncio.wait([living], timeout=LETTING_GO_S)
            if self.life is not None:
                await self.life.close()
            await models.close(self._own.model)
            if storage is not None:
                storage.end()
            await asyncio.wait([living])

    async def _live(self, on_failure: Callable[[], None]) -> None:
        log.info("finn starts", extra=self._own.about)
        try:
            while True:
                await self._stand_by()
                began = self._own.clock.monotonic()
                with suppress(Fenced):  # another claimed at the same moment: stand by again
                    await self._one_life(await self._recover(), began)
        except Exception as error:
            self.failure = first(error)
            if not isinstance(self.failure, FinnError | OSError):
                log.exception("finn cannot go on")
            on_failure()

    async def _stand_by(self) -> None:
        """Returns when this process may act: at once, or when the one that took over has stopped or is dead."""
        storage = self._own.storage
        if storage is not None and await storage.stands_by():
            await self._presence.become("fenced")
            await storage.stand_by()
            await self._presence.become("starting")

    async def _recover(self) -> "Recovered | None":
        """What the log is to go on from. Where the disk is empty and no copy answers, it asks until one does."""
        own, storage = self._own, self._own.storage
        if storage is None:
            return await asyncio.to_thread(_finished, own.settings.data_dir, own.folds, own.means)
        for attempt in count():
            recovering = asyncio.ensure_future(storage.recover(own.folds, own.means))
            try:
                if not (await asyncio.wait([recovering], timeout=QUIET_S))[0]:
                    await self._presence.announce()
                return await recovering
            except Fenced:
                await storage.mark()
                raise
            except FinnError as problem:
                if problem.code != "store_unavailable":
                    raise
                log.warning("the past is not known yet: %s", problem)
                if attempt:  # one lost answer is no silence
                    await self._presence.become("silent", problem)
                await own.clock.sleep(ASK_AGAIN_S[min(attempt, len(ASK_AGAIN_S) - 1)])
        raise AssertionError("unreachable")

    async def _one_life(self, recovered: "Recovered | None", began: float) -> None:
        """Opens the rooms and keeps them, until it is cancelled or another writer has taken over.

        It began when it was first asked what the past is.
        """
        own = self._own
        rooms = await open_rooms(own, recovered.origin if recovered else None)
        if own.storage is not None and recovered is not None:
            own.storage.attach(rooms.journal, recovered)
        life = self.life = Life(own, rooms, self._presence, self._sources)
        try:
            async with asyncio.TaskGroup() as group:
                for activity in life.activities():
                    group.create_task(activity)
                await self._presence.become("serving")
                log.info("finn is ready", extra=_origin(rooms.journal, own.clock.monotonic() - began))
        except* Fenced as fenced:
            log.warning("another instance has taken over: %s", first(fenced))
            await self._retire(life)

    async def _retire(self, life: Life) -> None:
        """Ends a life that was fenced: nobody hears anything more of it, and what it had promised is kept."""
        storage = self._own.storage
        assert storage is not None
        await storage.remember()  # before anybody hears of it: who is restarted then must not begin a fight
        await self._presence.become("fenced")
        life.rooms.turns.leave()
        await self._own.lobby.send_all_away()
        await storage.retire()
        await life.close()
        self.life = None


def _finished(data_dir: Path, folds: tuple[Fold[Any], ...], means: Means) -> "Recovered | None":
    """Brings to its end what a restoration left half done, also where the copy that it came from is no longer set."""
    if not any((data_dir / name).exists() for name in (RESTORING, RESTORED)):
        return None
    from persistence import cascade

    return cascade.recover(Paths(data_dir), folds, means, cascade.Sources())


def _origin(journal: Journal, seconds: float) -> dict[str, str | int | float]:
    """Where a life has its state from, and how long it took to open."""
    return {"seconds": round(seconds, 3), "source": journal.source, "seq": journal.seq, "epoch": journal.epoch}
