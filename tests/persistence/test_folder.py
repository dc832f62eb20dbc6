"""A folder that others play with: nothing outside it is read, written or moved."""

import os
from pathlib import Path

import pytest

from persistence.folder import Folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a link that leads out of it, to a file that must stay as it is."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "token").write_text("token")
    inside = tmp_path / "root"
    (inside / "folder").mkdir(parents=True)
    (inside / "folder/file").write_bytes(b"data")
    (inside / "way").symlink_to(outside)
    (inside / "token").symlink_to(outside / "token")
    return inside


@pytest.fixture
def outside(root: Path) -> Path:
    return root.parent / "outside"


@pytest.mark.parametrize("name", ["way/token", "token"])
def test_nothing_is_read_through_a_link(root: Path, name: str) -> None:
    with pytest.raises(OSError):
        Folder(root).read(name, 100)


def test_nothing_is_written_through_a_link(root: Path, outside: Path) -> None:
    with pytest.raises(OSError):
        Folder(root).write("way/token", b"evil", executable=False)
    Folder(root).write("token", b"mine", executable=False)  # takes the place of the link
    assert (outside / "token").read_text() == "token"
    assert (root / "token").read_bytes() == b"mine"


def test_what_is_set_aside_is_the_link_and_not_what_it_leads_to(root: Path, outside: Path, tmp_path: Path) -> None:
    Folder(root).set_aside("way/token", tmp_path / "aside")
    assert (tmp_path / "aside/way").readlink() == outside
    assert not (root / "way").exists()
    assert (outside / "token").exists()


def test_what_is_set_aside_takes_the_place_of_nothing(root: Path, tmp_path: Path) -> None:
    for text in ("one", "two"):
        (root / "a").write_text(text)
        Folder(root).set_aside("a", tmp_path / "aside")
    Folder(root).set_aside("a", tmp_path / "aside")  # there is none
    assert {path.name: path.read_text() for path in (tmp_path / "aside").iterdir()} == {"a": "one", "a.1": "two"}


def test_a_pipe_holds_nobody_up(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(OSError):
        Folder(root).read("pipe", 100)
    assert Folder(root).find("pipe") == "special"


def test_what_has_a_name_is_told(root: Path) -> None:
    names = ("folder/file", "folder", "way", "way/token", "folder/file/x", "no", "no/no")
    found = [Folder(root).find(name) for name in names]
    assert found == ["file", "folder", "link", "blocked", "blocked", "nothing", "nothing"]


def test_a_large_file_is_read_no_further_than_asked(root: Path) -> None:
    assert Folder(root).read("folder/file", 2).data == b"dat"
    assert Folder(root).read("folder/file", 4).data == b"data"


def test_a_write_that_fails_leaves_the_old_file_and_no_other(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError):
        Folder(root).write("folder/file", b"new", executable=False)
    assert [path.name for path in (root / "folder").iterdir()] == ["file"]
    assert (root / "folder/file").read_bytes() == b"data"


def test_links_are_seen_and_not_followed(root: Path) -> None:
    entries = {entry.name: (entry.link, entry.why) for entry in Folder(root).entries()}
    out = str(root.parent / "outside")
    assert entries == {
        "folder/file": (None, ""),
        "way": (out, "a link that leads outside"),
        "token": (f"{out}/token", "a link that leads outside"),
    }


def test_of_a_root_that_is_not_there_nothing_is_known(tmp_path: Path) -> None:
    (entry,) = Folder(tmp_path / "no").entries()
    assert (entry.name, entry.closed) == (".", True)
