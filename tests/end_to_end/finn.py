"""A finn to be tested from outside: the real command, real sockets, and whatever a client can see of it.

    with finn(folder, replies) as it:          `finn serve` on a free port, ready
        it.ask("GET", "/api/sessions")         HTTP, with the owner's token
        async with it.open(session) as line:   the WebSocket, and every frame it was sent
            await line.say("hello"); await line.until("turn_end")
        it.kill(); it.start()                  SIGKILL, and again on the same directory and port

The model is the scripted one (docs/scripted.md); `it.sent()` is what it was asked. Nothing here looks inside finn.
"""

import asyncio
import contextlib
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as dial

COMMAND = Path(sys.executable).with_name("finn")
PATIENCE_S = 20.0  #: for what has to happen; a test that needs it all fails
LOOK_S = 0.01  #: between two looks at a condition that nothing tells about

READY = re.compile(r"finn is at http://[^\n]*:([0-9]+)\nlog in: (\S+)\n")

Frame = dict[str, Any]
Headers = Mapping[str, str]
NONE: Headers = {}
RECORDS = (
    "user_message",
    "turn_start",
    "message",
    "tool_start",
    "tool_end",
    "turn_end",
    "retry",
    "note",
    "context_cut",
)


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of a problem, after a look at whether it is one in the contract's form."""
        assert self.headers["content-type"] == "application/problem+json", self
        problem = self.json
        assert problem["status"] == self.status, self
        assert problem["detail"], self
        assert self.headers["x-request-id"], self
        return str(problem["code"])


class Died(AssertionError):
    """The process ended where it should have served."""


