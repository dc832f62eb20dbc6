"""What the copy in the store costs: requests of a busy month, and of a day in which nothing happens."""

import random
from collections import Counter

from persistence.clock import FakeClock
from persistence.compaction import due as compaction_due
from persistence.stores.memory import MemoryStore
from tests.persistence.busy_day import DAYS_A_MONTH, RECORDS_A_DAY, busy_day
from tests.persistence.library import Library, restorable
from tests.persistence.writers import Watched, Writer

PUTS_A_MONTH = 150_000


def test_a_busy_month_stays_below_the_number_of_puts_that_was_promised(seed: int) -> None:
    library, store, puts = busy_day(random.Random(seed))
    kinds = Counter(key.partition("/")[0] for key in puts)
    month = len(puts) * DAYS_A_MONTH
    print(f"{month} PUTs a month for {RECORDS_A_DAY} records a day, in a day {dict(kinds)}")  # noqa: T201
    assert restorable(store, library) == library.durable >= RECORDS_A_DAY
    assert month < PUTS_A_MONTH


def test_a_day_in_which_nothing_happens_costs_no_put_and_a_get_a_minute() -> None:
    clock, library = FakeClock(), Library(random.Random(1))
    store = Watched(MemoryStore(clock))
    writer = Writer(store, "one", library)
    writer.clock = clock
    replica = writer.replica()
    store.calls.clear()
    for _ in range(24 * 60):
        clock.advance(60)
        replica.check()
        assert not compaction_due(replica.tail_objects, replica.tail_bytes)
    assert Counter(call for call, _ in store.calls) == {"get": 24 * 60}
