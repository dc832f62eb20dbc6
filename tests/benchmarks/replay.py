"""From a log that a crash left to the state it means: every length, CRC-32 and SHA-256 proven, every record folded.

The anchor is what the same bytes cost at the very least: read, and hashed once. Behind a snapshot, where the log is
proven and indexed and nothing is left to fold, it is SQLite: every line selected, parsed as JSON and hashed.
"""

import asyncio
import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from gateway.folds import FOLDS
from persistence.disk import SystemDisk
from persistence.journal import Journal
from persistence.recovery import verify
from persistence.replay import Paths, prepare
from persistence.scan import Good, scan
from tests.benchmarks import history
from tests.benchmarks.rounds import Goal, Measured, Round

BYTES_A_MESSAGE = 1150  #: of the log, all its records counted
MIB = 2**20


def measure(folder: Path, quick: bool) -> Iterator[Measured]:
    for size in (1,) if quick else (10, 100):
        paths = Paths(folder / f"data-{size}")
        history.write(paths.root, (size * MIB // BYTES_A_MESSAGE,), sealed=False)
        count = 2 if quick else 7 if size == 10 else 3
        for what, step in ((f"boot from a log of {size} MiB", replay), (f"finn verify of {size} MiB", prove)):
            rounds = [Round(rate(hashed, paths), rate(step, paths)) for _ in range(count)]
            yield Measured(what, "MiB/s", "read and hashed", rounds, Goal("ours"))
        asyncio.run(snapshot(paths))
        fill(paths)
        rounds = [Round(rate(parsed, paths), rate(replay, paths)) for _ in range(count)]
        what = f"verified replay of {size} MiB behind a snapshot"
        yield Measured(what, "MiB/s", "SQLite select + json + sha256", rounds, Goal("ratio", least=0.9))


def rate(step: Callable[[Paths], None], paths: Paths) -> float:
    """MiB a second."""
    size = sum(path.stat().st_size for path in paths.wal.glob("*.wal"))
    begin = time.perf_counter()
    step(paths)
    return size / MIB / (time.perf_counter() - begin)


def hashed(paths: Paths) -> None:
    """The anchor."""
    for path in paths.wal.glob("*.wal"):
        hashlib.sha256(path.read_bytes()).digest()


async def snapshot(paths: Paths) -> None:
    """What a journal leaves that stops cleanly."""
    journal = await Journal.open(paths.root, FOLDS, history.means())
    await journal.snapshot()
    await journal.close()


def table_of(paths: Paths) -> Path:
    """The same lines, kept by SQLite."""
    return paths.root / "lines.sqlite"


def fill(paths: Paths) -> None:
    """Fills the table."""
    lines = ((found.seq, found.line) for found in scan(SystemDisk(), paths.wal) if isinstance(found, Good))
    with closing(sqlite3.connect(table_of(paths))) as table, table:
        table.execute("create table log (seq integer primary key, line blob)")
        table.executemany("insert into log values (?, ?)", lines)


def parsed(paths: Paths) -> None:
    """The anchor behind a snapshot."""
    digest = bytes(32)
    with closing(sqlite3.connect(table_of(paths))) as table:
        for (line,) in table.execute("select line from log order by seq"):
            json.loads(line)
            digest = hashlib.sha256(digest + line).digest()


def replay(paths: Paths) -> None:
    """What a start does."""
    lock, _ = prepare(paths, FOLDS, history.means())
    lock.release()


def prove(paths: Paths) -> None:
    """What `finn verify` does."""
    if not verify(SystemDisk(), paths.wal).ok:
        raise AssertionError("the log is damaged")
