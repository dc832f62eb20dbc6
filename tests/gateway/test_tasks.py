"""The tasks of a finn: which there are, what they do, and that a drill sees what is wrong with a copy."""

import asyncio
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from gateway import drilling
from gateway.settings import read
from gateway.tasks import TASKS, Parts, tasks
from persistence import snapshot
from persistence.beads import BEADS, Beads
from persistence.clock import FakeClock, SystemClock
from persistence.events import OWNER, BeadsChanged, Record
from persistence.snapshot import listed
from persistence.stores.memory import MemoryStore
from tests.gateway.test_storage import Living, living
from tests.persistence.journals import means, opened, say

DAY_S = 86_400


async def look() -> None:
    return


async def run(it: Living, name: str) -> str:
    """Runs a task by hand; what it raised."""
    return (await it.finn.scheduler().run_now(name)).last_error


# ---------------------------------------------------------------- which there are


async def test_without_a_copy_there_is_no_task_for_one(tmp_path: Path) -> None:
    settings, clock = read({"FINN_DATA_DIR": str(tmp_path)}), FakeClock()
    async with opened(tmp_path, BEADS, with_means=means(clock=clock)) as journal:
        parts = Parts(settings, (BEADS,), means(), journal, Beads(journal, clock), None, look)
        assert [task.name for task in tasks(parts)] == ["snapshot", "health", "stale_beads", "prune"]


async def test_with_every_copy_there_is_every_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = bare(tmp_path / "remote.git")
    async with living(tmp_path / "a", MemoryStore(), monkeypatch, FINN_GIT_REMOTE=str(remote)) as it:
        await it.serving()
        assert [each.task.name for each in it.finn.scheduler().runs] == [make.__name__ for make in TASKS]


