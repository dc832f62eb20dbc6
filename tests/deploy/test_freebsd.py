"""The rc.d script starts finn, says so, stops it cleanly, and refuses what cannot work without trying again.

FreeBSD's own part is stood in for: rc.subr by the few lines that are used of it, daemon(8) by daemon.py.
"""

import contextlib
import getpass
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.client import Client
from tests.end_to_end.finn import COMMAND

ROOT = Path(__file__).parents[2]
FREEBSD = ROOT / "deploy" / "freebsd"
SUBR = """load_rc_config() { :; }
run_rc_command() { eval "\\$${1}_cmd"; }
"""
PATIENCE_S = 60


class Machine:
    """A folder that stands for a FreeBSD machine with finn installed."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.pidfile = folder / "run" / "finn.pid"
        self.log = folder / "finn.log"
        self.env = folder / "finn.env"
        program = folder / "r42" / ".venv" / "bin" / "finn"
        program.parent.mkdir(parents=True)
        program.symlink_to(COMMAND)
        (folder / "current").symlink_to(folder / "r42")
        (folder / "rc.subr").write_text(SUBR)
        (folder / "daemon").write_text(
            f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("daemon.py")} "$@"\n'
        )
        (folder / "daemon").chmod(0o755)
        script = (FREEBSD / "finn").read_text()
        for theirs, ours in (("/etc/rc.subr", folder / "rc.subr"), ("/usr/sbin/daemon", folder / "daemon")):
            assert theirs in script
            script = script.replace(theirs, str(ours))
        self._script = folder / "finn"
        self._script.write_text(script)
        self._variables = {
            "finn_user": getpass.getuser(),
            "finn_dir": str(folder / "current"),
            "finn_data": str(self.data),
            "finn_env": str(self.env),
            "finn_log": str(self.log),
            "finn_run": str(self.pidfile.parent),
            "PATH": os.environ["PATH"],
        }
        self.configure()

    def configure(self, **more: str) -> None:
        settings = {"FINN_PORT": "0", "FINN_MODEL": "builtin", **more}
        self.env.write_text("".join(f"{name}='{value}'\n" for name, value in settings.items()))

    def rc(self, verb: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """`service finn VERB`."""
        return subprocess.run(
            ["/bin/sh", self._script, verb],
            env={**self._variables, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    @property
    def pid(self) -> int:
        return int(self.pidfile.read_text())

    def client(self) -> Client:
        from gateway.settings import read

        return Client.find(read({}, flags={"FINN_DATA_DIR": str(self.data)}), None)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    try:
        yield made
    finally:
        with contextlib.suppress(OSError, ValueError):
            os.kill(made.pid, signal.SIGKILL)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="there is no shellcheck here")
def test_the_script_is_clean() -> None:
    done = subprocess.run(["shellcheck", FREEBSD / "finn"], capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_the_log_is_turned_over_by_telling_daemon_and_never_finn() -> None:
    (line,) = (line for line in (FREEBSD / "newsyslog.conf").read_text().splitlines() if not line.startswith("#"))
    name, mode, count, size, when, flags, pidfile = line.split()
    assert (name, mode, when, flags) == ("/var/log/finn.log", "600", "*", "JC")
    assert int(count) * int(size) <= 100_000  # KB
    assert '-P "$finn_run/daemon.pid"' in (FREEBSD / "finn").read_text()
    assert pidfile == "/var/run/finn/daemon.pid"


@pytest.mark.slow
def test_started_it_answers_and_stopped_it_has_written_everything(machine: Machine) -> None:
    started = machine.rc("start")
    assert (started.returncode, started.stderr) == (0, "")
    assert started.stdout == f"finn is running as pid {machine.pid}.\n"
    client = machine.client()
    assert client.get("/health")["releaseId"] == "r42"
    client.post("/api/sessions", {"title": "before the stop"})

    again = machine.rc("start")
    assert (again.returncode, again.stderr) == (1, f"finn: it is running already, as pid {machine.pid}\n")

    stopped = machine.rc("stop")
    assert (stopped.returncode, stopped.stdout, stopped.stderr) == (0, "Stopping finn.\n", "")
    assert not machine.pidfile.exists()
    assert "finn has drained" in machine.log.read_text()
    assert machine.rc("status").stdout == "finn is not running.\n"

    assert machine.rc("start").returncode == 0
    assert [each["title"] for each in machine.client().get("/api/sessions")["sessions"]] == ["before the stop"]
    assert machine.rc("stop").returncode == 0


@pytest.mark.slow
def test_without_its_settings_nothing_is_started(machine: Machine) -> None:
    machine.env.unlink()
    refused = machine.rc("start")
    assert refused.returncode == 1
    assert refused.stderr == (
        f"finn: {machine.env} is missing, so nothing is started (copy .env.example there and edit it)\n"
    )
    assert not machine.log.exists()


@pytest.mark.slow
def test_a_wrong_setting_is_told_and_not_tried_again(machine: Machine) -> None:
    machine.configure(FINN_HOST="0.0.0.0")
    refused = machine.rc("start")
    assert refused.returncode == 1
    assert (
        "finn: it ended at once: finn: FINN_HOST=0.0.0.0 is reachable from other machines, and FINN_TOKEN"
        in refused.stderr
    )
    assert len(machine.log.read_text().splitlines()) == 1
    assert not machine.pidfile.exists()


@pytest.mark.slow
def test_a_second_finn_is_refused_while_the_first_holds_the_data(machine: Machine, tmp_path: Path) -> None:
    assert machine.rc("start").returncode == 0
    first = machine.pid
    second = machine.rc("start", finn_run=str(tmp_path / "elsewhere"))
    assert second.returncode == 1
    assert str(first) in second.stderr
    os.kill(first, 0)
    assert machine.rc("stop").returncode == 0


@pytest.mark.slow
def test_a_finn_that_does_not_end_is_killed_in_the_end(machine: Machine) -> None:
    assert machine.rc("start").returncode == 0
    pid = machine.pid
    os.kill(pid, signal.SIGSTOP)
    stopped = machine.rc("stop", finn_patience="1")
    assert stopped.stderr == "finn: it did not end within 1 s and is killed\n"
    assert not machine.pidfile.exists()
