"""A log to try things on, and disks that do not do what they should."""

import errno
import os
import queue
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from persistence.clock import Clock, FakeClock, Ids
from persistence.disk import Disk, SystemDisk
from persistence.errors import StorageError
from persistence.frame import PREFIX_BYTES
from persistence.recovery import inspect, repair
from persistence.scan import Control, Good, scan, segment_name, segments, walk
from persistence.wal import Pending, Wal, Written

PATIENCE_S = 20.0  # for the log's thread; nothing waits for so long unless it is broken
NEVER_S = 3600.0


def tail(text: str, kind: str = "note") -> bytes:
    """The rest of a record that says `text`."""
    return b'"stream":null,"by":{"actor":"owner","trust":"user"},"type":"%b","v":1,"data":{"text":"%b"}}' % (
        kind.encode(),
        text.encode(),
    )


def gap(first: int, last: int) -> bytes:
    """The rest of a record that declares a gap."""
    return b'"stream":null,"by":{},"type":"gap_declared","v":1,"data":{"first":%d,"last":%d}}' % (first, last)


class Log:
    """A log in a folder: recovered, opened, and appended to one call after the other."""

    def __init__(
        self,
        root: Path,
        disk: Disk | None = None,
        segment_bytes: int = 10 << 20,
        quiet_s: float = NEVER_S,
        clock: Clock | None = None,
        again_s: float = NEVER_S,
    ) -> None:
        self.disk = disk or SystemDisk()
        self.dir = root / "wal"
        self.dir.mkdir(parents=True, exist_ok=True)
        self.repaired = repair(SystemDisk(), self.dir, root / "quarantine", inspect(SystemDisk(), self.dir))
        self.clock = clock or FakeClock()
        self._answers: queue.Queue[tuple[list[Written], StorageError | None, list[Pending]]] = queue.Queue()
        self.wal = Wal.open(
            self.disk,
            self.dir,
            head=self.repaired.head,
            epoch=1,
            ids=Ids(self.clock, os.urandom),
            clock=self.clock,
            deliver=lambda *answer: self._answers.put(answer),
            segment_bytes=segment_bytes,
            quiet_s=quiet_s,
            again_s=again_s,
        )

    def add(self, *tails: bytes) -> list[Written]:
        """Appends, one batch each, and waits. Raises the StorageError of the first that failed."""
        written = []
        for one in tails:
            self.wal.append(Pending(one, None))
            written += self.answer()
        return written

    def say(self, *texts: str) -> list[Written]:
        return self.add(*map(tail, texts))

    def answer(self) -> list[Written]:
        """What the next batch came to."""
        written, error, _ = self._answers.get(timeout=PATIENCE_S)
        if error:
            raise error
        return written

    def close(self) -> None:
        self.wal.close()


def served(root: Path) -> list[int]:
    """The seqs that the log in a folder serves."""
    return [found.seq for found in scan(SystemDisk(), root / "wal") if isinstance(found, Good)]


def lines(root: Path) -> list[bytes]:
    """The records that the log in a folder serves."""
    return [found.line for found in scan(SystemDisk(), root / "wal") if isinstance(found, Good)]


def copy(source: Path, target: Path) -> Path:
    """What a crash at this moment leaves: the files as the kernel has them."""
    shutil.copytree(source, target)
    return target


def last_file(root: Path) -> Path:
    return root / "wal" / segment_name(segments(SystemDisk(), root / "wal")[-1])


class Part(NamedTuple):
    """One byte of a sound log: where it is, in which part of which line, and of which record (None: a control line)."""

    segment: int
    offset: int
    part: str
    seq: int | None
    control: str


def parts(root: Path) -> list[Part]:
    """Every byte of a sound log."""
    found = []
    for line in walk(SystemDisk(), root / "wal", segments(SystemDisk(), root / "wal")):
        assert isinstance(line, Good | Control), line
        seq, control = (line.seq, "") if isinstance(line, Good) else (None, line.kind)
        for at in range(line.length):
            part = "frame" if at < PREFIX_BYTES or at == line.length - 1 else "json"
            found.append(Part(line.segment, line.offset + at, part, seq, control))
    return found


