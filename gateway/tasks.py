"""The tasks of a finn, in the order in which people are told of them: TASKS.

replicate    what the store lacks goes there      health       is all well?
orphans      what a fenced writer had kept back   stale_beads  what lies still is labelled
archive      a commit, and a push                 drill        could it all be restored?
snapshot     folded state on disk                 prune        what nobody needs any more goes

A function for each gives the task, or None where what it is for is not configured: then it costs nothing, and is named
nowhere. docs/tasks.md says the same to people.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.ledger import Ledger
from gateway.settings import Settings
from persistence.beads import Beads
from persistence.breaker import BREAKERS
from persistence.clock import Clock, Entropy
from persistence.fold import Fold
from persistence.journal import Journal
from persistence.measure import Observe
from persistence.replay import Means
from persistence.upkeep import SNAPSHOT_SECONDS
from scheduler.health import Fact
from scheduler.scheduler import Run, Scheduler, Task

if TYPE_CHECKING:
    from gateway.storage import Storage

MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86_400.0
ANSWER_S = 10.0  #: a store has so long to answer, also where it is asked more often
SETTLE_S = 60.0  #: after a claim, until what the one before kept back has surely arrived
JITTER = 0.1  #: of an interval that is no promise to anybody


@dataclass(frozen=True)
class Parts:
    """What there is in a life for tasks to work on. `look` is a look at how everything is, for health."""

    settings: Settings
    folds: tuple[Fold[Any], ...]
    means: Means
    journal: Journal
    beads: Beads
    storage: "Storage | None"
    look: Callable[[], Awaitable[None]]


def replicate(parts: Parts) -> Task | None:
    """Records are on their way within a second anyway: this is what sees to it that they arrived."""
    primary = parts.storage.primary if parts.storage else None
    if primary is None:
        return None
    every_s = parts.settings.sync_interval
    return Task("replicate", every_s, primary.catch_up, timeout_s=max(every_s, ANSWER_S))


def orphans(parts: Parts) -> Task | None:
    """What an instance acknowledged that did not know yet that it was fenced becomes part of the log."""
    primary = parts.storage.primary if parts.storage else None
    if primary is None:
        return None
    return Task("orphans", HOUR_S, primary.bring_orphans, timeout_s=HOUR_S, first_s=SETTLE_S, jitter=JITTER)


def archive(parts: Parts) -> Task | None:
    """What came from one copy is soon compared with the other: a store that was set back does not know it."""
    if parts.storage is None or parts.storage.archiving is None:
        return None
    every_s = parts.settings.archive_interval
    first_s = every_s if parts.journal.source == "local" else min(every_s, SETTLE_S)
    return Task("archive", every_s, parts.storage.archive, timeout_s=10 * MINUTE_S, first_s=first_s)


def snapshot(parts: Parts) -> Task:
    """So that a start reads little; the log itself sees to it where much is said at once."""
    return Task("snapshot", SNAPSHOT_SECONDS, parts.journal.save, timeout_s=SNAPSHOT_SECONDS)


def health(parts: Parts) -> Task:
    """A look at what costs a call to know, and at what has changed since the last one."""
    return Task("health", MINUTE_S, parts.look, timeout_s=MINUTE_S / 2, first_s=0.0)


def stale_beads(parts: Parts) -> Task:
    """What is in progress and was not touched for long is labelled, once."""

    async def mark() -> None:
        await parts.beads.mark_stale(parts.settings.stale_beads_after)

    return Task("stale_beads", HOUR_S, mark, timeout_s=MINUTE_S, first_s=0.0)


def drill(parts: Parts) -> Task | None:
    """A copy that nobody ever restored from is a hope."""
    storage = parts.storage
    if storage is None:
        return None

    async def try_all() -> None:
        await storage.drill(parts.folds, parts.means)

    return Task("drill", 6 * HOUR_S, try_all, timeout_s=HOUR_S, first_s=HOUR_S, jitter=JITTER)


def prune(parts: Parts) -> Task:
    """In the store, what no manifest names; without one, what the log here can let go of."""
    primary = parts.storage.primary if parts.storage else None

    async def let_go() -> None:
        await parts.journal.prune()

    run = primary.collect if primary is not None else let_go
    return Task("prune", DAY_S, run, timeout_s=HOUR_S, jitter=JITTER)


TASKS: tuple[Callable[[Parts], Task | None], ...] = (
    replicate,
    orphans,
    archive,
    snapshot,
    health,
    stale_beads,
    drill,
    prune,
)


def tasks(parts: Parts) -> tuple[Task, ...]:
    """Those that there is something to do for."""
    return tuple(task for make in TASKS if (task := make(parts)) is not None)


def task_facts(runs: Iterable[Run], now: float) -> Iterable[Fact]:
    """How the tasks stand, for health."""
    for run in runs:
        yield Fact(f"task:{run.task.name}", run.breaker.state(now), output=run.last_error)


def scheduler_of(parts: Parts, clock: Clock, entropy: Entropy, observe: Observe) -> tuple[Scheduler, Ledger]:
    """The scheduler of a life, as the log left its breakers, and what keeps them there. Both are to be served."""
    made, kept = tasks(parts), parts.journal.whole(BREAKERS)
    ledger = Ledger(parts.journal, parts.beads, clock, [task.name for task in made])
    return Scheduler(made, clock, entropy, kept=kept, note=ledger.note, observe=observe), ledger
