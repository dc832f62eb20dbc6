import random
from hashlib import sha256
from itertools import count as numbers
from pathlib import Path

import pytest

from persistence.blobs import Blobs
from persistence.disk import SystemDisk
from persistence.errors import Damaged, NotFound, StorageError, StorageFull
from tests.persistence.logs import FaultyDisk
from tests.persistence.simulated_disk import SimulatedDisk
from tests.persistence.stepped import Fuse, FusedDisk, PowerCut

DATA = b"a picture"
SHA = sha256(DATA).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(SystemDisk(), tmp_path / "blobs")


def file_of(tmp_path: Path) -> Path:
    return tmp_path / "blobs" / SHA[:2] / SHA[2:]


def test_bytes_are_kept_under_their_hash(tmp_path: Path, blobs: Blobs) -> None:
    assert blobs.put(DATA) == SHA
    assert file_of(tmp_path).read_bytes() == DATA
    assert blobs.get(SHA) == DATA
    assert blobs.has(SHA)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file_of(tmp_path)]


def test_the_empty_blob_is_a_blob(blobs: Blobs) -> None:
    assert blobs.get(blobs.put(b"")) == b""


def test_the_same_bytes_are_not_written_again(tmp_path: Path, blobs: Blobs) -> None:
    blobs.put(DATA)
    before = file_of(tmp_path).stat()
    blobs.put(DATA)
    assert file_of(tmp_path).stat() == before


def test_a_blob_that_was_cut_short_is_mended_by_putting_it_again(tmp_path: Path, blobs: Blobs) -> None:
    blobs.put(DATA)
    file_of(tmp_path).write_bytes(DATA[:3])
    blobs.put(DATA)
    assert blobs.get(SHA) == DATA


@pytest.mark.parametrize("link", [True, False])
def test_a_link_or_a_folder_in_the_place_of_a_blob_is_damage_and_no_failing_disk(
    tmp_path: Path, blobs: Blobs, link: bool
) -> None:
    blobs.put(DATA)
    path = file_of(tmp_path)
    path.unlink()
    path.symlink_to("nowhere") if link else path.mkdir()
    with pytest.raises(Damaged, match="no plain file"):
        blobs.get(SHA)
    if link:
        assert not blobs.has(SHA)
        assert blobs.get(blobs.put(DATA)) == DATA


def test_damage_is_found_by_reading(tmp_path: Path, blobs: Blobs) -> None:
    blobs.put(DATA)
    file_of(tmp_path).write_bytes(b"a pictura")
    with pytest.raises(Damaged, match=SHA[2:]):
        blobs.get(SHA)


@pytest.mark.parametrize("name", [SHA, "", "../../etc/passwd", SHA.upper(), SHA[:-1], SHA + "\n"])
def test_what_is_not_there_is_not_found_whatever_its_name(tmp_path: Path, blobs: Blobs, name: str) -> None:
    with pytest.raises(NotFound):
        blobs.get(name)
    assert not blobs.has(name)
    assert list(tmp_path.iterdir()) == []


def test_a_put_that_fails_at_any_call_gives_no_name_and_the_next_one_does(tmp_path: Path) -> None:
    failures = 0
    while True:
        root = tmp_path / str(failures)
        try:
            Blobs(FaultyDisk(nth=failures + 1), root).put(DATA)
        except StorageError:
            failures += 1
            assert Blobs(SystemDisk(), root).put(DATA) == SHA
            assert Blobs(SystemDisk(), root).get(SHA) == DATA
            continue
        break
    assert failures == 9  # look, mkdir, sync; open, write, fdatasync, close, rename, sync


def test_a_full_disk_is_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(StorageFull):
        Blobs(FaultyDisk(nth=1, number=28, of=["write"]), tmp_path).put(DATA)


def test_a_blob_whose_name_a_crash_kept_from_the_disk_is_durable_when_it_is_put_again(tmp_path: Path) -> None:
    Blobs(SystemDisk(), tmp_path).put(DATA)
    disk = FaultyDisk(of=["sync_folder"])
    Blobs(disk, tmp_path).put(DATA)
    assert disk.calls == 1


# ---------------------------------------------------------------- many at once

MANY = [b"%d " % number * 300 for number in range(12)]
NAMES = [sha256(data).hexdigest() for data in MANY]


def test_many_are_kept_like_one(tmp_path: Path, blobs: Blobs) -> None:
    blobs.put(MANY[3])
    assert blobs.put_all([*MANY, MANY[0]]) == [*NAMES, NAMES[0]]
    assert [blobs.get(sha) for sha in NAMES] == MANY
    assert blobs.put_all([]) == []


def test_a_folder_of_many_is_synced_once(tmp_path: Path) -> None:
    same = [data for number in range(3000) if sha256(data := b"%d" % number).hexdigest().startswith("ab")]
    disk = FaultyDisk(of=["sync_folder"])
    Blobs(disk, tmp_path).put_all(same)
    assert len(same) > 3
    assert disk.calls == 2  # the folder of all, and ab


def test_of_many_that_were_kept_none_is_lost_to_a_power_cut(tmp_path: Path, seed: int) -> None:
    disk = SimulatedDisk(tmp_path / "disk")
    Blobs(disk, tmp_path / "disk/blobs").put_all(MANY)
    disk.crash(tmp_path / "left", random.Random(seed))
    left = Blobs(SystemDisk(), tmp_path / "left/blobs")
    assert [left.get(sha) for sha in NAMES] == MANY


def test_a_power_cut_among_many_leaves_whole_ones_only_and_the_next_put_makes_it_good(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    for effect in numbers(1):
        fuse, root, left = Fuse(), tmp_path / f"{effect}/disk", tmp_path / f"{effect}/left"
        fuse.set(effect, after=rng.random() < 0.5)
        disk = FusedDisk(root, fuse)
        blobs = Blobs(disk, root / "blobs")
        try:
            blobs.put_all(MANY)
        except PowerCut:
            disk.let_go()
        disk.crash(left, rng)
        survived = Blobs(SystemDisk(), left / "blobs")
        found = {sha: survived.get(sha) for sha in NAMES if survived.has(sha)}
        assert all(sha256(data).hexdigest() == sha for sha, data in found.items())
        if not fuse.burnt:
            assert len(found) == len(MANY)
            return
        again = SimulatedDisk(left)
        Blobs(again, left / "blobs").put_all(MANY)
        again.crash(tmp_path / f"{effect}/then", rng)
        assert [Blobs(SystemDisk(), tmp_path / f"{effect}/then/blobs").get(sha) for sha in NAMES] == MANY


def test_many_that_fail_at_any_call_leave_no_temporary_and_the_next_put_has_them_all(tmp_path: Path) -> None:
    for nth in numbers(1):
        root = tmp_path / str(nth)
        disk = FaultyDisk(nth=nth)
        try:
            Blobs(disk, root).put_all(MANY)
        except StorageError:
            assert not list(root.glob("*/.finn-*"))
            assert Blobs(SystemDisk(), root).put_all(MANY) == NAMES
            continue
        assert disk.calls < nth
        return
