"""What is done again and again, each behind a breaker of its own.

    tick(now) ─▶ due? ─▶ run, for `timeout_s` at most ─▶ outcome: breaker, last_run, last_error ─▶ next_run

A task never overlaps itself. Ticks that were missed are skipped, not made up for: after a machine slept for a night
there is one run, not eight hours of them. A task that keeps failing is left alone for its breaker's cooldown; what it
raised is in `runs`, for health and for people.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from persistence.breaker import Breaker
from persistence.clock import Clock
from persistence.errors import Fenced, FinnError

log = logging.getLogger("finn.scheduler")

BEAT_S = 1.0  #: how often the scheduler looks what is due
THRESHOLD = 3
COOLDOWN_S = 60.0


@dataclass(frozen=True, slots=True)
class Task:
    """Something to do every so many seconds. `run` raises FinnError or OSError where it could not."""

    name: str
    every_s: float
    run: Callable[[], Awaitable[None]]
    timeout_s: float
    first_s: float | None = None  #: until the first run; as long as between two of them, if nothing is said
    breaker: Breaker = field(default=Breaker(THRESHOLD, COOLDOWN_S))


@dataclass(frozen=True, slots=True)
class Run:
    """How a task stands. `next_run` and `last_run` are seconds that never go back; None: it has not run yet."""

    task: Task
    breaker: Breaker
    next_run: float
    running: bool = False
    last_run: float | None = None
    last_error: str = ""

    def begun(self, now: float) -> "Run":
        """It runs; the next time is the first of its beat that has not passed."""
        missed = max(0.0, (now - self.next_run) // self.task.every_s)
        following = self.next_run + (missed + 1) * self.task.every_s
        return replace(self, running=True, last_run=now, next_run=following)

    def ended(self, now: float, error: str) -> "Run":
        """It has run; `error` is empty where it worked."""
        breaker = self.breaker.failure(now) if error else self.breaker.success()
        return replace(self, running=False, breaker=breaker, last_error=error)

    def wait_s(self, now: float) -> float:
        """How long until it is due."""
        return max(0.0, self.next_run - now, self.breaker.wait_s(now))


class Scheduler:
    """Runs tasks as they fall due. Every name is there once."""

    def __init__(self, tasks: Iterable[Task], clock: Clock) -> None:
        now = clock.monotonic()
        self._clock = clock
        self._runs: dict[str, Run] = {}
        for task in tasks:
            if task.name in self._runs:
                raise ValueError(f"two tasks are called {task.name}")
            first_s = task.every_s if task.first_s is None else task.first_s
            self._runs[task.name] = Run(task, task.breaker, now + first_s)

    @property
    def runs(self) -> Sequence[Run]:
        """How each task stands."""
        return tuple(self._runs.values())

    async def serve(self) -> None:
        """Runs what falls due, until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                for task in self.tick(self._clock.monotonic()):
                    group.create_task(self.attempt(task))
                await self._clock.sleep(BEAT_S)

    def tick(self, now: float) -> list[Task]:
        """The tasks that begin now, marked as running; whoever asked `attempt`s each."""
        due = [run for run in self.runs if not run.running and run.wait_s(now) == 0]
        for run in due:
            self._runs[run.task.name] = run.begun(now)
        return [run.task for run in due]

    async def attempt(self, task: Task) -> None:
        """Runs a task once. What it raises is its outcome; a defect of ours is logged as well. Raises Fenced alone."""
        error = ""
        try:
            async with asyncio.timeout(task.timeout_s):
                await task.run()
        except Fenced:
            raise  # nothing more is to be done by this writer, neither this nor anything else
        except TimeoutError:
            error = f"it did not end within {task.timeout_s:g} s"
        except (FinnError, OSError) as problem:
            error = str(problem)
        except Exception as defect:
            log.exception("task %s failed", task.name)
            error = repr(defect)
        self._runs[task.name] = self._runs[task.name].ended(self._clock.monotonic(), error)
