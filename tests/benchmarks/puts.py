"""What the copy in the store costs: the requests of a month that are charged as a PUT is, for 5,000 records a day.

The day is the one of tests/persistence/test_upkeep.py, played on a clock that does not wait: prompts here and there,
each answered in some steps with tools between them, an answer for some seconds with a checkpoint every two, and the
store takes 80 ms for an object.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.rounds import Goal, Measured, Round
from tests.persistence.busy_day import DAYS_A_MONTH, RECORDS_A_DAY, busy_day

PUTS = 150_000


def measure(folder: Path, quick: bool) -> Iterator[Measured]:
    days = [len(busy_day(random.Random(number)).puts) for number in range(1 if quick else 5)]
    rounds = [Round(None, day * DAYS_A_MONTH) for day in days]
    yield Measured(f"PUTs a month for {RECORDS_A_DAY:,} records a day", "PUTs", "", rounds, Goal("ours", most=PUTS))
