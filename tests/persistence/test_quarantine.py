import json
from pathlib import Path

import pytest

from persistence import quarantine
from persistence.disk import SystemDisk
from persistence.errors import StorageFailed

DISK = SystemDisk()


def test_a_copy_lies_beside_the_note_that_explains_it(tmp_path: Path) -> None:
    quarantine.keep(DISK, tmp_path / "kept", "tail", b"bytes", why="torn")
    assert (tmp_path / "kept/tail").read_bytes() == b"bytes"
    assert json.loads((tmp_path / "kept/tail.json").read_bytes()) == {"why": "torn"}


def test_what_is_moved_is_gone_from_where_its_note_says_it_was(tmp_path: Path) -> None:
    (tmp_path / "git").mkdir()
    (tmp_path / "git/HEAD").write_bytes(b"ref")
    quarantine.move(DISK, tmp_path / "git", tmp_path / "kept", "git-1", why="damaged")
    note = json.loads((tmp_path / "kept/git-1.json").read_bytes())
    assert note == {"from": str(tmp_path / "git"), "why": "damaged"}
    assert (tmp_path / "kept/git-1/HEAD").read_bytes() == b"ref"
    assert not (tmp_path / "git").exists()


@pytest.mark.parametrize("step", ["mkdir", "write", "rename"])
def test_a_disk_that_refuses_leaves_everything_where_it_was(tmp_path: Path, step: str) -> None:
    class Refusing(SystemDisk):
        def __getattribute__(self, name: str) -> object:
            if name == step:
                raise OSError(5, "refused")
            return super().__getattribute__(name)

    (tmp_path / "file").write_bytes(b"bytes")
    with pytest.raises(StorageFailed):
        quarantine.move(Refusing(), tmp_path / "file", tmp_path / "kept", "file", why="damaged")
    assert (tmp_path / "file").read_bytes() == b"bytes"
