"""`finn serve`: from settings to a process that ends with the right exit code.

    model ─▶ bind ─▶ auth ─▶ serve (starting ─▶ ready: run.json, the login link) ─▶ signal ─▶ drain ─▶ 0

1 where the start or the run failed, with the reason on stderr; never 0 after a crash.
"""

import gc
import json
import os
import sys
from pathlib import Path

from agent import models
from gateway.app import Finn
from gateway.auth import Auth, hide_memory
from gateway.logs import logging_to
from gateway.server import Server, bind
from gateway.settings import Settings, scrub
from persistence.clock import SystemClock, iso, system_entropy
from persistence.disk import SystemDisk, refused, replace
from persistence.errors import FinnError

RUN = "run.json"


def serve(settings: Settings) -> int:
    """Runs finn until it is told to stop; the exit code. Raises FinnError for what keeps it from starting."""
    os.umask(0o077)
    clock = SystemClock()
    model = models.choose(_chosen(settings), clock)
    listener = bind(settings.host, settings.port)
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise refused(error, settings.data_dir) from error
    port = listener.getsockname()[1]
    auth = Auth.open(settings.data_dir / "auth", clock=clock, entropy=system_entropy, token=settings.token)
    scrub()
    if sys.platform == "linux":
        hide_memory()
    finn = Finn(settings, model, auth, clock, system_entropy, port)
    url = settings.entrance(port).url
    run = settings.data_dir / RUN

    def ready() -> None:
        gc.freeze()
        note = {"pid": os.getpid(), "url": url, "epoch": finn.rooms().journal.epoch, "since": iso(clock.now())}
        replace(SystemDisk(), run, json.dumps(note).encode())
        print(f"finn is at {url}\nlog in: {auth.login_url(url)}", flush=True)

    def failed() -> None:
        server.should_exit = True

    server = Server(
        finn.app(ready, failed),
        listener,
        entropy=system_entropy,
        drain=finn.drain,
        budget_s=settings.shutdown_budget,
        proxies=settings.trusted_proxies,
    )
    with logging_to(sys.stderr, settings.log_level, finn.redactor.text):
        code = server.run_to_the_end()
    if finn.failure is None:
        run.unlink(missing_ok=True)
        return code
    if isinstance(finn.failure, FinnError):
        raise finn.failure
    print(f"finn: {finn.failure!r} (the log tells more)", file=sys.stderr)
    return 1


def run_path(data_dir: Path) -> Path:
    """Where the running gateway says who and where it is."""
    return data_dir / RUN


def _chosen(settings: Settings) -> models.Chosen:
    anthropic, openai = settings.anthropic_api_key, settings.openai_api_key
    return models.Chosen(
        model=settings.model,
        base_url=settings.model_base_url,
        anthropic_key=anthropic.reveal() if anthropic else None,
        openai_key=openai.reveal() if openai else None,
    )
