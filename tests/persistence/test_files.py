import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from persistence.disk import SystemDisk
from persistence.events import AGENT, OWNER, FileChanged, Record
from persistence.files import FILE_BYTES, FILES, Files, Kept
from persistence.journal import Journal
from persistence.redact import Redactor
from tests.persistence.journals import logged, means, opened

SECRET = "sk-0123456789abcdef"
TEMPLATE = {"BEAUVOIR.md": b"# who", "memory/README.md": b"# what"}


class Place:
    """The grimoires of an open journal."""

    def __init__(self, journal: Journal, root: Path) -> None:
        self.journal = journal
        self.root = root / "grimoires"
        self.root.mkdir(exist_ok=True)
        self.files = Files(journal, SystemDisk(), Redactor({"KEY": SECRET}), "grimoires", self.root)
        self.seen: list[Record] = []
        journal.listen(self.seen.append)

    def write(self, name: str, data: bytes) -> None:
        (self.root / name).parent.mkdir(exist_ok=True, parents=True)
        (self.root / name).write_bytes(data)

    async def look(self) -> list[tuple[str, bytes | None]]:
        """What one look records: each file with its bytes, None for one that is gone."""
        before = len(self.seen)
        await self.files.look(AGENT)
        return [(event.path, self.bytes_of(event.sha256)) for event in self.events()[before:]]

    def events(self) -> list[FileChanged]:
        return [record.event for record in self.seen if isinstance(record.event, FileChanged)]

    def bytes_of(self, sha: str | None) -> bytes | None:
        return self.journal.blobs.get(sha) if sha else None


@asynccontextmanager
async def place(root: Path) -> AsyncIterator[Place]:
    async with opened(root, FILES, with_means=means(secrets={"KEY": SECRET})) as journal:
        yield Place(journal, root)


async def test_a_template_fills_in_what_is_missing_and_overwrites_nothing(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.write("BEAUVOIR.md", b"mine")
        await here.files.fill(TEMPLATE)
        assert (here.root / "BEAUVOIR.md").read_bytes() == b"mine"
        assert (here.root / "memory/README.md").read_bytes() == b"# what"
        assert [event.path for event in here.events()] == ["BEAUVOIR.md", "memory/README.md"]


async def test_what_was_deleted_from_a_template_stays_deleted(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        await here.files.fill(TEMPLATE)
        (here.root / "memory/README.md").unlink()
        assert await here.look() == [("memory/README.md", None)]
    async with place(tmp_path) as here:
        await here.files.fill(TEMPLATE)
        assert not (here.root / "memory/README.md").exists()
        assert here.events() == []


async def test_every_kind_of_change_is_a_record_and_nothing_is_recorded_twice(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.write("a.md", b"one")
        assert await here.look() == [("a.md", b"one")]
        assert await here.look() == []
        here.write("a.md", b"two")  # in place, of the same size
        assert await here.look() == [("a.md", b"two")]
        here.write("b.md", b"six")
        (here.root / "b.md").replace(here.root / "a.md")  # by rename
        assert await here.look() == [("a.md", b"six")]
        (here.root / "a.md").chmod(0o700)
        assert await here.look() == [("a.md", b"six")]
        assert here.events()[-1].executable
        os.utime(here.root / "a.md")  # touched, and the same
        assert await here.look() == []
        (here.root / "a.md").unlink()
        assert await here.look() == [("a.md", None)]
        assert await here.look() == []
        here.write("a.md", b"six")
        assert await here.look() == [("a.md", b"six")]
        assert {record.by for record in here.seen} == {AGENT}


async def test_two_looks_at_once_record_a_change_once(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.write("a.md", b"one")
        await asyncio.gather(*(here.files.look(OWNER) for _ in range(5)))
        assert len(here.events()) == 1


async def test_what_changed_while_finn_was_down_is_found_and_what_did_not_is_not(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        for name in ("same", "changed", "gone"):
            here.write(name, name.encode())
        await here.look()
    async with place(tmp_path) as here:
        here.write("changed", b"!")
        (here.root / "gone").unlink()
        assert await here.look() == [("changed", b"!"), ("gone", None)]
        kept = here.journal.whole(FILES).files
        assert kept["grimoires/gone"] == Kept(None, 0, False, here.seen[-1].seq)
        assert set(kept) == {"grimoires/same", "grimoires/changed", "grimoires/gone"}


async def test_what_cannot_be_recorded_is_left_out_with_the_reason_and_stays_on_disk(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.write("secret", f"key={SECRET}".encode())
        here.write("large", b"x" * (FILE_BYTES + 1))
        here.write("just", b"x" * FILE_BYTES)
        here.write("👩‍💻 é\n.md", b"fine")
        os.mkfifo(here.root / "pipe")
        (here.root / "link").symlink_to("just")
        (Path(os.fsdecode(os.fsencode(here.root) + b"/caf\xe9"))).write_bytes(b"latin")
        assert [path for path, _ in await here.look()] == ["just", "👩‍💻 é\n.md"]
        assert here.files.left_out == {
            "secret": "holds a known secret",
            "large": f"larger than {FILE_BYTES} bytes",
            "pipe": "no plain file",
            "link": "no plain file",
            "caf\\xe9": "its name is not UTF-8",
        }
        assert await here.look() == []
        assert SECRET.encode() in (here.root / "secret").read_bytes()
    assert not any(SECRET.encode() in record.line for record in logged(tmp_path))
    assert not any(SECRET.encode() in blob.read_bytes() for blob in (tmp_path / "blobs").glob("*/*"))


async def test_a_file_that_gets_a_secret_keeps_what_was_recorded_before(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.write("a", b"harmless")
        await here.look()
        here.write("a", SECRET.encode())
        assert await here.look() == []
        here.write("a", b"harmless")
        assert await here.look() == []
        assert here.files.left_out == {}


async def test_a_folder_that_cannot_be_read_is_left_out_and_its_files_are_not_taken_for_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place(tmp_path) as here:
        await here.files.fill({**TEMPLATE, "memory/deep/a.md": b"a"})
        with monkeypatch.context() as patched:
            patched.setattr(os, "scandir", refusing(here.root / "memory", os.scandir))
            here.write("new.md", b"new")
            assert await here.look() == [("new.md", b"new")]
            assert here.files.left_out == {"memory": "a folder that cannot be read"}
        (here.root / "memory/deep/a.md").unlink()
        assert await here.look() == [("memory/deep/a.md", None)]
        assert here.files.left_out == {}


async def test_a_root_that_cannot_be_read_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with place(tmp_path) as here:
        await here.files.fill(TEMPLATE)
        monkeypatch.setattr(os, "scandir", refusing(here.root, os.scandir))
        assert await here.look() == []


def refusing(folder: Path, scandir: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """A scandir by somebody who may not read that folder; root, who runs tests, may read all."""

    def refused(path: Path) -> Any:
        if path == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    return refused
