"""A busy day of an agent with a copy in a store, played on a clock that does not wait: what it asks of the store."""

import random
from typing import NamedTuple

from gateway.replication import GATHER_S
from persistence.clock import FakeClock
from persistence.collection import collect
from persistence.compaction import compact
from persistence.compaction import due as compaction_due
from persistence.stores.memory import MemoryStore
from tests.persistence.library import Library
from tests.persistence.writers import Watched, Writer

RECORDS_A_DAY = 5_000
DAYS_A_MONTH = 30
PUT_S = 0.08  #: how long the store takes for an object
SNAPSHOT_S = 300.0


class Day(NamedTuple):
    """What was written, where it lies in the end, and the names in all requests that cost as much as a PUT."""

    library: Library
    store: MemoryStore
    puts: tuple[str, ...]


def turns(rng: random.Random) -> list[float]:
    """When the records of a day come: prompts here and there, each answered in some steps with a tool between them."""
    moments: list[float] = []
    while len(moments) < RECORDS_A_DAY:
        at = rng.uniform(8, 22) * 3600
        moments += [at, at + 0.003]  # what was said, and its turn
        for _ in range(rng.randint(0, 8)):
            at = _streamed(rng, moments, at)
            moments += [at, at + 0.003]  # the answer, and the tool that it calls
            at += rng.choice((0.02, 0.02, rng.uniform(0.1, 20.0)))
            moments.append(at)  # what the tool gave
        at = _streamed(rng, moments, at)
        moments += [at, at + 0.003]  # the last answer, and the end of the turn
    return sorted(moments[:RECORDS_A_DAY])


def _streamed(rng: random.Random, moments: list[float], at: float) -> float:
    """An answer that is written for some seconds, with a checkpoint every two."""
    end = at + rng.uniform(0.5, 8.0)
    while (at := at + 2.0) < end:
        moments.append(at)
    return end


def busy_day(rng: random.Random) -> Day:
    """Plays one: records as they come, what the replica makes of them, compaction, and the day's collection."""
    clock, library = FakeClock(), Library(rng, blobs=0.01)
    inner = MemoryStore(clock)
    store = Watched(inner)
    writer = Writer(store, "one", library)
    writer.clock = clock
    replica = writer.replica()
    store.calls.clear()
    midnight, snapshot_at = clock.now(), 0.0
    waiting = turns(rng)
    while waiting:
        # At once where nothing is in flight, but for the moment in which a pair comes; the rest goes with the next.
        clock.time = max(clock.now(), midnight + waiting[0] + GATHER_S)
        while waiting and midnight + waiting[0] <= clock.now():
            waiting.pop(0)
            library.talk(600)
        replica.flush()
        clock.advance(PUT_S)
        if clock.now() - snapshot_at >= SNAPSHOT_S:
            snapshot_at = clock.now()
            library.snapshot()
        if library.durable - (library.tail_first or library.durable) > 400:
            library.seal()
        if compaction_due(replica.tail_objects, replica.tail_bytes):
            compact(replica, library.taken)
    clock.advance(26 * 3600)
    collect(replica, {}, clock=clock, entropy=rng.randbytes)
    puts = tuple(key for call, key in store.calls if call in ("put", "create", "list"))
    return Day(library, inner, puts)
