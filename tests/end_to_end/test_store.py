"""Lose the machine, lose nothing: one store, and processes that come, go, hang and meet on it.

The store is a folder. It is away while that folder has another name, which is not the same as being empty.
"""

import asyncio
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.bucket import lose, ready, saved, texts, tier
from tests.end_to_end.finn import ECHO, Finn, finn, made, until
from tests.s3_server import KEY_ID, SECRET, S3Server

TOKEN = "0123456789abcdef" * 4


class Place:
    """A store, and whoever works on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.store.mkdir()
        self._stack = ExitStack()

    def finn(self, name: str = "one", **settings: str) -> Finn:
        """A finn that is started already, on a directory of its own."""
        it = self.made(name, **settings)
        it.start()
        return it

    def made(self, name: str, **settings: str) -> Finn:
        said = {"FINN_STORE_URL": f"file://{self.store}", "FINN_TOKEN": TOKEN, **settings}
        it = made(self.folder / name, [ECHO], said)
        self._stack.callback(it.kill)
        return it

    def take_away(self) -> None:
        self.store.rename(self.folder / "away")

    def bring_back(self) -> None:
        (self.folder / "away").rename(self.store)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    one = Place(tmp_path)
    yield one
    one.close()


def check(it: Finn, name: str) -> Any:
    """One fact of its health."""
    return it.ask("GET", "/health").json["checks"][name][0]["observedValue"]


# ---------------------------------------------------------------- a machine is lost


def test_a_conversation_outlives_the_disk(place: Place) -> None:
    it = place.finn()
    session = it.new_session("kept")
    it.say(session, "the code is 4711")
    (it.data / "grimoires" / "NOTES.md").write_text("remember: 4711\n")
    (it.data / "workspace" / "plan.txt").write_text("one, two, three")
    before = it.messages(session)
    assert it.stop() == 0  # the last look at the files
    shutil.rmtree(it.data)
    it.start()
    assert it.messages(session) == before
    assert (it.data / "grimoires" / "NOTES.md").read_text() == "remember: 4711\n"
    assert (it.data / "workspace" / "plan.txt").read_text() == "one, two, three"
    assert it.say(session, "and now?")["reply"] == "You said: and now?"
    assert check(it, "recovery:source") == "store"


def test_what_was_acknowledged_a_second_before_the_kill_is_there(place: Place) -> None:
    it = place.finn()
    session = it.new_session()
    for count in range(20):
        it.say(session, f"number {count}")
    saved(it)
    before = it.messages(session)
    for _ in range(2):
        lose(it)
        it.start()
        assert it.messages(session) == before
    assert it.verify()["ok"]


def test_local_records_that_the_store_lacks_are_kept_and_uploaded(place: Place) -> None:
    it = place.finn()
    session = it.new_session()
    it.say(session, "in the store")
    saved(it)
    place.take_away()
    it.say(session, "on this disk")
    it.kill()
    place.bring_back()
    it.start()
    saved(it)
    before = it.messages(session)
    lose(it)
    it.start()
    assert it.messages(session) == before
    assert texts(it, session)[2] == "on this disk"


def test_an_emptied_store_is_filled_again_from_the_disk(place: Place) -> None:
    it = place.finn()
    session = it.new_session()
    it.say(session, "only here")
    it.kill()
    shutil.rmtree(place.store)
    place.store.mkdir()
    it.start()
    saved(it)
    before = it.messages(session)
    lose(it)
    it.start()
    assert it.messages(session) == before


async def test_a_reader_that_saw_what_was_lost_is_told_to_forget_it(place: Place) -> None:
    it = place.finn()
    session = it.new_session()
    it.say(session, "in the store")
    saved(it)
    place.take_away()
    it.say(session, "on this disk")
    seen = it.messages(session)[-1]["seq"]
    epoch = check(it, "epoch")
    lose(it)
    place.bring_back()
    it.start()
    it.say(session, "afterwards")
    async with it.open(session, after=seen, epoch=epoch) as line:
        kept = (await line.until("reset"))["seq"]
        await line.until("turn_end")
    replayed = [frame["data"]["text"] for frame in line.of("user_message", "message")]
    assert kept < seen
    assert replayed == ["afterwards", "You said: afterwards"]
    assert [text for text in texts(it, session) if text not in replayed] == ["in the store", "You said: in the store"]


# ---------------------------------------------------------------- the store is away


def test_a_store_that_is_away_stalls_nothing_and_is_caught_up_with(place: Place) -> None:
    it = place.finn()
    session = it.new_session()
    place.take_away()
    it.say(session, "said in between")
    until(lambda: tier(it)["state"] == "failing")
    health = it.ask("GET", "/health")
    assert (health.status, health.json["status"]) == (200, "warn")
    place.bring_back()
    saved(it)
    assert it.ask("GET", "/health").json["status"] == "pass"


def test_a_start_without_the_store_serves_what_is_here_and_claims_it_later(place: Place) -> None:
    it = place.finn()
    session = it.new_session()
    it.say(session, "before")
    it.kill()
    place.take_away()
    it.start()
    it.say(session, "meanwhile")
    assert tier(it)["last_seq"] is None
    epoch = check(it, "epoch")
    place.bring_back()
    saved(it)
    assert check(it, "epoch") > epoch
    it.say(session, "after")
    saved(it)
    before = it.messages(session)
    lose(it)
    it.start()
    assert it.messages(session) == before


def test_an_empty_disk_without_the_store_takes_no_prompt_until_it_has_answered(place: Place) -> None:
    it = place.finn()
    session = it.new_session()
    it.say(session, "the past")
    saved(it)
    lose(it)
    place.take_away()
    it.start()
    asked = it.ask("POST", f"/api/sessions/{session}/messages", {"text": "do you know me?"})
    assert (asked.status, asked.code) == (503, "store_unavailable")
    assert (ready(it), it.ask("GET", "/livez").status, it.ask("GET", "/").status) == ("starting", 200, 200)
    place.bring_back()
    until(lambda: ready(it) == "ok")
    assert texts(it, session) == ["the past", "You said: the past"]


def test_at_level_store_nothing_is_acknowledged_that_the_store_does_not_have(place: Place) -> None:
    it = place.finn(FINN_DURABILITY="store")
    session = it.new_session()
    assert it.say(session, "both")["reply"] == "You said: both"
    place.take_away()
    asked = it.ask("POST", f"/api/sessions/{session}/messages", {"text": "one only"}, {"Idempotency-Key": "k"})
    assert (asked.status, asked.code) == (503, "store_unavailable")
    assert texts(it, session) == ["both", "You said: both"]
    place.bring_back()
    assert it.say(session, "one only", {"Idempotency-Key": "k"})["reply"] == "You said: one only"
    before = it.messages(session)
    lose(it)
    it.start()
    assert it.messages(session) == before


# ---------------------------------------------------------------- two at once


def test_the_newest_start_acts_and_the_other_stands_by(place: Place) -> None:
    one = place.finn("one")
    session = one.new_session()
    one.say(session, "to the first")
    saved(one)
    two = place.finn("two")
    one.ask("POST", f"/api/sessions/{session}/messages", {"text": "anybody?"})
    until(lambda: ready(one) == "fenced")
    refused = one.ask("POST", f"/api/sessions/{session}/messages", {"text": "anybody?"})
    assert (refused.status, refused.code) == (503, "fenced")
    assert one.ask("GET", "/livez").status == 200
    assert one.ask("GET", "/health").json["status"] == "warn"
    assert two.say(session, "to the second")["reply"] == "You said: to the second"


def test_a_standby_takes_over_when_the_other_has_stopped(place: Place) -> None:
    one = place.finn("one")
    session = one.new_session()
    one.say(session, "to the first")
    saved(one)
    two = place.finn("two")
    two.say(session, "to the second")
    one.ask("PATCH", f"/api/sessions/{session}", {"title": "who am I?"})
    until(lambda: ready(one) == "fenced")
    assert two.stop() == 0
    until(lambda: ready(one) == "ok")
    assert texts(one, session)[:4] == [
        "to the first",
        "You said: to the first",
        "to the second",
        "You said: to the second",
    ]
    assert one.say(session, "back")["reply"] == "You said: back"


def test_a_supervisor_that_starts_the_loser_again_does_not_make_them_fight(place: Place) -> None:
    one, two = place.finn("one"), place.finn("two")
    one.new_session()
    until(lambda: ready(one) == "fenced")
    epoch = check(two, "epoch")
    for _ in range(3):
        one.restart()
        assert ready(one) == "fenced"
    assert (ready(two), check(two, "epoch")) == ("ok", epoch)


def test_a_new_release_takes_over_at_once_where_the_old_one_was_fenced(place: Place) -> None:
    one, two = place.finn("one"), place.finn("two")
    one.new_session()
    until(lambda: ready(one) == "fenced")
    one.kill()
    newer = place.made("one", FINN_RELEASE="next")
    newer.start()
    assert ready(newer) == "ok"
    two.new_session()
    until(lambda: ready(two) == "fenced")


def test_what_a_paused_writer_acknowledged_comes_back_as_a_branch(place: Place) -> None:
    one = place.finn("one")
    session = one.new_session()
    one.say(session, "together")
    saved(one)
    place.take_away()  # so that it cannot learn of its successor before it acknowledges
    one.say(session, "into the void")
    one.send_signal(signal.SIGSTOP)
    place.bring_back()
    two = place.finn("two")
    two.say(session, "in the light")
    one.send_signal(signal.SIGCONT)
    until(lambda: ready(one) == "fenced")
    assert two.stop() == 0
    until(lambda: ready(one) == "ok")
    until(lambda: "You said: into the void" in texts(one, session))  # the last of what was kept back
    recovered = [message["text"] for message in one.messages(session) if message.get("recovered")]
    assert recovered == ["into the void", "You said: into the void"]
    assert texts(one, session).count("into the void") == 1
    until(lambda: not [*(place.store / "main" / "orphans").rglob("*.wal")])


async def test_sockets_of_a_fenced_writer_are_closed_to_come_back(place: Place) -> None:
    one = place.finn("one")
    session = one.new_session()
    async with one.open(session) as line:
        await asyncio.to_thread(place.finn, "two")
        await asyncio.to_thread(one.ask, "PATCH", f"/api/sessions/{session}", {"title": "still me?"})
        assert await line.closed() == 1012


# ---------------------------------------------------------------- git


def test_git_alone_brings_everything_back(place: Place) -> None:
    remote = place.folder / "remote.git"
    subprocess.run(["git", "init", "-q", "--bare", remote], check=True)
    it = place.finn(FINN_GIT_REMOTE=str(remote))
    session = it.new_session("kept")
    it.say(session, "the code is 4711")
    (it.data / "workspace" / "plan.txt").write_text("one, two, three")
    before = it.messages(session)
    assert it.stop() == 0
    shutil.rmtree(it.data)
    shutil.rmtree(place.store)
    place.store.mkdir()
    it.start()
    assert (it.messages(session), check(it, "recovery:source")) == (before, "git")
    assert (it.data / "workspace" / "plan.txt").read_text() == "one, two, three"
    assert it.say(session, "and now?")["reply"] == "You said: and now?"
    saved(it)
    before = it.messages(session)
    lose(it)
    it.start()
    assert (it.messages(session), check(it, "recovery:source")) == (before, "store")


# ---------------------------------------------------------------- a bucket


def bucket(server: S3Server) -> dict[str, str]:
    """The settings for a bucket of that server."""
    return {
        "FINN_STORE_URL": f"s3://{server.bucket()}/agents",
        "AWS_ENDPOINT_URL_S3": server.endpoint,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }


@pytest.mark.slow
def test_a_bucket_that_goes_away_and_comes_back_has_everything_once(place: Place) -> None:
    with S3Server() as server:
        it = place.finn(**bucket(server))
        session = it.new_session()
        it.say(session, "one")
        saved(it)
        server.stop()
        for count in range(10):
            it.say(session, f"meanwhile {count}")
        until(lambda: tier(it)["state"] == "failing")
        server.start()
        saved(it)
        before = it.messages(session)
        lose(it)
        it.start()
        assert it.messages(session) == before
        assert it.stop() == 0
        assert SECRET not in it.log


@pytest.mark.slow
def test_a_bucket_that_ignores_conditions_is_said(place: Place) -> None:
    with S3Server(conditional=False) as server:
        it = place.finn(**bucket(server))
        session = it.new_session()
        it.say(session, "one")
        saved(it)
        assert check(it, "store:unfenced") is True
        before = it.messages(session)
        lose(it)
        it.start()
        assert it.messages(session) == before


# ---------------------------------------------------------------- what hangs


@contextmanager
def black_hole() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener.getsockname()[1]


def hanging(port: int) -> dict[str, str]:
    return {
        "FINN_STORE_URL": "s3://bucket/agent",
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "auto",
    }


@pytest.mark.slow
def test_a_store_that_hangs_holds_up_neither_a_prompt_nor_the_end(tmp_path: Path) -> None:
    with finn(tmp_path / "finn", [ECHO]) as it:
        session = it.new_session()
    with black_hole() as port, finn(tmp_path / "finn", [ECHO], **hanging(port), FINN_SHUTDOWN_BUDGET="4s") as it:
        assert it.say(session, "still there?")["reply"] == "You said: still there?"
        assert tier(it)["last_seq"] is None
        assert it.stop() == 0


@pytest.mark.slow
def test_a_git_remote_that_hangs_does_not_hold_up_the_end(place: Place) -> None:
    session = place.finn().new_session()
    place.close()
    with black_hole() as port:
        it = place.finn(FINN_GIT_REMOTE=f"http://127.0.0.1:{port}/state.git", FINN_SHUTDOWN_BUDGET="7s")
        it.say(session, "one")
        before = it.messages(session)
        assert it.stop() == 0
        lose(it)
        it.start()
        assert it.messages(session) == before