class Finn:
    """One data directory, and the process that runs on it."""

    def __init__(self, folder: Path, settings: Mapping[str, str], wrapper: Sequence[str] = ()) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = 0
        self.login_link = ""
        self._settings = settings
        self._wrapper = wrapper
        self._process: subprocess.Popen[bytes] | None = None

    # ------------------------------------------------------------ the process

    def start(self) -> None:
        """Starts `finn serve` and waits until it says where it is. Raises Died with what it said instead."""
        with (self.folder / "stderr").open("a") as errors:
            self._process = subprocess.Popen(
                self.serving(),
                env=self.environment(),
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        said = self._said()
        ready = READY.fullmatch(said)
        if ready is None:
            self.kill()
            raise Died(f"finn did not become ready; it said {said!r}\n{self.log[-4000:]}")
        self.port, self.login_link = int(ready[1]), ready[2]

    def serving(self) -> Sequence[str | Path]:
        """The command that serves."""
        return (*self._wrapper, COMMAND, "serve", "--data-dir", self.data, "--port", str(self.port))

    def _said(self) -> str:
        """What the process prints until it is ready, has ended or takes too long."""
        assert self._process is not None and self._process.stdout is not None
        said, end = "", time.monotonic() + PATIENCE_S
        while not READY.fullmatch(said):
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))
            piece = os.read(self._process.stdout.fileno(), 4096) if ready else b""
            if not piece:
                break
            said += piece.decode()
        return said

    def kill(self) -> None:
        """SIGKILL, as a power cut would have it; returns when the process is gone."""
        self._end(signal.SIGKILL)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """The exit code after a signal."""
        return self._end(number)

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal and does not wait."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """The exit code, once there is one."""
        assert self._process is not None and self._process.stdout is not None
        code = self._process.wait(PATIENCE_S)
        self._process.stdout.close()
        self._process = None
        return code

    def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        self.send_signal(number)
        return self.wait()

    def restart(self) -> None:
        """A kill and a start."""
        self.kill()
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def resident_bytes(self) -> int:
        """The memory that the process holds now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def environment(self) -> dict[str, str]:
        """What the process is started with: nothing of the test's own settings."""
        inherited = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
        return {**inherited, "HOME": str(self.folder), **self._settings}

    def command(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Another finn command on the same directory."""
        return subprocess.run(
            [COMMAND, *arguments, "--data-dir", self.data],
            env={**self.environment(), **settings},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S * 3,
        )

    def verify(self) -> Any:
        """What `finn verify --json` says."""
        return json.loads(self.command("verify", "--json").stdout)

    @property
    def log(self) -> str:
        """Everything that the process wrote to stderr, over all starts."""
        return (self.folder / "stderr").read_text()

    def sent(self) -> list[Any]:
        """Each request that the model got, over all starts."""
        path = self.folder / "sent.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    # ------------------------------------------------------------ HTTP

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return self._settings.get("FINN_TOKEN") or (self.data / "auth" / "token").read_text().strip()

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def ask(
        self, method: str, path: str, body: object = None, headers: Headers = NONE, *, bearer: bool = True
    ) -> Answer:
        """One request on a connection of its own. A body that is not bytes is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        data = body if isinstance(body, bytes | None) else json.dumps(body, ensure_ascii=False).encode()
        kind = {"Content-Type": "application/json"} if data is not None else {}
        try:
            connection.request(method, path, data, {**(self.bearer if bearer else {}), **kind, **headers})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def head(self, line: str, *headers: str, host: str | None = None) -> bytes:
        """The head of a request, with the owner's token."""
        named = [f"Host: {host or self.url.removeprefix('http://')}", f"Authorization: Bearer {self.token}"]
        return "\r\n".join([f"{line} HTTP/1.1", *named, *headers, "", ""]).encode()

    def raw(self, data: bytes) -> bytes:
        """Bytes as they are, and everything that comes back until the other side hangs up."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as connection:
            connection.sendall(data)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
            return answer

    def new_session(self, title: str = "") -> str:
        created = self.ask("POST", "/api/sessions", {"title": title})
        assert created.status == 201, created
        return str(created.json["id"])

    def say(self, session: str, text: str, headers: Headers = NONE) -> Any:
        """Says something and waits for the end of its turn."""
        answer = self.ask("POST", f"/api/sessions/{session}/messages?wait=true", {"text": text}, headers)
        assert answer.status == 200, answer
        return answer.json

    def messages(self, session: str, query: str = "") -> list[Any]:
        """Every message of a session, page by page."""
        found: list[Any] = []
        after: str | None = "0"
        while after is not None:
            page = self.ask("GET", f"/api/sessions/{session}/messages?after={after}&limit=1000{query}").json
            found += page["messages"]
            after = page["next"]
        return found

    def idle(self, session: str) -> None:
        """Returns when nothing runs or waits in the session."""
        until(lambda: (hello := self.hello(session))["turn"] is None and not hello["queue"])

    def hello(self, session: str) -> Frame:
        """How the session is now, as a new socket is told."""
        with dial(f"ws://127.0.0.1:{self.port}/ws/{session}", additional_headers=self.bearer, proxy=None) as socket:
            told: Frame = json.loads(socket.recv(PATIENCE_S))
            return told

    # ------------------------------------------------------------ WebSocket

    @asynccontextmanager
    async def open(
        self, session: str, after: int | None = None, epoch: int | None = None, **options: Any
    ) -> AsyncIterator["Line"]:
        """The session's socket, greeted."""
        query = "" if after is None else f"?after={after}" + ("" if epoch is None else f"&epoch={epoch}")
        async with self.connect(f"/ws/{session}{query}", **options) as socket:
            line = Line(socket)
            await line.until("hello")
            yield line

    def connect(self, path: str, headers: Mapping[str, str] | None = None, **options: Any) -> connect:
        """A socket of the websockets library; by token unless `headers` say otherwise."""
        return connect(
            f"ws://127.0.0.1:{self.port}{path}",
            additional_headers=self.bearer if headers is None else headers,
            **{"compression": None, "max_size": None, "proxy": None, "ping_interval": None, **options},
        )


@dataclass
class Line:
    """A WebSocket and every frame that came over it."""

    socket: ClientConnection
    frames: list[Frame] = field(default_factory=list)

    @property
    def hello(self) -> Frame:
        return self.frames[0]

    async def next(self) -> Frame:
        """The next frame. Raises ConnectionClosed."""
        async with asyncio.timeout(PATIENCE_S):
            self.frames.append(json.loads(await self.socket.recv()))
        return self.frames[-1]

    async def until(self, kind: str, wanted: Callable[[Frame], object] = bool) -> Frame:
        """Reads on to the next frame of that type that is wanted."""
        while True:
            frame = await self.next()
            if frame["type"] == kind and wanted(frame):
                return frame

    async def send(self, frame: object) -> None:
        await self.socket.send(frame if isinstance(frame, str | bytes) else json.dumps(frame, ensure_ascii=False))

    async def say(self, text: str, request_id: str | None = None, kind: str = "prompt") -> Frame:
        """Says something; the frame that acknowledges it."""
        request_id = request_id or os.urandom(8).hex()
        await self.send({"type": kind, "text": text, "request_id": request_id})
        return await self.until("user_message", lambda frame: frame["data"]["request_id"] == request_id)

    async def turn(self, text: str) -> list[Frame]:
        """Says something; every frame of its turn."""
        said = await self.say(text)
        await self.until("turn_end", lambda frame: frame["turn"] == said["turn"])
        return [frame for frame in self.frames if frame.get("turn") == said["turn"]]

    async def closed(self) -> int | None:
        """Reads to the end; the code with which the other side closed."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.next()
        return self.socket.close_code

    def of(self, *kinds: str) -> list[Frame]:
        """The frames of these types, in order."""
        return [frame for frame in self.frames if frame["type"] in kinds]


# ---------------------------------------------------------------- starting one


@contextmanager
def finn(folder: Path, replies: Sequence[object] = (), **settings: str) -> Iterator[Finn]:
    """A finn in `folder` that answers as `replies` say; it is gone when this ends. Settings go into its environment."""
    it = made(folder, replies, settings)
    try:
        it.start()
        yield it
    finally:
        it.kill()


def made(
    folder: Path, replies: Sequence[object] = (), settings: Mapping[str, str] = NONE, wrapper: Sequence[str] = ()
) -> Finn:
    """The same, not yet started and not looked after."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "script.json"
    script.write_text(json.dumps({"log": "sent.jsonl", "replies": [*replies], "loop": True}))
    return Finn(folder, {"FINN_MODEL": f"scripted:{script}", **settings}, wrapper)


ECHO = [{"text": "You said: {prompt}"}]  #: a reply


def slow(text: str, chunk: int = 4, delay: float = 0.02) -> dict[str, object]:
    """A step that streams a text."""
    return {"text": text, "chunk": chunk, "delay": delay}


# ---------------------------------------------------------------- waiting


def until(condition: Callable[[], object], what: str = "") -> None:
    """Returns when the condition holds. Fails after PATIENCE_S."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, what or f"{condition} never became true"
        time.sleep(LOOK_S)
