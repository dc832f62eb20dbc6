"""The machine is lost: from the start of a process on an empty disk to taking prompts.

    from the store    20 MB as an agent has them after some weeks: half sessions in chunks, half files
                      20 MB of log of which no record is in a chunk yet: all of it is fetched, proven, indexed
    from git          the first of these, from a remote on the same machine

The anchor of the store is what plain parallel GETs of the same objects take, each written to a file. The ratio is that
of the retrieval alone: what the log's objects take to arrive, be proven and be laid down as a log, against those GETs.
"""

import asyncio
import random
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from gateway.folds import FOLDS
from persistence.clock import SystemClock
from persistence.disk import SystemDisk
from persistence.events import SYSTEM, FileChanged
from persistence.journal import Journal
from persistence.remote import look
from persistence.restoration import restore
from persistence.store import Store
from tests.benchmarks import history
from tests.benchmarks.bucket import Bucket, bucket, fetched, needed, upload
from tests.benchmarks.processes import finn
from tests.benchmarks.replay import BYTES_A_MESSAGE, MIB
from tests.benchmarks.rounds import Goal, Measured, Round

RESTORED_BYTES = 20 * MIB
FILE_BYTES = 100_000
SESSION_MESSAGES = 160  #: of a session whose tail is just too short to be sealed


def measure(folder: Path, quick: bool) -> Iterator[Measured]:
    size, count = (RESTORED_BYTES // 20, 2) if quick else (RESTORED_BYTES, 7)
    with bucket(folder) as it:
        lived_in(folder / "lived", size)
        asyncio.run(upload(folder / "lived", it.store()))
        keys = [one.key for one in it.store().list("")]
        rounds = [Round(seconds(folder, it, keys), started(folder, it.settings)) for _ in range(count)]
        what = "restore of 20 MB from the store: start to taking prompts"
        yield Measured(what, "s", "plain parallel GETs", rounds, Goal("ours", most=1))
    with bucket(folder) as it:
        unsealed(folder / "unsealed", size)
        asyncio.run(upload(folder / "unsealed", it.store()))
        keys = needed(it.store())
        rounds = [Round(seconds(folder, it, keys), started(folder, it.settings)) for _ in range(count)]
        what = "the same, 20 MB of log of which nothing is in a chunk"
        yield Measured(what, "s", "plain parallel GETs", rounds, Goal("ours", most=1))
        rounds = [retrieved(folder, it, it.store(), keys, index) for index in range(count)]
        what = "the same log, fetched, proven and written"
        yield Measured(what, "MiB/s", "plain parallel GETs", rounds, Goal("ratio", least=0.7))
    remote = {"FINN_GIT_REMOTE": str(archived(folder, folder / "lived"))}
    rounds = [Round(None, started(folder, remote)) for _ in range(count)]
    yield Measured("restore of 20 MB from git: start to taking prompts", "s", "", rounds, Goal("ours", most=5))


def lived_in(data: Path, size: int) -> None:
    """Writes a data directory as a clean stop leaves it."""
    history.write(data, (size // 2 // BYTES_A_MESSAGE // 4,) * 4)
    asyncio.run(_with_files(data, size // 2))


async def _with_files(data: Path, size: int) -> None:
    journal = await Journal.open(data, FOLDS, history.means())
    for index in range(size // FILE_BYTES):
        bytes_ = random.Random(index).randbytes(FILE_BYTES)
        sha = journal.blobs.put(bytes_)
        name = f"notes/{index:04d}.bin"
        await journal.commit(FileChanged(root="workspace", path=name, sha256=sha, bytes=len(bytes_)), by=SYSTEM)
    await journal.close()


def unsealed(data: Path, size: int) -> None:
    """Writes a log of which every record is still in a tail."""
    history.write(data, (SESSION_MESSAGES,) * (size // BYTES_A_MESSAGE // SESSION_MESSAGES), sealed=False)


def archived(folder: Path, data: Path) -> Path:
    """A repository in which finn keeps what is in the data directory."""
    remote = folder / "remote.git"
    subprocess.run(["git", "init", "--quiet", "--bare", remote], check=True)
    with finn(data, {"FINN_GIT_REMOTE": str(remote), "FINN_ARCHIVE_INTERVAL": "1h"}) as process:
        process.takes_prompts(data)  # the clean stop commits and pushes
    return remote


def seconds(folder: Path, it: Bucket, keys: list[str]) -> float:
    """What plain GETs of these objects take."""
    into = folder / "plain"
    into.mkdir()
    began = time.perf_counter()
    fetched(it, keys, into)
    took = time.perf_counter() - began
    shutil.rmtree(into)
    return took


def started(folder: Path, settings: Mapping[str, str]) -> float:
    """Seconds from the start of a process on an empty disk until it takes prompts."""
    home = folder / "empty"
    home.mkdir()
    with finn(home / "data", settings) as process:
        took = process.takes_prompts(home / "data") / 1000
    shutil.rmtree(home)
    return took


def retrieved(folder: Path, it: Bucket, store: Store, keys: list[str], index: int) -> Round:
    """MiB a second: plainly, and as a restoration does it."""
    tip, into = look(store, clock=SystemClock()), folder / f"restored-{index}"
    assert tip is not None
    for name in ("wal", "snapshots"):
        (into / name).mkdir(parents=True)
    size = sum(len(store.get(key)) for key in keys) / MIB  # and both are warm
    plain = seconds(folder, it, keys)
    began = time.perf_counter()
    restore(store, tip, into, SystemDisk(), ms=0)
    ours = time.perf_counter() - began
    shutil.rmtree(into)
    return Round(size / plain, size / ours)
