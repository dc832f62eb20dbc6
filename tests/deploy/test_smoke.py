"""A release that does not come up is found out by scripts/smoke and put right by scripts/rollback.

Two releases lie in a folder, `current` is a link to the one that runs and `restart` puts it into place, as they would
on a server of one's own. The newer one is broken in every way that matters.
"""

import contextlib
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.client import Client
from persistence.errors import FinnError
from tests.end_to_end.finn import COMMAND, until

ROOT = Path(__file__).parents[2]
TOKEN = "0123456789abcdef0123456789abcdef"
PATIENCE_S = 60

pytestmark = pytest.mark.slow

# Ends what runs, bounded as a supervisor has it, and starts what `current` leads to. What a release prints is kept.
RESTART = """#!/usr/bin/env bash
cd "$(dirname "$0")"
if pid=$(cat pid 2>/dev/null); then
  kill -TERM "$pid" 2>/dev/null
  for _ in $(seq 200); do kill -0 "$pid" 2>/dev/null || break; sleep 0.05; done
fi
setsid ./current/start </dev/null >>log 2>&1 &
echo $! >pid
"""
START = """#!/usr/bin/env bash
{before}
export FINN_RELEASE={release} FINN_TOKEN={token} FINN_MODEL=builtin HOME="$PWD"
exec {finn} serve --data-dir data --port {port}
"""


class Server:
    """A machine with the releases in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.write("restart", RESTART)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def release(self, name: str, says: str | None = None, before: str = "") -> None:
        """A release as it lies on the server; `says` is what it says of itself, `before` what is run before finn."""
        start = START.format(release=says or name, token=TOKEN, finn=COMMAND, port=self.port, before=before)
        self.write(f"{name}/start", start)

    def deploy(self, name: str) -> None:
        """What a deployment does: it does not look whether anything comes up."""
        current = self.folder / "current"
        current.unlink(missing_ok=True)
        current.symlink_to(self.folder / name)
        subprocess.run([self.folder / "restart"], check=True, timeout=PATIENCE_S)

    def run(
        self, program: str, *options: str, timeout: str = "60s", token: str = TOKEN
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ROOT / "scripts" / program, self.url, "--timeout", timeout, *options],
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "FINN_TOKEN": token},
            capture_output=True,
            text=True,
            check=False,
            timeout=3 * PATIENCE_S,
        )

    def roll_back(self, to: str) -> subprocess.CompletedProcess[str]:
        return self.run("rollback", "--platform", "local", "--at", str(self.folder), "--to", to)

    def end(self) -> None:
        """Ends what was started last; whoever came before it was ended by `restart`."""
        pid = self.folder / "pid"
        if pid.exists():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(pid.read_text()), signal.SIGKILL)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server on which release `old` runs and holds a session."""
    made = Server(tmp_path)
    made.release("old")
    made.deploy("old")
    try:
        yield made
    finally:
        made.end()


def sessions(server: Server) -> list[str]:
    return [each["title"] for each in Client(server.url, TOKEN).get("/api/sessions")["sessions"]]


def test_a_release_that_works_passes_and_leaves_no_session_behind(server: Server) -> None:
    seen = server.run("smoke", "--release", "old")
    assert (seen.returncode, seen.stderr) == (0, "")
    assert seen.stdout.startswith("smoke: release old answers: a turn ended with stop, the doctor says ")
    assert sessions(server) == []
    assert server.run("smoke", "--which").stdout == "old\n"


def does_not_start(server: Server) -> None:
    server.release("new", before="echo broken; exit 1")
    server.deploy("new")


def is_the_wrong_release(server: Server) -> None:
    server.release("new", says="older")
    server.deploy("new")


def cannot_write(server: Server) -> None:
    """It comes up, and then no file of it may grow beyond what its log has already."""
    server.release("new")
    server.deploy("new")
    until(lambda: ready(server, "new"))
    size = max(path.stat().st_size for path in (server.folder / "data" / "wal").glob("*.wal"))
    resource.prlimit(int((server.folder / "pid").read_text()), resource.RLIMIT_FSIZE, (size, size))


def ready(server: Server, release: str) -> bool:
    client = Client(server.url, TOKEN)
    try:
        return bool(client.download("/readyz")) and client.get("/health")["releaseId"] == release
    except FinnError:
        return False


def test_the_release_that_took_its_place_is_waited_for_and_a_token_to_chat_is_enough(server: Server) -> None:
    until(lambda: ready(server, "old"))
    token = Client(server.url, TOKEN).post("/api/tokens", {"scope": "chat"})["token"]
    server.release("new")
    server.deploy("new")
    seen = server.run("smoke", "--release", "new", token=token)
    assert seen.stdout.startswith("smoke: release new answers: ")
    assert seen.returncode == 0
    assert seen.stderr.startswith("smoke: its session stays: ")
    assert sessions(server) == ["smoke test of new"]


def test_a_wrong_token_is_said_at_once(server: Server) -> None:
    until(lambda: ready(server, "old"))
    seen = server.run("smoke", token=TOKEN[::-1])
    assert seen.returncode == 2
    assert seen.stderr.startswith("smoke: it does not know the token: ")


# How the new release is broken, how long it is waited for, and what has to be said about it.
BROKEN: dict[str, tuple[Callable[[Server], None], str, str]] = {
    "does not start": (does_not_start, "2s", "nothing answers as finn does: "),
    "starts but is the wrong release": (is_the_wrong_release, "2s", "release older answers, and new should"),
    "starts but cannot write": (cannot_write, "60s", "it cannot write: "),
}


@pytest.mark.parametrize("way", BROKEN)
def test_a_broken_release_is_told_with_its_reason_and_rolled_back(server: Server, way: str) -> None:
    deploy, timeout, reason = BROKEN[way]
    until(lambda: ready(server, "old"))
    Client(server.url, TOKEN).post("/api/sessions", {"title": "before the deployment"})
    deploy(server)

    seen = server.run("smoke", "--release", "new", timeout=timeout)
    assert seen.returncode == 1
    (line,) = seen.stderr.splitlines()
    assert line.startswith(f"smoke: {reason}")

    put_back = server.roll_back("old")
    assert put_back.returncode == 0, put_back.stderr
    assert put_back.stdout.splitlines()[-1].startswith("rollback: release old answers: a turn ended with stop")
    assert sessions(server) == ["before the deployment"]
