"""strace makes every write, sync and rename of a scripted run fail, one after the other: what was acknowledged stays.

The N-th call of each thread gets the fault; a run without faults tells how many there are. By default each tenth point
is tried, beginning at a drawn one; `scripts/test deep` tries them all.
"""

import asyncio
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from persistence.clock import SystemClock
from persistence.disk import SystemDisk
from persistence.events import LogRecovered, UserMessage
from persistence.recovery import verify
from persistence.remote import look
from persistence.stores.file import FileStore
from tests.conftest import DEEP
from tests.persistence.journals import logged, opened

HERE = Path(__file__).resolve().parents[2]
STEP = 1 if DEEP else 10

CALLS = ("write", "fdatasync", "fsync", "rename,renameat,linkat")
FAULTS = ("error=EIO", "error=ENOSPC", "signal=KILL")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def traceable() -> None:
    """strace may be missing, or not be allowed to trace."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    tried = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"strace may not trace here: {tried.stderr.decode().strip()}")


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, int]:
    """How many of each kind of call the busiest thread of a run makes."""
    folder = tmp_path_factory.mktemp("counted")
    traced(folder, "-o", str(folder / "trace"), "-e", f"trace={','.join(CALLS)}")
    lines = (folder / "trace").read_text().splitlines()
    seen = [Counter(line.split()[0] for line in lines if line.split()[1].startswith(tuple(starts(c)))) for c in CALLS]
    return {call: max(one.values()) for call, one in zip(CALLS, seen, strict=True)}


def starts(call: str) -> list[str]:
    return [f"{name}(" for name in call.split(",")]


def points(seed: int, most: int, *what: str) -> list[int]:
    return list(range(1 + random.Random(f"{seed} {what}").randrange(min(STEP, most)), most + 1, STEP))


def run(folder: Path, call: str, fault: str, nth: int) -> list[list[str]]:
    """A run with a fault; what it told, split into words. The folders `data` and `store` hold what it left."""
    return traced(folder, "-o", "/dev/null", "-e", f"inject={call}:{fault}:when={nth}")


def traced(folder: Path, *options: str) -> list[list[str]]:
    data, store = folder / "data", folder / "store"
    for one in (data, store):
        one.mkdir(parents=True)
    strace = ["strace", "-f", "-qq", *options]
    program = [sys.executable, "-m", "tests.faults.scripted_run", str(data), str(store)]
    done = subprocess.run(
        [*strace, *program],
        cwd=HERE,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
        timeout=60,
    )
    return [line.split(maxsplit=2) for line in done.stdout.decode().splitlines()]


def acknowledged(told: list[list[str]]) -> dict[int, str]:
    return {int(words[1]): words[2] for words in told if words[0] == "acked"}


async def served(root: Path) -> dict[int, str]:
    """What a start without faults serves of the stream."""
    async with opened(root) as journal:
        records = await journal.read("s")
    found = [(record.seq, record.event.text) for record in records if isinstance(record.event, UserMessage)]
    assert len(dict(found)) == len(found), "a record is served twice"
    assert len({text for _, text in found}) == len(found), "a text is served under two numbers"
    return dict(found)


def replicated(folder: Path) -> bytes:
    store = FileStore(folder)
    tip = look(store, clock=SystemClock(), threads=1)
    return b"".join(one.body for one in tip.tail) if tip else b""


def test_the_faults_fall_on_the_run(tmp_path: Path) -> None:
    assert ["failed", "StorageFailed"] in run(tmp_path / "eio", "fdatasync", "error=EIO", 5)
    assert ["failed", "StorageFull"] in run(tmp_path / "full", "write", "error=ENOSPC", 5)
    assert run(tmp_path / "kill", "fdatasync", "signal=KILL", 5)[-1][0] in ("acked", "stored")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_call_the_kernel_spoils_every_acknowledged_record_is_there_afterwards(
    tmp_path: Path, seed: int, calls: Mapping[str, int], call: str, fault: str
) -> None:
    for nth in points(seed, calls[call], call, fault):
        told = run(tmp_path / f"{nth}", call, fault, nth)
        acked = acknowledged(told)
        there = asyncio.run(served(tmp_path / f"{nth}" / "data"))
        assert acked.items() <= there.items(), f"{call}:{fault}:when={nth} (seed {seed}) lost an acknowledged record"
        assert verify(SystemDisk(), tmp_path / f"{nth}" / "data" / "wal").ok
        stored = max((int(words[1]) for words in told if words[0] == "stored"), default=0)
        bodies = replicated(tmp_path / f"{nth}" / "store")
        for seq, text in acked.items():
            assert seq > stored or f'"{text}"'.encode() in bodies, f"{call}:{fault}:when={nth}: not in the store"


def test_a_kernel_that_claims_more_than_it_wrote_is_found_out(
    tmp_path: Path, seed: int, calls: Mapping[str, int]
) -> None:
    for nth in points(seed, calls["write"], "lie"):
        acked = acknowledged(run(tmp_path / f"{nth}", "write", "retval=100", nth))
        root = tmp_path / f"{nth}" / "data"
        there = asyncio.run(served(root))
        assert there.items() <= {**there, **acked}.items(), f"when={nth} (seed {seed}) serves what was never said"
        told = [record.event for record in logged(root) if isinstance(record.event, LogRecovered)]
        missing = acked.keys() - there.keys()
        assert not missing or any(one.torn_bytes or one.damaged for one in told), (
            f"when={nth} lost {missing} in silence"
        )
