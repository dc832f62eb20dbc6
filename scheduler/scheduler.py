"""What is done again and again, each behind a breaker of its own.

    tick ─▶ due? ─▶ run, for `timeout_s` at most ─▶ outcome: breaker, last_run, last_error ─▶ next_run
                                                        └▶ note(BreakerChanged), where it opened or closed

A task never overlaps itself. Ticks that were missed are skipped, not made up for: after a machine slept for a night
there is one run, not eight hours of them. A task that keeps failing is left alone for its breaker's cooldown, then one
run is the probe; what it raised is in `runs`, for health and for people. One that failed and comes more seldom than
that is tried again after a cooldown too: what was wrong for a minute is not told for a day. What was open when the
process before this one ended is open still, for what is left of its cooldown.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from persistence.breaker import Breaker, Breakers
from persistence.clock import Clock, Entropy
from persistence.errors import Conflict, Draining, Fenced, FinnError, NotFound
from persistence.events import BreakerChanged
from persistence.measure import Observe, unobserved

log = logging.getLogger("finn.scheduler")

BEAT_S = 1.0  #: how often the scheduler looks what is due
THRESHOLD = 3
COOLDOWN_S = 300.0
ERROR_CHARS = 1000  #: of what a task raised; the log has the whole of it

Note = Callable[[BreakerChanged], None]


@dataclass(frozen=True, slots=True)
class Task:
    """Something to do every so many seconds. `run` raises FinnError or OSError where it could not.

    `jitter` is the part of the interval by which a run may come later than its beat, so that not everybody does the
    same at the same moment; the beat itself stays where it is.
    """

    name: str
    every_s: float
    run: Callable[[], Awaitable[None]]
    timeout_s: float
    first_s: float | None = None  #: until the first run; as long as between two of them, if nothing is said
    jitter: float = 0.0
    breaker: Breaker = field(default=Breaker(THRESHOLD, COOLDOWN_S))


@dataclass(frozen=True, slots=True)
class Run:
    """How a task stands. `beat` and `next_run` are seconds that never go back, `last_run` is seconds since 1970."""

    task: Task
    breaker: Breaker
    beat: float
    next_run: float
    running: bool = False
    last_run: float | None = None  #: when it last began; None: not in this life
    last_error: str = ""

    def begun(self, now: float, wall: float, draw: float) -> "Run":
        """It runs because it was due; the next time is the first of its beat that has not passed, and a bit more."""
        passed = max(0.0, (now - self.beat) // self.task.every_s + 1)  # none, where it is tried again before its beat
        beat = self.beat + passed * self.task.every_s
        following = beat + draw * self.task.jitter * self.task.every_s
        return replace(self, running=True, last_run=wall, beat=beat, next_run=following)

    def begun_by_hand(self, now: float, wall: float) -> "Run":
        """It runs because somebody wants it to, which is the probe of an open breaker; its beat stays as it is."""
        return replace(self, running=True, last_run=wall, breaker=self.breaker.probe(now))

    def ended(self, now: float, error: str) -> "Run":
        """It has run; `error` is empty where it worked."""
        breaker = self.breaker.failure(now) if error else self.breaker.success()
        after = replace(self, running=False, breaker=breaker, last_error=error)
        return after.again(now) if error else after

    def again(self, now: float) -> "Run":
        """It is tried again after a cooldown, if its beat does not come sooner."""
        return replace(self, next_run=min(self.next_run, now + self.breaker.cooldown_s))

    def wait_s(self, now: float) -> float:
        """How long until it is due."""
        return max(0.0, self.next_run - now, self.breaker.wait_s(now))


def change(before: Run, after: Run) -> BreakerChanged | None:
    """What a run did to its breaker. A probe that failed opens it again: the cooldown begins anew."""
    task, breaker = after.task.name, after.breaker
    if breaker.opened_at is not None:
        return BreakerChanged(task=task, state="open", failures=breaker.failures, error=after.last_error)
    return None if before.breaker.opened_at is None else BreakerChanged(task=task, state="closed")


class Scheduler:
    """Runs tasks as they fall due. Every name is there once."""

    def __init__(
        self,
        tasks: Iterable[Task],
        clock: Clock,
        entropy: Entropy,
        *,
        kept: Breakers,
        note: Note,
        observe: Observe = unobserved,
    ) -> None:
        """`kept` are the breakers as they were left; `note` is told what becomes of them, and must not wait."""
        self._clock = clock
        self._entropy = entropy
        self._note = note
        self._observe = observe
        self._runs: dict[str, Run] = {}
        self._group: asyncio.TaskGroup | None = None  # of what runs; None before `serve` and after it
        self._served = asyncio.Event()
        for task in tasks:
            if task.name in self._runs:
                raise ValueError(f"two tasks are called {task.name}")
            self._runs[task.name] = self._first(task, kept)

    def _first(self, task: Task, kept: Breakers) -> Run:
        now, opened = self._clock.monotonic(), kept.opened.get(task.name)
        beat = now + (task.every_s if task.first_s is None else task.first_s)
        if opened is None:
            return Run(task, task.breaker, beat, beat)
        breaker = task.breaker.resumed(opened, self._clock.now(), now)
        return Run(task, breaker, beat, beat, last_error=opened.error).again(now)

    @property
    def runs(self) -> Sequence[Run]:
        """How each task stands."""
        return tuple(self._runs.values())

    async def serve(self) -> None:
        """Runs what falls due, until it is cancelled. Raises Fenced."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._served.set()
                while True:
                    for task in self.tick():
                        group.create_task(self.attempt(task))
                    await self._clock.sleep(BEAT_S)
        finally:
            self._group = None

    def tick(self) -> list[Task]:
        """The tasks that begin now, marked as running; whoever asked `attempt`s each."""
        now, wall = self._clock.monotonic(), self._clock.now()
        due = [run for run in self.runs if not run.running and run.wait_s(now) == 0]
        for run in due:
            self._runs[run.task.name] = run.begun(now, wall, self._draw())
        return [run.task for run in due]

    async def run_now(self, name: str) -> Run:
        """Runs a task at once, whatever its breaker says, and returns how it stands then.

        It waits for the beginning of `serve`, and goes on when whoever asked is gone. Raises NotFound, Conflict where
        the task is running already, Draining after the end of `serve`, Fenced.
        """
        if name not in self._runs:
            raise NotFound("there is no task of that name", hint=f"the tasks are {', '.join(self._runs)}")
        await self._served.wait()
        if self._group is None:
            raise Draining("finn is stopping, and runs no more tasks", hint="its successor will")
        run = self._runs[name]
        if run.running:
            raise Conflict(f"the task {name} is running already", hint="ask again when it has ended")
        self._runs[name] = run.begun_by_hand(self._clock.monotonic(), self._clock.now())
        await asyncio.shield(self._group.create_task(self.attempt(run.task)))
        return self._runs[name]

    async def attempt(self, task: Task) -> None:
        """Runs a task once. What it raises is its outcome; a defect of ours is logged as well. Raises Fenced alone."""
        began = self._clock.monotonic()
        error = await _outcome(task)
        self._observe("task_runs", 1, task=task.name, outcome="failed" if error else "ok")
        self._observe("task_seconds", self._clock.monotonic() - began, task=task.name)
        before = self._runs[task.name]
        after = self._runs[task.name] = before.ended(self._clock.monotonic(), error[:ERROR_CHARS])
        if changed := change(before, after):
            self._note(changed)
        if error:
            log.warning("task %s failed, %d in a row: %s", task.name, after.breaker.failures, error)

    def _draw(self) -> float:
        """From 0 to less than 1."""
        return int.from_bytes(self._entropy(4)) / 2**32


async def _outcome(task: Task) -> str:
    """Why it failed; empty where it worked. Raises Fenced: nothing more is to be done by this writer at all."""
    limit = asyncio.timeout(task.timeout_s)
    try:
        async with limit:
            await task.run()
    except Fenced:
        raise
    except (FinnError, OSError) as problem:  # TimeoutError is one, be it ours or the task's own
        return f"it did not end within {task.timeout_s:g} s" if limit.expired() else str(problem) or repr(problem)
    except Exception as defect:
        log.exception("task %s has a defect", task.name)
        return repr(defect)
    return ""
