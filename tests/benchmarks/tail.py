"""A start after a crash, with a tail as long as one gets: what came since the last snapshot, 10,000 records or 10 MB.

All of it is proven and folded. The anchor is the same start with a log of a few records. Each start has a copy of its
own: the first thing that finn does later is to take a snapshot.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import history
from tests.benchmarks.processes import finn
from tests.benchmarks.rounds import Goal, Measured, Round

MESSAGES = 5_700  #: 10,000 records
CHARS = 1_100  #: of each message, so that the records are 10 MB


def measure(folder: Path, quick: bool) -> Iterator[Measured]:
    short, long = folder / "short", folder / "long"
    for data, messages in ((short, 4), (long, MESSAGES // (20 if quick else 1))):
        with finn(data) as process:
            process.takes_prompts(data)  # the files that every agent has are there
        history.write(data, (messages,), sealed=False, chars=CHARS)
    rounds = [Round(started(folder, short), started(folder, long)) for _ in range(2 if quick else 13)]
    size = sum(path.stat().st_size for path in (long / "wal").glob("*.wal")) / 2**20
    what = f"start with a tail of {size:.1f} MiB since the last snapshot, to taking prompts"
    yield Measured(what, "ms", "the same without it", rounds[1:], Goal("ours", most=500))


def started(folder: Path, data: Path) -> float:
    """Milliseconds from the start of a process on a copy of that data until it takes prompts."""
    home = folder / "home"
    home.mkdir()
    shutil.copytree(data, home / "data")
    (home / "data" / "run.json").unlink(missing_ok=True)
    with finn(home / "data") as process:
        took = process.takes_prompts(home / "data")
    shutil.rmtree(home)
    return took
