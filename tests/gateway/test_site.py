"""What the doctor is told of a directory: from settings that can be used and from those that cannot."""

import json
import os
from pathlib import Path

import pytest

from gateway.settings import coloured, read_leniently
from gateway.site import running_on, site_of

TOKEN = "3c9f1a7be2d84f60b5a7c1d2e3f40516"


def environ(folder: Path, **more: str) -> dict[str, str]:
    return {"FINN_DATA_DIR": str(folder), **more}


def test_settings_that_can_be_used_are_told_as_plain_values(tmp_path: Path) -> None:
    site = site_of(environ(tmp_path, FINN_SYNC_INTERVAL="5m", FINN_ALLOWED_HOSTS="a.example,b.example"))
    assert site.refusal == ""
    assert site.settings["FINN_SYNC_INTERVAL"] == 300.0
    assert site.settings["FINN_ALLOWED_HOSTS"] == ["a.example", "b.example"]
    json.dumps(site.settings)


def test_no_secret_is_told(tmp_path: Path) -> None:
    secrets = {
        "FINN_TOKEN": TOKEN,
        "ANTHROPIC_API_KEY": "sk-correct-horse",
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "battery-staple",
        "FINN_GIT_REMOTE": "https://hunter2hunter2@git.example/state.git",
        "FINN_ALERT_URL": "https://hooks.example/a-path-that-opens-it",
    }
    site = site_of(environ(tmp_path, **secrets))
    shown = repr(site)
    assert [value for value in (*secrets.values(), "hunter2", "a-path-that") if value in shown] == []
    assert site.settings["FINN_GIT_REMOTE"] == "https://git.example/state.git"
    assert site.hooks == {"FINN_ALERT_URL": "https://hooks.example"}
    assert {"FINN_TOKEN", "ANTHROPIC_API_KEY"} <= site.keys
    assert "hunter2" not in site.redactor.text("the remote said hunter2hunter2")


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"FINN_PORT": "eighty"}, "FINN_PORT"),
        ({"FINN_HOST": "0.0.0.0"}, "FINN_TOKEN is not set"),
        ({"FINN_TOKN": "x"}, "did you mean FINN_TOKEN"),
        ({"FINN_DURABILITY": "store"}, "FINN_STORE_URL is not set"),
        ({"FINN_TOKEN": "short"}, "FINN_TOKEN"),
    ],
)
def test_settings_that_serve_refuses_are_told_and_the_rest_is_used(
    tmp_path: Path, said: dict[str, str], word: str
) -> None:
    site = site_of(environ(tmp_path, FINN_LOG_LEVEL="debug", **said))
    assert word in site.refusal
    assert site.settings["FINN_LOG_LEVEL"] == "debug"
    assert site.root == tmp_path


@pytest.mark.parametrize("env", [b"\xff\xfe", b"no equals sign", b"FINN_DATA_DIR=/elsewhere", b"FINN_PORT=x\0"])
def test_a_file_of_settings_that_cannot_be_used_is_told(tmp_path: Path, env: bytes) -> None:
    (tmp_path / ".env").write_bytes(env)
    site = site_of(environ(tmp_path))
    assert site.refusal
    assert site.root == tmp_path


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"nonsense")
    _, wrong = read_leniently(environ(tmp_path, FINN_PORT="x", FINN_TOKN="1", FINN_DURABILITY="store"))
    assert len(wrong) == 4


def test_what_can_be_used_is_used_as_serve_would(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FINN_PORT=8081\nFINN_AGENT_ID=x\n")
    settings, wrong = read_leniently(environ(tmp_path, FINN_AGENT_ID="y"))
    assert (settings.port, settings.agent_id, wrong) == (8081, "y", ())


@pytest.mark.parametrize(
    "note", ["", "{}", "[]", "null", '{"pid": "x", "url": 3}', '{"pid": 4194303, "url": "http://x"}']
)
def test_a_note_of_nobody_is_nobody(tmp_path: Path, note: str) -> None:
    (tmp_path / "run.json").write_text(note)
    assert running_on(tmp_path) is None


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ftp://x", "http://[", "no url"])
def test_a_process_that_lives_and_says_nothing_does_not_answer(tmp_path: Path, url: str) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"pid": os.getpid(), "url": url, "epoch": "odd"}))
    running = running_on(tmp_path)
    assert running is None or (running.pid, running.answers, running.epoch) == (os.getpid(), False, None)


def test_the_token_is_judged_and_not_told(tmp_path: Path) -> None:
    assert site_of(environ(tmp_path)).token == {"source": "none", "bits": 0.0}
    (tmp_path / "auth").mkdir()
    (tmp_path / "auth" / "token").write_text(TOKEN)
    assert site_of(environ(tmp_path)).token == {"source": "file", "bits": 128.0}
    (tmp_path / "auth" / "token").write_bytes(b"\xff")
    assert site_of(environ(tmp_path)).token["source"] == "unreadable"


def test_colours_are_for_a_terminal_whose_owner_wants_them() -> None:
    assert coloured(True, {"TERM": "xterm"})
    assert not coloured(False, {"TERM": "xterm"})
    assert not coloured(True, {"TERM": "xterm", "NO_COLOR": "1"})
    assert not coloured(True, {"TERM": "dumb"})
