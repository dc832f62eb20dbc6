"""A power cut, as a disk sees it: the image of a mounted file system, copied in the middle of writing the log on it.

The copy holds what was synced and any part of what was not; mounted in its turn, with the file system's own journal
replayed, it is the disk after the power came back. Needs root, for the loop device.
"""

import asyncio
import filecmp
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from persistence.disk import SystemDisk
from persistence.events import UserMessage
from persistence.recovery import verify
from tests.conftest import count
from tests.persistence.journals import opened

HERE = Path(__file__).resolve().parents[2]
MIB = 24

pytestmark = pytest.mark.slow


@contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    at.mkdir()
    done = subprocess.run(["mount", "-o", "loop", str(image), str(at)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no image can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def made(image: Path) -> Path:
    if not shutil.which("mkfs.ext4"):
        pytest.skip("mkfs.ext4 is not installed")
    with image.open("wb") as file:
        file.truncate(MIB << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    return image


def cut(image: Path, after: Path) -> None:
    """Copies the image as it is at one moment: again, until nothing was written to it meanwhile."""
    for _ in range(50):
        shutil.copyfile(image, after)
        if filecmp.cmp(image, after, shallow=False):
            return
    raise AssertionError("the file system never rests")


class Speaker:
    """A process that says records one after the other, and what it was told of them."""

    def __init__(self, root: Path) -> None:
        self.acked: dict[int, str] = {}
        self._enough = threading.Event()
        self._wanted = 1
        command = [sys.executable, "-m", "tests.faults.scripted_run", str(root / "data"), "--for-ever"]
        self.process = subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            kind, seq, text = line.decode().rstrip("\n").split(maxsplit=2)
            assert kind == "acked", line
            self.acked[int(seq)] = text
            if len(self.acked) >= self._wanted:
                self._enough.set()

    def wait_for(self, records: int) -> dict[int, str]:
        """What was acknowledged, once there are so many."""
        self._wanted = records
        assert self._enough.wait(30), "the process says nothing"
        return dict(self.acked)

    def pause(self) -> None:
        """In the middle of whatever it does; the kernel has what it was told, synced or not."""
        self.process.send_signal(signal.SIGSTOP)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


async def served(root: Path) -> dict[int, str]:
    async with opened(root) as journal:
        records = await journal.read("s", limit=1_000_000)
    return {record.seq: record.event.text for record in records if isinstance(record.event, UserMessage)}


def test_what_was_acknowledged_before_the_power_went_is_there_when_it_comes_back(tmp_path: Path, seed: int) -> None:
    for number in range(count(3, 100)):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        image, after = made(folder / "disk.img"), folder / "after.img"
        with mounted(image, folder / "before") as root:
            speaker = Speaker(root)
            try:
                acked = speaker.wait_for(random.Random(seed + number).randrange(1, 400))
                speaker.pause()
                cut(image, after)
            finally:
                speaker.end()
        with mounted(after, folder / "back") as root:
            there = asyncio.run(served(root / "data"))
            assert acked.items() <= there.items(), f"round {number} lost {sorted(acked.keys() - there.keys())}"
            assert list(there) == sorted(there)
            assert verify(SystemDisk(), root / "data" / "wal").ok
        image.unlink()
        after.unlink()
