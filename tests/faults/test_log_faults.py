"""What disks and kernels do to the log, and what it makes of that."""

import errno
import json
import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from persistence.disk import SystemDisk
from persistence.errors import StorageError, StorageFailed, StorageFull
from persistence.recovery import verify
from tests.conftest import count
from tests.persistence.logs import PATIENCE_S, FaultyDisk, Log, StingyDisk, lines, served

DISK = SystemDisk()
SMALL = 900  # bytes of a segment: three records
TEXTS = [f"text {n}" for n in range(8)]


def try_all(log: Log) -> tuple[list[bytes], list[StorageError | None]]:
    """What was acknowledged of TEXTS, and the outcome of each."""
    acknowledged: list[bytes] = []
    outcomes: list[StorageError | None] = []
    for text in TEXTS:
        try:
            acknowledged += [one.line for one in log.say(text)]
            outcomes.append(None)
        except StorageError as error:
            outcomes.append(error)
    return acknowledged, outcomes


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def said(line: bytes) -> str:
    text: str = json.loads(line)["data"]["text"]
    return text


@pytest.mark.parametrize("most", [1, 2, 7, 90, 1000])
def test_a_disk_that_takes_a_few_bytes_a_call_loses_nothing(tmp_path: Path, most: int) -> None:
    log = Log(tmp_path, disk=StingyDisk(most), segment_bytes=SMALL)
    acknowledged, outcomes = try_all(log)
    log.close()
    assert outcomes == [None] * len(TEXTS)
    assert lines(tmp_path) == acknowledged
    assert verify(DISK, tmp_path / "wal").ok


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("forever", [False, True])
def test_whatever_call_fails_nothing_acknowledged_is_lost_and_nothing_else_is_claimed(
    tmp_path: Path, number: int, forever: bool
) -> None:
    nth, total = 0, 1
    while nth < total:
        nth += 1
        disk = FaultyDisk(nth=nth, number=number, forever=forever)
        root = tmp_path / str(nth)
        log = Log(root, disk=disk, segment_bytes=SMALL)
        acknowledged, outcomes = try_all(log)
        log.close()
        total = nth if disk.calls < nth else nth + 1  # until a run has no failure
        unknown = [text for text, outcome in zip(TEXTS, outcomes, strict=True) if isinstance(outcome, StorageFailed)]
        again = Log(root)
        found = lines(root)
        assert [line for line in found if line in acknowledged] == acknowledged, nth
        assert {said(line) for line in found if line not in acknowledged} <= set(unknown), nth
        assert served(root) == list(range(1, len(found) + 1)), nth
        assert verify(DISK, root / "wal").ok, nth
        again.say("and on")
        again.close()
        assert said(lines(root)[-1]) == "and on"
        failed = [outcome for outcome in outcomes if outcome]
        assert all(outcome.hint for outcome in failed)
        assert forever or len(failed) < 2 or all("started again" in outcome.hint for outcome in failed), nth
    assert nth > 20


def test_a_write_without_room_is_taken_back_and_the_next_one_is_taken(tmp_path: Path) -> None:
    log = Log(tmp_path, disk=FaultyDisk(nth=3, number=errno.ENOSPC, of=["write"]))
    log.say("one")
    with pytest.raises(StorageFull) as caught:
        log.say("two")
    assert caught.value.retryable
    assert log.wal.error == str(caught.value)
    assert served(tmp_path) == [1]
    log.say("three")
    assert log.wal.error is None
    log.close()
    assert [said(line) for line in lines(tmp_path)] == ["one", "three"]
    assert len(log.wal.segments()) == 1


@pytest.mark.parametrize("roll", [False, True], ids=["in a segment", "between two segments"])
def test_a_log_that_nobody_writes_to_notices_by_itself_that_there_is_room_again(tmp_path: Path, roll: bool) -> None:
    disk = FaultyDisk(nth=1 << 30, number=errno.ENOSPC, forever=True, of=["write"])
    log = Log(tmp_path, disk=disk, quiet_s=0.001, again_s=0.001, segment_bytes=1 if roll else SMALL)
    log.say("one")
    disk.nth = disk.calls + 1
    with pytest.raises(StorageFull):
        log.say("two")
    refused = disk.calls
    wait_for(lambda: disk.calls > refused + 3)
    assert log.wal.error is not None
    disk.nth = 1 << 30
    wait_for(lambda: log.wal.error is None)
    log.say("three")
    log.close()
    assert [said(line) for line in lines(tmp_path)] == ["one", "three"]
    assert verify(DISK, tmp_path / "wal").ok


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_after_an_error_of_the_disk_the_log_goes_on_in_a_new_segment(tmp_path: Path, call: str) -> None:
    log = Log(tmp_path, disk=FaultyDisk(nth=3, of=[call]))  # a header, a record, then this
    log.say("one")
    with pytest.raises(StorageFailed):
        log.say("two")
    log.say("three")
    log.close()
    assert [said(line) for line in lines(tmp_path)] == ["one", "three"]
    assert [segment.base for segment in log.wal.segments()] == [1, 2]
    assert verify(DISK, tmp_path / "wal").ok


def test_a_descriptor_whose_sync_failed_is_never_synced_again(tmp_path: Path) -> None:
    synced: list[int] = []
    files: dict[int, int] = {}  # the descriptor numbers are used again, so each opening gets a number of its own

    class Watched(FaultyDisk):
        def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
            handle = super().open(path, flags, mode)
            files[handle] = len(synced) * 1000 + handle
            return handle

        def fdatasync(self, handle: int) -> None:
            synced.append(files[handle])
            super().fdatasync(handle)

    log = Log(tmp_path, disk=Watched(nth=3, of=["fdatasync"]))
    log.say("one")
    with pytest.raises(StorageFailed):
        log.say("two")
    poisoned = synced[2]
    log.say("three")
    log.close()
    assert poisoned not in synced[3:]


