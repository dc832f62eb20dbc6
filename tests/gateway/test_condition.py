"""The health task: what it measures, what counts, and who hears of it."""

import asyncio
import json
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.condition import Condition, Heed, nobody
from gateway.premises import HOUR_S, Premises
from persistence.beads import BEADS, Beads
from persistence.clock import FakeClock
from persistence.errors import Fenced, StorageFailed
from persistence.journal import Journal
from persistence.own_beads import AGENT_REF
from scheduler.health import Fact, Report, Status
from tests.persistence.journals import opened

PID = 4711
FACTS: Mapping[Status, tuple[Fact, ...]] = {
    "pass": (Fact("epoch", 1),),
    "warn": (Fact("beads:stale", 1, output="one lies still"),),
    "fail": (Fact("wal:error", "no room", output="no room"),),
}


class Life:
    """A condition over a real log, whose facts the test decides."""

    def __init__(self, journal: Journal, heed: Heed = nobody) -> None:
        self.journal = journal
        self.beads = Beads(journal, FakeClock())
        self.status: Status = "pass"
        self.leaving = False
        self.looked = 0
        self.disk: Callable[[], object] = lambda: None
        self.condition = Condition(
            self._look,
            lambda: (lambda: FACTS[self.status], self.condition.facts),
            self.beads,
            FakeClock(),
            heed,
            leaving=lambda: self.leaving,
            disk_s=0.05,
            patience_s=0.05,
        )

    def _look(self) -> tuple[Fact, ...]:
        self.looked += 1
        self.disk()
        return (Fact("disk:free", 1 << 40, "bytes", of=1 << 40),)

    async def see(self, *statuses: Status) -> None:
        for self.status in statuses:
            await self.condition.look()

    def says(self) -> str | None:
        """What the agent's own bead says of its health; None where there is no such bead."""
        found = [bead for bead in self.beads.board.beads.values() if bead.text("external_ref") == AGENT_REF]
        return next((label for bead in found for label in bead.labels if label.startswith("health:")), None)


@asynccontextmanager
async def life(root: Path, heed: Heed = nobody) -> AsyncIterator[Life]:
    async with opened(root, BEADS) as journal:
        it = Life(journal, heed)
        try:
            yield it
        finally:
            it.condition.end()


# ---------------------------------------------------------------- what counts


async def test_a_finn_that_is_well_is_told_to_nobody_and_writes_nothing(tmp_path: Path) -> None:
    async with life(tmp_path) as it:
        seq = it.journal.seq
        await it.see("pass", "pass", "pass", "warn", "pass", "fail", "pass")
        assert it.says() is None
        assert it.journal.seq == seq


async def test_what_two_looks_see_is_in_the_agents_bead_and_so_is_its_end(tmp_path: Path) -> None:
    async with life(tmp_path) as it:
        await it.see("pass", "warn")
        assert it.says() is None
        await it.see("fail")
        seq = it.journal.seq
        await it.see("warn", "pass", "warn", "fail", "pass")
        assert (it.says(), it.journal.seq) == ("health:degraded", seq)
        await it.see("pass")
        assert it.says() == "health:ok"


async def test_a_restart_says_nothing_twice(tmp_path: Path) -> None:
    async with life(tmp_path) as it:
        await it.see("warn", "warn")
        assert it.says() == "health:degraded"
    async with life(tmp_path) as it:
        seq = it.journal.seq
        await it.see("warn", "warn", "pass")
        assert (it.says(), it.journal.seq) == ("health:degraded", seq)
        await it.see("pass")
        assert it.says() == "health:ok"


async def test_a_stop_is_no_illness(tmp_path: Path) -> None:
    async with life(tmp_path) as it:
        it.leaving = True
        await it.see("fail", "fail")
        assert (it.says(), it.looked) == (None, 0)


# ---------------------------------------------------------------- who is told


async def test_every_look_is_shown_to_the_owners_watch_with_what_was_measured(tmp_path: Path) -> None:
    reports: list[Report] = []

    async def heed(report: Report) -> None:
        reports.append(report)

    async with life(tmp_path, heed) as it:
        await it.see("pass", "warn", "pass")
    assert [report.status for report in reports] == ["pass", "warn", "pass"]
    assert all(report.checks["disk:free"][0]["observedValue"] == 1 << 40 for report in reports)


