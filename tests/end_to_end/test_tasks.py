"""Periodic work as its owner sees it: a real process, a real store behind a proxy, and what both do when one fails."""

import json
import signal
import socket
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from scheduler.scheduler import COOLDOWN_S
from tests.end_to_end.bucket import Bucket, checks, saved
from tests.end_to_end.finn import ECHO, Finn, finn, until
from tests.end_to_end.machines import Directory, Remote
from tests.end_to_end.machines import saved as saved_to_store
from tests.fault_proxy import Fault

# A `sitecustomize` is loaded by every Python that has one on its path.
ANSWERED_SOON = "from gateway import tasks\ntasks.ANSWER_S = 1"  #: else it is ten seconds
HANGING = """
import asyncio, signal, threading
from scheduler import watchdog
watchdog.PATIENCE = 1
hang = threading.Event().wait
signal.signal(signal.SIGUSR1, lambda *_: asyncio.get_running_loop().call_soon_threadsafe(hang))
"""


def task(it: Finn, name: str) -> Any:
    """How a task stands."""
    return next(one for one in it.ask("GET", "/api/tasks").json["tasks"] if one["name"] == name)


def run(it: Finn, name: str) -> Any:
    """Runs a task by hand; how it stands then."""
    answer = it.ask("POST", f"/api/tasks/{name}/run")
    assert answer.status == 200, answer
    return answer.json


def breakers(it: Finn) -> list[tuple[str, str]]:
    """The beads of breakers: their label, and how they stand."""
    beads = it.ask("GET", "/api/beads?all=true").json
    found = [(label, bead["status"]) for bead in beads for label in bead.get("labels", ())]
    return [one for one in found if one[0].startswith("circuit-breaker:")]


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_a_breaker_opens_survives_a_kill_and_closes_with_a_probe_by_hand(bucket: Bucket) -> None:
    it = bucket.finn(FINN_SYNC_INTERVAL="1s")
    saved(it)
    session = it.new_session()
    bucket.proxy().away = True
    it.say(session, "hello")
    until(lambda: breakers(it) == [("circuit-breaker:replicate", "open")])
    opened = task(it, "replicate")
    assert (opened["state"], opened["failures"], opened["every_s"]) == ("open", 3, 1.0)
    assert opened["last_error"]
    assert COOLDOWN_S - 60 < seconds(opened["next_run"]) - seconds(opened["last_run"]) <= COOLDOWN_S + 30
    assert checks(it)["task:replicate"] == "open"

    it.restart()
    left = task(it, "replicate")
    assert (left["state"], left["failures"], left["last_run"]) == ("open", 3, None)
    assert left["last_error"] == opened["last_error"]
    assert abs(seconds(left["next_run"]) - seconds(opened["next_run"])) < 5
    assert checks(it)["task:replicate"] == "open"
    assert breakers(it) == [("circuit-breaker:replicate", "open")]

    probed = run(it, "replicate")
    assert (probed["state"], probed["failures"]) == ("open", 4)
    bucket.proxy().clear()
    saved(it)
    probed = run(it, "replicate")
    assert (probed["state"], probed["failures"], probed["last_error"]) == ("closed", 0, None)
    assert checks(it)["task:replicate"] == "closed"
    until(lambda: breakers(it) == [("circuit-breaker:replicate", "closed")])
    it.restart()
    assert task(it, "replicate")["state"] == "closed"


def test_at_level_store_a_breaker_opens_while_every_record_waits(bucket: Bucket) -> None:
    it = bucket.finn(FINN_SYNC_INTERVAL="1s", FINN_DURABILITY="store")
    saved(it)
    bucket.proxy().away = True
    with socket.create_connection(("127.0.0.1", it.port)) as waiting:
        waiting.sendall(it.head("POST /api/sessions", "Content-Type: application/json", "Content-Length: 2") + b"{}")
        until(lambda: task(it, "replicate")["state"] == "open")
        assert run(it, "snapshot")["last_error"] is None
        waiting.setblocking(False)
        with pytest.raises(BlockingIOError):
            waiting.recv(1)
    it.restart()
    assert (task(it, "replicate")["state"], task(it, "replicate")["failures"]) == ("open", 3)


