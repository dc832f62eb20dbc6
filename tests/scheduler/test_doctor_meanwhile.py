"""The doctor beside a finn that works: between any two reads of the disk that one may say, seal, save and prune.

a look ─▶ names, open, pread, … ─▶ what is found
            └ before each, if the dice say so: a turn, a new session, a sealed one, a snapshot, a pruned log
"""

import asyncio
import os
import random
import threading
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

from gateway.folds import FOLDS
from persistence.disk import SystemDisk
from persistence.events import OWNER, SessionCreated
from persistence.journal import Journal
from persistence.wal import Wal
from scheduler.checks import CHECKS
from scheduler.finding import SOUND
from scheduler.site import Running
from tests.benchmarks.history import means, turn
from tests.conftest import count
from tests.scheduler.ward import Ward, new_ward

T = TypeVar("T")
CALLS = ("names", "open", "pread", "size")  #: of a disk that only reads
SUBJECTS = ("runtime", "dirs", "wal", "snapshots", "sessions", "identity", "disk")
SEGMENT_BYTES = 20_000


class Working:
    """A journal on a loop and in a thread of its own, and what a finn does to it."""

    def __init__(self, ward: Ward, dice: random.Random) -> None:
        self._dice = dice
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._leaves: dict[str, str | None] = {}
        self._ids = means().ids
        self._journal = self._done(Journal.open(ward.root, FOLDS, means()))

    def close(self) -> None:
        self._done(self._journal.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _done(self, deed: Awaitable[T]) -> T:
        async def do() -> T:
            return await deed

        return asyncio.run_coroutine_threadsafe(do(), self._loop).result()

    def work(self) -> None:
        """One of the things that a finn does."""
        self._done(self._dice.choice((self._begin, self._say, self._say, self._say, self._seal, self._save))())

    async def _begin(self) -> None:
        session = self._ids.new()
        await self._journal.commit(SessionCreated(title="new"), stream=session, by=OWNER)
        self._leaves[session] = None

    async def _say(self) -> None:
        if not self._leaves:
            await self._begin()
        session, first = self._dice.choice(sorted(self._leaves)), self._journal.seq + 1
        for event, by in turn(self._ids.new(), first, self._journal.epoch, self._leaves[session]):
            record = await self._journal.commit(event, stream=session, by=by)
            if event.kind == "assistant_message":
                self._leaves[session] = f"{record.epoch}-{record.seq}"

    async def _seal(self) -> None:
        if self._leaves:
            await self._journal.seal(self._dice.choice(sorted(self._leaves)))

    async def _save(self) -> None:
        await self._journal.snapshot()
        await self._journal.prune()


def meanwhile(working: Working, dice: random.Random, often: float) -> SystemDisk:
    """A disk before each read of which finn may work."""

    class Disk(SystemDisk):
        def __getattribute__(self, name: str) -> Any:
            if name in CALLS and dice.random() < often:
                working.work()
            return super().__getattribute__(name)

    return Disk()


@contextmanager
def at_work(ward: Ward, dice: random.Random) -> Iterator[Working]:
    working = Working(ward, dice)
    try:
        for _ in range(40):
            working.work()
        yield working
    finally:
        working.close()


def test_nothing_that_a_finn_does_meanwhile_is_taken_for_a_fault(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    defaults: dict[str, Any] = Wal.open.__func__.__kwdefaults__  # type: ignore[attr-defined]
    monkeypatch.setitem(defaults, "segment_bytes", SEGMENT_BYTES)  # so that the log is pruned often
    for number in range(count(6, 200)):
        dice, ward = random.Random(f"{seed}-{number}"), new_ward()
        checks = [check for check in CHECKS if check.category in SUBJECTS]
        with at_work(ward, dice) as working:
            running = Running(os.getpid(), "http://127.0.0.1:1", 1, answers=True)
            ward.changed |= {"running": running, "disk": meanwhile(working, dice, dice.choice((0.02, 0.2)))}
            site = ward.site()
            found = {check.id: check.look(site) for check in checks}
        assert {name: seen for name, seen in found.items() if seen.severity not in SOUND} == {}, number