async def test_a_listener_that_fails_stops_neither_the_looking_nor_the_bead(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def heed(report: Report) -> None:
        raise StorageFailed("nobody there")

    async with life(tmp_path, heed) as it:
        await it.see("warn", "warn", "pass", "pass")
        assert (it.says(), it.looked) == ("health:ok", 4)
    assert "nobody there" in caplog.text


async def test_a_listener_that_hangs_stops_neither_and_is_not_called_again_meanwhile(tmp_path: Path) -> None:
    called: list[Status] = []
    answer = asyncio.Event()

    async def heed(report: Report) -> None:
        called.append(report.status)
        await answer.wait()

    async with life(tmp_path, heed) as it:
        await it.see("warn", "warn", "warn")
        assert (it.says(), it.looked, called) == ("health:degraded", 3, ["warn"])
        answer.set()
        await it.see("pass", "pass")
        assert called == ["warn", "pass"]


async def test_a_bead_that_the_log_does_not_take_is_tried_again_with_the_next_look(tmp_path: Path) -> None:
    async with life(tmp_path) as it:
        set_health, refused = it.beads.set_health, [True]

        async def refusing(*, degraded: bool) -> None:
            if refused[0]:
                raise StorageFailed("the disk refuses")
            await set_health(degraded=degraded)

        it.beads.set_health = refusing  # type: ignore[method-assign]
        await it.see("fail", "fail")
        assert it.says() is None
        refused[0] = False
        await it.see("fail")
        assert it.says() == "health:degraded"


async def test_a_disk_that_hangs_or_refuses_is_told_like_anything_else_until_it_answers(tmp_path: Path) -> None:
    reports: list[Report] = []

    async def heed(report: Report) -> None:
        reports.append(report)

    def refuse() -> None:
        raise OSError(5, "Input/output error")

    answers = threading.Event()
    async with life(tmp_path, heed) as it:
        await it.see("pass")
        for it.disk, said in ((answers.wait, "has not answered within"), (refuse, "Input/output error")):
            await it.see("pass", "pass")
            assert [report.status for report in reports[-2:]] == ["fail", "fail"]
            assert said in reports[-1].checks["disk:error"][0]["output"]
            assert "disk:free" in reports[-1].checks
            assert it.says() == "health:degraded"
            answers.set()
            it.disk = lambda: None
            await it.see("pass", "pass")
            assert "disk:error" not in reports[-1].checks
            assert it.says() == "health:ok"


async def test_a_fence_ends_the_looking(tmp_path: Path) -> None:
    async def heed(report: Report) -> None:
        raise Fenced("another has it")

    async with life(tmp_path, heed) as it:
        with pytest.raises(Fenced):
            await it.see("pass")


# ---------------------------------------------------------------- what is measured


class Place:
    """A data directory with a log and its lock, and what a look at it says."""

    def __init__(self, root: Path) -> None:
        self.root = root / "data"
        self.run = self.root / "run.json"
        (self.root / "wal").mkdir(parents=True)
        (self.root / "wal" / "LOCK").touch()
        self.clock = Clocks()
        self.premises = Premises(self.root, self.clock, PID)

    def announce(self, pid: int = PID) -> None:
        self.run.write_text(json.dumps({"pid": pid, "url": "http://127.0.0.1:8080"}))

    def fact(self, name: str) -> Fact | None:
        return next((fact for fact in self.premises.look() if fact.name == name), None)

    def value(self, name: str) -> object:
        fact = self.fact(name)
        return fact and fact.value


class Clocks(FakeClock):
    """Wall and boot time, each by itself."""

    boot = 0.0

    def boottime(self) -> float:
        return self.boot

    def pass_by(self, seconds: float) -> None:
        self.boot += seconds
        self.time += seconds


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    it = Place(tmp_path)
    yield it
    it.premises.close()


def _removed(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _replaced(path: Path) -> None:
    is_folder = path.is_dir()
    path.rename(path.with_name("elsewhere"))
    path.mkdir() if is_folder else path.touch()


@pytest.mark.parametrize(("name", "part"), [("dirs:data", ""), ("dirs:wal", "wal"), ("dirs:lock", "wal/LOCK")])
@pytest.mark.parametrize(("harm", "value"), [(_removed, "gone"), (_replaced, "replaced")])
def test_a_folder_that_is_taken_away_under_the_process_is_noticed(
    place: Place, name: str, part: str, harm: Callable[[Path], None], value: str
) -> None:
    assert place.value(name) == "there"
    harm(place.root / part)
    found = place.fact(name)
    assert found is not None
    assert found.value == value
    assert str(place.root / part) in found.output


def test_what_is_moved_away_and_back_is_there_again(place: Place) -> None:
    wal, away = place.root / "wal", place.root / "away"
    wal.rename(away)
    assert (place.value("dirs:wal"), place.value("dirs:lock"), place.value("dirs:data")) == ("gone", "gone", "there")
    away.rename(wal)
    assert (place.value("dirs:wal"), place.value("dirs:lock")) == ("there", "there")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write whatever the mode says")
def test_a_folder_that_takes_nothing_new_is_noticed(place: Place) -> None:
    (place.root / "wal").chmod(0o500)
    assert place.value("dirs:wal") == "read-only"
    (place.root / "wal").chmod(0o700)
    assert place.value("dirs:wal") == "there"


def test_run_json_is_missed_once_it_was_there_and_known_for_anothers(place: Place) -> None:
    assert place.fact("dirs:run") is None
    place.announce()
    assert place.value("dirs:run") == "there"
    place.run.unlink()
    assert place.value("dirs:run") == "gone"
    place.announce(PID + 1)
    assert place.value("dirs:run") == "replaced"
    place.run.write_text("{")
    assert place.value("dirs:run") == "gone"
    place.announce()
    assert place.value("dirs:run") == "there"


def test_the_disk_says_what_is_left_of_it(place: Place) -> None:
    free, there = place.fact("disk:free"), os.statvfs(place.root)
    assert free is not None
    assert 0 < free.value <= free.of <= there.f_blocks * there.f_frsize


@pytest.mark.parametrize("jump", [-7200.0, 300.0])
def test_a_clock_that_jumps_is_told_for_an_hour_and_not_if_it_jumps_back(place: Place, jump: float) -> None:
    for _ in range(90):
        place.clock.pass_by(60)
        assert place.value("clock:jump") == 0
    place.clock.advance(jump)
    assert place.value("clock:jump") == jump
    place.clock.pass_by(HOUR_S / 2)
    assert place.value("clock:jump") == jump
    place.clock.advance(-jump)
    assert place.value("clock:jump") == 0
    place.clock.advance(jump)
    for _ in range(62):
        place.clock.pass_by(60)
        last = place.value("clock:jump")
    assert last == 0


def test_a_machine_that_slept_has_no_clock_that_jumped(place: Place) -> None:
    place.clock.pass_by(60)
    place.premises.look()
    place.clock.pass_by(8 * HOUR_S)
    assert place.value("clock:jump") == 0
