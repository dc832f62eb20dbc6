"""The log goes to the store at once, comes back to it after every error, and stops for good behind a fence."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.replication import ADMIT_S, CHECK_S, GATHER_S, RETRY_MOST_S, SILENCE_S, Replication, pause_s
from gateway.threads import Thread
from persistence.clock import FakeClock
from persistence.errors import Damaged, Fenced, FinnError, StoreUnreachable

DOWN = StoreUnreachable("the store does not answer")


class Clock(FakeClock):
    """Time that stands still until the test moves it; whoever sleeps then wakes."""

    def __init__(self) -> None:
        super().__init__()
        self._moved = asyncio.Event()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        if seconds <= GATHER_S:
            await asyncio.sleep(0)  # too short for anything to happen in it
            return
        self.slept.append(seconds)
        end = self.time + seconds
        while self.time < end:
            await self._moved.wait()

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        self._moved.set()
        self._moved = asyncio.Event()


class Log:
    """A journal of numbers."""

    def __init__(self) -> None:
        self.durable = 0
        self.confirmed = 0
        self.fenced = ""
        self._grown = asyncio.Event()

    def write(self, count: int = 1) -> None:
        self.durable += count
        self._grown.set()
        self._grown = asyncio.Event()

    async def growth(self, after: int) -> int:
        while self.durable <= after:
            await self._grown.wait()
        return self.durable

    def confirm(self, seq: int) -> None:
        self.confirmed = max(self.confirmed, seq)

    def fence(self, reason: str) -> None:
        self.fenced = reason


class Replica:
    """A store that answers as the test says. `asked` lists what it was asked."""

    def __init__(self, log: Log) -> None:
        self.confirmed = 0
        self.complete = True
        self.asked: list[str] = []
        self.answers: Callable[[], FinnError | OSError | None] = lambda: None
        self.gate = threading.Event()
        self.gate.set()
        self._log = log

    def flush(self) -> int:
        seq = self._log.durable
        self._ask(f"flush {seq}")
        self.confirmed = seq
        return seq

    def prove(self) -> None:
        self._ask("prove")

    def check(self) -> None:
        self._ask("check")

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        self.gate.wait()
        if error := self.answers():
            raise error


class House:
    def __init__(self) -> None:
        self.log, self.clock = Log(), Clock()
        self.replica = Replica(self.log)
        self.upkeep: list[int] = []
        self.thread = Thread("finn-test")
        self.it = Replication(self.log, self.replica, self.thread, self.clock, lambda n: bytes(n), self._upkeep)

    async def _upkeep(self) -> None:
        self.upkeep.append(self.replica.confirmed)

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await asyncio.sleep(0)

    async def failed(self, count: int) -> None:
        """Returns when so many attempts in a row have failed; each is made as soon as it may be."""
        while self.it.breaker.failures < count:
            self.it.hurry()
            await asyncio.sleep(0)

    async def asked(self, *what: str) -> None:
        """Returns when the store was asked this and nothing else, and has answered."""
        await self.until(lambda: len(self.replica.asked) >= len(what))
        await self.thread.run(lambda: None)
        assert self.replica.asked == [*what]


@asynccontextmanager
async def serving() -> AsyncIterator[House]:
    house = House()
    serving = asyncio.create_task(house.it.serve())
    try:
        yield house
    finally:
        house.replica.gate.set()
        serving.cancel()
        await asyncio.wait([serving])
        house.thread.end()


async def test_a_record_is_uploaded_as_soon_as_it_is_durable() -> None:
    async with serving() as house:
        house.log.write()
        await house.until(lambda: house.log.confirmed == 1)
        assert (house.replica.asked, house.it.lag_seq) == (["flush 1"], 0)


async def test_what_comes_while_a_flush_is_in_flight_goes_up_together() -> None:
    async with serving() as house:
        house.replica.gate.clear()
        house.log.write()
        await house.until(lambda: house.replica.asked)
        house.log.write(3)
        house.log.write(4)
        house.replica.gate.set()
        await house.until(lambda: house.log.confirmed == 8)
        assert house.replica.asked == ["flush 1", "flush 8"]


async def test_an_idle_log_asks_once_a_minute_and_writes_nothing() -> None:
    async with serving() as house:
        for count in range(1, 4):
            await house.until(lambda: CHECK_S in house.clock.slept)
            house.clock.slept.clear()
            house.clock.advance(CHECK_S)
            await house.asked(*["check"] * count)


async def test_after_an_error_it_is_tried_again_less_and_less_often() -> None:
    async with serving() as house:
        house.replica.answers = lambda: DOWN
        house.log.write()
        pauses = []
        for count in range(1, 10):
            house.clock.slept.clear()
            await house.failed(count)
            await house.until(lambda: house.clock.slept)
            pauses.append(house.clock.slept[-1])
            house.clock.advance(pauses[-1])
        assert pauses == sorted(pauses)
        assert pauses[-1] <= RETRY_MOST_S
        assert (house.it.trouble.error, house.it.breaker.state(house.clock.monotonic())) == (str(DOWN), "open")
        house.replica.answers = lambda: None
        house.clock.advance(RETRY_MOST_S)
        await house.until(lambda: not house.it.trouble.error)
        assert (house.log.confirmed, house.it.breaker.failures) == (1, 0)


async def test_an_error_of_the_disk_is_one_that_may_pass() -> None:
    async with serving() as house:
        errors: list[FinnError | OSError] = [Damaged("a run"), OSError("a disk")]
        house.replica.answers = lambda: errors.pop(0) if errors else None
        house.log.write()
        for _ in range(2):
            await house.until(lambda: house.it.trouble.error)
            house.it.hurry()
            await house.until(lambda: not house.it.trouble.error or len(house.replica.asked) >= 2)
        await house.until(lambda: house.log.confirmed == 1)


async def test_behind_a_fence_the_journal_is_closed_before_anybody_hears_of_it() -> None:
    house = House()
    house.replica.answers = lambda: Fenced("another has taken over")
    serving = asyncio.create_task(house.it.serve())
    house.log.write()
    with pytest.raises(Fenced):
        await serving
    assert (house.log.fenced, house.log.confirmed) == ("another has taken over", 0)
    house.thread.end()


async def test_a_prompt_after_silence_waits_until_the_store_has_said_that_nobody_took_over() -> None:
    async with serving() as house:
        house.clock.advance(SILENCE_S)
        await house.it.admit()
        assert house.replica.asked == ["prove"]


async def test_a_prompt_soon_after_an_answer_waits_for_nothing() -> None:
    async with serving() as house:
        house.clock.advance(SILENCE_S - 1)
        await house.it.admit()
        assert house.replica.asked == []


async def test_a_store_that_hangs_holds_a_prompt_up_for_a_moment_only() -> None:
    async with serving() as house:
        house.replica.gate.clear()
        house.clock.advance(SILENCE_S)
        admitted = asyncio.create_task(house.it.admit())
        await house.until(lambda: ADMIT_S in house.clock.slept and house.replica.asked)
        assert not admitted.done()
        house.clock.advance(ADMIT_S)
        await admitted


async def test_a_store_that_is_known_to_be_down_holds_up_nobody() -> None:
    async with serving() as house:
        house.clock.advance(SILENCE_S)
        house.replica.answers = lambda: DOWN
        house.log.write()
        await house.failed(3)
        asked = len(house.replica.asked)
        await house.it.admit()
        assert len(house.replica.asked) == asked


async def test_catching_up_returns_when_everything_durable_is_there_and_tells_why_not() -> None:
    async with serving() as house:
        house.log.write(5)
        await house.it.catch_up()
        assert house.replica.confirmed == 5
        house.replica.answers = lambda: DOWN
        house.log.write()
        with pytest.raises(FinnError, match="does not answer"):
            await house.it.catch_up()


async def test_the_lag_is_counted_from_the_moment_a_record_began_to_wait() -> None:
    async with serving() as house:
        house.replica.gate.clear()
        house.log.write(2)
        await house.until(lambda: house.replica.asked)
        house.clock.advance(7)
        assert (house.it.lag_seq, house.it.lag_s) == (2, 7)
        house.replica.gate.set()
        await house.until(lambda: house.log.confirmed == 2)
        assert (house.it.lag_seq, house.it.lag_s) == (0, 0)


async def test_upkeep_follows_a_success_and_lets_new_records_pass() -> None:
    async with serving() as house:
        house.log.write()
        await house.until(lambda: house.upkeep)
        house.log.durable += 1  # said while upkeep goes on, so nobody is woken
        await house.thread.run(house.it.breathe)
        await house.until(lambda: house.log.confirmed == 2)


async def test_nothing_is_safe_in_a_store_that_lacks_what_the_log_builds_on() -> None:
    house = House()
    house.replica.complete = False
    serving = asyncio.create_task(house.it.serve())
    house.log.write(3)
    await house.until(lambda: house.upkeep == [3])
    assert (house.log.confirmed, house.it.confirmed, house.it.lag_seq) == (0, 0, 3)
    house.replica.complete = True
    house.it.hurry()
    await house.until(lambda: house.log.confirmed == 3)
    serving.cancel()
    await asyncio.wait([serving])
    house.thread.end()


def test_two_processes_do_not_march_in_step() -> None:
    assert pause_s(3, lambda n: bytes(n)) == 1.0
    assert 1.0 < pause_s(3, lambda n: b"\xff" * n) < 2.0
