"""What is printed steers no terminal, and means the same."""

import io
import json
from typing import TextIO, cast

import pytest

from gateway.terminal import Tame, harmless


@pytest.mark.parametrize(
    "text",
    ["\x1b]52;c;ZXZpbA==\x07", "\x1b[2J", "\x1b[8m", "\x9b2J", "a\rfinn: all is well", "\b\b", "\0", "\x7f", "\udcff"],
)
def test_what_steers_a_terminal_is_printed_as_its_escape(text: str) -> None:
    shown = harmless(text)
    assert shown.isprintable()
    assert shown.encode()
    assert json.loads(f'"{shown}"') == text


@pytest.mark.parametrize(
    "text", ["", "plain", "two\nlines\r\n\tand a tab", "\x1b[31mWARN\x1b[0m", "日本語 ✓ עברית \u2067x\u2069"]
)
def test_everything_else_is_printed_as_it_is(text: str) -> None:
    assert harmless(text) == text


def test_json_means_the_same() -> None:
    value = {"title": "\x1b[2J\x9b\x7f\r\n", "text": "plain"}
    assert json.loads(harmless(json.dumps(value, ensure_ascii=False))) == value


def test_a_stream_is_the_same_but_for_that() -> None:
    written = io.BytesIO()
    below = io.TextIOWrapper(written, encoding="utf-8")
    stream = cast(TextIO, Tame(below))
    print("\x1b[2Jwell", file=stream, flush=True)
    stream.buffer.write(b"\x1b")
    assert written.getvalue() == b"\\u001b[2Jwell\n\x1b"
    assert stream.isatty() is False


def test_a_million_characters_take_no_time() -> None:
    assert len(harmless("a" * 1_000_000 + "\r" * 1_000_000)) == 7_000_000
