import asyncio
import errno
import os
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from persistence import lanes
from persistence.disk import SystemDisk
from persistence.errors import StorageFull, StoreUnreachable
from persistence.events import AGENT, OWNER, SYSTEM, FileChanged, Record
from persistence.files import FILES, Files, Kept
from persistence.journal import Journal
from persistence.lanes import LANES
from persistence.limits import Limits
from persistence.redact import Redactor
from tests.persistence.journals import logged, means, opened

SECRET = "sk-0123456789abcdef"
FILE_BYTES = 1 << 20
LIMITS = Limits(file_bytes=FILE_BYTES, total_bytes=3 * FILE_BYTES, files=100)
TEMPLATE = {"BEAUVOIR.md": b"# who", "memory/README.md": b"# what"}


class Place:
    """The grimoires of an open journal."""

    def __init__(self, journal: Journal, root: Path, limits: Limits = LIMITS) -> None:
        self.journal = journal
        self.root = root / "grimoires"
        self.root.mkdir(exist_ok=True)
        self.quarantine = root / "quarantine"
        self.files = Files(journal, SystemDisk(), Redactor({"KEY": SECRET}), "grimoires", self.root, limits)
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

    def kept(self) -> dict[str, bytes | str]:
        """What the log says is there: bytes of files, texts of links."""
        known = self.journal.whole(FILES).below("grimoires")
        found = {name: kept.link or self.bytes_of(kept.sha256) for name, kept in known.items() if kept.there}
        return {name: what for name, what in found.items() if what is not None}

    def disk(self) -> dict[str, bytes | str]:
        """What the disk has: bytes of files, texts of links."""
        paths = [path for path in self.root.rglob("*") if path.is_symlink() or path.is_file()]
        return {
            str(path.relative_to(self.root)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
            for path in paths
        }

    def aside(self) -> dict[str, bytes]:
        """What went to quarantine, by its path below the folder of that time."""
        files = [path for path in self.quarantine.rglob("*") if path.is_file()]
        return {"/".join(path.relative_to(self.quarantine).parts[1:]): path.read_bytes() for path in files}

    def events(self) -> list[FileChanged]:
        return [record.event for record in self.seen if isinstance(record.event, FileChanged)]

    def bytes_of(self, sha: str | None) -> bytes | None:
        return self.journal.blobs.get(sha) if sha else None


@asynccontextmanager
async def place(root: Path, limits: Limits = LIMITS) -> AsyncIterator[Place]:
    async with opened(root, FILES, with_means=means(secrets={"KEY": SECRET})) as journal:
        yield Place(journal, root, limits)


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


async def test_what_a_tool_changed_does_not_wait_for_a_long_look_and_each_change_is_recorded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "PART", 1)  # so that a look of these has many rounds
    names = [f"{number:03d}" for number in range(20 * LANES)]
    async with place(tmp_path, Limits()) as here:
        for name in names:
            here.write(name, name.encode())
        begun = asyncio.Event()
        here.journal.listen(lambda _: begun.set())
        long = asyncio.create_task(here.files.look(SYSTEM))
        await begun.wait()
        here.write("tool.md", b"by a tool")
        here.write(names[-1], b"by a tool")  # which the long look has found already
        (here.root / names[-2]).unlink()
        await here.files.look(AGENT, own=True)
        assert not long.done()
        told = [one.event.path for one in here.seen if one.by == AGENT and isinstance(one.event, FileChanged)]
        assert told == [names[-1], "tool.md"]
        await here.files.look(OWNER)  # waits for all
        assert long.done()
        expected = {name: name.encode() for name in names[:-2]}
        assert here.kept() == {**expected, names[-1]: b"by a tool", "tool.md": b"by a tool"}
        assert len(here.events()) == len(names)
        assert await here.look() == []


async def test_what_a_long_look_could_not_record_is_found_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "PART", 1)
    async with place(tmp_path, Limits()) as here:
        for number in range(4 * LANES):
            here.write(f"{number:03d}", b"%d" % number)
        put, puts = here.journal.blobs.put_all, count()

        def full(contents: Sequence[bytes]) -> list[str]:
            if next(puts) == 2 * LANES:
                raise StorageFull("no space left")
            return put(contents)

        with monkeypatch.context() as patched:
            patched.setattr(here.journal.blobs, "put_all", full)
            with pytest.raises(StorageFull):
                await here.look()
        assert 0 < len(here.events()) < 4 * LANES
        await here.look()
        assert len(here.events()) == len(here.kept()) == 4 * LANES


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


