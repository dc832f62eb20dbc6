"""Beads from outside: `finn beads` with and without a running finn, HTTP, the file, and what is said in a chat."""

import hashlib
import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from persistence.issues import read
from tests.conftest import count
from tests.end_to_end.finn import Finn, finn, made, until

pytestmark = pytest.mark.slow

Json = Any


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Finn]:
    with finn(tmp_path, FINN_MODEL="builtin") as running:
        yield running


@pytest.fixture
def down(tmp_path: Path) -> Finn:
    """A data directory on which nothing runs."""
    return made(tmp_path)


@pytest.fixture(params=["running", "down"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Finn]:
    """The same directory with a finn on it and without."""
    if request.param == "down":
        yield made(tmp_path)
    else:
        with finn(tmp_path) as running:
            yield running


def beads(at: Finn, *arguments: str, code: int = 0, **settings: str) -> Json:
    """What `finn beads` prints as JSON; what it says on stderr where it has to fail."""
    ended = at.command("beads", *arguments, "--json", **settings)
    assert ended.returncode == code, ended
    return json.loads(ended.stderr if code else ended.stdout)


def file(at: Finn) -> Path:
    return at.data / "state" / ".beads" / "issues.jsonl"


def ids(found: Json) -> list[str]:
    return [one["id"] for one in found]


# ---------------------------------------------------------------- the command


def test_the_command_is_the_same_with_and_without_a_running_finn(either: Finn) -> None:
    plants = beads(either, "create", "Water the plants", "-t", "chore", "-p", "P1", "-l", "home,garden", "-d", "all")
    assert (plants["priority"], plants["issue_type"], plants["labels"]) == (1, "chore", ["garden", "home"])
    buy = beads(either, "create", "Buy a can", "--deps", f"blocks:{plants['id']}")
    assert ids(beads(either, "list")) == [plants["id"], buy["id"]]
    assert [one["dependent_count"] for one in beads(either, "list")] == [1, 0]
    assert ids(beads(either, "ready")) == [plants["id"]]
    assert beads(either, "label", "add", plants["id"], "sprint:pending", "urgent") == [
        {"status": "added", "issue_id": plants["id"], "label": "sprint:pending"},
        {"status": "added", "issue_id": plants["id"], "label": "urgent"},
    ]
    (updated,) = beads(either, "update", plants["id"], "--status", "in_progress", "--title", "Water them", "--claim")
    assert (updated["status"], updated["assignee"]) == ("in_progress", "owner")
    assert updated["labels"] == ["garden", "home", "sprint:in_progress", "urgent"]
    (shown,) = beads(either, "show", buy["id"])
    assert shown["dependencies"][0] == {
        "id": plants["id"],
        "title": "Water them",
        "status": "in_progress",
        "priority": 1,
        "dependency_type": "blocks",
    }
    assert beads(either, "stale", "--days", "1") == []
    assert ids(beads(either, "stale", "--days", "0")) == [buy["id"], plants["id"]]
    closed = beads(either, "close", plants["id"], "--reason", "it rained", "--suggest-next")
    assert (closed["closed"][0]["close_reason"], ids(closed["unblocked"])) == ("it rained", [buy["id"]])
    assert ids(beads(either, "ready")) == [buy["id"]]
    assert ids(beads(either, "list", "--status", "closed")) == [plants["id"]]
    assert either.verify()["ok"]


def test_what_was_done_while_it_was_down_is_there_when_it_runs(tmp_path: Path, down: Finn) -> None:
    one = beads(down, "create", "made while down")
    with finn(tmp_path) as it:
        two = beads(it, "create", "made while up")
        assert {one["id"], two["id"]} == set(ids(it.ask("GET", "/api/beads").json))
        assert it.stop() == 0
    assert {one["id"], two["id"]} == set(ids(beads(down, "list")))
    assert set(read(file(down).read_bytes()).beads) == {one["id"], two["id"]}


def test_looking_at_what_is_not_there_makes_nothing(down: Finn) -> None:
    assert beads(down, "list") == beads(down, "ready") == []
    assert not down.data.exists()


WRONG = [
    (("create", "x" * 501), 4, "invalid_body"),
    (("create", " "), 4, "invalid_body"),
    (("create", "x", "-l", "a.b"), 4, "invalid_body"),
    (("create", "x", "-p", "7"), 4, "invalid_body"),
    (("create", "x", "-t", "nonsense"), 4, "invalid_body"),
    (("create", "x", "--external-ref", "taken"), 4, "conflict"),
    (("create", "x", "--due", "some day"), 4, "invalid_body"),
    (("create", "x", "--deps", "blocks:bd-gone"), 5, "invalid_dependency"),
    (("create", "x", "-l", "sprint:complete"), 4, "illegal_transition"),
    (("update", "THERE", "--status", "nonsense"), 4, "invalid_body"),
    (("update", "THERE", "--add-label", "sync:complete"), 4, "illegal_transition"),
    (("update", "THERE", "--external-ref", "a b"), 4, "invalid_body"),
    (("label", "add", "THERE", "circuit-breaker:bd-1.2"), 4, "invalid_body"),
    (("label", "add", "THERE", "run:current"), 4, "illegal_transition"),
    (("show", "bd-gone"), 3, "not_found"),
    (("close", "bd-gone"), 3, "not_found"),
    (("list", "--sort", "nonsense"), 4, "invalid_body"),
    (("list", "--limit", "-1"), 4, "invalid_body"),
]


def test_what_is_wrong_is_told_with_brs_exit_code_and_the_contracts_word(down: Finn) -> None:
    there = beads(down, "create", "there", "--external-ref", "taken")["id"]
    before = file(down).read_bytes()
    for arguments, code, word in WRONG:
        told = beads(down, *(there if one == "THERE" else one for one in arguments), code=code)
        assert told["code"] == told["error"]["context"]["code"] == word, arguments
        assert told["error"]["message"] and told["error"]["hint"], arguments
    assert file(down).read_bytes() == before


@pytest.mark.parametrize("arguments", [("create", "x" * 501), ("show", "bd-gone")], ids=["title", "id"])
def test_for_people_it_is_one_line(either: Finn, arguments: tuple[str, ...]) -> None:
    plain = either.command("beads", *arguments)
    assert (plain.returncode in (3, 4), plain.stdout, len(plain.stderr.splitlines())) == (True, "", 1)
    assert plain.stderr.startswith("finn: ")


def test_a_part_of_an_id_is_enough_unless_several_have_it(down: Finn) -> None:
    one = beads(down, "create", "one")["id"]
    assert beads(down, "show", one.removeprefix("bd-"))[0]["id"] == one
    beads(down, "create", "two")
    assert beads(down, "show", "bd", code=3)["error"]["code"] == "AMBIGUOUS_ID"


def test_version_is_as_bd_prints_it(down: Finn) -> None:
    ended = subprocess.run([*down.command("--version").args[:1], "beads", "version"], capture_output=True, text=True)
    name, word, number = ended.stdout.split()
    assert (ended.returncode, name, word, len(number.split("."))) == (0, "bd", "version", 3)


def test_a_closed_bead_is_skipped_and_what_waits_is_closed_by_force_alone(down: Finn) -> None:
    one = beads(down, "create", "one")["id"]
    two = beads(down, "create", "two", "--deps", one)["id"]
    assert down.command("beads", "close", two).returncode == 3
    assert ids(beads(down, "close", two, "--force")) == [two]
    assert down.command("beads", "close", two, one).returncode == 0
    assert down.command("beads", "close", two, one).returncode == 3


def test_a_dry_run_makes_nothing_and_silence_is_the_id_alone(down: Finn) -> None:
    assert beads(down, "create", "x", "--dry-run")["title"] == "x"
    assert beads(down, "list") == []
    made = down.command("beads", "create", "x", "--silent").stdout.strip()
    assert ids(beads(down, "list")) == [made]


def test_a_list_is_csv_too_and_as_short_as_is_asked(down: Finn) -> None:
    for n in range(3):
        beads(down, "create", f"bead {n}", "-p", str(n))
    assert len(beads(down, "list", "--limit", "2")) == 2
    lines = down.command("beads", "list", "--format", "csv", "--fields", "title,priority").stdout.splitlines()
    assert lines == ["title,priority", "bead 0,0", "bead 1,1", "bead 2,2"]


def test_of_many_who_claim_at_once_one_has_it(it: Finn) -> None:
    one = beads(it, "create", "x", "-l", "task:ready")["id"]
    with ThreadPoolExecutor(8) as pool:
        asked = pool.map(lambda n: it.ask("PATCH", f"/api/beads/{one}", {"claim": True, "actor": f"a{n}"}), range(8))
        statuses = sorted(answer.status for answer in asked)
    assert statuses == [200, *[409] * 7]


# ---------------------------------------------------------------- HTTP


def test_http_answers_as_br_prints(it: Finn) -> None:
    created = it.ask("POST", "/api/beads", {"title": "é 😀", "labels": ["home"], "priority": 0})
    assert created.status == 201
    name = created.json["id"]
    assert it.ask("GET", "/api/beads").json == it.ask("GET", "/api/beads/ready").json == [created.json]
    changed = it.ask("PATCH", f"/api/beads/{name}", {"status": "closed", "close_reason": "done", "comment": "ok"})
    assert (changed.status, changed.json["status"], changed.json["comments"][0]["text"]) == (200, "closed", "ok")
    assert it.ask("GET", "/api/beads").json == it.ask("GET", "/api/beads/ready").json == []
    assert ids(it.ask("GET", "/api/beads?all=true").json) == [name]
    assert it.ask("GET", f"/api/beads/{name}").json["close_reason"] == "done"


BAD = [
    ("POST", "/api/beads", {}, 400, "invalid_body"),
    ("POST", "/api/beads", {"title": 7}, 400, "invalid_body"),
    ("POST", "/api/beads", {"title": "x" * 501}, 400, "invalid_body"),
    ("POST", "/api/beads", {"title": "x", "labels": ["a.b"]}, 400, "invalid_body"),
    ("POST", "/api/beads", {"title": "x", "nonsense": 1}, 400, "invalid_body"),
    ("POST", "/api/beads", {"title": "x", "external_ref": "taken"}, 409, "conflict"),
    ("POST", "/api/beads", {"title": "x", "labels": ["task:done"]}, 409, "illegal_transition"),
    ("POST", "/api/beads", {"title": "x", "dependencies": [{"depends_on_id": "no"}]}, 400, "invalid_dependency"),
    ("POST", "/api/beads", b"{", 400, "invalid_json"),
    ("PATCH", "/api/beads/THERE", {"add_labels": ["sprint:complete"]}, 409, "illegal_transition"),
    ("PATCH", "/api/beads/THERE", {"status": "tombstone"}, 400, "invalid_body"),
    ("PATCH", "/api/beads/THERE", {"if_updated_at": "2000-01-01T00:00:00Z", "title": "x"}, 409, "conflict"),
    ("PATCH", "/api/beads/bd-gone", {"title": "x"}, 404, "not_found"),
    ("PATCH", "/api/beads/..%2F..%2Fx", {"title": "x"}, 404, "not_found"),
    ("GET", "/api/beads/" + "x" * 300, None, 404, "not_found"),
    ("GET", "/api/beads/%00", None, 404, "not_found"),
    ("GET", "/api/beads/bd", None, 404, "not_found"),
    ("DELETE", "/api/beads/THERE", None, 405, "method_not_allowed"),
    ("GET", "/api/beads?limit=-1", None, 400, "invalid_body"),
    ("GET", "/api/beads?priority=9", None, 400, "invalid_body"),
    ("GET", "/api/beads?sort=nonsense", None, 400, "invalid_body"),
]


def test_what_is_wrong_over_http_has_the_contracts_code(it: Finn) -> None:
    there = it.ask("POST", "/api/beads", {"title": "there", "external_ref": "taken"}).json["id"]
    for method, path, body, status, code in BAD:
        answer = it.ask(method, path.replace("THERE", there), body)
        assert (answer.status, answer.code) == (status, code), (method, path, body)
    assert it.ask("GET", "/api/beads", bearer=False).status == 401
    assert ids(it.ask("GET", "/api/beads?all=true").json) == [there]


# ---------------------------------------------------------------- a chat


def test_a_task_is_added_listed_and_closed_by_word_of_mouth(it: Finn) -> None:
    session = it.new_session()
    added = it.say(session, "add task water the plants")["reply"]
    assert "Added the task" in added
    assert "water the plants" in it.say(session, "list tasks")["reply"]
    (one,) = it.ask("GET", "/api/beads").json
    assert f"`finn beads label add {one['id']} task:ready`" in added
    assert (one["labels"], one["status"], one["created_by"]) == (["task:proposed"], "deferred", "agent")
    assert it.ask("GET", "/api/beads/ready").json == []
    assert "Closed the task" in it.say(session, "close task water the plants")["reply"]
    assert it.say(session, "list tasks")["reply"] == "There are no open tasks."
    it.restart()
    assert ids(it.ask("GET", "/api/beads?all=true").json) == [one["id"]]


# ---------------------------------------------------------------- the file


def test_the_file_is_edited_by_hand_while_finn_runs(it: Finn) -> None:
    one = beads(it, "create", "one")["id"]
    until(file(it).exists)
    file(it).write_text(file(it).read_text().replace('"title":"one"', '"title":"another"'))
    assert it.ask("GET", f"/api/beads/{one}").json["title"] == "another"
    until(lambda: read(file(it).read_bytes()).beads[one].updated > read(file(it).read_bytes()).beads[one].created)
    assert ids(beads(it, "list")) == [one]


def test_health_tells_of_a_file_that_cannot_be_used_and_of_its_mending(it: Finn) -> None:
    beads(it, "create", "one")
    until(file(it).exists)
    whole = file(it).read_text()
    file(it).write_text(whole + "<<<<<<< HEAD\n")
    until(lambda: "beads:file" in it.ask("GET", "/health").json["checks"])
    assert it.ask("GET", "/health").json["checks"]["beads:file"][0]["status"] == "warn"
    until(lambda: read(file(it).read_bytes()).faults == ())
    file(it).write_text(whole + "\n")
    until(lambda: "beads:file" not in it.ask("GET", "/health").json["checks"])
    assert len(list((it.data / "quarantine").glob("issues-*.jsonl"))) == 1


def test_a_bead_that_lies_still_is_told_by_health_and_labelled_once(tmp_path: Path) -> None:
    down = made(tmp_path, settings={"FINN_STALE_BEADS_AFTER": "1s"})
    one = beads(down, "create", "x", "--status", "in_progress")["id"]
    beads(down, "create", "y")
    with finn(tmp_path, FINN_STALE_BEADS_AFTER="1s") as it:

        def told() -> bool:
            it.restart()  # it looks at each start, and then hourly
            return bool(it.ask("GET", "/health").json["checks"]["beads:stale"][0]["observedValue"])

        until(told)
        assert one in it.ask("GET", "/health").json["checks"]["beads:stale"][0]["output"]
        it.restart()
        assert beads(it, "show", one)[0]["labels"] == ["stale:true"]
        assert len([line for line in logged(it) if b'"op":"stale"' in line]) == 1


def test_a_session_of_work_that_a_kill_ended_has_expired_at_the_next_start(it: Finn) -> None:
    bead = beads(it, "create", "a long piece of work", "-l", "session:active")
    assert bead["status"] == "in_progress"
    it.kill()
    it.start()
    (shown,) = beads(it, "show", bead["id"])
    assert shown["labels"] == ["session:expired"]


def test_what_waits_is_begun_by_force_alone(either: Finn) -> None:
    first = beads(either, "create", "first")
    second = beads(either, "create", "second", "--deps", f"blocks:{first['id']}")
    refused = beads(either, "update", second["id"], "--claim", code=4)
    assert (refused["code"], refused["error"]["code"]) == ("conflict", "VALIDATION_FAILED")
    assert first["id"] in refused["detail"]
    assert beads(either, "update", second["id"], "--claim", "--force")[0]["status"] == "in_progress"


def logged(at: Finn) -> list[bytes]:
    return [line for path in sorted((at.data / "wal").glob("*")) for line in path.read_bytes().splitlines()]


def test_the_file_always_parses_while_finn_is_killed(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    known: dict[str, str] = {}
    with finn(tmp_path) as it:
        for _ in range(count(3, 50)):
            with ThreadPoolExecutor(4) as pool:
                asked = [
                    pool.submit(it.ask, "POST", "/api/beads", {"title": f"bead {rng.random()}"}) for _ in range(40)
                ]
                until(asked[rng.randrange(40)].done)
                it.kill()
                done = [one.result().json for one in asked if one.exception() is None and one.result().status == 201]
            known |= {one["id"]: one["title"] for one in done}
            assert read(file(it).read_bytes()).faults == () if file(it).exists() else True
            it.start()
            there = {one["id"]: one["title"] for one in it.ask("GET", "/api/beads?limit=0").json}
            assert known.items() <= there.items()


# ---------------------------------------------------------------- copies


def test_the_beads_come_back_from_a_store_and_from_git(tmp_path: Path) -> None:
    store, remote = tmp_path / "store", tmp_path / "remote.git"
    store.mkdir()
    subprocess.run(["git", "init", "-q", "--bare", str(remote)], check=True)
    settings = {"FINN_STORE_URL": f"file://{store}", "FINN_GIT_REMOTE": str(remote)}
    with finn(tmp_path / "a", **settings) as it:
        one = beads(it, "create", "kept", "-l", "home")["id"]
        until(file(it).exists)
        text = file(it).read_text()
        inventory = {each["path"]: each for each in it.ask("GET", "/api/storage").json["inventory"]}
        kept = inventory["state/.beads/issues.jsonl"]
        assert (kept["bytes"], kept["sha256"]) == (len(text.encode()), hashlib.sha256(text.encode()).hexdigest())
        assert "local" in kept["tiers"]
        until(lambda: it.ask("GET", "/api/storage").json["tiers"][1]["lag_seq"] == 0)
        it.stop()
    branch = "state/main:.beads/issues.jsonl"
    shown = subprocess.run(["git", "-C", str(remote), "show", branch], capture_output=True, text=True, check=True)
    assert shown.stdout == text
    for name, lost in (("b", ()), ("c", (store,))):
        for path in lost:
            shutil.rmtree(path)
            path.mkdir()
        with finn(tmp_path / name, **settings) as again:
            until(lambda again=again: file(again).exists())  # type: ignore[misc]
            assert file(again).read_text() == text
            assert ids(beads(again, "list")) == [one]


# ---------------------------------------------------------------- br


@pytest.mark.skipif(shutil.which("br") is None, reason="br is not installed")
def test_br_takes_our_file(tmp_path: Path, down: Finn) -> None:
    one = beads(down, "create", "one", "-l", "home", "-d", "é")["id"]
    beads(down, "create", "two", "--deps", one)
    there = tmp_path / "project"
    there.mkdir()

    def br(*arguments: str) -> str:
        ended = subprocess.run(["br", *arguments], cwd=there, capture_output=True, text=True, check=True)
        return ended.stdout

    br("init", "--prefix", "bd")
    shutil.copy(file(down), there / ".beads" / "issues.jsonl")
    br("sync", "--import-only", "--json")
    listed = json.loads(br("list", "--json"))
    found = listed if isinstance(listed, list) else listed["issues"]
    assert sorted(ids(found)) == sorted(ids(beads(down, "list")))
