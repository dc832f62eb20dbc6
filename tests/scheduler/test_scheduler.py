"""Tasks run on their beat, never twice at once, and are left alone while they fail."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from persistence.breaker import Breaker
from persistence.clock import FakeClock
from persistence.errors import Fenced, StoreUnreachable
from scheduler.scheduler import Run, Scheduler, Task


async def nothing() -> None:
    return


def task(run: Callable[[], Awaitable[None]] = nothing, name: str = "replicate", every_s: float = 30) -> Task:
    return Task(name, every_s, run, timeout_s=5, breaker=Breaker(threshold=2, cooldown_s=100))


class House:
    """A scheduler whose clock the test turns."""

    def __init__(self, *tasks: Task) -> None:
        self.clock = FakeClock()
        self.scheduler = Scheduler(tasks, self.clock)

    async def after(self, seconds: float) -> list[str]:
        """Runs to the end whatever is due so much later; its names."""
        self.clock.advance(seconds)
        due = self.scheduler.tick(self.clock.monotonic())
        for one in due:
            await self.scheduler.attempt(one)
        return [one.name for one in due]

    @property
    def run(self) -> Run:
        return self.scheduler.runs[0]


async def test_a_task_runs_on_its_beat() -> None:
    house = House(task(every_s=30), task(name="archive", every_s=60))
    assert [await house.after(seconds) for seconds in (29, 1, 29, 1)] == [
        [],
        ["replicate"],
        [],
        ["replicate", "archive"],
    ]


async def test_missed_ticks_are_skipped() -> None:
    house = House(task(every_s=30))
    assert await house.after(8 * 3600 + 10) == ["replicate"]
    assert await house.after(0) == []
    assert await house.after(20) == ["replicate"]


async def test_a_task_does_not_overlap_itself() -> None:
    house = House(task(every_s=30))
    house.clock.advance(30)
    (due,) = house.scheduler.tick(house.clock.monotonic())
    house.clock.advance(30)
    assert house.scheduler.tick(house.clock.monotonic()) == []
    await house.scheduler.attempt(due)
    assert house.scheduler.tick(house.clock.monotonic()) == [due]


async def test_what_a_task_raises_is_its_outcome() -> None:
    async def fails() -> None:
        raise StoreUnreachable("the store does not answer", hint="wait")

    house = House(task(fails))
    await house.after(30)
    assert (house.run.last_error, house.run.breaker.failures) == ("the store does not answer (wait)", 1)


async def test_a_task_that_keeps_failing_is_left_alone_and_then_tried_once() -> None:
    async def fails() -> None:
        raise StoreUnreachable("no")

    house = House(task(fails, every_s=10))
    assert [await house.after(10), await house.after(10)] == [["replicate"], ["replicate"]]
    assert [await house.after(10) for _ in range(9)] == [[]] * 9
    assert await house.after(10) == ["replicate"]
    assert await house.after(10) == []


async def test_the_first_run_may_come_sooner_than_the_second() -> None:
    house = House(Task("orphans", 3600, nothing, timeout_s=5, first_s=60))
    assert [await house.after(seconds) for seconds in (60, 3599, 1)] == [["orphans"], [], ["orphans"]]


async def test_a_fence_ends_everything_and_is_nobodys_outcome() -> None:
    async def fenced() -> None:
        raise Fenced("another has taken over")

    with pytest.raises(Fenced):
        await House(task(fenced)).after(30)


async def test_a_success_forgets_the_error() -> None:
    answers: list[Exception | None] = [StoreUnreachable("no"), None]

    async def once() -> None:
        if problem := answers.pop(0):
            raise problem

    house = House(task(once))
    await house.after(30)
    await house.after(30)
    assert (house.run.last_error, house.run.breaker.failures) == ("", 0)


async def test_a_task_that_hangs_is_given_up() -> None:
    async def hangs() -> None:
        await asyncio.get_running_loop().create_future()

    house = House(Task("archive", 30, hangs, timeout_s=0.01))
    await house.after(30)
    assert house.run.last_error == "it did not end within 0.01 s"


async def test_a_defect_of_a_task_ends_neither_the_scheduler_nor_its_beat(caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> None:
        raise KeyError("x")

    house = House(task(broken))
    await house.after(30)
    assert house.run.last_error == "KeyError('x')"
    assert "task replicate failed" in caplog.text
    assert await house.after(30) == ["replicate"]


async def test_serving_runs_what_is_due_until_it_is_cancelled() -> None:
    ran = asyncio.Event()

    async def run() -> None:
        ran.set()

    serving = asyncio.create_task(House(task(run)).scheduler.serve())
    await ran.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


def test_two_tasks_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two tasks are called replicate"):
        House(task(), task())
