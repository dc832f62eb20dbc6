"""What is reckoned in a process of its own: its value, its error, its death."""

import os
import signal
import threading

import pytest

from persistence.errors import Damaged
from scheduler import apart as apart_module
from scheduler import doctor
from scheduler import site as site_module
from scheduler.apart import apart
from scheduler.checks import CHECKS
from scheduler.conversations import Sessions
from scheduler.doctor import examine
from scheduler.patience import Silent
from tests.scheduler.ward import new_ward

NOW = ("runtime.clock", "disk.free", "disk.inodes", "runtime.memory")  #: differ from one look to the next


@pytest.fixture(autouse=True)
def two_hands(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with two processors, whatever this one has and whichever thread another test left behind."""
    monkeypatch.setattr(apart_module, "hands", lambda: 2)
    monkeypatch.setattr(threading, "active_count", lambda: 1)


def test_the_value_comes_from_another_process() -> None:
    assert apart(os.getpid)() != os.getpid()


def test_a_value_larger_than_a_pipe_comes_whole() -> None:
    assert apart(lambda: b"x" * 5_000_000)() == b"x" * 5_000_000


def test_several_go_on_at_once_and_are_asked_in_any_order() -> None:
    first, second = apart(lambda: 1), apart(lambda: 2)
    assert (second(), first()) == (2, 1)


def test_an_error_is_met_by_who_asks() -> None:
    def act() -> None:
        raise Damaged("this cannot be read", hint="look")

    with pytest.raises(Damaged, match="this cannot be read"):
        apart(act)()


def test_a_copy_that_is_killed_is_told_once_and_then_done_here() -> None:
    own = os.getpid()
    ask = apart(lambda: "here" if os.getpid() == own else os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(Silent, match="signal 9"):
        ask()
    assert ask() == "here"


def test_a_copy_that_hangs_is_ended_and_told() -> None:
    ask = apart(signal.pause, patience_s=0)
    with pytest.raises(Silent):
        ask()


def test_beside_other_threads_nothing_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    assert apart(os.getpid)() == os.getpid()


def test_on_one_processor_nothing_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart_module, "hands", lambda: 1)
    assert apart(os.getpid)() == os.getpid()


def test_several_processes_find_what_one_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    ward = new_ward()
    next((ward.root / "state" / "sessions").glob("*.jsonl")).write_text("{}\n")
    alone = ward.examine()
    forks: list[int] = []
    own = os.fork

    def fork() -> int:
        forks.append(1)
        return own()

    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(site_module, "LARGE", 0)
    assert {one: found for one, found in ward.examine().items() if one not in NOW} == {
        one: found for one, found in alone.items() if one not in NOW
    }
    assert alone["sessions.mirrors"].severity == "warn"
    assert len(forks) == 4, "two for the secrets, two for the sessions"


def test_a_reader_of_sessions_that_dies_is_a_finding_and_the_rest_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    ward, own, read = new_ward(), os.getpid(), Sessions._read

    def die(sessions: Sessions, states: object) -> object:
        if os.getpid() != own:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(sessions, states)  # type: ignore[arg-type]

    monkeypatch.setattr(Sessions, "_read", die)
    monkeypatch.setattr(site_module, "LARGE", 0)
    found = {one.id: one for one in examine(CHECKS, ward.site())}
    told = [one for one in found.values() if "signal 9" in one.detail]
    assert [one.severity for one in told] == ["fail"] * len(told) and told
    assert found["sessions.mirrors"].severity == "pass"
    assert doctor.UNSEEN in told[0].detail