def flip(root: Path, part: Part, mask: int) -> None:
    """Changes one byte on disk."""
    path = root / "wal" / segment_name(part.segment)
    data = bytearray(path.read_bytes())
    data[part.offset] ^= mask
    path.write_bytes(data)


class FaultyDisk(SystemDisk):
    """Fails the N-th call (from 1), once or from then on. `calls` counts; only the calls in `of` count and fail.

    A write that fails has taken half of its bytes; an fdatasync that fails has lost what was not yet synced, and, as
    kernels do, the next one reports success.
    """

    def __init__(self, nth: int = 0, number: int = errno.EIO, forever: bool = False, of: Sequence[str] = ()) -> None:
        self.nth = nth
        self.calls = 0
        self._number = number
        self._forever = forever
        self._of = of
        self._synced: dict[int, int] = {}

    def _fails(self, name: str) -> bool:
        if self._of and name not in self._of:
            return False
        self.calls += 1
        return self.calls == self.nth or (self._forever and 0 < self.nth <= self.calls)

    def _call(self, name: str, *arguments: Any) -> Any:
        if self._fails(name):
            raise OSError(self._number, os.strerror(self._number))
        return getattr(SystemDisk, name)(self, *arguments)

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        handle: int = self._call("open", path, flags, mode)
        self._synced[handle] = os.fstat(handle).st_size
        return handle

    def close(self, handle: int) -> None:
        failed = self._fails("close")
        os.close(handle)  # the descriptor goes in any case
        if failed:
            raise OSError(self._number, os.strerror(self._number))

    def write(self, handle: int, data: bytes | memoryview) -> int:
        if self._fails("write"):
            os.write(handle, data[: len(data) // 2])
            raise OSError(self._number, os.strerror(self._number))
        return os.write(handle, data)

    def fdatasync(self, handle: int) -> None:
        size = os.fstat(handle).st_size
        if self._fails("fdatasync"):
            kept = self._synced[handle]
            os.ftruncate(handle, min(size, kept))
            os.ftruncate(handle, size)
            raise OSError(self._number, os.strerror(self._number))
        self._synced[handle] = size

    def pread(self, handle: int, count: int, offset: int) -> bytes:
        data: bytes = self._call("pread", handle, count, offset)
        return data

    def size(self, handle: int) -> int:
        size: int = self._call("size", handle)
        return size

    def ftruncate(self, handle: int, size: int) -> None:
        self._call("ftruncate", handle, size)

    def forget(self, handle: int) -> None:
        self._call("forget", handle)

    def sync_folder(self, path: Path) -> None:
        self._call("sync_folder", path)

    def rename(self, old: Path, new: Path) -> None:
        self._call("rename", old, new)

    def unlink(self, path: Path) -> None:
        self._call("unlink", path)

    def mkdir(self, path: Path) -> None:
        self._call("mkdir", path)

    def names(self, path: Path) -> list[str]:
        names: list[str] = self._call("names", path)
        return names


class StingyDisk(SystemDisk):
    """Takes one byte, then two, then three … then `most`, then one again."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._next = 0

    def write(self, handle: int, data: bytes | memoryview) -> int:
        self._next = self._next % self._most + 1
        return os.write(handle, data[: self._next])


class LookingDisk(SystemDisk):
    """Lets nothing be changed."""

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        assert flags == os.O_RDONLY, f"{path} opened for writing"
        return super().open(path, flags, mode)

    def write(self, handle: int, data: bytes | memoryview) -> int:
        raise AssertionError("write")

    def fdatasync(self, handle: int) -> None:
        raise AssertionError("fdatasync")

    def ftruncate(self, handle: int, size: int) -> None:
        raise AssertionError("ftruncate")

    def sync_folder(self, path: Path) -> None:
        raise AssertionError("sync_folder")

    def rename(self, old: Path, new: Path) -> None:
        raise AssertionError("rename")

    def unlink(self, path: Path) -> None:
        raise AssertionError("unlink")

    def mkdir(self, path: Path) -> None:
        raise AssertionError("mkdir")
