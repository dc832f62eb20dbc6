"""A day without the store, one record a second: nobody waits, nothing is lost, and it is made good in a few requests.

    second by second   a record · every 10 s an attempt that nobody answers · every 5 min what `tend` would do
    then               one flush, one compaction: everything is in the store, once, and a machine made of it has it all

The hours pass on a simulated clock, in a folder in memory; the log, the state and the replica are the real ones.
"""

import gc
import random
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from pydantic_core import from_json, to_json

from persistence.claim import claim
from persistence.compaction import compact, newest, settled
from persistence.disk import SystemDisk
from persistence.errors import StoreUnreachable
from persistence.journal import Journal
from persistence.remote import look
from persistence.replica import Replica
from persistence.stores.memory import MemoryStore
from persistence.upkeep import SNAPSHOT_SECONDS
from tests.persistence.faulty_store import FaultyStore
from tests.persistence.journals import LEDGER, STREAM, means, prompt
from tests.persistence.simulation import folder_in_memory
from tests.persistence.starts import Agent
from tests.persistence.stepped import Loop, Times, stepped
from tests.persistence.writers import Watched

HOURS = 24
HOUR_S = 3600
RETRY_S = 10  #: the longest pause between two attempts
PARSER_STRINGS = 50_000  #: more than pydantic keeps of the last ones it saw
SEGMENT_BYTES = 1 << 20  #: so that a day has several dozens

pytestmark = pytest.mark.slow


@dataclass
class Writer:
    """One instance, whose store is a switch."""

    loop: Loop
    journal: Journal
    replica: Replica
    store: FaultyStore
    calls: Watched
    clock: Times

    def second(self, number: int) -> None:
        """A second passes, with one record in it."""
        self.clock.advance(1)
        text = f"second {number}: {'so it goes on, ' * 10}"
        self.loop.run(self.journal.commit(prompt(text, f"{number}"), stream=STREAM))
        if number % RETRY_S == 0:
            with pytest.raises(StoreUnreachable):
                self.replica.flush()
        if number % SNAPSHOT_SECONDS == 0:
            self.loop.run(self.journal._upkeep.once())

    def back(self) -> None:
        """The store answers again: what the replication does then."""
        self.store.down = False
        self.loop.run(self.journal._upkeep.once())
        self.replica.flush()
        self.journal.confirm(self.replica.confirmed)
        taken = newest(SystemDisk(), self.journal.paths.snapshots)
        manifest = compact(self.replica, taken).manifest
        self.loop.run(self.journal.prune(settled(manifest)))


@pytest.fixture
def writer(seed: int) -> Iterator[Writer]:
    with folder_in_memory() as folder, stepped(segment_bytes=SEGMENT_BYTES, blob_bytes=1 << 18) as loop:
        clock, rng = Times(), random.Random(seed)
        calls = Watched(MemoryStore(clock))
        store = FaultyStore(calls, rng, rate=0, stale=0)
        journal = loop.run(Journal.open(folder, (LEDGER,), replace(means(clock=clock, seed=seed), replicated=True)))
        claimed = claim(
            store,
            look(store, clock=clock, threads=1),
            writer="w",
            release="r",
            entropy=rng.randbytes,
            clock=clock,
            threads=1,
        )
        replica = Replica(store, claimed, journal, release="r", clock=clock, entropy=rng.randbytes, threads=1)
        store.down = True
        yield Writer(loop, journal, replica, store, calls, clock)
        loop.run(journal.close())


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_an_outage_of_a_day_is_made_good_in_a_few_requests_and_nothing_is_lost(writer: Writer, seed: int) -> None:
    for number in range(HOURS * HOUR_S):
        writer.second(number)
    journal, replica = writer.journal, writer.replica
    assert journal.durable - replica.confirmed > HOURS * HOUR_S
    log = journal.size
    assert size(journal.paths.root) < 3 * log, "the log, the chunks made of it, and little else"
    writer.calls.calls.clear()
    writer.back()
    assert replica.confirmed == journal.durable
    puts = [key for call, key in writer.calls.calls if call != "get"]
    assert len(puts) < 20 + 2 * log / 100_000, f"{len(puts)} for {log} bytes"
    assert journal.size < 4 * SEGMENT_BYTES, "what the store has as well is not kept as a log"
    with folder_in_memory() as elsewhere:
        agent = Agent(seed, writer.calls.store)
        recovered = agent.recover(elsewhere / "b")
        recovered.origin.lock.release()
        assert recovered.origin.source == "store"
        replayed = recovered.origin.replayed
        assert replayed is not None
        assert replayed.head.seq == journal.seq
        assert replayed.folded.streams(LEDGER) == journal.streams(LEDGER)


def test_memory_does_not_grow_with_the_outage(writer: Writer) -> None:
    """Beside one reference for a quarter of a megabyte of text nothing is kept of what waits."""
    held: list[int] = []
    tracemalloc.start()
    try:
        from_json(to_json([f"string {number}" for number in range(PARSER_STRINGS)]))
        for number in range(2 * HOUR_S):
            writer.second(number)
            if number % (HOUR_S // 4) == HOUR_S // 4 - 1:
                writer.loop.run(writer.journal.seal(STREAM))
                writer.calls.calls.clear()
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    grown, records = held[-1] - held[0], len(held[1:]) * HOUR_S // 4
    assert grown < 10 * records, f"{grown} bytes for {records} records in a log of {writer.journal.size} bytes"