def test_a_task_that_hangs_is_cut_and_the_others_go_on(bucket: Bucket) -> None:
    (bucket.folder / "sitecustomize.py").write_text(ANSWERED_SOON)
    it = bucket.finn(PYTHONPATH=str(bucket.folder), FINN_SYNC_INTERVAL="1s")
    session = it.new_session()
    saved(it)
    bucket.proxy().add(Fault("blackhole", times=None))
    it.say(session, "hello")
    until(lambda: task(it, "replicate")["running"])
    assert it.ask("POST", "/api/tasks/replicate/run").code == "conflict"
    assert run(it, "stale_beads")["last_error"] is None
    assert it.say(session, "are you there?")["reply"]
    until(lambda: task(it, "replicate")["last_error"] == "it did not end within 1 s")
    until(lambda: task(it, "replicate")["state"] == "open")
    assert run(it, "snapshot")["last_error"] is None


def test_the_tasks_are_listed_and_one_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with finn(tmp_path) as it:
        listed = it.ask("GET", "/api/tasks").json["tasks"]
        assert [one["name"] for one in listed] == ["snapshot", "health", "stale_beads", "prune"]
        fields = ("name", "every_s", "state", "failures", "running", "last_run", "last_error", "next_run")
        assert {tuple(one) for one in listed} == {fields}
        assert {(one["state"], one["failures"], one["last_error"]) for one in listed} == {("closed", 0, None)}
        for name in ("replicate", "x" * 300, "%00", "..%2Fhealth"):
            assert it.ask("POST", f"/api/tasks/{name}/run").code == "not_found"
        assert it.ask("GET", "/api/tasks", bearer=False).code == "unauthorized"
        assert it.ask("POST", "/api/tasks/health/run", bearer=False).code == "unauthorized"
        assert "  tasks   4 work; next " in it.command("status").stdout


def test_where_nothing_changes_every_task_writes_nothing_here_and_sends_nothing(tmp_path: Path) -> None:
    store, remote = Directory(tmp_path), Remote(tmp_path)
    with finn(tmp_path, [ECHO], **store.settings, **remote.settings) as it:
        it.say(it.new_session(), "hello")
        names = [one["name"] for one in it.ask("GET", "/api/tasks").json["tasks"]]
        assert len(names) == 8
        saved_to_store(it)
        for _ in range(2):  # the first drill and snapshot leave what the last archive has to send
            for name in names:
                assert run(it, name)["last_error"] is None
        before = written(it.data, store.folder, remote.folder)
        for name in names:
            assert run(it, name)["last_error"] is None
        assert written(it.data, store.folder, remote.folder) == before


def written(*folders: Path) -> dict[Path, tuple[int, int]]:
    """Every file, with when and as what it was last written."""
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in files}


def test_a_bead_that_lies_still_is_labelled_by_its_task_once(tmp_path: Path) -> None:
    with finn(tmp_path, FINN_STALE_BEADS_AFTER="1s") as it:
        bead = it.ask("POST", "/api/beads", {"title": "x", "status": "in_progress"}).json

        def now() -> Any:
            run(it, "stale_beads")
            return it.ask("GET", f"/api/beads/{bead['id']}").json

        until(lambda: now().get("labels") == ["stale:true"])
        marked = now()
        assert now() == marked
        assert checks(it)["beads:stale"] == 1


def test_a_loop_that_hangs_ends_the_process_with_a_line_that_says_where(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HANGING)
    with finn(tmp_path, PYTHONPATH=str(tmp_path)) as it:
        it.say(it.new_session(), "hello")
        it.send_signal(signal.SIGUSR1)
        assert it.wait() == 1
        line = json.loads(it.log.splitlines()[-1])
        assert (line["level"], line["msg"]) == ("critical", "the event loop has stalled, so this process ends")
        assert line["trace"][-1].endswith(" wait"), "it says what hangs"
        it.start()
        assert it.ask("GET", "/readyz").status == 200
