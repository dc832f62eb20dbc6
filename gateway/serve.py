"""`finn serve`: from settings to a process that ends with the right exit code.

    bind ─▶ probes are answered ─▶ model ─▶ auth ─▶ finn (starting ─▶ ready: run.json, the login link)
         ─▶ signal ─▶ drain ─▶ 0

1 where the start or the run failed, with the reason on stderr; never 0 after a crash. As PID 1 all of it is done in a
child (gateway/first.py).
"""

import gc
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette

from gateway.auth import Auth
from gateway.doors import layers
from gateway.first import beside, is_first
from gateway.hidden import hide_memory
from gateway.listener import bind
from gateway.logs import logging_to
from gateway.routes.health import release_of
from gateway.server import Server
from gateway.settings import Settings, scrub
from gateway.startup import Startup
from persistence.clock import SystemClock, iso, system_entropy
from persistence.disk import SystemDisk, refused, replace
from persistence.errors import FinnError
from persistence.quarantine import make_way
from persistence.redact import Redactor
from scheduler.watchdog import Watchdog

if TYPE_CHECKING:
    from gateway.app import Finn

RUN = "run.json"
#: Every folder that a start may have to make. In the order in which what is in their way can be kept.
FOLDERS = (
    *("quarantine", "wal", "snapshots", "chunks", "blobs", "grimoires", "workspace", "auth", "auth/links"),
    *("state", "state/sessions", "state/.beads", "git", "cache"),
)
SWITCH_S = 0.001  #: after so long a thread that computes lets another go on, so that the loop never waits for long


def serve(settings: Settings) -> int:
    """Runs finn until it is told to stop; the exit code. Raises FinnError for what keeps it from starting."""
    if not is_first():
        return _served(settings)
    hide_memory()  # of the first process too: it was started with the same environment
    return beside(partial(_served, settings))


def _served(settings: Settings) -> int:
    listener = bind(settings.host, settings.port)
    sys.setswitchinterval(SWITCH_S)
    scrub()
    if sys.platform == "linux":
        hide_memory()
    port = listener.getsockname()[1]
    process = _Process(settings, port)
    startup = Startup(
        process.build,
        process.end,
        layers(settings.entrance(port), clock=process.clock, entropy=system_entropy),
        release_of(settings),
        Watchdog(process.clock, lambda: process.last_lines()).watch,
    )
    server = process.server = Server(
        startup,
        listener,
        entropy=system_entropy,
        drain=process.drain,
        budget_s=settings.shutdown_budget,
        proxies=settings.trusted_proxies,
    )
    with logging_to(sys.stderr, settings.log_level, process.redact) as process.last_lines:
        code = server.run_to_the_end()
    failure = startup.failure or (process.finn.failure if process.finn else None)
    if process.announced:
        run_path(settings.data_dir).unlink(missing_ok=True)
    if failure is None:
        return code
    if isinstance(failure, FinnError):
        raise failure
    print(f"finn: {failure if isinstance(failure, OSError) else f'{failure!r} (the log tells more)'}", file=sys.stderr)
    return 1


class _Process:
    """What a running process holds: the server, and finn once it is built."""

    server: Server
    last_lines: Callable[[], None]  #: returns when what was logged is written

    def __init__(self, settings: Settings, port: int) -> None:
        self.clock = SystemClock()
        self.finn: Finn | None = None
        self.announced = False  #: run.json is ours; before, it may be another's who holds the directory
        self._settings = settings
        self._port = port
        self._redactor = Redactor(settings.secrets)

    def build(self) -> Starlette:
        """Imports finn and makes it. Raises FinnError; where the settings are at fault, no file was touched."""
        from agent import models  # these are half of a start, and come after the port is open
        from gateway.app import Finn
        from gateway.chosen import chosen_of

        settings = self._settings
        model = models.choose(chosen_of(settings), self.clock)
        try:
            settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise refused(error, settings.data_dir) from error
        make_way(SystemDisk(), settings.data_dir, FOLDERS)
        auth = Auth.open(settings.data_dir / "auth", clock=self.clock, entropy=system_entropy, token=settings.token)
        finn = self.finn = Finn(settings, model, auth, self.clock, system_entropy, self._port)
        self._redactor = finn.redactor

        def answering() -> None:
            gc.freeze()
            url = settings.entrance(self._port).url
            note = {
                "pid": os.getpid(),
                "url": url,
                "epoch": finn.epoch,
                "since": iso(self.clock.now()),
                "inode": settings.data_dir.stat().st_ino,  # a copy of this folder has another: the note is not its own
            }
            replace(SystemDisk(), run_path(settings.data_dir), json.dumps(note).encode())
            if not self.announced:
                self.announced = True
                print(f"finn is at {url}\nlog in: {auth.login_url(url)}", flush=True)

        return finn.app(answering, self.end)

    def end(self) -> None:
        """Ends the server."""
        self.server.should_exit = True

    async def drain(self) -> None:
        """Closes what runs, where anything runs yet."""
        if self.finn is not None:
            await self.finn.drain()

    def redact(self, text: str) -> str:
        """The text as it may be logged."""
        return self._redactor.text(text)


def run_path(data_dir: Path) -> Path:
    """Where the running gateway says who and where it is."""
    return data_dir / RUN
