"""What commands print, made harmless for the terminal that shows it: titles, names and answers are others' texts.

    "\\x1b]52;c;…"  ─▶  \\u001b]52;c;…        what steers a terminal is printed as its escape
    "\\x1b[31m"     ─▶  as it is             finn's own few colours pass

The escapes are those of JSON, so what is printed for programs means the same as before. Bytes that are written as bytes
(an export) pass as they are.
"""

import re
from typing import Any, TextIO

#: All but line feeds, tabs and the ends of lines; and halves of characters, which no stream takes.
STEERING = re.compile("(?!\x1b\\[(?:0|3[1236])m)(?:[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]|\r(?!\n))")


class Tame:
    """A text stream that passes on everything but what steers a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes the text, made harmless."""
        self._stream.write(harmless(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def harmless(text: str) -> str:
    """The text with what steers a terminal as escapes."""
    return STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
