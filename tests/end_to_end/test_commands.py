"""The commands, for an operator who has no luck: every failure is an exit code and one line that says what happened."""

import os
import shutil
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.finn import COMMAND, ECHO, Finn, finn, made, until

pytestmark = pytest.mark.slow

TOKEN = "aB3dE5gH7jK9mN1pQ3rS5tU7vW9xY1zA3cD5eF7g"


@pytest.fixture
def idle(tmp_path: Path) -> Finn:
    """A data directory with a token, on which nothing runs."""
    it = made(tmp_path)
    (it.data / "auth").mkdir(parents=True)
    (it.data / "auth" / "token").write_text(TOKEN)
    return it


def assert_told(ended: subprocess.CompletedProcess[str], code: int = 1) -> None:
    """It ended with that code, and one line tells why."""
    assert ended.returncode == code, ended
    assert ended.stderr.startswith("finn: "), ended
    assert len(ended.stderr.splitlines()) == 1, ended


@pytest.mark.parametrize("session", ["nope", "é", "a b\nc", "../../health?"])
@pytest.mark.parametrize("command", [("chat", "hello", "--session"), ("sessions", "show"), ("sessions", "export")])
def test_a_session_that_does_not_exist_is_told(tmp_path: Path, command: tuple[str, ...], session: str) -> None:
    with finn(tmp_path, [ECHO]) as it:
        assert_told(it.command(*command, session))


def test_a_text_in_another_encoding_is_answered(tmp_path: Path) -> None:
    with finn(tmp_path, [ECHO]) as it:
        ended = it.command("chat", os.fsdecode(b"caf\xe9"))
        assert (ended.returncode, ended.stdout) == (0, "You said: caf\ufffd\n")


def test_nothing_that_the_agent_says_or_makes_steers_the_terminal_of_who_looks(tmp_path: Path) -> None:
    evil = "\x1b]52;c;ZXZpbA==\x07\x1b[2J"
    bead = [{"tool": "bead", "args": {"action": "add", "task": evil}}]
    file = [{"tool": "bash", "args": {"command": "touch \"$(printf 'a\\033[2J\\377')\""}}]
    with finn(tmp_path, [{"when": "go", "calls": [bead, file, [{"text": evil}]]}]) as it:
        session = it.new_session(evil)
        seen = [it.command("chat", "go", "--session", session), it.command("sessions", "show", session)]
        it.ask("POST", "/api/tasks/health/run", b"")
        seen += [it.command(*words) for words in (("sessions", "list"), ("beads", "list"), ("status",), ("doctor",))]
        assert all(one.returncode == 0 and one.stdout for one in seen), seen
        assert not any(sign in one.stdout + one.stderr for one in seen for sign in "\x1b\x07")
        assert "\\u001b[2J" in seen[0].stdout


@pytest.mark.parametrize("url", ["foo", "http://", "ftp://x", "http://[::1", "http://127.0.0.1:99999"])
def test_what_is_no_url_is_a_fault_of_usage(idle: Finn, url: str) -> None:
    assert_told(idle.command("chat", "hello", "--url", url), code=2)


@pytest.mark.parametrize("note", ["", "[]", '{"pid":"x"}', '{"pid":1}', '{"pid":1,"url":7}', '{"pid":1e30}'])
def test_a_run_json_that_is_not_finns_says_that_none_runs(idle: Finn, note: str) -> None:
    (idle.data / "run.json").write_text(note)
    assert_told(idle.command("status"))


def test_a_copy_of_a_directory_whose_finn_runs_is_not_taken_for_the_original(tmp_path: Path) -> None:
    with finn(tmp_path / "one", [ECHO]) as it:
        copy = made(tmp_path / "two")
        shutil.copytree(it.data, copy.data, symlinks=True)
        (copy.data / "auth").chmod(0o755)
        assert_told(copy.command("status"))
        looked = copy.command("doctor", "--only", "security")
        assert "auth" in looked.stdout, "it is the copy that is looked at"
        assert copy.command("doctor", "--fix", "--only", "security").returncode == 0
        assert stat.S_IMODE((copy.data / "auth").stat().st_mode) == 0o700
        assert not (it.data / "doctor-undo").exists()
        assert it.command("status").returncode == 0


def test_a_finn_that_hangs_is_told_soon_and_with_who_can_say_more(tmp_path: Path) -> None:
    with finn(tmp_path, [ECHO]) as it:
        it.send_signal(signal.SIGSTOP)
        ended = it.command("status")
        it.send_signal(signal.SIGCONT)
    assert_told(ended)
    assert "finn doctor" in ended.stderr


@pytest.mark.parametrize("token", [b"", b"\xff\xfe", b"two\nlines"])
def test_a_token_file_that_holds_none_is_told(idle: Finn, token: bytes) -> None:
    (idle.data / "auth" / "token").write_bytes(token)
    assert_told(idle.command("sessions", "list", "--url", "http://127.0.0.1:1"))


def test_output_that_cannot_be_written_is_told(idle: Finn) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [COMMAND, "token", "--data-dir", idle.data],
            env=idle.environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert_told(ended)


def test_what_a_command_makes_is_the_owners_whatever_the_umask(tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"
    subprocess.run([COMMAND, "token", "--data-dir", data], check=True, stdout=subprocess.DEVNULL, umask=0)
    made_here = [data.parent, *data.parent.rglob("*")]
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in made_here} == {0}


def test_a_start_that_is_broken_off_leaves_the_run_json_of_another_process(tmp_path: Path) -> None:
    with finn(tmp_path, [ECHO]) as it, socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        listener.close()
        command = [str(COMMAND), "serve", "--data-dir", str(it.data), "--port", str(port)]
        with subprocess.Popen(command, env=it.environment(), stderr=subprocess.DEVNULL) as second:
            until(lambda: answers(port))
            second.terminate()
        assert (it.data / "run.json").exists()


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0
