"""A start after a crash, with a tail as long as one gets: what came since the last snapshot, 10,000 records or 10 MB.

All of it is proven and folded. The anchor is the same start without a log.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import history
from tests.benchmarks.processes import finn
from tests.benchmarks.rounds import Goal, Measured, Round

MESSAGES = 5_700  #: 10,000 records
CHARS = 1_000


def measure(folder: Path, quick: bool) -> Iterator[Measured]:
    kept = folder / "kept"
    history.write(kept, (MESSAGES // (20 if quick else 1),), sealed=False, chars=CHARS)
    rounds = [Round(started(folder, None), started(folder, kept)) for _ in range(2 if quick else 12)]
    size = sum(path.stat().st_size for path in (kept / "wal").glob("*.wal")) / 2**20
    what = f"start with a tail of {size:.0f} MiB since the last snapshot, to taking prompts"
    yield Measured(what, "ms", "on an empty directory", rounds[1:], Goal("ours", most=500))


def started(folder: Path, kept: Path | None) -> float:
    """Milliseconds from the start of a process on a copy of that data until it takes prompts."""
    home = folder / "home"
    home.mkdir()
    if kept is not None:
        shutil.copytree(kept, home / "data")
    with finn(home / "data") as process:
        took = process.takes_prompts(home / "data")
    shutil.rmtree(home)
    return took
