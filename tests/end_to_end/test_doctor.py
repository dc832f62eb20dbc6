"""The doctor from outside: with finn up, down, silent, refused; on what is whole, damaged, and read-only."""

import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.finn import Finn, until
from tests.scheduler.test_checks_beads import at, hold
from tests.scheduler.ward import Ward, tree

CATEGORIES = [
    "config",
    "runtime",
    "dirs",
    "wal",
    "snapshots",
    "store",
    "git",
    "sessions",
    "beads",
    "identity",
    "model",
    "sandbox",
    "security",
    "disk",
    "deploy",
]
BUILTIN = {"FINN_MODEL": "builtin"}


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data directory in which a finn lived a little, and stopped."""
    folder = tmp_path_factory.mktemp("lived")
    it = Finn(folder, BUILTIN)
    try:
        it.start()
        session = it.new_session("tea")
        it.say(session, "remember the tea is green")
        it.say(session, "add task water the plants")
        assert it.stop() == 0
    finally:
        it.kill()
    return folder


@pytest.fixture
def it(lived: Path, tmp_path: Path) -> Iterator[Finn]:
    """That directory, with nothing running on it."""
    shutil.copytree(lived / "data", tmp_path / "data", symlinks=True)
    made = Finn(tmp_path, BUILTIN)
    yield made
    made.kill()


def report(it: Finn, *arguments: str, **settings: str) -> Any:
    """What `finn doctor --format json` says."""
    done = it.command("doctor", "--format", "json", *arguments, **settings)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def found(report: Any) -> dict[str, Any]:
    return {one["id"]: one for one in report["findings"]}


def whole(root: Path) -> dict[str, tuple[object, ...]]:
    """Names, modes, bytes, and when each was last changed."""
    return {name: (*node, (root / name).lstat().st_mtime_ns) for name, node in tree(root).items()}


# ---------------------------------------------------------------- looking


def test_a_look_at_a_sound_directory_says_so_in_the_contract_s_form(it: Finn) -> None:
    told = report(it)
    assert list(told) == ["version", "overall", "summary", "findings", "fix"]
    assert (told["overall"], told["fix"]) == ("pass", None)
    assert list(told["summary"]) == ["pass", "info", "warn", "fail"]
    assert sum(told["summary"].values()) == len(told["findings"]) >= 40
    assert list(dict.fromkeys(one["category"] for one in told["findings"])) == CATEGORIES
    assert all(
        list(one) == ["id", "category", "severity", "title", "detail", "remediation", "fixability", "data"]
        for one in told["findings"]
    )


def test_a_look_changes_and_creates_nothing(it: Finn) -> None:
    (it.data / "blobs").chmod(0o755)
    (it.data / "run.json").write_text("{}")
    before = whole(it.data)
    said = it.command("doctor").stdout
    assert "--fix would set the mode of blobs to 0700" in " ".join(said.split())
    assert whole(it.data) == before


def test_a_look_where_nothing_is_makes_nothing(tmp_path: Path) -> None:
    nothing = Finn(tmp_path, BUILTIN)
    told = report(nothing)
    assert found(told)["dirs.data"]["severity"] == "info"
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_takes_no_writes_can_be_looked_at(it: Finn) -> None:
    """Where this user is root, modes keep nobody out; then this shows only that nothing is tried."""
    for path in (it.data, *it.data.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        before = whole(it.data)
        assert found(report(it))["dirs.shut"]["severity"] == "fail"
        assert whole(it.data) == before
    finally:
        for path in (it.data, *it.data.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o700)


def test_the_text_is_calm_and_without_colour_where_nobody_sees_it(it: Finn) -> None:
    said = it.command("doctor").stdout
    assert said.startswith("finn doctor: PASS\n")
    assert "\x1b" not in said
    assert [line.split()[1] for line in said.splitlines() if line.startswith("  dirs ")] == ["well"]
    assert max(map(len, said.splitlines())) <= 80


def test_markdown_can_be_pasted(it: Finn) -> None:
    said = it.command("doctor", "--format", "markdown", "--only", "dirs").stdout
    assert said.startswith("# finn doctor: pass\n\n## dirs\n\n- **pass** `dirs.data`")


@pytest.mark.parametrize("only", ["weather", "dirs,weather", ""])
def test_a_category_that_there_is_not_is_a_wrong_argument_that_names_those_there_are(it: Finn, only: str) -> None:
    done = it.command("doctor", "--only", only)
    assert done.returncode == 2
    assert "config" in done.stderr and "deploy" in done.stderr


def test_a_fix_and_an_undo_in_one_breath_are_a_wrong_argument_and_nothing_is_done(it: Finn) -> None:
    (it.data / "blobs").chmod(0o755)
    done = it.command("doctor", "--fix", "--undo", "01M7ZV8DM6BPBFQ7S2T5Q8T2Q7")
    assert (done.returncode, (it.data / "blobs").stat().st_mode & 0o777) == (2, 0o755)


def test_only_what_was_asked_for_is_looked_at(it: Finn) -> None:
    assert {one["category"] for one in report(it, "--only", "dirs,disk")["findings"]} == {"dirs", "disk"}


@pytest.mark.parametrize(("broken", "fail_on", "code"), [("warn", "fail", 0), ("warn", "warn", 1), ("fail", "fail", 1)])
def test_the_exit_code_is_what_was_asked_for(it: Finn, broken: str, fail_on: str, code: int) -> None:
    (it.data / "blobs").chmod(0o755 if broken == "warn" else 0o500)
    assert it.command("doctor", "--fail-on", fail_on).returncode == code


def test_what_serve_would_refuse_is_a_finding_and_not_a_refusal(it: Finn) -> None:
    done = it.command("doctor", "--format", "json", FINN_PORT="eighty", FINN_DURABILTY="store")
    assert done.returncode == 1
    detail = found(json.loads(done.stdout))["config.refused"]["detail"]
    assert "FINN_PORT" in detail and "did you mean FINN_DURABILITY" in detail


def test_a_store_that_does_not_answer_holds_nobody_up(it: Finn) -> None:
    """Nothing listens there; and a log on this disk is as sound as before."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        silent = f"http://127.0.0.1:{taken.getsockname()[1]}"
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b" * 20, "AWS_REGION": "auto"}
        told = report(it, FINN_STORE_URL="s3://bucket/finn", AWS_ENDPOINT_URL_S3=silent, **keys)
    assert {one["severity"] for one in told["findings"] if one["category"] == "wal"} <= {"pass", "info"}
    assert any(one["severity"] in ("warn", "fail") for one in told["findings"] if one["category"] == "store")
    assert "b" * 20 not in json.dumps(told)


