"""One life: the rooms while they are open, and what goes on in them beside the requests.

rooms ─┬▶ activities    the log is tended, turns run, files and beads are watched, tasks come round, the owner is told
       └▶ sources       what is so, for health and /metrics
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING

from agent import models
from gateway.condition import Condition, nobody
from gateway.equipment import Equipment
from gateway.facts import room_facts
from gateway.presence import Presence
from gateway.rooms import Rooms
from gateway.routes.health import release_of
from gateway.tasks import Parts, scheduler_of, task_facts
from persistence.errors import Fenced, FinnError
from persistence.events import SYSTEM
from persistence.swap import settled
from scheduler.health import Fact, Source

if TYPE_CHECKING:
    from gateway.owner import Owner

LOOK_S = 300.0  #: how often the grimoires are looked at, besides after every tool

log = logging.getLogger("finn.life")


class Life:
    """From the log's opening to its end. `activities` must be running."""

    def __init__(
        self, own: Equipment, rooms: Rooms, presence: Presence, sources: Callable[[], Sequence[Source]]
    ) -> None:
        """`sources` are everything that is so in this process, this life among it."""
        self.rooms = rooms
        self._own = own
        self._owner = _owner(own, rooms)
        heed = self._owner.look if self._owner is not None else nobody
        self._condition = Condition(self._look, sources, rooms.beads, own.clock, heed, leaving=lambda: presence.leaving)
        parts = Parts(own.settings, own.folds, own.means, rooms.journal, rooms.beads, own.storage, self._condition.look)
        self.scheduler, self._ledger = scheduler_of(parts, own.clock, own.entropy, own.metrics.observe)

    def activities(self) -> Iterable[Coroutine[None, None, None]]:
        """What goes on beside the requests, each until it is cancelled. They raise Fenced."""
        own, rooms = self._own, self.rooms
        return (
            rooms.journal.tend(),
            rooms.turns.serve(),
            rooms.mirror.serve(),
            rooms.bead_file.serve(),
            *own.lobby.serve(),
            self._look_after(),
            self.scheduler.serve(),
            self._ledger.serve(),
            self._load(),
            *(own.storage.serve() if own.storage is not None else ()),
            *((self._owner.serve(),) if self._owner is not None else ()),
        )

    def sources(self) -> Sequence[Source]:
        """What is so in this life."""
        owner = (self._owner.facts,) if self._owner is not None else ()
        return (lambda: room_facts(self.rooms), self._task_facts, self._condition.facts, *owner)

    def _task_facts(self) -> Iterable[Fact]:
        return task_facts(self.scheduler.runs, self._own.clock.monotonic())

    def _look(self) -> Sequence[Fact]:
        self.rooms.identity.look()
        return self.rooms.premises.look()

    async def _look_after(self) -> None:
        while True:
            await self.look_at_files()
            await self._own.clock.sleep(LOOK_S)

    async def look_at_files(self) -> None:
        """Sees what people changed in the files. Raises Fenced; what else is in the way is logged."""
        rooms = self.rooms
        try:
            for each in rooms.files:
                await each.look(SYSTEM)
            if not any(each.owed for each in rooms.files):
                await asyncio.to_thread(settled, self._own.means.disk, self._own.settings.data_dir)
            await asyncio.to_thread(rooms.identity.look)
        except Fenced:
            raise
        except (FinnError, OSError) as error:
            log.error("the files cannot be looked at: %s", error)

    async def _load(self) -> None:
        """Imports what the first answer will need."""
        try:
            await asyncio.to_thread(models.preload, self._own.model)
        except FinnError as error:
            log.error("the model cannot be loaded: %s", error)

    async def close(self) -> None:
        """Lets go of everything."""
        self._condition.end()
        if self._owner is not None:
            self._owner.end()
        await self.rooms.journal.close()
        self.rooms.premises.close()


def _owner(own: Equipment, rooms: Rooms) -> "Owner | None":
    """The way to the owner, where one is set."""
    settings = own.settings
    if not (settings.alert_url or settings.ping_url):
        return None
    from gateway.owner import Owner  # imported on use: what is not set costs no import
    from scheduler.message import Sender

    sender = Sender(settings.agent_id, release_of(settings)["releaseId"], own.entrance.url)
    return Owner(settings.alert_url, settings.ping_url, rooms.journal, own.clock, sender)
