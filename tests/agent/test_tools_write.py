"""write: the whole file or nothing, and only where it may stand."""

from pathlib import Path

import pytest

from agent.tool import Site
from tests.site import call, fingerprint, site


@pytest.fixture
def here(tmp_path: Path) -> Site:
    return site(tmp_path)


async def test_a_file_is_created_with_its_folders_and_its_bytes_are_counted(here: Site) -> None:
    result = await call(here, "write", path="a/b/c.txt", content="äöü\r\n")
    assert (result.text, result.is_error) == ("Created a/b/c.txt: 8 bytes written.", False)
    assert (here.workspace / "a/b/c.txt").read_bytes() == "äöü\r\n".encode()


async def test_a_file_is_replaced(here: Site) -> None:
    await call(here, "write", path="a", content="one")
    assert (await call(here, "write", path="a", content="")).text == "Replaced a: 0 bytes written."
    assert (here.workspace / "a").read_bytes() == b""


async def test_the_state_zone_is_written(here: Site) -> None:
    assert (await call(here, "write", path="grimoires/memory/a.md", content="x")).text.startswith(
        "Created grimoires/memory"
    )
    assert (here.grimoires / "memory" / "a.md").read_text() == "x"


@pytest.mark.parametrize("name", ["; touch pwn", "$(touch pwn)", "-rf", "a\nb", "--upload-pack=x", "`id`"])
async def test_a_name_is_data(here: Site, name: str) -> None:
    await call(here, "write", path=name, content="x")
    assert [path.name for path in here.workspace.iterdir()] == [name]


async def test_a_folder_is_not_replaced(here: Site) -> None:
    (here.workspace / "a").mkdir()
    for path in ("a", ".", "grimoires/memory/", ""):
        assert (await call(here, "write", path=path, content="x")).is_error
    (here.workspace / "file").touch()
    assert "not a folder" in (await call(here, "write", path="file/x", content="x")).text


async def test_nothing_beside_the_two_roots_changes(here: Site, tmp_path: Path) -> None:
    (tmp_path / "wal").mkdir()
    (tmp_path / "wal" / "0.wal").write_text("log")
    (here.workspace / "way").symlink_to(tmp_path / "wal")
    before = fingerprint(tmp_path)
    for path in ("../wal/0.wal", "way/0.wal", str(tmp_path / "wal" / "0.wal"), "way", "/etc/finn-test", "~/x", "a\0"):
        assert (await call(here, "write", path=path, content="owned")).is_error
        assert (await call(here, "edit", path=path, edits=[{"oldText": "log", "newText": "x"}])).is_error
    assert fingerprint(tmp_path) == before
