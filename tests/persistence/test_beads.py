"""Beads in a log and in their file: records first, the file second, and neither loses what the other has."""

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from persistence.bead import Bead
from persistence.bead_file import BeadFile
from persistence.beads import BEADS, Beads, Board
from persistence.clock import FakeClock
from persistence.disk import Disk, SystemDisk
from persistence.errors import FinnError, IllegalTransition
from persistence.events import OWNER, TOOL, BeadsChanged, Record
from persistence.issues import read
from persistence.journal import Journal
from tests.conftest import count
from tests.persistence.beads import REAL, bead
from tests.persistence.journals import killed, logged, means, opened

SECRET = "sk-0123456789abcdef"


@dataclass
class Desk:
    """A journal with beads and their file."""

    journal: Journal
    beads: Beads
    file: BeadFile
    clock: FakeClock
    records: list[Record]

    @property
    def path(self) -> Path:
        return self.file.path

    @property
    def lines(self) -> list[str]:
        return self.path.read_text().splitlines()

    async def make(self, title: str, **fields: Any) -> Bead:
        return await self.beads.create({"title": title, **fields}, OWNER)

    def edit(self, text: str) -> None:
        """As an editor does it."""
        before = self.path.stat().st_mtime_ns if self.path.exists() else 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(text)
        os.utime(self.path, ns=(before + 10**9, before + 10**9))

    @property
    def aside(self) -> list[str]:
        return sorted(path.name for path in self.journal.paths.quarantine.glob("issues-*"))


@asynccontextmanager
async def desk(root: Path, disk: Disk | None = None, clock: FakeClock | None = None) -> AsyncIterator[Desk]:
    clock = clock or FakeClock()
    async with opened(root, BEADS, with_means=means(clock=clock, secrets={"KEY": SECRET})) as journal:
        beads = Beads(journal, clock)
        folder = root / "state" / ".beads"
        file = BeadFile(beads, disk or SystemDisk(), folder, journal.paths.quarantine, clock)
        records: list[Record] = []
        journal.listen(records.append)
        journal.listen(file.follow)
        await file.look()
        yield Desk(journal, beads, file, clock, records)


def by_id(board: Board) -> dict[str, Bead]:
    return dict(board.beads)


# ---------------------------------------------------------------- records first


