"""`finn doctor` on a healthy directory of 1,000 sessions and 100 MB of log: the process from start to end.

The anchor is what the same bytes cost at the very least: `sha256sum` of every file of the log, and every line of every
mirror parsed as JSON, in the same minute. Old sessions lie in chunks and in the log, as where a store has not confirmed
them yet, so that nothing of it could be left out.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from agent.mirror import encode
from gateway.folds import FOLDS
from gateway.site import site_of
from persistence.journal import Journal
from scheduler.conversations import MIRRORS
from tests.benchmarks import history
from tests.benchmarks.processes import finn
from tests.benchmarks.rounds import Goal, Measured, Round

SESSIONS = 1000
TAILS = 0.1  #: of the sessions, in no chunk yet
SIZES = ((88, 400), (42, 1_800))  #: messages of a session and characters of each: 100 KB in both cases


def measure(folder: Path, quick: bool) -> Iterator[Measured]:
    for messages, chars in SIZES:
        data = folder / f"data-{messages}"
        sessions = SESSIONS // (50 if quick else 1)
        fill(data, sessions, messages, chars)
        size = sum(path.stat().st_size for path in (data / "wal").glob("*.wal")) / 1e6
        rounds = [Round(anchor(data), examined(data)) for _ in range(2 if quick else 9)]
        what = f"finn doctor, {sessions:,} sessions of {messages} messages, {size:.0f} MB of log"
        yield Measured(what, "s", "sha256sum + json", rounds, Goal("ours", most=2))


def fill(data: Path, sessions: int, messages: int, chars: int) -> None:
    """A directory as a finn leaves it that was stopped."""
    with finn(data) as process:
        process.takes_prompts(data)  # the files that every agent has are there
    made = history.write(data, (messages,) * sessions, chars=chars)
    asyncio.run(_seal(data, made[: round(sessions * (1 - TAILS))]))
    found = site_of({"FINN_DATA_DIR": str(data)}).sessions
    for session, state in found.states().items():
        path = data / MIRRORS / f"{session}.jsonl"
        path.write_bytes(encode(found.mirror(session, state)))
        path.chmod(0o600)


async def _seal(data: Path, sessions: list[str]) -> None:
    journal = await Journal.open(data, FOLDS, history.means())
    for session in sessions:
        await journal.seal(session)
    await journal.close()


def anchor(data: Path) -> float:
    """Seconds."""
    begin = time.perf_counter()
    subprocess.run(["sha256sum", *sorted((data / "wal").glob("*.wal"))], check=True, capture_output=True)
    for path in (data / MIRRORS).iterdir():
        for line in path.open("rb"):
            json.loads(line)
    return time.perf_counter() - begin


def examined(data: Path) -> float:
    """Seconds from the start of the process to its end."""
    environ = {"FINN_DATA_DIR": str(data), "FINN_MODEL": "builtin", "PATH": "/usr/bin:/bin"}
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "doctor", "--format", "json"],
        env=environ,
        capture_output=True,
        check=False,
    )
    took = time.perf_counter() - begin
    bad = [one["id"] for one in json.loads(done.stdout)["findings"] if one["severity"] == "fail"]
    if bad:
        raise AssertionError(f"the directory is not healthy: {bad}")
    return took
