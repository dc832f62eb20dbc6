"""A fenced process watches, and takes over only from one that has gone."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from persistence.clock import FakeClock
from persistence.disk import SystemDisk
from persistence.errors import StoreError, StoreUnreachable
from persistence.replica import Replica
from persistence.standby import (
    ASK_S,
    MARK,
    PATIENCE_S,
    Mark,
    Standing,
    mark,
    marked,
    stands_by,
    step,
    unmark,
)
from persistence.stores.memory import MemoryStore
from tests.persistence.writers import Records, Watched, Writer, seen


class Pair:
    """A writer and a standby on one store and one clock."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore(self.clock)
        self.watched = Watched(self.store)
        self.records = Records()
        self.writer = self.claimed("one")
        self.standing = Standing()
        self.entropy = random.Random(1).randbytes

    def claimed(self, name: str) -> Replica:
        writer = Writer(self.store, name, self.records)
        writer.clock = self.clock
        return writer.replica()

    def watch(self, seconds: float, *, alive: bool) -> str:
        """So many seconds of looking each second, while the writer checks each minute, or is gone. The last verdict."""
        for second in range(int(seconds)):
            self.clock.advance(1)
            if alive and second % 60 == 0:
                self.writer.check()
            self.standing = step(self.watched, self.standing, clock=self.clock, entropy=self.entropy)
            if self.standing.verdict == "take":
                break
        return self.standing.verdict

    def waits(self) -> float:
        """How long it takes until the standby takes over from one that is gone."""
        since = self.clock.now()
        assert self.watch(3600, alive=False) == "take"
        return self.clock.now() - since


def test_a_standby_takes_over_five_minutes_after_a_knock_that_nobody_answers() -> None:
    assert PATIENCE_S <= Pair().waits() <= PATIENCE_S + 2


def test_a_writer_that_answers_keeps_its_place_for_as_long_as_it_does() -> None:
    pair = Pair()
    assert pair.watch(4 * 3600, alive=True) != "take"
    assert pair.writer.epoch == 1
    assert pair.waits() <= PATIENCE_S + ASK_S + 2


def test_a_writer_that_writes_is_not_even_asked() -> None:
    pair = Pair()
    pair.watch(1, alive=True)
    puts = len([call for call, _ in pair.watched.calls if call == "put"])
    for _ in range(600):
        pair.records.say("busy")
        pair.writer.flush()
        assert pair.watch(1, alive=False) != "take"
    assert len([call for call, _ in pair.watched.calls if call == "put"]) == puts == 1


def test_what_was_released_is_taken_at_once() -> None:
    pair = Pair()
    pair.watch(10, alive=True)
    pair.writer.release()
    assert pair.watch(1, alive=False) == "take"


def test_a_store_without_a_log_is_anybodys() -> None:
    assert step(MemoryStore(), Standing(), clock=FakeClock(), entropy=bytes).verdict == "take"


def test_a_third_that_takes_over_is_watched_in_its_turn() -> None:
    pair = Pair()
    pair.watch(PATIENCE_S - 20, alive=False)
    pair.writer = pair.claimed("third")
    assert pair.watch(PATIENCE_S, alive=True) != "take"


def test_time_in_which_the_standby_slept_is_no_silence() -> None:
    pair = Pair()
    pair.watch(10, alive=False)
    pair.clock.advance(3000)
    assert pair.watch(1, alive=False) == "wait"
    assert pair.waits() > PATIENCE_S - 30


def test_time_in_which_the_store_did_not_answer_is_no_silence() -> None:
    pair = Pair()
    pair.watch(10, alive=False)
    before = pair.standing

    def away(call: str, key: str) -> None:
        raise StoreUnreachable("away")

    pair.watched.before = away
    for _ in range(400):
        pair.clock.advance(1)
        with pytest.raises(StoreError):
            step(pair.watched, pair.standing, clock=pair.clock, entropy=bytes)
    assert pair.standing == before
    pair.watched.before = lambda call, key: None
    assert pair.watch(1, alive=False) == "wait"


def test_a_look_costs_two_requests() -> None:
    pair = Pair()
    pair.watch(5, alive=False)
    pair.watched.calls.clear()
    pair.watch(20, alive=False)
    assert [call for call, _ in pair.watched.calls] == ["get"] * 40


def test_of_two_standbys_none_takes_over_while_the_writer_answers_either() -> None:
    pair = Pair()
    other = Standing()
    for _ in range(120):
        pair.writer.check()
        for _ in range(60):
            pair.clock.advance(1)
            pair.standing = step(pair.store, pair.standing, clock=pair.clock, entropy=pair.entropy)
            other = step(pair.store, other, clock=pair.clock, entropy=pair.entropy)
            assert "take" not in (pair.standing.verdict, other.verdict)


def test_a_standby_that_looked_for_a_day_holds_no_frames() -> None:
    pair = Pair()
    pair.records.say("x" * 1000)
    pair.writer.flush()
    pair.watch(2, alive=False)
    assert pair.standing.tip is not None
    assert [one.body for one in pair.standing.tip.tail] == [b""]
    assert pair.standing.tip.n == seen(pair.store).n


# ---------------------------------------------------------------- the mark


def test_a_mark_is_read_back_and_goes(tmp_path: Path) -> None:
    disk, said = SystemDisk(), Mark("r1", 7, "01J")
    assert marked(disk, tmp_path) is None
    mark(disk, tmp_path, said)
    assert marked(disk, tmp_path) == said
    unmark(disk, tmp_path)
    unmark(disk, tmp_path)
    assert marked(disk, tmp_path) is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"release":"r","epoch":"x","writer":"w"}'])
def test_a_mark_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / MARK).write_text(text)
    assert marked(SystemDisk(), tmp_path) is None


def test_only_the_same_release_stands_by() -> None:
    said = Mark("r1", 7, "01J")
    assert [stands_by(said, "r1"), stands_by(said, "r2"), stands_by(None, "r1")] == [True, False, False]
    assert stands_by(replace(said, release="r2"), "r2")
