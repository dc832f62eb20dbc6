import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from persistence.disk import SystemDisk
from persistence.errors import StorageError
from persistence.swap import RESTORING, Restored, begin, finish, move_in, restored, settled
from tests.conftest import count
from tests.persistence.logs import FaultyDisk
from tests.persistence.simulated_disk import SimulatedDisk

OLD = {"wal/0000000000000001.wal": b"old one", "wal/0000000000000009.wal": b"old two", "snapshots/8.json.z": b"old"}
NEW = {
    "wal/0000000000000001.wal": b"new",
    "snapshots/7.json.z": b"new state",
    "chunks/ab/cd": b"c",
    "blobs/12/34": b"b",
}
BESIDE = {"wal/LOCK": b"held", "chunks/ab/ef": b"kept", "grimoires/NOTES.md": b"mine"}


def write(root: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def swap(disk: SystemDisk, root: Path) -> None:
    write(begin(disk, root), NEW)
    move_in(disk, root, restored=Restored("store", 8), name="old-log", why="it was another history")


def kept(root: Path) -> set[bytes]:
    """Every content that is to be found in the folder."""
    return set(files(root).values())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, {**OLD, **BESIDE})
    return tmp_path


def calls(root: Path) -> int:
    counting = FaultyDisk()
    swap(counting, root)
    return counting.calls


def tries(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A fresh directory for each call that can fail."""
    write(tmp_path / "count", {**OLD, **BESIDE})
    for nth in range(1, calls(tmp_path / "count") + 1):
        one = tmp_path / str(nth)
        write(one, {**OLD, **BESIDE})
        yield nth, one


def test_the_new_log_is_in_its_place_and_the_old_one_in_quarantine_with_a_note(root: Path) -> None:
    swap(SystemDisk(), root)
    found = files(root)
    assert {name: found[name] for name in (*NEW, *BESIDE)} == {**NEW, **BESIDE}
    assert {name: found[f"quarantine/old-log/{name}"] for name in OLD} == OLD
    assert b"another history" in found["quarantine/old-log/wal.json"]
    assert "wal/0000000000000009.wal" not in found
    assert not (root / RESTORING).exists()


def test_an_empty_directory_gets_the_log_and_no_quarantine(tmp_path: Path) -> None:
    swap(SystemDisk(), tmp_path)
    assert files(tmp_path).keys() - {"restored.json"} == NEW.keys()


def test_what_was_restored_is_told_until_its_files_are_written(root: Path) -> None:
    assert restored(SystemDisk(), root) is None
    swap(SystemDisk(), root)
    assert restored(SystemDisk(), root) == Restored("store", 8)
    settled(SystemDisk(), root)
    settled(SystemDisk(), root)
    assert restored(SystemDisk(), root) is None


def test_a_build_that_was_not_finished_goes_and_nothing_else_does(root: Path) -> None:
    write(begin(SystemDisk(), root), {**NEW, "restored.json": b"{}"})
    before = {**OLD, **BESIDE}
    assert not finish(SystemDisk(), root)
    assert files(root) == before


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_swap_that_stops_at_any_call_is_ended_by_the_next_start_or_never_happened(
    tmp_path: Path, number: int
) -> None:
    outcomes = set()
    for nth, root in tries(tmp_path):
        with pytest.raises((StorageError, OSError)):
            swap(FaultyDisk(nth, number, forever=True), root)
        assert set(OLD.values()) <= kept(root), f"the old log lost a file at call {nth}"
        outcomes.add(finish(SystemDisk(), root))
        ended = _ended(root)
        assert ended or _untouched(root), f"neither the old log nor the new one after call {nth}"
    assert outcomes == {True, False}


def test_the_next_start_may_be_stopped_at_any_call_as_well(tmp_path: Path) -> None:
    """Stopped at every call of the swap, then at every call of what ends it: the third one sees nothing half."""
    for nth, root in tries(tmp_path):
        if nth % 5:
            continue  # each fifth, for it is a square
        with pytest.raises((StorageError, OSError)):
            swap(FaultyDisk(nth, forever=True), root)
        again = 0
        while True:
            again += 1
            disk = FaultyDisk(again, forever=True)
            try:
                finish(disk, root)
                break
            except StorageError:
                assert set(OLD.values()) <= kept(root), f"lost at {nth}, then {again}"
        assert _ended(root) or _untouched(root), f"half a swap after {nth}"


def test_the_lock_stays_the_same_file(root: Path) -> None:
    before = os.stat(root / "wal/LOCK").st_ino
    swap(SystemDisk(), root)
    assert os.stat(root / "wal/LOCK").st_ino == before


def _ended(root: Path) -> bool:
    found = files(root)
    places = {**NEW, **BESIDE, **{f"quarantine/old-log/{name}": data for name, data in OLD.items()}}
    return all(found.get(name) == data for name, data in places.items()) and RESTORING not in " ".join(found)


def _untouched(root: Path) -> bool:
    return {name: data for name, data in files(root).items() if "/.finn-" not in name} == {**OLD, **BESIDE}


class Cut(Exception):
    """The power goes."""


class Counted(SimulatedDisk):
    """Ends with a power cut at the N-th call that changes something."""

    def __init__(self, root: Path, nth: int) -> None:
        super().__init__(root)
        self._left = nth

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Cut

    def write(self, handle: int, data: bytes | memoryview) -> int:
        self._count()
        return super().write(handle, data)

    def rename(self, old: Path, new: Path) -> None:
        self._count()
        super().rename(old, new)

    def unlink(self, path: Path) -> None:
        self._count()
        super().unlink(path)

    def sync_folder(self, path: Path) -> None:
        self._count()
        super().sync_folder(path)


def write_through(disk: SimulatedDisk, root: Path, contents: dict[str, bytes]) -> None:
    """Files as a builder writes them: not durable until somebody makes them so."""
    for name, data in contents.items():
        disk.mkdir((root / name).parent)
        handle = disk.open(root / name, os.O_WRONLY | os.O_CREAT)
        disk.write(handle, data)
        disk.close(handle)


def test_a_power_cut_at_any_moment_leaves_the_old_log_or_the_new_one(tmp_path: Path, seed: int) -> None:
    rng, nth, ends = random.Random(seed), 0, set()
    while True:
        nth += 1
        root = tmp_path / f"live{nth}"
        write(root, {**OLD, **BESIDE})
        disk = Counted(root, nth)
        try:
            write_through(disk, begin(disk, root), NEW)
            move_in(disk, root, restored=Restored("store", 8), name="old-log", why="test")
        except Cut:
            pass
        else:
            break
        for again in range(count(2, 30)):
            left = tmp_path / f"crash{nth}-{again}"
            disk.crash(left, random.Random(rng.getrandbits(32)))
            finish(SystemDisk(), left)
            ended = _ended(left)
            ends.add(ended)
            assert ended or _untouched(left), f"half a swap after a power cut at change {nth}: {sorted(files(left))}"
    assert ends == {True, False}
