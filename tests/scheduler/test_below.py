"""Looking below a folder in which somebody else plays tricks."""

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from scheduler.below import content, files
from tests.scheduler.ward import new_ward

DEPTH = 1500  #: deeper than the interpreter's stack


def dig(top: Path) -> None:
    """Folders in folders, deeper than a path can say."""
    handle = os.open(top, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("deeper", dir_fd=handle)
        below = os.open("deeper", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
    os.close(handle)


def test_every_file_is_seen_and_no_link_is_followed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    for name in ("one", "in/two", "in/deeper/three", "left_out/four"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text("mine")
    (top / "out").symlink_to("/")
    os.close(os.open(os.fsencode(top) + b"/bad\xff", os.O_CREAT | os.O_WRONLY))
    found = {str(path.relative_to(top)): status.st_size for path, status in files(top, ["left_out"])}
    assert found == {"one": 4, "in/two": 4, "in/deeper/three": 4, "out": 1, os.fsdecode(b"bad\xff"): 0}
    assert len(list(files(top, most=2))) <= 2
    assert list(files(tmp_path / "nothing")) == []


def test_no_depth_is_too_deep_for_the_doctor() -> None:
    ward = new_ward()
    try:
        dig(ward.root / "workspace")
        assert list(files(ward.root / "workspace")) == []
        found = {
            one.id: one.severity for one in ward.fix().findings
        }  # an `examine` compares trees, and is no deep diver
        assert found == {one.id: one.severity for one in ward.healthy.values()}
    finally:
        subprocess.run(["rm", "-rf", ward.root / "workspace" / "deeper"], check=True)


TRICKS: tuple[Callable[[Path], object], ...] = (
    os.mkfifo,
    lambda path: path.symlink_to("/dev/zero"),
    lambda path: path.symlink_to("/etc/passwd"),
    lambda path: path.mkdir(),
    lambda path: path.write_bytes(bytes(9)),
    lambda path: None,
)


@pytest.mark.parametrize("trick", TRICKS, ids=["pipe", "device", "link", "folder", "grown", "gone"])
def test_what_has_taken_a_file_s_place_since_it_was_seen_is_not_read(
    tmp_path: Path, trick: Callable[[Path], object]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(8))
    assert content(path, 8) == bytes(8)
    path.unlink()
    trick(path)
    with suppress(OSError):  # as good: whoever asks goes on with the next one
        assert content(path, 8) is None
