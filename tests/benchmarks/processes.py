"""The processes that are measured, and clients so plain that they cost nothing themselves.

finn, bare (Starlette on uvicorn)      started, asked until they answer, killed
Http                                   one kept connection
Line                                   one WebSocket, masked with zeros: a mask is there to protect proxies
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

PATIENCE_S = 30.0
LOOK_S = 0.001
BARE = Path(__file__).with_name("bare.py")
FINN = Path(sys.executable).with_name("finn")


@dataclass(frozen=True)
class Process:
    """A process that listens on a port of loopback; `began` is when it was started."""

    pid: int
    port: int
    began: float

    def answers(self, path: str) -> float:
        """Waits for the first 200; how many milliseconds after the start it came."""
        while True:
            try:
                status, _ = Http(self.port).get(path)
                if status == 200:
                    return (time.perf_counter() - self.began) * 1000
            except OSError:
                pass
            if time.perf_counter() > self.began + PATIENCE_S:
                raise TimeoutError(f"no answer on port {self.port}")
            time.sleep(LOOK_S)

    def takes_prompts(self, data: Path) -> float:
        """Waits for finn's note that it is ready, which asks nothing of it; milliseconds after the start."""
        while True:
            with suppress(OSError, ValueError):
                if json.loads((data / "run.json").read_bytes())["pid"] == self.pid:
                    return (time.perf_counter() - self.began) * 1000
            if time.perf_counter() > self.began + PATIENCE_S:
                raise TimeoutError(f"finn on {data} does not get ready")
            time.sleep(LOOK_S)

    def listens(self) -> None:
        """Waits until the port is open."""
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except OSError:
                time.sleep(LOOK_S)
            else:
                return

    def rss(self) -> float:
        """MiB of memory in use."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def run(command: Sequence[str | Path], port: int, home: Path, settings: Mapping[str, str]) -> Iterator[Process]:
    """A process, stopped at the end. It sees no other setting than these."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), **settings}
    began = time.perf_counter()
    with (home / "stderr").open("ab") as errors:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors, cwd=home)
    try:
        yield Process(process.pid, port, began)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


@contextmanager
def finn(data: Path, settings: Mapping[str, str] | None = None) -> Iterator[Process]:
    """`finn serve` on a data directory."""
    port = free_port()
    command = (FINN, "serve", "--data-dir", data, "--port", str(port))
    with run(command, port, data.parent, {"FINN_LOG_LEVEL": "error", **(settings or {})}) as process:
        yield process


@contextmanager
def bare(home: Path) -> Iterator[Process]:
    """The smallest server on the same libraries."""
    port = free_port()
    with run((sys.executable, BARE, str(port)), port, home, {}) as process:
        yield process


def token(data: Path) -> str:
    """The owner's token."""
    return (data / "auth" / "token").read_text().strip()


class Http:
    """One connection that is kept."""

    def __init__(self, port: int, bearer: str = "") -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body."""
        self._connection.request("GET", path, headers=self._headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body."""
        self._connection.request("POST", path, body, self._headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()


class Line:
    """The WebSocket of a session."""

    def __init__(self, port: int, bearer: str, session: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(upgrade(port, bearer, session))
        self._stream = self._socket.makefile("rb")
        head = iter(self._stream.readline, b"\r\n")
        if b" 101 " not in next(head):
            raise ConnectionError("the socket was refused")
        for _ in head:
            pass

    def say(self, text: str, request_id: str) -> None:
        """Sends a prompt."""
        data = json.dumps({"type": "prompt", "text": text, "request_id": request_id}).encode()
        length = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
        self._socket.sendall(b"\x81" + length + bytes(4) + data)

    def frame(self) -> Any:
        """The next frame of text."""
        while True:
            head, size = self._stream.read(2)
            length = size if size < 126 else int.from_bytes(self._stream.read(2 if size == 126 else 8), "big")
            data = self._stream.read(length)
            if head & 15 == 1:
                return json.loads(data)

    def until(self, kind: str) -> Any:
        """Reads on to a frame of that type."""
        while (frame := self.frame())["type"] != kind:
            if frame["type"] == "error":
                raise AssertionError(frame)
        return frame

    def close(self) -> None:
        """Hangs up."""
        self._stream.close()
        self._socket.close()


def upgrade(port: int, bearer: str, session: str) -> bytes:
    """The request for a WebSocket."""
    lines = (
        f"GET /ws/{session} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        f"Authorization: Bearer {bearer}",
    )
    return "\r\n".join((*lines, "", "")).encode()
