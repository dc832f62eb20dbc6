"""What the breakers of tasks do becomes records and beads, and nobody waits for it."""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from gateway.ledger import Ledger
from persistence.beads import BEADS, Beads
from persistence.breaker import BREAKERS
from persistence.clock import FakeClock
from persistence.disk import Disk
from persistence.errors import Fenced
from persistence.events import BeadsChanged, BreakerChanged, Record
from persistence.journal import Journal
from tests.persistence.journals import means, opened
from tests.persistence.logs import FaultyDisk

TASKS = ("replicate", "archive")
OPENED = BreakerChanged(task="replicate", state="open", failures=3, error="no answer")
AGAIN = BreakerChanged(task="replicate", state="open", failures=4, error="still none")
CLOSED = BreakerChanged(task="replicate", state="closed")


class Patient(FakeClock):
    """Who sleeps on it sleeps until the test says that it is `over`."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.over = asyncio.Event(), asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.asked.set()
        await self.over.wait()
        await super().sleep(seconds)


class Life:
    """A ledger that is served, on a journal of its own."""

    def __init__(self, journal: Journal, clock: FakeClock) -> None:
        self.journal = journal
        self.beads = Beads(journal, clock)
        self.records: list[Record] = []
        journal.listen(self.records.append)
        self.ledger = Ledger(journal, self.beads, clock, TASKS)
        self.serving = asyncio.create_task(self.ledger.serve())

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            assert not self.serving.done(), self.serving
            await asyncio.sleep(0.001)

    async def grows(self, step: Callable[[], None]) -> None:
        """Takes a step, and returns when a record of it is safe on this disk."""
        before = self.journal.durable
        step()
        await self.until(lambda: self.journal.durable > before)

    @property
    def said(self) -> list[str]:
        """What was recorded, in order."""
        return [
            event.op
            if isinstance(event, BeadsChanged)
            else f"{getattr(event, 'task', '')} {getattr(event, 'state', '')}"
            for event in (record.event for record in self.records)
        ]

    def shown(self) -> list[tuple[str, str]]:
        """The beads of breakers: their label, and how they stand."""
        return [(bead.labels[0], bead.status) for bead in self.beads.board.beads.values()]


@asynccontextmanager
async def life(root: Path, disk: Disk | None = None, clock: FakeClock | None = None) -> AsyncIterator[Life]:
    clock = clock or FakeClock()
    async with opened(root, BEADS, BREAKERS, with_means=means(disk, clock)) as journal:
        it = Life(journal, clock)
        try:
            yield it
        finally:
            it.serving.cancel()
            await asyncio.wait([it.serving])


async def test_a_breaker_is_a_record_and_a_bead_from_its_opening_to_its_closing(tmp_path: Path) -> None:
    async with life(tmp_path) as it:
        it.ledger.note(OPENED)
        await it.until(lambda: it.shown() == [("circuit-breaker:replicate", "open")])
        it.ledger.note(AGAIN)
        await it.until(lambda: it.journal.whole(BREAKERS).opened["replicate"].failures == 4)
        it.ledger.note(CLOSED)
        await it.until(lambda: it.shown() == [("circuit-breaker:replicate", "closed")])
        assert it.said == ["replicate open", "tripped", "replicate open", "replicate closed", "reset"]
        assert it.journal.whole(BREAKERS).opened == {}


async def test_what_changed_nothing_writes_nothing(tmp_path: Path) -> None:
    async with life(tmp_path) as it:
        it.ledger.note(OPENED)
        await it.until(lambda: it.said == ["replicate open", "tripped"])
    async with life(tmp_path) as it:
        it.ledger.note(CLOSED)
        await it.until(lambda: "reset" in it.said)
        assert it.said == ["replicate closed", "reset"]


async def test_a_crash_between_the_record_and_the_bead_is_made_good_at_the_next_start(tmp_path: Path) -> None:
    async with opened(tmp_path, BEADS, BREAKERS) as journal:
        await journal.commit(OPENED)
    async with life(tmp_path) as it:
        await it.until(lambda: it.shown() == [("circuit-breaker:replicate", "open")])
        it.serving.cancel()
        await asyncio.wait([it.serving])
        await it.journal.commit(CLOSED)
    async with life(tmp_path) as it:
        await it.until(lambda: it.shown() == [("circuit-breaker:replicate", "closed")])
        assert it.said == ["reset"]


async def test_a_task_that_is_no_longer_there_leaves_no_breaker_open(tmp_path: Path) -> None:
    async with opened(tmp_path, BEADS, BREAKERS) as journal:
        await journal.commit(BreakerChanged(task="gone", state="open", failures=3, error="no"))
    async with life(tmp_path) as it:
        await it.until(lambda: it.journal.whole(BREAKERS).opened == {})


async def test_at_level_store_nobody_waits_and_each_record_is_safe_here_at_once(tmp_path: Path) -> None:
    async with life(tmp_path) as it:
        it.journal.hold()
        for change in (OPENED, AGAIN, CLOSED, OPENED):
            await it.grows(partial(it.ledger.note, change))
        assert it.said == []
        await it.grows(lambda: it.journal.confirm(it.journal.durable))
        it.journal.confirm(it.journal.durable)
        await it.until(lambda: it.shown() == [("circuit-breaker:replicate", "open")])
    async with opened(tmp_path, BEADS, BREAKERS) as journal:
        assert journal.whole(BREAKERS).opened.keys() == {"replicate"}


async def test_what_a_full_disk_did_not_take_is_written_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = FaultyDisk(number=errno.ENOSPC, of=["write"])
    async with life(tmp_path, disk) as it:
        disk.nth = disk.calls + 1
        it.ledger.note(OPENED)
        await it.until(lambda: "tripped" in it.said)
        assert it.said == ["replicate open", "tripped"]
        assert "the breaker of replicate is open is not recorded yet" in caplog.text


async def test_what_is_no_longer_so_is_not_written_later(tmp_path: Path) -> None:
    disk, clock = FaultyDisk(number=errno.ENOSPC, of=["write"]), Patient()
    async with life(tmp_path, disk, clock) as it:
        disk.nth = disk.calls + 1
        it.ledger.note(OPENED)
        await clock.asked.wait()
        it.ledger.note(CLOSED)
        await it.until(lambda: it.said == ["replicate closed"])
        clock.over.set()
        it.ledger.note(BreakerChanged(task="archive", state="open", failures=3, error="no"))
        await it.until(lambda: "tripped" in it.said)
        assert it.said == ["replicate closed", "archive open", "tripped"]


async def test_a_fence_ends_it(tmp_path: Path) -> None:
    async with life(tmp_path) as it:
        it.journal.fence("another has taken over")
        it.ledger.note(OPENED)
        await asyncio.wait([it.serving])
        error = it.serving.exception()
        assert isinstance(error, BaseExceptionGroup)
        assert error.subgroup(Fenced) is not None
