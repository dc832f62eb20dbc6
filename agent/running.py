"""A turn that runs: the task it runs in, and the channel from its loop to the log and to whoever watches."""

import asyncio
from typing import Any, Literal

from agent.loop import Agent, Turn
from agent.session import SESSIONS
from persistence.clock import Clock
from persistence.errors import FinnError, StorageError, StoreError
from persistence.events import SYSTEM, By, Event, Json, PromptMode, Record, SteerTaken, seq_of
from persistence.journal import Journal
from persistence.subscription import Moment

STORAGE_PAUSE_S = 1.0  #: before a record that the disk refused is tried again
STORE_AWAY = "the store does not answer; the turn goes on when it does (nothing is lost meanwhile)"
STORE_WAIT_S = 10.0  #: how long the store may take before whoever waits is told


async def in_time(coming: "asyncio.Future[Any]", journal: Journal, clock: Clock) -> bool:
    """Waits for a record. At level store no longer than STORE_WAIT_S; whether it came, or failed, in that time."""
    if not journal.holding:
        await asyncio.wait([coming])
        return True
    patience = asyncio.ensure_future(clock.sleep(STORE_WAIT_S))
    try:
        await asyncio.wait([coming, patience], return_when=asyncio.FIRST_COMPLETED)
    finally:
        patience.cancel()
    return coming.done()


class RunningTurn:
    """The Channel of one turn: its records go to the session's stream, its moments to whoever watches.

    `turn` is there once its context is, `task` once it has begun, `stopping` says why it is to end before its end.
    """

    def __init__(self, journal: Journal, agent: Agent, session: str, turn: str) -> None:
        self.id = turn
        self.session = session
        self.turn: Turn | None = None
        self.task: asyncio.Task[None] | None = None
        self.stopping: Literal["abort", "interrupted"] | None = None
        self._journal = journal
        self._clock = agent.clock

    def stop(self, reason: Literal["abort", "interrupted"]) -> None:
        """Ends the turn, also one that has not begun; the first reason counts."""
        if self.stopping is None:
            self.stopping = reason
            if self.task is not None:
                self.task.cancel()

    def uncancel(self) -> None:
        """Lets the turn's task close what it left open."""
        if self.task is not None:
            self.task.uncancel()

    async def record(self, event: Event, by: By) -> Record:
        """Makes an event durable, however long the disk takes. A cancellation meanwhile is felt at the next wait."""
        commit = asyncio.ensure_future(self._commit(event, by))
        cancelled = 0
        while not commit.done():
            try:
                await asyncio.shield(commit)
            except asyncio.CancelledError:
                cancelled += 1
            except FinnError:
                break
        task = asyncio.current_task()
        if cancelled and task is not None:
            task.uncancel()
            task.cancel()
        return commit.result()

    async def _commit(self, event: Event, by: By) -> Record:
        while True:
            try:
                return await self._confirmed(event, by)
            except StorageError as error:
                if not error.retryable:
                    raise
                self.show("error", {"code": error.code, "message": str(error), "recoverable": True})
                await self._clock.sleep(STORAGE_PAUSE_S)

    async def _confirmed(self, event: Event, by: By) -> Record:
        """Makes an event durable; at level store it waits for the store, however long it is away, and says so."""
        if not self._journal.holding:
            return await self._journal.commit(event, stream=self.session, by=by)
        coming = asyncio.ensure_future(self._journal.commit(event, stream=self.session, by=by))
        try:
            while not await in_time(coming, self._journal, self._clock):
                self.show("error", {"code": StoreError.code, "message": STORE_AWAY, "recoverable": True})
        finally:
            coming.cancel()
        return coming.result()

    def show(self, kind: str, data: dict[str, Json]) -> None:
        """Shows something that is not kept."""
        self._journal.announce(self.session, Moment(kind, self.id, data))

    async def take(self, mode: PromptMode, parent: str | None) -> tuple[Record, ...]:
        """The messages of that mode that wait for this turn, placed one below the other."""
        taken: list[Record] = []
        for waiting in self._journal.streams(SESSIONS)[self.session].waiting:
            if waiting.mode == mode and waiting.turn == self.id:
                await self.record(SteerTaken(turn=self.id, entry=waiting.entry, parent=parent), SYSTEM)
                taken.append(await self._journal.record_at(self.session, seq_of(waiting.entry)))
                parent = waiting.entry
        return tuple(taken)