async def test_a_task_is_a_fact_of_health(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with living(tmp_path, MemoryStore(), monkeypatch) as it:
        await it.serving()
        facts = it.facts()
        assert {name: facts[name].value for name in facts if name.startswith("task:")} == dict.fromkeys(
            (f"task:{each.task.name}" for each in it.finn.scheduler().runs), "closed"
        )


# ---------------------------------------------------------------- what they do


async def test_a_snapshot_is_taken_only_where_something_changed(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await say(journal, "one")
        await journal.save()
        assert len(listed(journal.paths.snapshots)) == 1
        (written,) = listed(journal.paths.snapshots)
        before = written.stat().st_mtime_ns
        await journal.save()
        assert [path.stat().st_mtime_ns for path in listed(journal.paths.snapshots)] == [before]
        await say(journal, "two")
        await journal.save()
        assert len(listed(journal.paths.snapshots)) == 2


async def test_a_bead_that_lies_still_for_a_day_and_a_second_is_labelled_once(tmp_path: Path) -> None:
    clock, records = FakeClock(), list[Record]()
    settings = read({"FINN_DATA_DIR": str(tmp_path)})
    async with opened(tmp_path, BEADS, with_means=means(clock=clock)) as journal:
        beads = Beads(journal, clock)
        journal.listen(records.append)
        made = await beads.create({"title": "x"}, OWNER)
        await beads.update(made.id, {"status": "in_progress"}, OWNER)
        parts = Parts(settings, (BEADS,), means(), journal, beads, None, look)
        (mark,) = (task for task in tasks(parts) if task.name == "stale_beads")
        for seconds in (DAY_S - 1, 2, 3600, DAY_S, -2 * DAY_S):
            clock.advance(seconds)
            await mark.run()
        assert [event.op for record in records if isinstance(event := record.event, BeadsChanged)][2:] == ["stale"]
        assert beads.board.beads[made.id].labels == ("stale:true",)


# ---------------------------------------------------------------- the drill


def bare(path: Path) -> Path:
    subprocess.run(["git", "init", "-q", "--bare", path], check=True)
    return path


def leftovers(it: Living) -> list[Path]:
    return sorted((it.finn._own.settings.data_dir / "cache").glob("**/*"))


async def lived(it: Living) -> None:
    """Something was said, and every copy has a snapshot of it."""
    await it.serving()
    await it.say(await it.session(), "remember that the code is 4711")
    await it.finn.rooms().journal.snapshot()
    await it.saved()


async def test_a_drill_restores_from_every_copy_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore(SystemClock())
    async with living(tmp_path / "a", store, monkeypatch, FINN_GIT_REMOTE=str(bare(tmp_path / "remote.git"))) as it:
        await lived(it)
        assert await run(it, "archive") == ""
        objects = dict(store.objects)
        assert await run(it, "drill") == ""
        assert (store.objects, leftovers(it)) == (objects, [])


async def test_a_drill_with_nothing_to_compare_yet_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with living(tmp_path / "a", MemoryStore(), monkeypatch, FINN_GIT_REMOTE=str(bare(tmp_path / "r"))) as it:
        await it.serving()
        assert await run(it, "drill") == ""
        assert leftovers(it) == []


async def test_a_drill_fails_with_the_reason_where_the_store_gives_back_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore(SystemClock())
    async with living(tmp_path, store, monkeypatch) as it:
        await lived(it)
        for key in [key for key in store.objects if key.startswith(("log/", "seg/"))]:
            data = bytearray(store.objects[key])
            data[len(data) // 2] ^= 1
            store.objects[key] = bytes(data)
        assert "what was restored from store is not what is here" in await run(it, "drill")
        assert leftovers(it) == []


async def test_a_drill_fails_where_git_has_lost_what_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = bare(tmp_path / "remote.git")
    async with living(tmp_path / "a", MemoryStore(), monkeypatch, FINN_GIT_REMOTE=str(remote)) as it:
        await lived(it)
        assert await run(it, "archive") == ""
        remote.rename(tmp_path / "gone.git")
        assert await run(it, "drill") != ""
        assert leftovers(it) == []


async def test_a_drill_that_was_killed_is_cleared_away_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with living(tmp_path, MemoryStore(), monkeypatch) as it:
        await lived(it)
        left = tmp_path / drilling.FOLDER / "store" / "wal"
        left.mkdir(parents=True)
        (left / "torn").write_bytes(b"half")
        assert await run(it, "drill") == ""
        assert leftovers(it) == []


async def test_a_drill_that_might_fill_the_disk_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drilling, "SPARE_BYTES", 1 << 60)
    async with living(tmp_path, MemoryStore(), monkeypatch) as it:
        await lived(it)
        assert "are free" in await run(it, "drill")
        assert leftovers(it) == []


# ---------------------------------------------------------------- what hangs


async def test_a_task_that_hangs_in_a_thread_is_cut_and_the_next_attempt_adds_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, begun = threading.Event(), list[int]()

    def hangs(_: object) -> None:
        begun.append(1)
        gate.wait()

    monkeypatch.setattr(drilling.Drill, "run", hangs)
    async with living(tmp_path, MemoryStore(), monkeypatch) as it:
        await it.serving()
        scheduler = it.finn.scheduler()
        (drill,) = (each for each in scheduler.runs if each.task.name == "drill")
        scheduler._runs["drill"] = replace(drill, task=replace(drill.task, timeout_s=0.05))
        told = [await run(it, "drill") for _ in range(3)]
        assert told == ["it did not end within 0.05 s"] * 3
        assert (len(begun), [thread.name for thread in threading.enumerate()].count("finn-drill")) == (1, 1)
        assert await run(it, "snapshot") == ""
        gate.set()


async def test_a_snapshot_on_a_disk_that_hangs_keeps_one_thread_and_the_next_one_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, begun, write = threading.Event(), list[int](), snapshot.write

    def hangs(*arguments: object) -> Path:
        begun.append(1)
        gate.wait()
        return write(*arguments)  # type: ignore[arg-type]

    async with opened(tmp_path) as journal:
        await say(journal, "one")
        with monkeypatch.context() as patched:
            patched.setattr(snapshot, "write", hangs)
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await journal.save()
            gate.set()
            await journal.save()
        assert len(begun) == 2
        assert len(listed(journal.paths.snapshots)) == 1
