"""What of a long text the model gets: at most LINES lines and BYTES bytes, in valid UTF-8.

    head   whole lines from the start                      of files and lists
    Ends   the first half and the last half of a stream    of commands, in bounded memory however much they write

Bytes that are no UTF-8 become the replacement character.
"""

import codecs
import io
import os
import re
from dataclasses import dataclass
from typing import Literal

LINES = 2000
BYTES = 50 * 1024
HALF_LINES = LINES // 2
HALF_BYTES = BYTES // 2
CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Head:
    """The first whole lines of a text, how many they are, and which limit ended them (none: it is all there)."""

    text: str
    lines: int
    ended_by: Literal["", "lines", "bytes"] = ""


def head(text: str, lines: int = LINES) -> Head:
    """Cuts `text` after so many lines, and before the line that would pass BYTES."""
    end = taken = weight = 0
    for line in io.StringIO(text):
        weight += len(line.encode(errors="replace"))
        if taken == lines or weight > BYTES:
            return Head(text[:end], taken, "lines" if taken == lines else "bytes")
        end += len(line)
        taken += 1
    return Head(text, taken)


def size(count: int) -> str:
    """`900B`, `50.0KB`, `1.2MB`."""
    if count < 1024:
        return f"{count}B"
    return f"{count / 1024:.1f}KB" if count < 1024**2 else f"{count / 1024**2:.1f}MB"


def sound(name: str) -> str:
    """A name from the disk as one line of valid text: what has no sign becomes the replacement character."""
    return CONTROLS.sub("\ufffd", os.fsencode(name).decode(errors="replace"))


class Ends:
    """Takes bytes as they come; keeps the first BYTES, the last HALF_BYTES, and counts what lies between."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._first = bytearray()
        self._last = bytearray()
        self._bytes = 0
        self._line_ends = 0

    def feed(self, data: bytes, *, final: bool = False) -> str:
        """Adds `data` and gives it back as text."""
        text = self._decode(data, final)
        clean = text.encode()
        self._bytes += len(clean)
        self._line_ends += clean.count(b"\n")
        room = BYTES - len(self._first)
        self._first += clean[:room]
        self._last += clean[room:]
        if len(self._last) > 8 * HALF_BYTES:
            del self._last[:-HALF_BYTES]
        return text

    def text(self) -> tuple[str, bool]:
        """What is kept, with a line that says how much is missing in the middle; and whether anything is."""
        self.feed(b"", final=True)
        if self._bytes <= BYTES and self._line_ends <= LINES:
            return self._first.decode(), False
        first = bytes(self._first[:HALF_BYTES])
        first = first[: len(first) - len(b"\n".join(first.split(b"\n", HALF_LINES)[HALF_LINES:]))]
        rest = bytes(self._first + self._last)[len(first) :]
        last = b"\n".join(rest[-HALF_BYTES:].split(b"\n")[-HALF_LINES - 1 :])
        lines = self._line_ends - first.count(b"\n") - last.count(b"\n")
        note = f"[... {lines} lines, {size(self._bytes - len(first) - len(last))} left out ...]"
        return "\n".join((_whole(first).rstrip("\n"), note, _whole(last))), True


def _whole(cut: bytes) -> str:
    """Text of bytes that were cut anywhere: a character torn at an end is left out."""
    return cut.decode(errors="ignore")
