"""What an append costs on a log that has become long: what it cost on the first day."""

from pathlib import Path

from persistence.disk import SystemDisk
from tests.conftest import count
from tests.persistence.logs import Log


class CountingDisk(SystemDisk):
    """Counts the calls of a batch and the bytes that they move."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.bytes = 0

    def write(self, handle: int, data: bytes | memoryview) -> int:
        self.calls.append("write")
        self.bytes += len(data)
        return super().write(handle, data)

    def pread(self, handle: int, count: int, offset: int) -> bytes:
        self.calls.append("pread")
        self.bytes += count
        return super().pread(handle, count, offset)

    def fdatasync(self, handle: int) -> None:
        self.calls.append("fdatasync")
        super().fdatasync(handle)

    def names(self, path: Path) -> list[str]:
        self.calls.append("names")
        return super().names(path)


def test_an_append_asks_the_same_of_the_disk_however_long_the_log_is(tmp_path: Path) -> None:
    disk = CountingDisk()
    log = Log(tmp_path, disk=disk)
    log.say("the first")

    def cost() -> tuple[list[str], int]:
        disk.calls, disk.bytes = [], 0
        log.say("one more")
        return [*disk.calls], disk.bytes

    short = cost()
    while sum(one.bytes for one in log.wal.segments()) < count(100, 400) << 20:
        log.say("x" * 2_000_000)
    log.say("after the large one")  # whose bytes are taken into the footer's hash meanwhile
    calls, size = cost()
    log.close()
    assert calls == short[0] == ["write", "fdatasync"]
    assert size < short[1] + 16, "a seq of more digits, and no more than that"
    assert len(log.wal.segments()) > 2
