"""Where containers run in these tests: what Cloudflare does for an object's container, with real processes on loopback.

    workerd: AgentContainer ─▶ container.ts ──HTTP──▶ Machines ──▶ `finn serve`, with the environment it was given,
                                    └────────────── requests ────▶ on an address of its own and an empty disk

    POST /NAME/start      {…environment…}, starts the image that FINN_AGENT_ID names below: {address}
    GET  /NAME/exit       returns when the process has ended: {exit}
    POST /NAME/signal/N   sends a signal          GET /NAME     {running, starts, stderr}

Every start gets a new and empty /data, as on Cloudflare. Of the environment only FINN_HOST is another: 127.X.Y.Z.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

COMMAND = Path(sys.executable).with_name("finn")
RELEASE = "the-image"  #: it says so itself, as an image does

SILENT = "import signal; signal.pause()"
SPEAKING = """
import http.server, os
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("x-finn-proto", os.environ["PROTO"]) if os.environ["PROTO"] else None
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"hi")
    log_message = lambda *_: None
http.server.HTTPServer((os.environ["FINN_HOST"], 8080), Answer).serve_forever()
"""

#: What runs for an agent; for everyone else finn itself. `mute` never opens its port; the others speak another version.
IMAGES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "mute": (SILENT, {}),
    "former": (SPEAKING, {"PROTO": "0"}),
    "newer": (SPEAKING, {"PROTO": "2"}),
    "foreign": (SPEAKING, {"PROTO": ""}),
}


@dataclass
class Machine:
    """The place of one object's container."""

    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    errors: Path | None = None


class Machines:
    """All of them, and the server that workerd asks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._machines: dict[str, Machine] = {}
        self._numbers = itertools.count(1)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Asked", (Asked,), {"machines": self}))
        self._server.daemon_threads = True

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self._machines.values():
            self._signal(machine, signal.SIGKILL)
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def of(self, name: str) -> Machine:
        return self._machines.setdefault(name, Machine())

    def start(self, name: str, environment: Mapping[str, str]) -> dict[str, Any]:
        machine, number = self.of(name), next(self._numbers)
        disk = self._folder / str(number)
        disk.mkdir()
        address = f"127.{os.getpid() % 250 + 1}.{number // 250}.{number % 250 + 1}"
        program, more = IMAGES.get(environment["FINN_AGENT_ID"], (None, {}))
        machine.errors = disk / "stderr"
        with machine.errors.open("wb") as errors:
            machine.process = subprocess.Popen(
                [COMMAND, "serve"] if program is None else [sys.executable, "-c", program],
                env={
                    **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
                    "HOME": str(disk),
                    "FINN_DATA_DIR": str(disk / "data"),
                    "FINN_RELEASE": RELEASE,
                    **environment,
                    "FINN_HOST": address,
                    **more,
                },
                cwd=disk,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        machine.starts += 1
        return {"address": address}

    def exit(self, name: str) -> dict[str, Any]:
        process = self.of(name).process
        return {"exit": process.wait() if process else 0}

    def signal(self, name: str, number: int) -> dict[str, Any]:
        self._signal(self.of(name), number)
        return {}

    def _signal(self, machine: Machine, number: int) -> None:
        with suppress(ProcessLookupError):
            if machine.process and machine.process.poll() is None:
                machine.process.send_signal(number)

    def state(self, name: str) -> dict[str, Any]:
        machine = self.of(name)
        running = machine.process is not None and machine.process.poll() is None
        said = machine.errors.read_text(errors="replace")[-4000:] if machine.errors else ""
        return {"running": running, "starts": machine.starts, "stderr": said}


class Asked(BaseHTTPRequestHandler):
    """One request of a container."""

    machines: Machines

    def do_GET(self) -> None:
        name, *what = self.path.strip("/").split("/")
        self._tell(self.machines.exit(name) if what else self.machines.state(name))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        name, verb, *number = self.path.strip("/").split("/")
        if verb == "start":
            self._tell(self.machines.start(name, body))
        else:
            self._tell(self.machines.signal(name, int(number[0])))

    def _tell(self, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with suppress(OSError):  # workerd has ended meanwhile
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nobody reads along."""