# ---------------------------------------------------------------- mending, with nothing running


def test_a_fix_keeps_what_it_replaces_and_an_undo_puts_it_back(it: Finn) -> None:
    (it.data / "blobs").chmod(0o755)
    shutil.rmtree(it.data / "snapshots")
    before = tree(it.data)
    told = report(it, "--fix")
    assert told["overall"] == "pass"
    assert found(told)["dirs.modes"]["fixability"] == "fixed"
    assert "make the folder snapshots with mode 0700" in told["fix"]["applied"]
    assert told["fix"]["undo"] == f"finn doctor --undo {told['fix']['id']}"
    mended = tree(it.data)
    assert report(it, "--fix")["fix"] is None
    assert tree(it.data) == mended
    done = it.command("doctor", "--undo", told["fix"]["id"])
    assert done.returncode == 0, done.stderr
    assert tree(it.data) == before


def test_a_fix_says_first_what_it_will_do(it: Finn) -> None:
    (it.data / "blobs").chmod(0o755)
    said = it.command("doctor", "--fix").stdout
    assert said.startswith("finn doctor will\n  set the mode of blobs to 0700  (dirs.modes)\n\nfinn doctor: PASS")
    assert "to take it back: finn doctor --undo " in said


def test_beads_are_put_right_by_a_record_and_back_by_another(it: Finn) -> None:
    """The fix holds the log's lock, and lends it to what writes the record."""
    both = {"issue_type": "epic", "status": "in_progress", "labels": ["run:current"]}
    hold(Ward(it.data, {}, {}), at("bd-1", 2, **both), at("bd-2", 1, **both))
    assert found(report(it))["beads.current_run"]["severity"] in ("warn", "fail")
    told = report(it, "--fix", "--only", "beads")
    assert found(told)["beads.current_run"]["fixability"] == "fixed", told
    done = it.command("doctor", "--undo", told["fix"]["id"])
    assert done.returncode == 0, done.stderr
    assert found(report(it))["beads.current_run"]["severity"] in ("warn", "fail")
    assert it.verify()["ok"]


def test_an_undo_of_nothing_is_told(it: Finn) -> None:
    done = it.command("doctor", "--undo", "01ARZ3NDEKTSV4RRFFQ69G5FAV")
    assert done.returncode == 1
    assert "those that can be undone: none" in done.stderr


# ---------------------------------------------------------------- with a finn that runs


def test_a_finn_that_runs_is_asked_and_mends_itself(it: Finn) -> None:
    it.start()
    (it.data / "blobs").chmod(0o755)
    assert found(report(it))["dirs.modes"]["fixability"] == "autofixable"
    assert found(it.ask("GET", "/doctor?only=dirs").json)["dirs.modes"]["data"]["plan"] == [
        "set the mode of blobs to 0700"
    ]
    told = it.ask("POST", "/doctor/fix", {"ids": ["dirs.modes"]}).json
    assert [(one["id"], one["fixability"]) for one in told["findings"]] == [("dirs.modes", "fixed")]
    assert it.ask("POST", "/doctor/fix", {"only": ["dirs"]}).json["fix"] is None
    undone = it.ask("POST", "/doctor/undo", {"id": told["fix"]["id"]})
    assert undone.json == {"id": told["fix"]["id"], "restored": ["blobs has mode 0755 again"]}
    assert report(it, "--fix")["fix"]["applied"] == ["set the mode of blobs to 0700"]
    assert it.ask("GET", "/doctor").json["overall"] == "pass"