def test_when_the_way_back_fails_too_nothing_is_taken_until_a_restart(tmp_path: Path) -> None:
    log = Log(tmp_path, disk=FaultyDisk(nth=5, forever=True, of=["write", "fdatasync", "ftruncate"]))
    log.say("one")
    for _ in range(3):
        with pytest.raises(StorageFailed, match="started again") as caught:
            log.say("two")
        assert log.wal.error == str(caught.value)
    log.close()
    again = Log(tmp_path)
    again.say("three")
    again.close()
    assert next(said(line) for line in lines(tmp_path)) == "one"
    assert [said(line) for line in lines(tmp_path)][-1] == "three"


def test_what_cannot_be_read_back_after_an_error_stops_the_log(tmp_path: Path) -> None:
    class Forgetful(FaultyDisk):
        """The medium has other bytes than the kernel's cache had."""

        def forget(self, handle: int) -> None:
            os.pwrite(handle, b"\0" * 512, 0)

    log = Log(tmp_path, disk=Forgetful(nth=3, of=["fdatasync"]))
    log.say("one")
    with pytest.raises(StorageFailed, match="cannot be read back"):
        log.say("two")
    log.close()


def test_a_log_that_cannot_be_made_durable_at_the_start_takes_nothing_and_still_reads(tmp_path: Path) -> None:
    log = Log(tmp_path)
    (one,) = log.say("one")
    log.close()
    again = Log(tmp_path, disk=FaultyDisk(nth=1, of=["sync_folder"]))
    assert again.wal.error is not None
    with pytest.raises(StorageFailed):
        again.say("two")
    assert again.wal.read(one.segment, one.offset, one.length) == one.line
    again.close()


# ---------------------------------------------------------------- real disks without room


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """A file system of that size, for root only."""
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.slow
def test_a_file_system_without_room_refuses_and_takes_more_when_there_is_room_again(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "64k") as root:
        ballast = root / "ballast"
        ballast.write_bytes(bytes(16 << 10))
        log = Log(root, segment_bytes=8 << 10)
        acknowledged: list[bytes] = []
        with pytest.raises(StorageFull):
            while True:
                acknowledged += [one.line for one in log.say("x" * 700)]
        assert acknowledged
        with pytest.raises(StorageFull):
            log.say("y" * 9000)
        assert lines(root) == acknowledged
        ballast.unlink()
        acknowledged += [one.line for one in log.say("there is room again")]
        log.close()
        assert lines(root) == acknowledged
        assert verify(DISK, root / "wal").ok


LIMITED = """
import json, resource, sys
from pathlib import Path
from persistence.errors import StorageFull
from tests.persistence.logs import Log, lines
root, limit = Path(sys.argv[1]), int(sys.argv[2])
log = Log(root)
acknowledged = [one.line for one in log.say("before")]
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
full = 0
while full < 3:
    try:
        acknowledged += [one.line for one in log.say("x" * 700)]
    except StorageFull:
        full += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
acknowledged += [one.line for one in log.say("after")]
log.close()
print(json.dumps({"acknowledged": len(acknowledged), "same": lines(root) == acknowledged, "error": log.wal.error}))
"""


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_refuses_and_loses_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), "5000"], capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    assert told == {"acknowledged": told["acknowledged"], "same": True, "error": None}
    assert told["acknowledged"] > 3
    assert verify(DISK, tmp_path / "wal").ok


# ---------------------------------------------------------------- kill -9

TALKER = """
import sys
from pathlib import Path
from persistence.clock import SystemClock
from persistence.lock import hold
from persistence.wal import Pending
from tests.persistence.logs import Log, tail
root = Path(sys.argv[1])
(root / "wal").mkdir(exist_ok=True)
lock = hold(root / "wal")
log = Log(root, segment_bytes=20_000, quiet_s=0.002, clock=SystemClock())
asked = answered = 0
while True:
    while asked < answered + 7:
        log.wal.append(Pending(tail(f"{sys.argv[2]} {asked}" + "x" * (asked * 37 % 900)), None))
        asked += 1
    batch = log.answer()
    answered += len(batch)
    sys.stdout.write("".join(f"{one.seq} {one.id}\\n" for one in batch))
    sys.stdout.flush()
"""


def talk_and_kill(root: Path, name: str, seconds: float) -> list[tuple[int, str]]:
    """What a process said was durable before it was killed, `seconds` after its first word."""
    with subprocess.Popen([sys.executable, "-c", TALKER, str(root), name], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = os.read(process.stdout.fileno(), 1 << 16)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([process.stdout], [], [], left)[0]:
                told += os.read(process.stdout.fileno(), 1 << 16)
        process.kill()
        told += process.stdout.read()
    whole = told[: told.rfind(b"\n") + 1].decode().splitlines()
    return [(int(seq), name) for seq, name in (line.split() for line in whole)]


@pytest.mark.slow
def test_whenever_it_is_killed_all_that_was_acknowledged_is_there_and_no_seq_comes_twice(
    tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    told: dict[int, str] = {}
    for round_ in range(count(20, 500)):
        new = talk_and_kill(tmp_path, str(round_), dice.uniform(0.001, 0.05))
        assert new, "the process could not start"
        assert min(seq for seq, _ in new) > max(told, default=0)
        told.update(new)
        found = {json.loads(line)["seq"]: json.loads(line)["id"] for line in lines(tmp_path)}
        assert {seq: found.get(seq) for seq in told} == told
        assert sorted(found) == list(range(1, len(found) + 1))
        assert sorted(found.values()) == list(found.values())
    assert verify(DISK, tmp_path / "wal").ok
