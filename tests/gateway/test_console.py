"""What `finn chat` prints while a turn runs."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.console import exchange
from persistence.events import Json

FULL = "no space left for wal (make room on the disk; nothing was changed)"
ENDED = ("turn_end", {"stop_reason": "stop"})


class Line:
    """A socket on which finn says these frames, all of one turn, once it was sent a prompt."""

    def __init__(self, *frames: tuple[str, Json]) -> None:
        self._frames = frames
        self._request_id = ""

    def send(self, text: str) -> None:
        self._request_id = json.loads(text)["request_id"]

    def __iter__(self) -> Iterator[str]:
        said = ("user_message", {"request_id": self._request_id})
        for kind, data in (said, *self._frames):
            yield json.dumps({"type": kind, "turn": "T", "data": data})


def error(message: str) -> tuple[str, Any]:
    return "error", {"code": "storage_full", "message": message, "recoverable": True}


def test_what_an_answer_waits_for_is_said_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    line = Line(error(FULL), error(FULL), error("the disk fails"), ("text_delta", {"delta": "tea"}), ENDED)
    assert exchange(line, "hello") == 0
    said = capsys.readouterr()
    assert said.err.splitlines() == [f"finn: {one}; the answer waits for that" for one in (FULL, "the disk fails")]
    assert said.out == "tea"
