"""Tasks run on their beat, never twice at once, and are left alone while they fail."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from persistence.breaker import BREAKERS, Breaker, Breakers, keep
from persistence.clock import FakeClock
from persistence.errors import Conflict, Draining, Fenced, NotFound, StoreUnreachable
from persistence.events import SYSTEM, BreakerChanged, Record
from scheduler.scheduler import COOLDOWN_S, THRESHOLD, Run, Scheduler, Task

DAY_S = 86_400.0


async def nothing() -> None:
    return


async def fails() -> None:
    raise StoreUnreachable("the store does not answer", hint="wait")


def task(
    run: Callable[[], Awaitable[None]] = nothing, name: str = "replicate", every_s: float = 30, jitter: float = 0.0
) -> Task:
    return Task(name, every_s, run, timeout_s=5, jitter=jitter)


def opened(failures: int = 3, error: str = "the store does not answer (wait)") -> BreakerChanged:
    return BreakerChanged(task="replicate", state="open", failures=failures, error=error)


CLOSED = BreakerChanged(task="replicate", state="closed")


class Times(FakeClock):
    """A clock whose time of day can be set, as people and networks do, while the other one goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.set_by = 0.0
        self.stands = False

    def now(self) -> float:
        return self.time + self.set_by

    async def sleep(self, seconds: float) -> None:
        if self.stands:
            await asyncio.get_running_loop().create_future()
        await super().sleep(seconds)


class House:
    """A scheduler whose clock the test turns, and the log that its breakers are kept in."""

    def __init__(self, *tasks: Task, seed: int = 0) -> None:
        self.clock = Times()
        self.tasks = tasks
        self.noted: list[BreakerChanged] = []
        self.kept = Breakers()
        self.entropy = random.Random(seed).randbytes
        self.restart()

    def restart(self) -> None:
        """Another process goes on where this one was killed; its monotonic clock begins anywhere."""
        self.scheduler = Scheduler(self.tasks, self.clock, self.entropy, kept=self.kept, note=self.note)

    def note(self, change: BreakerChanged) -> None:
        self.noted.append(change)
        time = int(self.clock.now() * 1000)
        self.kept = keep(self.kept, Record(1, "", time, 1, 0, None, SYSTEM, change.kind, change.v, change, "", b""))

    async def after(self, seconds: float) -> list[str]:
        """Runs to the end whatever is due so much later; its names."""
        self.clock.advance(seconds)
        due = self.scheduler.tick()
        for one in due:
            await self.scheduler.attempt(one)
        return [one.name for one in due]

    async def seconds(self, count: float) -> int:
        """How many runs there are in the next seconds, with a look at each of them."""
        return sum([len(await self.after(1)) for _ in range(int(count))])

    @property
    def run(self) -> Run:
        return self.scheduler.runs[0]


# ---------------------------------------------------------------- the beat


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
    (due,) = house.scheduler.tick()
    house.clock.advance(30)
    assert house.scheduler.tick() == []
    await house.scheduler.attempt(due)
    assert house.scheduler.tick() == [due]


async def test_the_first_run_may_come_sooner_than_the_second() -> None:
    house = House(Task("orphans", 3600, nothing, timeout_s=5, first_s=60))
    assert [await house.after(seconds) for seconds in (60, 3599, 1)] == [["orphans"], [], ["orphans"]]


async def test_jitter_makes_runs_late_by_less_than_its_part_and_never_drifts(seed: int) -> None:
    house, began, late = House(task(every_s=100, jitter=0.1), seed=seed), 0, []
    for second in range(1, 100 * 200):
        if await house.after(1):
            began += 1
            late.append(second - 100 * began)
    assert began in (198, 199)
    assert 0 <= min(late) <= max(late) <= 10
    assert len(set(late)) > 5


async def test_the_time_of_day_has_no_say_in_when_a_task_runs() -> None:
    house = House(task(every_s=30))
    house.clock.set_by = -DAY_S
    assert [await house.after(29), await house.after(1)] == [[], ["replicate"]]
    house.clock.set_by = DAY_S
    assert [await house.after(29), await house.after(1)] == [[], ["replicate"]]


# ---------------------------------------------------------------- outcomes


async def test_what_a_task_raises_is_its_outcome() -> None:
    house = House(task(fails))
    await house.after(30)
    assert (house.run.last_error, house.run.breaker.failures) == ("the store does not answer (wait)", 1)


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


async def test_a_task_that_hangs_is_cut_and_counts_as_failed() -> None:
    async def hangs() -> None:
        await asyncio.get_running_loop().create_future()

    house = House(Task("archive", 30, hangs, timeout_s=0.01))
    await house.after(30)
    assert (house.run.last_error, house.run.breaker.failures) == ("it did not end within 0.01 s", 1)
    assert not house.run.running


