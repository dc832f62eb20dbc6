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
from gateway.listener import bind
from gateway.logs import logging_to
from gateway.routes.health import release_of
from gateway.server import Server
from gateway.settings import Settings, scrub
from gateway.startup import Startup
from persistence.clock import SystemClock, iso, system_entropy
from persistence.disk import SystemDisk, refused, replace
from persistence.errors import FinnError
from persistence.redact import Redactor
from scheduler.watchdog import Watchdog

if TYPE_CHECKING:
    from agent.models import Chosen
    from gateway.app import Finn

RUN = "run.json"
PR_SET_DUMPABLE = 4  #: of linux/prctl.h
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
        from agent import models  # these two are half of a start, and come after the port is open
        from gateway.app import Finn

        settings = self._settings
        model = models.choose(_chosen(settings), self.clock)
        try:
            settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise refused(error, settings.data_dir) from error
        auth = Auth.open(settings.data_dir / "auth", clock=self.clock, entropy=system_entropy, token=settings.token)
        finn = self.finn = Finn(settings, model, auth, self.clock, system_entropy, self._port)
        self._redactor = finn.redactor

        def answering() -> None:
            gc.freeze()
            url = settings.entrance(self._port).url
            note = {"pid": os.getpid(), "url": url, "epoch": finn.epoch, "since": iso(self.clock.now())}
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


def hide_memory() -> None:
    """Keeps processes of the same user from reading this one's memory and environment. Linux only; raises OSError."""
    import ctypes  # imported on use: only a serving process needs it

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE) was refused")


def run_path(data_dir: Path) -> Path:
    """Where the running gateway says who and where it is."""
    return data_dir / RUN


def _chosen(settings: Settings) -> "Chosen":
    from agent.models import Chosen

    anthropic, openai = settings.anthropic_api_key, settings.openai_api_key
    return Chosen(
        model=settings.model,
        base_url=settings.model_base_url,
        anthropic_key=anthropic.reveal() if anthropic else None,
        openai_key=openai.reveal() if openai else None,
    )