async def test_a_root_that_is_gone_takes_no_file_with_it(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.write("a.md", b"one")
        await here.look()
        here.root.rename(tmp_path / "elsewhere")
        assert await here.look() == []
        assert here.files.troubles == {".": "a folder that cannot be read"}
        (tmp_path / "elsewhere").rename(here.root)
        (here.root / "a.md").unlink()
        assert await here.look() == [("a.md", None)]


async def test_what_cannot_be_recorded_is_left_out_with_the_reason_and_stays_on_disk(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.write("secret", f"key={SECRET}".encode())
        here.write("large", b"x" * (FILE_BYTES + 1))
        here.write("just", b"x" * FILE_BYTES)
        here.write("👩‍💻 é\n.md", b"fine")
        os.mkfifo(here.root / "pipe")
        (here.root / "out").symlink_to("../auth/token")
        (Path(os.fsdecode(os.fsencode(here.root) + b"/caf\xe9"))).write_bytes(b"latin")
        assert sorted(path for path, _ in await here.look()) == ["just", "👩‍💻 é\n.md"]
        assert here.files.left_out == {
            "secret": "holds a known secret",
            "large": "larger than 1 MB",
            "pipe": "no plain file",
            "out": "a link that leads outside",
            "caf\\xe9": "its name is not UTF-8",
        }
        assert here.files.troubles == here.files.left_out
        assert await here.look() == []
        assert SECRET.encode() in (here.root / "secret").read_bytes()
    assert not any(SECRET.encode() in record.line for record in logged(tmp_path))
    assert not any(SECRET.encode() in blob.read_bytes() for blob in (tmp_path / "blobs").glob("*/*"))


async def test_a_link_that_stays_inside_is_kept_as_its_text(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.write("memory/a.md", b"a")
        (here.root / "memory/b.md").symlink_to("../memory/./a.md")
        (here.root / "here").symlink_to(".")
        await here.look()
        assert here.kept() == {"memory/a.md": b"a", "memory/b.md": "../memory/./a.md", "here": "."}
        (here.root / "here").unlink()
        (here.root / "here").symlink_to("memory")
        await here.look()
        assert here.kept()["here"] == "memory"
        (here.root / "here").unlink()
        assert await here.look() == [("here", None)]
        assert await here.look() == []


async def test_a_name_that_holds_a_secret_is_left_out_and_not_told(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.write(f"notes-{SECRET}.md", b"x")
        here.write("notes.md", b"x")
        assert await here.look() == [("notes.md", b"x")]
        assert here.files.left_out == {"notes-[REDACTED:KEY].md": "its name holds a known secret"}
        assert await here.look() == []


async def test_a_link_that_names_a_secret_is_left_out(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        (here.root / "link").symlink_to(SECRET)
        assert await here.look() == []
        assert here.files.left_out == {"link": "holds a known secret"}


async def test_caches_and_dependencies_are_not_looked_into_and_nobody_is_troubled(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        for name in (".git/HEAD", "app/node_modules/a/index.js", "app/__pycache__/a.pyc", "app/src/main.py"):
            here.write(name, b"x")
        here.write("target/CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55")
        here.write("target/debug/app", b"x")
        here.write("env/pyvenv.cfg", b"home = /usr")
        here.write("env/bin/python", b"x")
        here.write(".DS_Store", b"x")
        assert [path for path, _ in await here.look()] == ["app/src/main.py"]
        assert set(here.files.left_out) == {".git", "app/node_modules", "app/__pycache__", "target", "env"}
        assert here.files.troubles == {}


async def test_a_folder_that_becomes_a_cache_is_not_taken_for_deleted(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.write("build/out", b"x")
        await here.look()
        here.write("build/CACHEDIR.TAG", b"")
        assert await here.look() == []
        assert here.kept() == {"build/out": b"x"}


async def test_what_does_not_fit_in_all_is_left_out_until_there_is_room(tmp_path: Path) -> None:
    async with place(tmp_path, Limits(file_bytes=10, total_bytes=20, files=3)) as here:
        for name in ("b", "c"):
            here.write(name, b"0123456789")
        await here.look()
        here.write("a", b"1")
        assert await here.look() == []  # what is kept already stays kept
        assert here.files.left_out == {"a": "more than 20 bytes in all"}
        (here.root / "b").unlink()
        assert await here.look() == [("a", b"1"), ("b", None)]
        for name in ("d", "e"):
            here.write(name, b"")
        assert await here.look() == [("d", b"")]
        assert here.files.left_out == {"e": "more than 3 files"}


async def test_a_file_that_outgrows_the_limit_keeps_what_was_recorded_before(tmp_path: Path) -> None:
    async with place(tmp_path, Limits(file_bytes=10)) as here:
        here.write("a", b"small")
        await here.look()
        here.write("a", b"far too large")
        assert await here.look() == []
        assert here.kept() == {"a": b"small"}
        assert here.files.troubles == {"a": "larger than 10 bytes"}


async def test_a_thousand_new_files_are_recorded_in_one_look(tmp_path: Path) -> None:
    async with place(tmp_path, Limits()) as here:
        for number in range(1000):
            here.write(f"{number:04d}", b"%d" % number)
        await here.look()
        assert here.kept() == {f"{number:04d}": b"%d" % number for number in range(1000)}


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


# ---------------------------------------------------------------- back from the log

FIRST: dict[str, bytes | str] = {"NOTES.md": b"notes", "memory/a.md": b"a", "memory/run.sh": b"#!", "link": "memory"}


@asynccontextmanager
async def restored(root: Path, *gone: str) -> AsyncIterator[Place]:
    """A log that knows FIRST and those of `gone` as deleted, on a disk without grimoires."""
    async with place(root) as here:
        for name, what in FIRST.items():
            if isinstance(what, bytes):
                here.write(name, what)
        (here.root / "link").symlink_to("memory")
        (here.root / "memory/run.sh").chmod(0o700)
        for name in gone:
            here.write(name, b"to be deleted")
        await here.look()
        for name in gone:
            (here.root / name).unlink()
        await here.look()
    shutil.rmtree(here.root)
    async with place(root) as here:
        yield here


async def test_after_a_restoration_the_files_are_what_the_log_says(tmp_path: Path) -> None:
    async with restored(tmp_path, "old.md") as here:
        await here.files.write_back()
        assert here.disk() == FIRST
        assert (here.root / "memory/run.sh").stat().st_mode & 0o777 == 0o700
        assert (here.root / "NOTES.md").stat().st_mode & 0o777 == 0o600
        assert here.files.owed == {}
        assert await here.look() == []


async def test_writing_back_twice_changes_nothing(tmp_path: Path) -> None:
    async with restored(tmp_path) as here:
        await here.files.write_back()
        stamps = {path: path.lstat().st_mtime_ns for path in here.root.rglob("*")}
        await here.files.write_back()
        assert {path: path.lstat().st_mtime_ns for path in here.root.rglob("*")} == stamps
        assert here.aside() == {}


async def test_a_local_file_that_differs_goes_to_quarantine(tmp_path: Path) -> None:
    async with restored(tmp_path) as here:
        here.write("NOTES.md", b"what I wrote here")
        here.write("link", b"no link")
        await here.files.write_back()
        assert here.disk() == FIRST
        assert here.aside() == {"NOTES.md": b"what I wrote here", "link": b"no link"}


async def test_a_local_file_that_the_log_knows_as_deleted_goes_to_quarantine(tmp_path: Path) -> None:
    async with restored(tmp_path, "old.md") as here:
        here.write("old.md", b"still here")
        await here.files.write_back()
        assert here.disk() == FIRST
        assert here.aside() == {"old.md": b"still here"}


async def test_a_local_file_that_the_log_never_knew_stays_and_becomes_a_record(tmp_path: Path) -> None:
    async with restored(tmp_path) as here:
        here.write("new.md", b"new")
        await here.files.write_back()
        assert here.disk() == {**FIRST, "new.md": b"new"}
        assert await here.look() == [("new.md", b"new")]


async def test_a_file_where_a_folder_belongs_and_the_other_way_round_go_to_quarantine(tmp_path: Path) -> None:
    async with restored(tmp_path) as here:
        here.write("memory", b"a file")
        here.write("NOTES.md/inner", b"a folder")
        await here.files.write_back()
        assert here.disk() == FIRST
        assert here.aside() == {"memory": b"a file", "NOTES.md/inner": b"a folder"}


@pytest.mark.parametrize("gone", ["memory", "NOTES.md/inner"])
async def test_a_deleted_name_that_belongs_to_other_files_now_harms_none_of_them(tmp_path: Path, gone: str) -> None:
    async with place(tmp_path) as here:
        here.write(gone, b"first a file")
        await here.look()
        (here.root / gone).unlink()
        shutil.rmtree(here.root)
        here.root.mkdir()
        await here.look()
        for name in ("memory/a.md", "NOTES.md"):
            here.write(name, b"then others")
        await here.look()
        await here.files.write_back()
        assert here.aside() == {}
        shutil.rmtree(here.root)
        await here.files.write_back()
        assert here.disk() == {"memory/a.md": b"then others", "NOTES.md": b"then others"}


async def test_a_link_in_the_place_of_a_folder_is_not_written_through(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    async with restored(tmp_path) as here:
        (here.root / "memory").symlink_to(outside)
        await here.files.write_back()
        assert here.disk() == FIRST
        assert list(outside.iterdir()) == []


async def test_a_file_whose_bytes_cannot_be_had_is_owed_and_not_taken_for_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with restored(tmp_path) as here:
        here.write("memory/a.md", b"mine")
        with monkeypatch.context() as patched:
            patched.setattr(here.journal, "blob", unreachable)
            await here.files.write_back()
            assert await here.look() == []
            assert set(here.files.owed) == {"NOTES.md", "memory/a.md", "memory/run.sh"}
            assert here.files.troubles["NOTES.md"] == "the store does not answer"
            assert here.disk() == {"link": "memory"}
            assert here.aside() == {"memory/a.md": b"mine"}
            here.write("NOTES.md", b"newer")  # than the restoration, and so what counts
            assert await here.look() == [("NOTES.md", b"newer")]
        assert await here.look() == []
        assert here.disk() == {**FIRST, "NOTES.md": b"newer"}
        assert here.files.owed == {}


async def test_a_store_that_is_silent_is_not_waited_for_once_more_with_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place(tmp_path, Limits()) as here:
        for number in range(100):
            here.write(f"{number:03d}", b"%d" % number)
        await here.look()
    shutil.rmtree(here.root)
    shutil.rmtree(tmp_path / "blobs")
    asked = list[str]()

    def silent(sha: str, **_: bool) -> bytes:
        asked.append(sha)
        return unreachable(sha)

    async with place(tmp_path, Limits()) as here:
        monkeypatch.setattr(here.journal, "blob", silent)
        await here.files.write_back()
        assert len(here.files.owed) == 100
        assert len(asked) <= LANES


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/cron.d/x", "memory/../../outside", "a//b", "./a", "", "..", "a\0b", "x" * 300]
)
async def test_a_name_that_leads_elsewhere_is_not_followed(tmp_path: Path, name: str) -> None:
    async with place(tmp_path) as here:
        sha = here.journal.blobs.put(b"evil")
        await here.journal.commit(FileChanged(root="grimoires", path=name, sha256=sha, bytes=4), by=SYSTEM)
        before = sorted(tmp_path.rglob("*"))
        await here.files.write_back()
        assert sorted(tmp_path.rglob("*")) == before
        assert here.files.owed == {}


@pytest.mark.parametrize("target", ["/etc/passwd", "../auth/token", "memory/../../auth", ""])
async def test_a_link_that_leads_elsewhere_is_not_made(tmp_path: Path, target: str) -> None:
    async with place(tmp_path) as here:
        event = FileChanged(root="grimoires", path="link", sha256=None, bytes=0, link=target)
        await here.journal.commit(event, by=SYSTEM)
        await here.files.write_back()
        assert here.disk() == {}


def unreachable(_: str) -> bytes:
    raise StoreUnreachable("the store does not answer")
