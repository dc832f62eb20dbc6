"""The simulated disk itself: what was synced is always there, what was not may be there in any part."""

import os
import random
from pathlib import Path

from persistence.disk import replace
from tests.persistence.simulated_disk import BLOCK_BYTES, SimulatedDisk


def left(disk: SimulatedDisk, into: Path, seed: int) -> dict[str, bytes]:
    disk.crash(into, random.Random(seed))
    return {path.name: path.read_bytes() for path in sorted(into.iterdir()) if path.is_file()}


def test_what_was_synced_with_its_name_survives_every_crash(tmp_path: Path) -> None:
    for seed in range(50):
        root = tmp_path / f"{seed}"
        root.mkdir()
        disk = SimulatedDisk(root)
        replace(disk, root / "a", b"x" * 2000)
        assert left(disk, tmp_path / f"{seed}-after", seed) == {"a": b"x" * 2000}


def test_an_atomic_replace_leaves_the_old_bytes_or_the_new_ones(tmp_path: Path) -> None:
    seen = set()
    for seed in range(50):
        root = tmp_path / f"{seed}"
        root.mkdir()
        disk = SimulatedDisk(root)
        replace(disk, root / "a", b"old")
        handle = disk.open(root / ".new", os.O_WRONLY | os.O_CREAT)
        disk.write(handle, b"new")
        disk.fdatasync(handle)
        disk.close(handle)
        disk.rename(root / ".new", root / "a")
        seen.add(left(disk, tmp_path / f"{seed}-after", seed)["a"])
    assert seen == {b"old", b"new"}


def test_unsynced_writes_are_dropped_reordered_and_torn_at_blocks(tmp_path: Path) -> None:
    whole, torn, hole = 0, 0, 0
    for seed in range(200):
        root = tmp_path / f"{seed}"
        root.mkdir()
        disk = SimulatedDisk(root)
        replace(disk, root / "log", b"")
        handle = disk.open(root / "log", os.O_RDWR | os.O_APPEND)
        disk.write(handle, b"a" * BLOCK_BYTES)
        disk.write(handle, b"b" * BLOCK_BYTES)
        disk.close(handle)
        data = left(disk, tmp_path / f"{seed}-after", seed)["log"]
        whole += data == b"a" * BLOCK_BYTES + b"b" * BLOCK_BYTES
        torn += data == b"a" * BLOCK_BYTES
        hole += data == bytes(BLOCK_BYTES) + b"b" * BLOCK_BYTES
    assert whole and torn and hole
