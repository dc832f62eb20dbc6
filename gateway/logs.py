"""One JSON line for each thing worth telling an operator, written by a thread so that the loop never waits for stderr.

    {"ts":"2026-11-20T10:00:00Z","level":"info","logger":"finn","msg":"answered","request_id":"01J…","status":200}

`logger.info("answered", extra={"status": 200})` adds fields. What others wrote into them (paths, names, ids) is an
attacker's text: secrets are taken out, then each field is cut to 256 characters, and control characters leave as \\u
escapes.
"""

import json
import logging
import queue
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from logging.handlers import QueueHandler, QueueListener
from typing import TextIO

from persistence.clock import iso
from persistence.events import Json

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)

MAX_FIELD = 256  #: characters
MAX_SEARCHED = 4096  #: characters of a field in which secrets are looked for; all that could be left after the cut
MAX_FRAMES = 20  #: of a traceback, the innermost
MAX_WAITING = 10_000  #: lines that stderr has not taken yet; beyond them lines are dropped and counted
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
    """The exception of a record in two fields: what it said, and the way to it."""
    if not record.exc_info or record.exc_info[1] is None:
        return {}
    error = record.exc_info[1]
    frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
    return {
        "error": f"{type(error).__name__}: {error}",
        "trace": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }


class Mailbox(QueueHandler):
    """Hands finished lines to the writing thread; when that is stuck, drops and says how many."""

    def __init__(self, waiting: "queue.Queue[logging.LogRecord]") -> None:
        super().__init__(waiting)
        self._waiting = waiting
        self._dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        if self._dropped and not self._waiting.full():
            record.msg = f'{record.msg}\n{{"level":"warning","msg":"log lines were dropped","count":{self._dropped}}}'
            self._dropped = 0
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            self._dropped += 1


class _Writer(logging.StreamHandler[TextIO]):
    """Writes lines that are finished already."""

    def format(self, record: logging.LogRecord) -> str:
        return str(record.msg)


@contextmanager
def logging_to(stream: TextIO, level: str, redact: Callable[[str], str]) -> Iterator[None]:
    """While open, everything that is logged goes to `stream` as JSON lines; at the end the last ones are written."""
    waiting: queue.Queue[logging.LogRecord] = queue.Queue(MAX_WAITING)
    mailbox = Mailbox(waiting)
    mailbox.setFormatter(JsonLine(redact))
    listener = QueueListener(waiting, _Writer(stream))
    root = logging.getLogger()
    before = root.level
    root.addHandler(mailbox)
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    listener.start()
    try:
        yield
    finally:
        root.removeHandler(mailbox)
        root.setLevel(before)
        listener.stop()