async def test_a_time_out_of_the_tasks_own_is_told_as_it_is() -> None:
    async def waits() -> None:
        raise TimeoutError("the socket was silent")

    house = House(task(waits))
    await house.after(30)
    assert house.run.last_error == "the socket was silent"


async def test_a_defect_of_a_task_ends_neither_the_scheduler_nor_its_beat(caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> None:
        raise KeyError("x")

    house = House(task(broken))
    await house.after(30)
    assert house.run.last_error == "KeyError('x')"
    assert "task replicate has a defect" in caplog.text
    assert await house.after(30) == ["replicate"]


async def test_each_run_is_counted_by_how_it_ended() -> None:
    counted: list[tuple[str, str]] = []

    def observe(name: str, _: float, /, **labels: str) -> None:
        if name == "task_runs":
            counted.append((labels["task"], labels["outcome"]))

    house = House(task(), task(fails, "archive"))
    house.scheduler = Scheduler(
        house.tasks, house.clock, house.entropy, kept=Breakers(), note=house.note, observe=observe
    )
    await house.after(30)
    assert counted == [("replicate", "ok"), ("archive", "failed")]


# ---------------------------------------------------------------- the breaker


async def test_a_task_that_keeps_failing_is_left_alone_and_then_tried_once() -> None:
    house = House(task(fails, every_s=10))
    assert await house.seconds(10 * THRESHOLD) == THRESHOLD
    assert await house.seconds(COOLDOWN_S - 1) == 0
    assert await house.seconds(1) == 1
    assert await house.seconds(COOLDOWN_S - 1) == 0


async def test_what_comes_seldom_and_failed_is_tried_again_after_the_cooldown_and_then_comes_on_its_beat() -> None:
    answers = iter([fails, nothing])

    async def once() -> None:
        await next(answers, nothing)()

    house = House(task(once, every_s=DAY_S))
    assert await house.after(DAY_S) == ["replicate"]
    assert await house.after(COOLDOWN_S - 1) == []
    assert await house.after(1) == ["replicate"]
    assert house.run.last_error == ""
    assert await house.after(DAY_S - COOLDOWN_S - 1) == []
    assert await house.after(1) == ["replicate"]


async def test_an_open_breaker_of_what_comes_seldom_is_probed_after_the_cooldown_and_after_a_restart_in_it() -> None:
    house = House(task(fails, every_s=DAY_S))
    assert [await house.after(seconds) for seconds in (DAY_S, COOLDOWN_S, COOLDOWN_S)] == [["replicate"]] * 3
    assert house.noted == [opened()]
    assert await house.after(COOLDOWN_S - 1) == []
    assert await house.after(1) == ["replicate"]
    house.restart()
    assert await house.after(COOLDOWN_S - 1) == []
    assert await house.after(1) == ["replicate"]


async def test_what_becomes_of_a_breaker_is_noted_and_nothing_else_is() -> None:
    store: list[bool] = [False]

    async def sync() -> None:
        if not store[0]:
            await fails()

    house = House(task(sync))
    await house.seconds(30 * (THRESHOLD - 1))
    assert house.noted == []
    await house.seconds(30)
    assert house.noted == [opened()]
    await house.seconds(COOLDOWN_S)
    assert house.noted == [opened(), opened(failures=4)], "the cooldown of a failed probe begins anew"
    store[0] = True
    await house.seconds(COOLDOWN_S)
    await house.seconds(DAY_S / 24)
    assert house.noted == [opened(), opened(failures=4), CLOSED]


@pytest.mark.parametrize("killed_after", [0, 1, 150, 299])
async def test_a_restart_in_the_cooldown_makes_no_call_before_its_end_and_one_probe_then(killed_after: int) -> None:
    store: list[bool] = [False]

    async def sync() -> None:
        if not store[0]:
            await fails()

    house = House(task(sync, every_s=1))
    assert await house.seconds(THRESHOLD) == THRESHOLD
    assert await house.seconds(killed_after) == 0
    house.restart()
    assert (house.run.breaker.state(house.clock.monotonic()), house.run.breaker.failures) == ("open", THRESHOLD)
    assert house.run.last_error == "the store does not answer (wait)"
    assert await house.seconds(COOLDOWN_S - killed_after - 1) == 0
    store[0] = True
    assert await house.seconds(1) == 1
    assert house.noted == [opened(), CLOSED]
    house.restart()
    assert house.run.breaker == Breaker(THRESHOLD, COOLDOWN_S)


async def test_a_restart_long_after_the_cooldown_begins_with_the_probe() -> None:
    house = House(task(fails, every_s=10))
    await house.seconds(30)
    house.clock.advance(DAY_S)
    house.restart()
    assert house.run.breaker.state(house.clock.monotonic()) == "half_open"
    assert await house.seconds(10) == 1
    assert house.noted == [opened(), opened(failures=4)]


@pytest.mark.parametrize(("set_by", "left"), [(-DAY_S, COOLDOWN_S), (-1, 201), (1, 199), (DAY_S, 0)])
async def test_a_clock_that_was_set_leaves_a_breaker_open_for_one_cooldown_at_most(set_by: float, left: float) -> None:
    house = House(task(fails, every_s=1))
    await house.seconds(3)
    await house.seconds(100)
    house.clock.set_by = set_by
    house.restart()
    assert house.run.breaker.wait_s(house.clock.monotonic()) == pytest.approx(left)


def test_a_breaker_that_is_not_known_leaves_the_others_alone() -> None:
    house = House(task())
    house.note(BreakerChanged(task="gone", state="open", failures=3, error="no"))
    house.restart()
    assert house.run.breaker.state(house.clock.monotonic()) == "closed"


def test_the_log_keeps_its_breakers_as_json() -> None:
    house = House(task())
    house.note(opened())
    assert BREAKERS.load(BREAKERS.dump(house.kept)) == house.kept
    house.note(CLOSED)
    assert house.kept == Breakers()


# ---------------------------------------------------------------- by hand, and as it is served


async def served(house: House) -> "asyncio.Task[None]":
    """The scheduler's own loop, which is never due: time stands still, and `sleep` waits for ever."""

    house.clock.stands = True
    serving = asyncio.create_task(house.scheduler.serve())
    await asyncio.sleep(0)
    return serving


async def end(serving: "asyncio.Task[None]") -> None:
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_serving_runs_what_is_due_until_it_is_cancelled() -> None:
    ran = asyncio.Event()

    async def run() -> None:
        ran.set()

    serving = asyncio.create_task(House(task(run)).scheduler.serve())
    await ran.wait()
    await end(serving)


async def test_a_run_by_hand_is_the_probe_of_an_open_breaker() -> None:
    store: list[bool] = [False]
    seen = list[str]()

    async def sync() -> None:
        seen.append(house.run.breaker.state(house.clock.monotonic()))
        if not store[0]:
            await fails()

    house = House(task(sync, every_s=10))
    await house.seconds(30)
    serving = await served(house)
    assert (await house.scheduler.run_now("replicate")).breaker.failures == 4
    assert house.noted == [opened(), opened(failures=4)]
    store[0] = True
    assert (await house.scheduler.run_now("replicate")).breaker.failures == 0
    assert house.noted[2:] == [CLOSED]
    assert seen == ["closed"] * 3 + ["half_open"] * 2
    await end(serving)


async def test_a_run_by_hand_leaves_the_beat_as_it_is() -> None:
    house = House(task(every_s=30))
    serving = await served(house)
    house.clock.advance(20)
    await house.scheduler.run_now("replicate")
    assert [await house.after(9), await house.after(1)] == [[], ["replicate"]]
    await end(serving)


async def test_a_task_that_is_not_there_or_is_running_cannot_be_run_by_hand() -> None:
    gate = asyncio.Event()

    async def waits() -> None:
        await gate.wait()

    house = House(task(waits))
    serving = await served(house)
    with pytest.raises(NotFound, match="no task of that name"):
        await house.scheduler.run_now("replicat")
    first = asyncio.create_task(house.scheduler.run_now("replicate"))
    await asyncio.sleep(0)
    with pytest.raises(Conflict, match="is running already"):
        await house.scheduler.run_now("replicate")
    gate.set()
    assert not (await first).running
    await end(serving)


async def test_a_run_by_hand_waits_for_the_beginning_and_is_refused_after_the_end() -> None:
    house = House(task())
    early = asyncio.create_task(house.scheduler.run_now("replicate"))
    await asyncio.sleep(0)
    serving = await served(house)
    assert (await early).last_run == house.clock.now()
    await end(serving)
    with pytest.raises(Draining):
        await house.scheduler.run_now("replicate")


async def test_a_run_by_hand_goes_on_when_whoever_asked_is_gone() -> None:
    gate, ended = asyncio.Event(), asyncio.Event()

    async def waits() -> None:
        await gate.wait()
        ended.set()

    house = House(task(waits))
    serving = await served(house)
    asking = asyncio.create_task(house.scheduler.run_now("replicate"))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    gate.set()
    await ended.wait()
    await end(serving)


async def test_the_others_go_on_while_one_hangs() -> None:
    async def hangs() -> None:
        await asyncio.get_running_loop().create_future()

    house = House(Task("archive", 30, hangs, timeout_s=3600), task(name="health", every_s=30))
    house.clock.advance(30)
    archive, health = house.scheduler.tick()
    hanging = asyncio.create_task(house.scheduler.attempt(archive))
    await house.scheduler.attempt(health)
    assert [await house.after(30) for _ in range(3)] == [["health"]] * 3
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging


def test_two_tasks_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two tasks are called replicate"):
        House(task(), task())
