"""The log: one valid JSON line each, whatever is put in, and never a wait for whoever reads it."""

import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gateway import logs
from gateway.logs import MAX_FIELD, REQUEST_ID, logging_to

logger = logging.getLogger("finn.test")


def unchanged(text: str) -> str:
    return text


@contextmanager
def logged(level: str = "info", redact: Callable[[str], str] = unchanged) -> Iterator[list[dict[str, Any]]]:
    """Lines as they were written, once the block is over."""
    stream, lines = io.StringIO(), list[dict[str, Any]]()
    with logging_to(stream, level, redact):
        yield lines
    lines.extend(json.loads(line) for line in stream.getvalue().splitlines())


def test_a_line_says_when_how_bad_and_what() -> None:
    with logged() as lines:
        logger.info("answered %s", "at once", extra={"status": 200, "ms": 1.5, "cached": False, "parts": ["a", 1]})
    (line,) = lines
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "finn.test",
        "msg": "answered at once",
        "status": 200,
        "ms": 1.5,
        "cached": False,
        "parts": ["a", 1],
    }


def test_a_line_carries_the_request_it_belongs_to() -> None:
    token = REQUEST_ID.set("r-1")
    try:
        with logged() as lines:
            logger.info("answered")
    finally:
        REQUEST_ID.reset(token)
    assert lines[0]["request_id"] == "r-1"


def test_what_is_below_the_level_is_left_out() -> None:
    with logged("warning") as lines:
        logger.info("quiet")
        logger.warning("loud")
    assert [line["msg"] for line in lines] == ["loud"]


@pytest.mark.parametrize(
    "nasty", ['a\x1b[2J{"level":"admin"}', "a\nb\r\n", "\x7f\x9b31m", "\u2028\u2029", "\ud800", '"\\']
)
def test_nothing_that_is_put_in_breaks_out_of_its_line(nasty: str) -> None:
    stream = io.StringIO()
    with logging_to(stream, "info", unchanged):
        logger.info("%s", nasty, extra={"agent": nasty, "path": nasty * 5000})
    (line,) = stream.getvalue().removesuffix("\n").split("\n")
    assert all(" " <= character <= "~" for character in line)
    assert json.loads(line)["msg"] == nasty and json.loads(line)["level"] == "info"


def test_a_field_is_cut_where_it_gets_long() -> None:
    with logged() as lines:
        logger.info("x" * 15_000, extra={"agent": "y" * 15_000})
    assert (len(lines[0]["msg"]), len(lines[0]["agent"])) == (MAX_FIELD, MAX_FIELD)


def test_a_secret_is_taken_out_before_the_cut() -> None:
    with logged(redact=lambda text: text.replace("CANARY", "[REDACTED:x]")) as lines:
        logger.info("CANARY", extra={"path": "p" * (MAX_FIELD - 3) + "CANARY", "all": ["CANARY"]})
    assert "CAN" not in json.dumps(lines)


def test_an_error_tells_what_it_was_and_where_it_came_from() -> None:
    with logged() as lines:
        try:
            raise ValueError("this\nway")
        except ValueError:
            logger.exception("it failed")
    assert lines[0]["error"] == "ValueError: this\nway"
    assert lines[0]["trace"][-1].endswith("test_an_error_tells_what_it_was_and_where_it_came_from")


def test_of_a_group_of_errors_the_first_is_told() -> None:
    with logged() as lines:
        try:
            raise ExceptionGroup("two at once", [ExceptionGroup("inside", [ValueError("this way")]), KeyError("later")])
        except ExceptionGroup:
            logger.exception("it failed")
    assert lines[0]["error"] == "ValueError: this way"


class Stuck(io.StringIO):
    """A stderr whose reader has gone to lunch."""

    def __init__(self) -> None:
        super().__init__()
        self.back = threading.Event()

    def write(self, text: str) -> int:
        self.back.wait(20)
        return super().write(text)


def test_a_reader_who_does_not_read_costs_lines_and_not_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_WAITING", 3)
    stream = Stuck()
    with logging_to(stream, "info", unchanged):
        for i in range(10):
            logger.info("line %d", i)
        stream.back.set()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    told = [line for line in lines if line["msg"] == "log lines were dropped"]
    assert len(told) == 1 and told[0]["count"] == 10 - (len(lines) - 1) > 0


def test_a_reader_who_never_reads_again_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LAST_LINES_S", 0.01)
    stream = Stuck()
    with logging_to(stream, "info", unchanged):
        logger.info("said to nobody")
    assert stream.getvalue() == ""
    stream.back.set()


def test_a_log_that_is_closed_under_our_feet_hurts_nobody() -> None:
    stream = io.StringIO()
    with logging_to(stream, "info", unchanged):
        stream.close()
        logger.info("said to nobody")
