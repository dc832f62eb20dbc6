"""edit: pieces of a text file replaced, and not a byte of it besides.

Each old text must stand exactly once in the file as it is. If it does not stand there to the letter, line ends, white
space before line ends, quotes, dashes and odd spaces are let pass; also then only the matched span is replaced. New
lines get the line end that the span, or else the file around it, has.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise, takewhile
from typing import Annotated

from pydantic import Field

from agent.confine import PathError, locate, rewrite
from agent.tool import Declaration, FileTool, Site, ToolResult
from agent.tools.excerpt import head
from persistence.events import Value

FILE_BYTES = 8 * 2**20
LOOSE_CHARS = 20_000  #: a longer old text must stand there to the letter
COUNTED = 100  #: occurrences; further ones are not counted
SHOWN = 10  #: line numbers of them
CONTEXT = 4  #: lines around a change in the diff

# The characters of one string are taken for one another.
ALIKE = (
    "'‘’‚‛",
    '"“”„‟',
    "-‐‑‒–—―−",
    " \u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000",
)


class Replacement(Value):
    oldText: Annotated[str, Field(min_length=1)]  # noqa: N815 - Pi's name
    newText: str  # noqa: N815 - Pi's name


class Arguments(Value):
    path: str
    edits: Annotated[tuple[Replacement, ...], Field(min_length=1)]


@dataclass(frozen=True, order=True)
class Span:
    """The characters `start` to `end`, and what comes in their place."""

    start: int
    end: int
    new: str


def edit(args: Arguments, site: Site) -> ToolResult:
    """Makes all replacements or none; the diff is in the details."""
    place = locate(args.path, site.workspace, site.grimoires)
    details: dict[str, object] = {}

    def change(data: bytes | None) -> bytes:
        if data is None:
            raise PathError(f"{place} does not exist", hint="use write to create it")
        text = data.decode(errors="surrogateescape")  # what is no UTF-8 comes back as it was
        spans = chosen(text, args.edits, str(place))
        changed = applied(text, spans)
        if changed == text:
            raise PathError(f"No changes made to {place}", hint="the new text is what stands there already")
        details.update(diff(text, spans))
        return changed.encode(errors="surrogateescape")

    rewrite(place, change, FILE_BYTES)
    return ToolResult(f"Successfully replaced {len(args.edits)} block(s) in {place}.", details=details)


def chosen(text: str, edits: Sequence[Replacement], path: str) -> list[Span]:
    """Where in `text` each edit applies, in order. Raises PathError unless each does once, apart from the others."""
    spans = sorted(_span(text, replacement, path) for replacement in edits)
    for one, other in pairwise(spans):
        if other.start < one.end:
            raise PathError(
                f"Two edits overlap in {path} near line {_line(text, other.start)}", hint="merge them into one edit"
            )
    return spans


def applied(text: str, spans: Sequence[Span]) -> str:
    """`text` with every span replaced."""
    pieces, at = [], 0
    for span in spans:
        pieces += [text[at : span.start], span.new]
        at = span.end
    return "".join([*pieces, text[at:]])


def _span(text: str, replacement: Replacement, path: str) -> Span:
    old = replacement.oldText
    found = list(islice(_exact(text, old), COUNTED)) or list(islice(_loose(text, old), COUNTED))
    if len(found) == 1:
        return Span(*found[0], _fitted(replacement, text, found[0][0]))
    if not found:
        raise PathError(
            f"Could not find the exact text in {path}: {_quoted(old)}.{_nearest(text, old)}",
            hint="the old text must match exactly including all whitespace and newlines; read the file again",
        )
    count = f"at least {COUNTED}" if len(found) == COUNTED else str(len(found))
    lines = ", ".join(str(_line(text, start)) for start, _ in found[:SHOWN]) + (", …" if len(found) > SHOWN else "")
    raise PathError(
        f"Found {count} occurrences of the text in {path} (lines {lines}): {_quoted(old)}",
        hint="the text must be unique; add lines around it",
    )


def _exact(text: str, old: str) -> Iterator[tuple[int, int]]:
    at = text.find(old)
    while at >= 0:
        yield at, at + len(old)
        at = text.find(old, at + 1)


def _loose(text: str, old: str) -> Iterator[tuple[int, int]]:
    if not old.strip() or len(old) > LOOSE_CHARS:
        return iter(())
    return (match.span(1) for match in re.finditer(f"(?=({_pattern(old)}))", text))


def _pattern(old: str) -> str:
    """Line for line. It begins with a character or a line end, never with `any space`, so that it stays linear."""
    first, *others = old.replace("\r\n", "\n").split("\n")
    lines = [line.rstrip(" \t") for line in (first, *others)]
    pattern = _alike(lines[0])
    for number, line in enumerate(lines[1:]):
        pattern += ("" if number == 0 and not lines[0] else r"[ \t]*") + r"\r?\n" + _alike(line)
    return pattern + (r"[ \t]*" if old.endswith((" ", "\t")) else "")


def _alike(line: str) -> str:
    return "".join(_CLASSES.get(character) or re.escape(character) for character in line)


_CLASSES = {character: f"[{re.escape(group)}]" for group in ALIKE for character in group}


def _fitted(replacement: Replacement, text: str, start: int) -> str:
    """The new text with the line ends of the place it goes to, unless the old text spelled them out."""
    if "\r" in replacement.oldText:
        return replacement.newText
    at = text.find("\n", start)
    at = text.rfind("\n", 0, start) if at < 0 else at
    line_end = "\r\n" if at > 0 and text[at - 1] == "\r" else "\n"
    return replacement.newText.replace("\r\n", "\n").replace("\n", line_end)


def _nearest(text: str, old: str) -> str:
    """Where its first line stands, if it stands somewhere: then the rest of it is what differs."""
    first = next(line for line in (*old.split("\n"), old) if line.strip() or line == old).strip()
    at = text.find(first) if first and first != old else -1
    return f" Its first line stands in line {_line(text, at)}." if at >= 0 else ""


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _quoted(old: str) -> str:
    return repr(old if len(old) <= 80 else f"{old[:80]}…")


# ---------------------------------------------------------------- what Pi shows of an edit


@dataclass(frozen=True)
class Hunk:
    """Whole lines: `old` ones from number `first` (counted from 0) on become the `new` ones."""

    first: int
    old: tuple[str, ...]
    new: tuple[str, ...]


def diff(text: str, spans: Sequence[Span]) -> dict[str, object]:
    """`-NN x`, `+NN x` and up to four lines ` NN x` around them, ` ...` for what is left out between."""
    lines = _shown_lines(text)
    hunks = [hunk for hunk in _hunks(text, spans) if hunk.old != hunk.new]
    grown = len(lines) + sum(max(len(hunk.new) - len(hunk.old), 0) for hunk in hunks)
    rows = list(_rows(lines, hunks, len(str(max(grown, 1)))))
    return {"diff": head(_sound("\n".join(rows))).text, "firstChangedLine": hunks[0].first + 1 if hunks else 1}


def _rows(lines: Sequence[str], hunks: Sequence[Hunk], width: int) -> Iterator[str]:
    shift = at = 0
    for number, hunk in enumerate(hunks):
        yield from _context(lines, at, hunk.first, width, after=number > 0, before=True)
        for offset, line in enumerate(hunk.old):
            yield f"-{hunk.first + offset + 1:>{width}} {line}"
        for offset, line in enumerate(hunk.new):
            yield f"+{hunk.first + shift + offset + 1:>{width}} {line}"
        shift += len(hunk.new) - len(hunk.old)
        at = hunk.first + len(hunk.old)
    yield from _context(lines, at, len(lines), width, after=True, before=False)


def _context(lines: Sequence[str], start: int, end: int, width: int, *, after: bool, before: bool) -> Iterator[str]:
    """The unchanged lines `start` to `end`: those that follow a change and those that come before one."""
    first = range(start, min(start + CONTEXT, end) if after else start)
    last = range(max(first.stop, end - CONTEXT) if before else end, end)
    yield from (f" {at + 1:>{width}} {lines[at]}" for at in first)
    if last.start > first.stop:
        yield f" {'':>{width}} ..."
    yield from (f" {at + 1:>{width}} {lines[at]}" for at in last)


def _hunks(text: str, spans: Sequence[Span]) -> Iterator[Hunk]:
    """Each span widened to whole lines; spans that share a line share a hunk."""
    group: list[Span] = []
    for span in spans:
        if group and _line_start(text, span.start) > _line_stop(text, group[-1].end):
            yield _hunk(text, group)
            group = []
        group.append(span)
    yield _hunk(text, group)


def _hunk(text: str, spans: Sequence[Span]) -> Hunk:
    start, stop = _line_start(text, spans[0].start), _line_stop(text, spans[-1].end)
    moved = [Span(span.start - start, span.end - start, span.new) for span in spans]
    old, new = _shown_lines(text[start:stop]), _shown_lines(applied(text[start:stop], moved))
    same = sum(1 for _ in takewhile(_equal, zip(old, new, strict=False)))
    old, new = old[same:], new[same:]
    tail = sum(1 for _ in takewhile(_equal, zip(reversed(old), reversed(new), strict=False)))
    first = text.count("\n", 0, start) + same
    return Hunk(first, tuple(old[: len(old) - tail]), tuple(new[: len(new) - tail]))


def _equal(pair: tuple[str, str]) -> bool:
    return pair[0] == pair[1]


def _line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def _line_stop(text: str, at: int) -> int:
    stop = text.find("\n", at)
    return len(text) if stop < 0 else stop


def _shown_lines(text: str) -> list[str]:
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def _sound(text: str) -> str:
    return text.encode(errors="surrogateescape").decode(errors="replace")


EDIT = FileTool(
    Declaration(
        name="edit",
        description="Replace text in a file. Each oldText must occur exactly once; all edits match the original file.",
        args=Arguments,
        capabilities=frozenset({"read", "write"}),
        alone=True,
    ),
    edit,
)
