"""From the start of the process to its first answer, and the memory it then holds.

finn starts on a data directory that holds a session; the anchor is the smallest server on the same libraries.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import history
from tests.benchmarks.processes import bare, finn
from tests.benchmarks.rounds import Goal, Measured, Round

MESSAGES = 1000
PRELOADED_S = 1.5  #: after which nothing is loaded any more


def measure(folder: Path, quick: bool) -> Iterator[Measured]:
    data = folder / "data"
    history.write(data, (MESSAGES,))
    health, ready, memory, later = [], [], [], []
    for number in range(4 if quick else 16):
        with bare(folder) as process:
            anchor, base = process.answers("/health"), process.rss()
        with finn(data) as process:
            answered = process.answers("/health")
            serving = process.takes_prompts(data)
            held = process.rss()
            time.sleep(PRELOADED_S if number < 5 else 0)
            settled = process.rss()
        if number == 0:
            continue  # compiles what has changed, fills the page cache
        health.append(Round(anchor, answered))
        ready.append(Round(anchor, serving))
        memory.append(Round(base, held))
        later.extend([Round(base, settled)] if number < 5 else [])
    smallest = "bare Starlette"
    yield Measured("start to /health 200", "ms", smallest, health, Goal("ratio", most=1.7))
    yield Measured("start to taking prompts (1,000 messages)", "ms", smallest, ready, Goal("ratio"))
    yield Measured("memory at that moment", "MiB", smallest, memory, Goal("ours", most=50))
    yield Measured("memory once the builtin model is loaded", "MiB", smallest, later, Goal("ours", most=50))
