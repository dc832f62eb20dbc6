"""Durable appends: what the disk gives, what the log gives, and what the journal gives with its folds.

A record is 1 KiB with its frame. The journal's are prompts, answers, calls and notes of 64 sessions, in the order in
which turns write them, and it folds what finn folds.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp

from tests.benchmarks import log
from tests.benchmarks.rounds import Goal, Measured, Round

Rate = Callable[[Path, float], float]


def measure(folder: Path, quick: bool) -> Iterator[Measured]:
    rounds, seconds = (2, 0.1) if quick else (15, 0.4)

    def row(what: str, anchor: str, base: Rate, ours: Rate, least: float | None) -> Measured:
        taken = [Round(_rate(base, folder, seconds), _rate(ours, folder, seconds)) for _ in range(rounds)]
        return Measured(what, "/s", anchor, taken, Goal("ratio", least=least))

    single, group, sqlite = "write + fdatasync", "raw group commit", "SQLite FULL"
    yield row("appends of one caller, the log alone", single, log.raw_append_one, log.wal_append_one, 0.5)
    yield row("appends of one caller", single, log.raw_append_one, log.journal_append_one, 0.5)
    yield row("appends of 64 callers, the log alone", group, log.raw_group_commit, log.wal_group_commit, 0.5)
    yield row("appends of 64 callers", group, log.raw_group_commit, log.journal_group_commit, 0.5)
    yield row("appends of 64 callers, the log alone", sqlite, log.sqlite_full_one, log.wal_group_commit, 12)
    yield row("appends of 64 callers", sqlite, log.sqlite_full_one, log.journal_group_commit, 12)


def _rate(step: Rate, folder: Path, seconds: float) -> float:
    return step(Path(mkdtemp(dir=folder)), seconds)
