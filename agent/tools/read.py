"""read: a part of a text file, or the list of a folder.

Never more in memory than is shown: the start is found by counting line ends, one piece of BYTES is read from there, and
the rest is counted (up to COUNTED_BYTES) for the line that tells how to go on.
"""

import os
import shlex
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from agent.confine import PathError, Place, entries, is_folder, locate, reading
from agent.tool import Declaration, FileTool, Site, ToolResult
from agent.tools.excerpt import BYTES, LINES, Head, head, size, sound
from persistence.events import Value

CHUNK_BYTES = 256 * 1024
COUNTED_BYTES = 256 * 2**20  #: further lines are not looked for, nor counted
SNIFFED_BYTES = 8 * 1024

MARKS = {"file": "", "folder": "/", "link": "@", "other": "|"}

# What is no text, by its first bytes; anything else with a NUL in its first SNIFFED_BYTES is "a binary file".
SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x7fELF", "a program (ELF)"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)


class Arguments(Value):
    path: str
    offset: Annotated[int, Field(ge=1)] = 1
    limit: Annotated[int, Field(ge=1)] = LINES


def read(args: Arguments, site: Site) -> ToolResult:
    """The lines from `offset` on, at most `limit`, with a footer that says how to get the next ones."""
    place = locate(args.path, site.workspace, site.grimoires)
    if is_folder(place):
        return _folder(place, args)
    with reading(place) as descriptor:
        weight = os.fstat(descriptor).st_size
        kind = _kind(os.pread(descriptor, SNIFFED_BYTES, 0))
        if kind:
            return ToolResult(f"{place} is {kind}, {size(weight)}; read shows text only.")
        return _lines(place, descriptor, args) if weight else ToolResult(f"{place} is empty.")


def _folder(place: Place, args: Arguments) -> ToolResult:
    names = [sound(entry.name) + MARKS[entry.kind] for entry in entries(place)]
    if not names:
        return ToolResult(f"{place} is an empty folder.")
    if args.offset > len(names):
        raise _beyond(place, args.offset, f"{len(names)} entries")
    shown = head("\n".join(names[args.offset - 1 :]), min(args.limit, LINES))
    last = args.offset - 1 + shown.lines
    if last == len(names):
        return ToolResult(shown.text)
    footer = f"[Showing entries {args.offset}-{last} of {len(names)}. Use offset={last + 1} to continue.]"
    return ToolResult(f"{shown.text}\n{footer}", truncated=True)


def _lines(place: Place, descriptor: int, args: Arguments) -> ToolResult:
    start = _start(descriptor, args.offset)
    piece = b"" if start is None else os.pread(descriptor, BYTES + 1, start)
    if not piece:
        raise _beyond(place, args.offset, f"{_total(descriptor)} lines")
    shown = head(piece.decode(errors="replace"), min(args.limit, LINES))
    if not shown.ended_by:
        return ToolResult(shown.text)
    footer = _footer(descriptor, args, shown) if shown.lines else _long_line(place, args.offset)
    return ToolResult(f"{shown.text}\n{footer}" if shown.lines else footer, truncated=True)


def _footer(descriptor: int, args: Arguments, shown: Head) -> str:
    last = args.offset + shown.lines - 1
    limit = f" ({size(BYTES)} limit)" if shown.ended_by == "bytes" else ""
    return f"[Showing lines {args.offset}-{last} of {_total(descriptor)}{limit}. Use offset={last + 1} to continue.]"


def _long_line(place: Place, line: int) -> str:
    way = (
        f" Use bash: sed -n '{line}p' {shlex.quote(str(place))} | head -c {BYTES}" if place.zone == "workspace" else ""
    )
    return f"[Line {line} exceeds the {size(BYTES)} limit.{way}]"


def _beyond(place: Place, offset: int, total: str) -> PathError:
    return PathError(f"offset {offset} is beyond the end of {place}, which has {total}", hint="use a smaller offset")


def _kind(start: bytes) -> str | None:
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "a WebP image"
    known = next((kind for signature, kind in SIGNATURES if start.startswith(signature)), None)
    return known or ("a binary file" if b"\0" in start else None)


def _start(descriptor: int, line: int) -> int | None:
    """The byte where `line` (from 1) begins; None if it lies beyond what is looked at."""
    left = line - 1
    for position, chunk in _chunks(descriptor):
        ends = chunk.count(b"\n")
        if ends >= left:
            return position + len(chunk) - len(chunk.split(b"\n", left)[-1])
        left -= ends
    return None


def _total(descriptor: int) -> str:
    """How many lines the file has, or more than how many."""
    ends, looked, last = 0, 0, b"\n"
    for _, chunk in _chunks(descriptor):
        ends += chunk.count(b"\n")
        looked += len(chunk)
        last = chunk[-1:]
    if looked >= COUNTED_BYTES:
        return f"more than {ends}"
    return str(ends + (last != b"\n"))


def _chunks(descriptor: int) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < COUNTED_BYTES and (chunk := os.pread(descriptor, CHUNK_BYTES, position)):
        yield position, chunk
        position += len(chunk)


READ = FileTool(
    Declaration(
        name="read",
        description="Read a text file, or list a folder.",
        args=Arguments,
        capabilities=frozenset({"read"}),
    ),
    read,
)