def test_bad_requests_are_told_in_the_contract_s_codes(it: Finn) -> None:
    it.start()
    assert it.ask("GET", "/doctor?only=weather").code == "invalid_body"
    assert it.ask("POST", "/doctor/fix", {"ids": ["wal.nothing"]}).code == "invalid_body"
    assert it.ask("POST", "/doctor/fix", {"all": True}).code == "invalid_body"
    assert it.ask("POST", "/doctor/fix", b"{").code in ("invalid_json", "unsupported_media_type")
    assert it.ask("POST", "/doctor/undo", {"id": "../../etc"}).code == "not_found"
    assert it.ask("GET", "/doctor", bearer=False).code == "unauthorized"


def test_many_who_ask_at_once_share_a_look_and_health_stays_there(it: Finn) -> None:
    it.start()
    with ThreadPoolExecutor(8) as pool:
        looks = [pool.submit(it.ask, "GET", "/doctor") for _ in range(6)]
        assert it.ask("GET", "/health").status == 200
        assert {look.result().json["overall"] for look in looks} == {"pass"}


def test_what_needs_the_log_for_itself_waits_until_finn_is_stopped(it: Finn) -> None:
    it.start()
    (it.data / "cache").write_text("in the way")
    (it.data / "cache").chmod(0o600)
    finding = found(report(it, "--fix"))["dirs.kind"]
    assert (finding["severity"], finding["fixability"]) == ("fail", "notfixable")
    assert "stop finn first" in finding["data"]["blocked"]
    assert it.stop() == 0
    assert found(report(it, "--fix"))["dirs.kind"]["fixability"] == "fixed"


def test_a_finn_that_does_not_answer_is_looked_at_from_outside_and_left_alone(it: Finn) -> None:
    it.start()
    (it.data / "blobs").chmod(0o755)
    os.kill(it.pid, signal.SIGSTOP)
    try:
        assert found(report(it))["runtime.answers"]["severity"] == "fail"
        done = it.command("doctor", "--fix")
        assert done.returncode == 1
        assert f"process {it.pid} has this directory and does not answer" in done.stderr
        assert (it.data / "blobs").stat().st_mode & 0o777 == 0o755
    finally:
        os.kill(it.pid, signal.SIGCONT)


def test_a_fix_beside_a_finn_that_lost_its_note_is_refused_by_the_lock(it: Finn) -> None:
    it.start()
    (it.data / "blobs").chmod(0o755)
    (it.data / "run.json").unlink()
    done = it.command("doctor", "--fix")
    assert done.returncode == 1
    assert "is in use by process" in done.stderr
    assert (it.data / "blobs").stat().st_mode & 0o777 == 0o755


# ---------------------------------------------------------------- damaged in every way at once


def ruin(root: Path) -> None:
    """Everything that the tests know how to break and a person can be expected to."""
    for name in ("blobs", ".", "state", "auth/token"):
        (root / name).chmod(0o755)
    for name in ("snapshots", "quarantine", "chunks"):
        shutil.rmtree(root / name)
    (root / "chunks").write_text("a file where a folder belongs")
    (root / "run.json").write_text('{"pid": 4194303, "url": "http://127.0.0.1:1", "epoch": 1}')
    (root / ".env").write_text("FINN_SOMETHING_NEW=1\n")
    (root / ".env").chmod(0o644)
    with next(iter(sorted((root / "wal").glob("*.wal"), reverse=True))).open("ab") as log:
        log.write(b"deadbeef torn in the midd")
    (root / "wal" / "notes.txt").write_text("mine")
    for mirror in (root / "state" / "sessions").glob("*.jsonl"):
        mirror.write_text("not json\n")
    beads = root / "state" / ".beads" / "issues.jsonl"
    beads.write_text(beads.read_text() + "<<<<<<< mine\n")
    (root / "grimoires" / "BEAUVOIR.md").write_bytes(b"\xff\xfe")


def test_a_directory_damaged_in_every_way_is_served_and_mended_and_nothing_readable_is_lost(it: Finn) -> None:
    it.start()
    (session,) = (one["id"] for one in it.ask("GET", "/api/sessions").json["sessions"])
    said = [(one["role"], one["text"]) for one in it.messages(session)]
    assert it.stop() == 0
    ruin(it.data)

    it.start()  # it serves whatever happened
    assert [(one["role"], one["text"]) for one in it.messages(session)] == said
    until(lambda: it.ask("GET", "/health").json["status"] in ("pass", "warn"))
    assert it.stop() == 0

    ruin(it.data)
    assert report(it)["overall"] == "fail"
    told = report(it, "--fix")
    left = {one["id"]: one for one in told["findings"] if one["severity"] in ("warn", "fail")}
    assert all(one["remediation"] or one["data"].get("tried") or one["data"].get("blocked") for one in left.values())
    assert set(left) <= {"config.names", "beads.conflict"}, left  # a name and a merge are for a person to decide
    it.start()
    assert [(one["role"], one["text"]) for one in it.messages(session)] == said