async def test_a_change_is_one_record_with_the_labels_before_and_after(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        made = await it.make("x", labels=["sprint:pending"])
        await it.beads.update(made.id, {"add_labels": ["sprint:in_progress"]}, OWNER)
        event = it.records[-1].event
        assert isinstance(event, BeadsChanged)
        assert (event.op, event.beads[0].before, event.beads[0].after) == (
            "updated",
            ("sprint:pending",),
            ("sprint:in_progress",),
        )
        assert len(it.records) == 2


async def test_what_is_no_change_is_no_record(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        made = await it.make("x")
        await it.beads.update(made.id, {"title": "x"}, OWNER)
        await it.beads.mark_stale(86_400)
        await it.beads.set_health(degraded=False)
        await it.beads.reset("replicate")
        assert len(it.records) == 1


async def test_the_beads_are_there_after_a_start_also_without_their_file(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        await it.make("x")
        before = by_id(it.beads.board)
    async with desk(tmp_path) as it:
        assert by_id(it.beads.board) == before
        assert read(it.path.read_bytes()).beads == before


async def test_of_two_who_set_a_state_at_once_one_is_refused(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        made = [await it.make(str(n), issue_type="epic") for n in range(8)]
        asked = [it.beads.update(one.id, {"add_labels": ["run:current"]}, OWNER) for one in made]
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(one, IllegalTransition) for one in done) == 7
        assert sum("run:current" in one.labels for one in it.beads.board.beads.values()) == 1


async def test_of_many_who_claim_a_bead_one_has_it(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        made = await it.make("x", labels=["task:ready"])
        asked = [it.beads.update(made.id, {"claim": True}, OWNER, f"agent-{n}") for n in range(8)]
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(one, Bead) for one in done) == 1


async def test_who_is_cancelled_in_the_midst_leaves_a_whole_change(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        asking = asyncio.create_task(it.make("x"))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await it.make("y")
        assert sorted(one.title for one in it.beads.board.beads.values()) == ["x", "y"]


async def test_no_secret_gets_into_a_bead(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        await it.make(f"the key is {SECRET}", description=f'"{SECRET}"', labels=["a"])
        await it.file.look()
        assert SECRET not in it.path.read_text()
        it.edit(f"{bead('bd-zzz', title=SECRET).line}\n{it.path.read_text()}")
        await it.file.look()
        assert SECRET not in it.path.read_text()
        assert len(it.beads.board.beads) == 2
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


async def test_a_bead_goes_stale_once_with_a_label_and_a_record(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        made = await it.make("x", status="in_progress")
        it.clock.advance(86_400 + 1)
        assert await it.beads.mark_stale(86_400) == [made.id]
        assert it.beads.board.beads[made.id].labels == ("stale:true",)
        it.clock.advance(86_400 * 3)
        assert await it.beads.mark_stale(86_400) == []
        it.clock.advance(-86_400 * 9)
        assert await it.beads.mark_stale(86_400) == []
        assert [record.event.op for record in it.records if isinstance(record.event, BeadsChanged)] == [
            "created",
            "stale",
        ]


# ---------------------------------------------------------------- the file second


async def test_there_is_no_file_before_there_is_a_bead(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        assert not it.path.parent.exists()


async def test_the_file_is_written_half_a_second_after_a_change(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        serving = asyncio.create_task(it.file.serve())
        made = await it.make("x")
        while not it.path.exists():
            await asyncio.sleep(0.001)
        assert it.lines == [made.line]
        serving.cancel()


async def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        await it.make("x")
        await it.file.look()
        assert it.path.stat().st_mode & 0o777 == 0o600


async def test_a_file_of_br_is_taken_in_and_comes_back_to_the_byte(tmp_path: Path) -> None:
    text = "".join(f"{line}\n" for line in sorted(REAL))
    async with desk(tmp_path) as it:
        it.edit(text)
        await it.file.look()
        assert len(it.beads.board.beads) == len(REAL)
        assert it.path.read_text() == text
        await it.beads.update("bd-113", {"add_labels": ["home"]}, OWNER)
        await it.file.look()
        assert [line for line in it.lines if "bd-113" not in line] == [
            line for line in sorted(REAL) if "113" not in line
        ]


async def test_what_somebody_writes_into_the_file_and_what_is_done_here_both_count(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        one, two = await it.make("one"), await it.make("two")
        await it.file.look()
        it.edit(it.path.read_text().replace('"title":"one"', '"title":"edited"') + bead("bd-zzz").line + "\n")
        await it.beads.update(two.id, {"title": "changed"}, OWNER)
        await it.file.look()
        titles = {name: one.title for name, one in it.beads.board.beads.items()}
        assert titles == {one.id: "edited", two.id: "changed", "bd-zzz": "the bead bd-zzz"}
        assert read(it.path.read_bytes()).beads == by_id(it.beads.board)


async def test_a_line_that_is_gone_deletes_its_bead(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        one, two = await it.make("one"), await it.make("two")
        await it.file.look()
        it.edit(two.line + "\n")
        await it.file.look()
        assert {name: bead.status for name, bead in it.beads.board.beads.items()} == {
            one.id: "tombstone",
            two.id: "open",
        }


@pytest.mark.parametrize("act", [lambda path: path.write_text(""), lambda path: path.unlink()], ids=["empty", "gone"])
async def test_a_file_that_is_empty_or_gone_deletes_nothing(tmp_path: Path, act: Any) -> None:
    async with desk(tmp_path) as it:
        made = await it.make("one")
        await it.file.look()
        act(it.path)
        await it.file.look()
        assert it.lines == [made.line]
        assert it.beads.board.beads[made.id].status == "open"


@pytest.mark.parametrize("mark", ["<<<<<<< HEAD", "not json", '{"id":"bd-9"}', '{"id":"bd-9","title":"x'])
async def test_what_cannot_be_used_is_kept_aside_and_the_rest_is_taken(tmp_path: Path, mark: str) -> None:
    async with desk(tmp_path) as it:
        one, _ = await it.make("one"), await it.make("two")
        await it.file.look()
        text = f"{one.line}\n{bead('bd-new').line}\n{mark}\n"
        it.edit(text)
        await it.file.look()
        assert {bead.status for bead in it.beads.board.beads.values()} == {"open"}
        assert ("bd-new" in it.beads.board.beads) == (not mark.startswith("<"))
        name, note = it.aside
        assert (it.journal.paths.quarantine / name).read_text() == text
        assert note == f"{name}.json"
        assert name in it.file.left_out
        assert read(it.path.read_bytes()).faults == ()


async def test_lines_that_are_no_beads_stay_in_the_file_and_in_the_log(tmp_path: Path) -> None:
    memory = '{"_type":"memory","key":"x"}'
    async with desk(tmp_path) as it:
        made = await it.make("x")
        await it.file.look()
        it.edit(f"{memory}\n{made.line}\n")
        await it.file.look()
        assert it.lines == [made.line, memory]
    (tmp_path / "state" / ".beads" / "issues.jsonl").unlink()
    async with desk(tmp_path) as it:
        assert it.lines == [made.line, memory]


async def test_a_folder_in_the_files_place_is_put_aside(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        it.path.mkdir(parents=True)
        made = await it.make("x")
        await it.file.look()
        assert it.lines == [made.line]


async def test_a_disk_that_refuses_the_file_is_told_and_tried_again(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        made = await it.make("x")
        it.path.parent.parent.mkdir(exist_ok=True)
        it.path.parent.write_text("in the way")
        await it.file.attempt()
        assert it.file.trouble
        it.path.parent.unlink()
        await it.file.attempt()
        assert (it.file.trouble, it.lines) == ("", [made.line])


async def test_a_second_look_writes_nothing(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        await it.make("x")
        await it.file.look()
        before = [(path, path.stat().st_mtime_ns) for path in sorted(tmp_path.rglob("*"))]
        await it.file.look()
        assert [(path, path.stat().st_mtime_ns) for path in sorted(tmp_path.rglob("*"))] == before


async def test_thousands_of_beads_from_a_file_are_taken_in(tmp_path: Path) -> None:
    beads = [bead(f"bd-{n:05}", description="x" * 500) for n in range(2000)]
    async with desk(tmp_path) as it:
        it.edit("".join(f"{one.line}\n" for one in beads))
        await it.file.look()
        assert len(it.beads.board.beads) == 2000
        assert 1 < len(it.records) < 10


# ---------------------------------------------------------------- crashes


class Watched(SystemDisk):
    """Copies the data directory before each call that changes something."""

    def __init__(self, root: Path, copies: Path) -> None:
        self.root, self.copies, self.taken = root, copies, list[Path]()

    def _take(self) -> None:
        self.taken.append(killed(self.root, self.copies))

    def write(self, handle: int, data: bytes | memoryview) -> int:
        self._take()
        return super().write(handle, data[: max(1, len(data) // 2)])

    def rename(self, old: Path, new: Path) -> None:
        self._take()
        super().rename(old, new)
        self._take()


async def test_a_crash_at_any_step_of_a_rewrite_leaves_a_whole_file_and_no_change_undone(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "data", tmp_path / "copies")
    async with desk(tmp_path / "data", watched) as it:
        one, two = await it.make("one"), await it.make("two")
        await it.file.look()
        await it.beads.update(one.id, {"title": "changed"}, OWNER)
        it.edit(it.path.read_text().replace('"title":"two"', '"title":"edited"'))
        await it.file.look()
        after = {name: bead.title for name, bead in it.beads.board.beads.items()}
    assert after == {one.id: "changed", two.id: "edited"}
    assert len(watched.taken) > 10
    for copy in watched.taken:
        path = copy / "state" / ".beads" / "issues.jsonl"
        found = read(path.read_bytes()) if path.exists() else read(b"")
        assert found.faults == ()
        async with desk(copy) as again:
            titles = {name: bead.title for name, bead in again.beads.board.beads.items()}
            assert titles.keys() == after.keys()
            assert {bead.status for bead in again.beads.board.beads.values()} == {"open"}
            assert titles[two.id] == "edited" or b"edited" not in (path.read_bytes() if path.exists() else b"")
            assert read(again.path.read_bytes()).beads == by_id(again.beads.board)


BUSY = """
import asyncio, sys
from pathlib import Path
from persistence.clock import SystemClock
from tests.persistence.test_beads import desk
from persistence.events import OWNER

async def main(root):
    async with desk(Path(root), clock=SystemClock()) as it:
        number = 0
        while True:
            made = await it.make(f"bead {number}", description="x" * 200)
            await it.beads.update(made.id, {"add_labels": ["sprint:pending"]}, OWNER)
            print(made.id, flush=True)
            await it.file.look()
            number += 1

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.slow
async def test_the_file_always_parses_after_kill_9_and_no_bead_is_lost(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    known: set[str] = set()
    for _ in range(count(6, 200)):
        command = [sys.executable, "-c", BUSY, str(tmp_path)]
        busy = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
        assert busy.stdout is not None
        for _ in range(rng.randint(1, 30)):
            known.add(busy.stdout.readline().strip())
        await asyncio.sleep(rng.random() * 0.01)
        busy.kill()
        known |= set(busy.stdout.read().split())
        busy.stdout.close()
        busy.wait()
        path = tmp_path / "state" / ".beads" / "issues.jsonl"
        assert read(path.read_bytes()).faults == ()
    async with desk(tmp_path) as it:
        assert known <= set(it.beads.board.beads)
        assert all(it.beads.board.beads[name].labels == ("sprint:pending",) for name in known)
        assert read(it.path.read_bytes()).beads == by_id(it.beads.board)
        assert it.aside == []


async def test_every_record_of_beads_is_read_back_from_the_log(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        long = await it.make("x", description="d" * 100_000, notes="n" * 100_000, design="e" * 100_000)
        await it.beads.update(long.id, {"comment": "c" * 50_000}, TOOL)
        board = it.beads.board
    assert [record.event.op for record in logged(tmp_path) if isinstance(record.event, BeadsChanged)] == [
        "created",
        "updated",
    ]
    async with desk(tmp_path) as it:
        assert it.beads.board == board


async def test_what_is_refused_leaves_no_trace(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        for fields in ({"title": ""}, {"title": "x", "labels": ["a.b"]}, {"title": "x", "parent": "bd-1"}):
            with pytest.raises(FinnError):
                await it.beads.create(fields, OWNER)
        assert it.records == []
