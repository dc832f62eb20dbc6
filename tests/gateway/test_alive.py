"""What a container's HEALTHCHECK runs."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway import alive
from gateway.settings import Settings, read

ROOT = Path(__file__).parent.parent.parent
SETTINGS = {"FINN_TOKEN": "0123456789abcdef" * 3, "FINN_PUBLIC_URL": "http://127.0.0.1"}


@contextmanager
def answering(status: str, host: str = "127.0.0.1") -> Iterator[int]:
    """A port where one request is answered so."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                asked = connection.recv(4096)
                assert asked.startswith(b"GET /livez HTTP/1.1\r\n")
                connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


def asked(tmp_path: Path, port: int, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "FINN_DATA_DIR": str(tmp_path), "FINN_PORT": str(port), **settings}
    command = [sys.executable, "-m", "gateway.alive"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=20)


@pytest.mark.parametrize(
    ("settings", "host"),
    [
        ({}, "127.0.0.1"),
        ({"FINN_HOST": "0.0.0.0", **SETTINGS}, "127.0.0.1"),
        ({"FINN_HOST": "::", **SETTINGS}, "::1"),
        ({"FINN_HOST": "127.0.0.5"}, "127.0.0.5"),
    ],
)
def test_an_answer_at_the_address_of_the_settings_is_0_and_silence(
    tmp_path: Path, settings: dict[str, str], host: str
) -> None:
    with answering("200 OK", host) as port:
        outcome = asked(tmp_path, port, **settings)
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", "")


def test_another_name_of_the_port_is_read_as_finn_reads_it(tmp_path: Path) -> None:
    with answering("200 OK") as port:
        assert asked(tmp_path, 1, FINN_PORT="", PORT=str(port)).returncode == 0


def test_a_finn_that_is_wedged_is_told_by_its_status(tmp_path: Path) -> None:
    with answering("503 Service Unavailable") as port:
        outcome = asked(tmp_path, port)
    assert (outcome.returncode, outcome.stderr) == (1, "finn: /livez answers 503\n")


def test_where_nobody_listens_it_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    outcome = asked(tmp_path, port)
    assert (outcome.returncode, len(outcome.stderr.splitlines())) == (1, 1)
    assert "refused" in outcome.stderr


def test_who_accepts_and_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(alive, "LIMIT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(alive, "read", lambda: reading(tmp_path, listener.getsockname()[1]))
        assert alive.main() == 1


def reading(folder: Path, port: int) -> Settings:
    return read({"FINN_DATA_DIR": str(folder), "FINN_PORT": str(port)})


def test_settings_with_which_finn_does_not_start_are_no_life(tmp_path: Path) -> None:
    outcome = asked(tmp_path, 1, FINN_HOST="0.0.0.0")
    assert (outcome.returncode, len(outcome.stderr.splitlines())) == (1, 1)
    assert "FINN_TOKEN" in outcome.stderr
