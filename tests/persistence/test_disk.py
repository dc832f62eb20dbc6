import errno
import os
from pathlib import Path

import pytest

from persistence.disk import TEMPORARY, SystemDisk, read, replace, write_all
from persistence.errors import StorageError, StorageFailed, StorageFull
from tests.persistence.logs import FaultyDisk, StingyDisk


def test_a_file_is_replaced_as_a_whole_and_only_the_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "note"
    replace(SystemDisk(), path, b"old")
    replace(SystemDisk(), path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_replacement_that_fails_at_any_call_leaves_the_old_bytes_or_the_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "note"
    path.write_bytes(b"old bytes")
    failures = 0
    while True:
        disk = FaultyDisk(nth=failures + 1)
        try:
            replace(disk, path, b"new bytes")
        except StorageFailed:
            failures += 1
            assert path.read_bytes() in (b"old bytes", b"new bytes")
            assert list(tmp_path.iterdir()) == [path]
            path.write_bytes(b"old bytes")
            continue
        break
    assert path.read_bytes() == b"new bytes"
    assert failures == 6  # open, write, fdatasync, close, rename, sync_folder


def test_bytes_of_a_file_that_was_deleted_are_never_called_durable(tmp_path: Path) -> None:
    path, disk = tmp_path / "log", SystemDisk()
    handle = disk.open(path, os.O_WRONLY | os.O_CREAT)
    disk.write(handle, b"kept")
    disk.fdatasync(handle)
    path.unlink()
    disk.write(handle, b"nowhere")
    with pytest.raises(OSError, match="deleted"):
        disk.fdatasync(handle)
    disk.close(handle)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EFBIG, StorageFull),
        (errno.EIO, StorageFailed),
        (errno.EROFS, StorageFailed),
    ],
)
def test_a_refusal_says_what_happened_to_which_file_and_what_to_do(
    tmp_path: Path, number: int, kind: type[StorageError]
) -> None:
    with pytest.raises(kind) as caught:
        replace(FaultyDisk(nth=2, number=number), tmp_path / "note", b"data")
    assert str(tmp_path / "note") in caught.value.message
    assert caught.value.hint


def test_a_disk_that_takes_few_bytes_at_a_time_gets_them_all(tmp_path: Path) -> None:
    replace(StingyDisk(3), tmp_path / "note", b"a text that is longer than three bytes")
    assert read(SystemDisk(), tmp_path / "note") == b"a text that is longer than three bytes"


def test_a_disk_that_takes_nothing_is_not_asked_for_ever(tmp_path: Path) -> None:
    class Refusing(SystemDisk):
        def write(self, handle: int, data: bytes | memoryview) -> int:
            return 0

    with pytest.raises(StorageFailed):
        replace(Refusing(), tmp_path / "note", b"data")


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        read(SystemDisk(), tmp_path / "link")


def test_names_are_sorted_and_a_missing_folder_has_none(tmp_path: Path) -> None:
    (tmp_path / "b").touch()
    (tmp_path / "a").touch()
    assert SystemDisk().names(tmp_path) == ["a", "b"]
    assert SystemDisk().names(tmp_path / "nowhere") == []


def test_what_a_crash_left_of_a_replacement_does_not_stand_in_the_way(tmp_path: Path) -> None:
    opened: list[Path] = []

    class Watched(SystemDisk):
        def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
            opened.append(path)
            return super().open(path, flags, mode)

    replace(Watched(), tmp_path / "note", b"old")
    assert opened[0].name.startswith(TEMPORARY)
    start, number = opened[0].name.rsplit("-", 1)
    (tmp_path / f"{start}-{int(number) + 1}").write_bytes(b"left over, and longer than the new bytes")
    replace(SystemDisk(), tmp_path / "note", b"new")
    assert (tmp_path / "note").read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [tmp_path / "note"]


def test_a_partial_write_raises_with_the_disk_s_own_error(tmp_path: Path) -> None:
    disk = FaultyDisk(nth=1, number=errno.ENOSPC, of=["write"])
    handle = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT, 0o600)
    with pytest.raises(OSError) as caught:
        write_all(disk, handle, b"0123456789")
    os.close(handle)
    assert caught.value.errno == errno.ENOSPC
    assert (tmp_path / "file").read_bytes() == b"01234"
