"""find: files and folders by name, or the lines of files that hold a text.

    pattern without /   matches the name, at any depth          *.py
    pattern with /      matches the whole path below `path`     src/**/test_*.py
    text                a literal, no expression: each file is passed once, so no text takes long

A folder is entered once and no link is followed. `*`, `?` and `[a-z]` stay within a name, `**` stands for any folders.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field

from agent.confine import Entry, PathError, Place, entries, is_folder, locate, whole
from agent.tool import Declaration, FileTool, Site, ToolResult
from agent.tools.excerpt import BYTES, head, size, sound
from persistence.events import Value

RESULTS = 1000
VISITS = 100_000  #: entries looked at in one call
LINE_CHARS = 500
SEARCHED_BYTES = 8 * 2**20  #: of one file; a larger one is counted as left out
SEARCHED_IN_ALL = 512 * 2**20  #: bytes in one call
SKIPPED = frozenset({".git", "node_modules", ".venv", "__pycache__"})


class Arguments(Value):
    pattern: Annotated[str, Field(max_length=1000)]
    path: str = "."
    text: Annotated[str, Field(max_length=1000)] = ""


def find(args: Arguments, site: Site) -> ToolResult:
    """Paths (folders end in /), or `path:line: text`, in the order of their names."""
    place = locate(args.path, site.workspace, site.grimoires)
    if not is_folder(place):
        raise PathError(f"{place} is not a folder", hint="use read for a file")
    search = Search(args, place)
    lines = search.lines()
    shown = head("\n".join(lines))
    notes = search.notes + ([f"{size(BYTES)} limit reached"] if shown.ended_by else [])
    footer = "\n\n[" + "; ".join(notes) + ". Use a narrower pattern or path.]" if notes else ""
    return ToolResult((shown.text.rstrip("\n") or _nothing(args, place)) + footer, truncated=bool(notes))


class Search:
    """One walk through the folders below `place`; `notes` says what it left out."""

    def __init__(self, args: Arguments, place: Place) -> None:
        self.notes: list[str] = []
        self._args = args
        self._place = place
        self._pattern = tuple(name for name in args.pattern.split("/") if name not in ("", ".")) or ("**",)
        self._left_out = self._closed = 0  #: files and folders
        self._searched = 0  #: bytes

    def lines(self) -> list[str]:
        found: list[str] = []
        for line in self._found():
            if len(found) == RESULTS:
                self.notes.append(f"{RESULTS} results limit reached")
                break
            found.append(line)
        if self._left_out:
            limits = f"larger than {size(SEARCHED_BYTES)}, not readable, or beyond {size(SEARCHED_IN_ALL)} in all"
            self.notes.append(f"{self._left_out} files not searched: {limits}")
        if self._closed:
            self.notes.append(f"{self._closed} folders left out: not readable, or too deep")
        return found

    def _found(self) -> Iterator[str]:
        for place, entry in self._walk():
            if not fits(self._pattern, place.names[len(self._place.names) :]):
                continue
            if not self._args.text:
                yield sound(str(place)) + ("/" if entry.kind == "folder" else "")
            elif entry.kind == "file":
                yield from self._holding(place)

    def _walk(self) -> Iterator[tuple[Place, Entry]]:
        """Everything below, folder by folder and not by recursion: a folder may be deeper than Python's stack."""
        waiting = [self._place]
        visits = 0
        while waiting:
            folder = waiting.pop()
            inner = []
            for entry in self._entries(folder):
                visits += 1
                if visits > VISITS:
                    self.notes.append(f"stopped after {VISITS} entries")
                    return
                if entry.kind == "folder" and entry.name in SKIPPED:
                    continue
                yield folder.below(entry.name), entry
                if entry.kind == "folder":
                    inner.append(folder.below(entry.name))
            waiting += reversed(inner)

    def _entries(self, folder: Place) -> list[Entry]:
        try:
            return entries(folder)
        except PathError:
            if folder is self._place:
                raise
            self._closed += 1
            return []

    def _holding(self, place: Place) -> Iterator[str]:
        try:
            data = whole(place, min(SEARCHED_BYTES, SEARCHED_IN_ALL - self._searched))
        except PathError:
            self._left_out += 1
            return
        self._searched += len(data)
        if b"\0" not in data:
            for number, line in matching(data, self._args.text.encode()):
                yield f"{sound(str(place))}:{number}: {line.decode(errors='replace')[:LINE_CHARS].strip()}"


def fits(pattern: tuple[str, ...], names: tuple[str, ...]) -> bool:
    """Whether a path matches; without a slash in the pattern its last name alone counts.

    Walks both once, keeping every place in the pattern that may have been reached: no pattern makes it slow.
    """
    if len(pattern) == 1 and pattern != ("**",):
        return fnmatchcase(names[-1], pattern[0])
    reached = _past_stars(pattern, {0})
    for name in names:
        inner = {at for at in reached if at < len(pattern)}
        stay = {at for at in inner if pattern[at] == "**"}
        step = {at + 1 for at in inner - stay if fnmatchcase(name, pattern[at])}
        reached = _past_stars(pattern, stay | step)
    return len(pattern) in reached


def _past_stars(pattern: tuple[str, ...], reached: set[int]) -> set[int]:
    """`**` may stand for no folder at all."""
    past = set(reached)
    for at in range(len(pattern)):
        if at in past and pattern[at] == "**":
            past.add(at + 1)
    return past


def matching(data: bytes, text: bytes) -> Iterator[tuple[int, bytes]]:
    """Each line of `data` that holds `text`, with its number. A text of several lines is found by where it begins."""
    number, counted = 1, 0
    at = data.find(text)
    while at >= 0:
        number += data.count(b"\n", counted, at)
        start = data.rfind(b"\n", 0, at) + 1
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        yield number, data[start:end]
        counted = at
        at = data.find(text, end)


def _nothing(args: Arguments, place: Place) -> str:
    holding = f" holding {args.text!r}" if args.text else ""
    return f"Nothing found: no {args.pattern}{holding} in {place if str(place) != '.' else 'the workspace'}."


FIND = FileTool(
    Declaration(
        name="find",
        description="Find files by glob (* ? [] **), or lines in them that hold a literal text.",
        args=Arguments,
        capabilities=frozenset({"read"}),
    ),
    find,
)
