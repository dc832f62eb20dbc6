"""One JSON line for each thing worth telling an operator, written by a thread so that the loop never waits for stderr.

    {"ts":"2026-11-20T10:00:00Z","level":"info","logger":"finn","msg":"answered","request_id":"01J…","status":200}

`logger.info("answered", extra={"status": 200})` adds fields. What others wrote into them (paths, names, ids) is an
attacker's text: secrets are taken out, then each field is cut to 256 characters, and control characters leave as \\u
escapes.
"""

import json
import logging
import queue
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from typing import TextIO

from persistence.clock import iso
from persistence.errors import first
from persistence.values import Json

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)

MAX_FIELD = 256  #: characters
MAX_SEARCHED = 4096  #: characters of a field in which secrets are looked for; all that could be left after the cut
MAX_FRAMES = 20  #: of a traceback, the innermost
MAX_WAITING = 10_000  #: lines that stderr has not taken yet; beyond them lines are dropped and counted
LAST_LINES_S = 2.0  #: that the end waits for the last lines to be taken
LEVELS = ("debug", "info", "warning", "error")
QUIET = ("uvicorn.error", "uvicorn.asgi", "asyncio")  #: their notes say what ours say better; warnings pass

#: What every LogRecord has, and uvicorn's coloured twin of the message: no fields of ours.
STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}


class JsonLine(logging.Formatter):
    """A log record as one line of JSON."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        fields = {name: value for name, value in vars(record).items() if name not in STANDARD}
        line = {
            "ts": iso(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
            "request_id": REQUEST_ID.get(),
            **fields,
            **_told_error(record),
        }
        return json.dumps({name: self._field(value) for name, value in line.items() if value is not None}).replace(
            "\x7f", "\\u007f"
        )

    def _field(self, value: object) -> Json:
        if isinstance(value, bool | int | float):
            return value
        if isinstance(value, list | tuple):
            return [self._field(item) for item in value[:MAX_FRAMES]]
        return self._redact(str(value)[:MAX_SEARCHED])[:MAX_FIELD]


def _told_error(record: logging.LogRecord) -> Mapping[str, Json]:
    """The exception of a record in two fields: what it said, and the way to it. Of a group it is the first."""
    if not record.exc_info or record.exc_info[1] is None:
        return {}
    error = first(record.exc_info[1])
    frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
    return {
        "error": f"{type(error).__name__}: {error}",
        "trace": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }


class Mailbox(logging.Handler):
    """Takes lines at once and writes them in a thread; when nobody reads, it drops lines and later says how many."""

    def __init__(self, stream: TextIO, redact: Callable[[str], str]) -> None:
        super().__init__()
        self.setFormatter(JsonLine(redact))
        self._stream = stream
        self._waiting: queue.Queue[str | None] = queue.Queue(MAX_WAITING)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write_all, name="logs", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._waiting.put_nowait(self.format(record))
        except queue.Full:
            self._dropped += 1

    def finish(self) -> None:
        """Writes what waits and ends the thread; a reader who does not read is not waited for."""
        with suppress(queue.Full):
            self._waiting.put(None, timeout=LAST_LINES_S)
            self._thread.join(LAST_LINES_S)

    def _write_all(self) -> None:
        while (line := self._waiting.get()) is not None:
            self._write(line)
            if self._dropped:
                self._write(self._confession())

    def _write(self, line: str) -> None:
        with suppress(OSError, ValueError):  # a log that cannot be written cannot be complained about in the log
            self._stream.write(line + "\n")
            self._stream.flush()

    def _confession(self) -> str:
        with self.lock or nullcontext():
            count, self._dropped = self._dropped, 0
        told = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING", "msg": "log lines were dropped"}
        return self.format(logging.makeLogRecord({**told, "count": count}))


@contextmanager
def logging_to(stream: TextIO, level: str, redact: Callable[[str], str]) -> Iterator[Callable[[], None]]:
    """While open, everything that is logged goes to `stream` as JSON lines; at the end the last ones are written.

    What it gives writes them too, for a process that ends without coming to an end.
    """
    mailbox = Mailbox(stream, redact)
    root = logging.getLogger()
    before = root.level
    root.addHandler(mailbox)
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    try:
        yield mailbox.finish
    finally:
        root.removeHandler(mailbox)
        root.setLevel(before)
        mailbox.finish()
