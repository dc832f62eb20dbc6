"""recall: the lines of the agent's own notes that hold the words asked for.

Whole words, whatever their case. The lines with most of the words come first; among equals those of NOTES.md, and of
one file the last, since a note further down is the newer one. An empty query gives them all in that order.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from agent.confine import Missing, Place, entries, whole
from agent.tool import Declaration, FileTool, Site, ToolResult
from agent.tools.excerpt import head, sound
from agent.tools.remember import MEMORY, NOTES, NOTES_BYTES
from persistence.events import Value

RESULTS = 50
LINE_CHARS = 500
WORD = re.compile(r"\w+")


class Arguments(Value):
    query: Annotated[str, Field(max_length=1000)] = ""


@dataclass(frozen=True)
class Note:
    """A line of the notes, and how many of the words asked for it holds."""

    path: str
    number: int
    text: str
    words: int


def recall(args: Arguments, site: Site) -> ToolResult:
    """`path:line: text` for each line found, best first; or that nothing was."""
    asked = words(args.query)
    if args.query and not asked:
        return ToolResult(f"There is no word in {args.query!r}; leave it empty for all notes.", is_error=True)
    found = [note for place in _places(site) for note in _notes(place, asked)]
    found.sort(key=lambda note: -note.words)
    if not found:
        return ToolResult(f"Nothing found about {args.query}." if asked else "There are no notes yet.")
    shown = head("\n".join(f"{note.path}:{note.number}: {note.text[:LINE_CHARS]}" for note in found), RESULTS)
    more = f"\n[{len(found) - shown.lines} more lines. Use more words.]" if shown.ended_by else ""
    return ToolResult(shown.text + more, truncated=bool(more))


def words(text: str) -> set[str]:
    """The words of a text, without their case."""
    return set(WORD.findall(text.casefold()))


def _notes(place: Place, asked: set[str]) -> Iterator[Note]:
    """The notes of one file that hold any of the words (all notes, where none is asked for), the last one first."""
    try:
        lines = whole(place, NOTES_BYTES).decode(errors="replace").split("\n")
    except Missing:
        return
    for number in range(len(lines), 0, -1):
        text = lines[number - 1].strip()
        held = len(asked & words(text))
        if held or (text and not asked):
            yield Note(sound(str(place)), number, text, held)


def _places(site: Site) -> Iterator[Place]:
    grimoires = Place("grimoires", site.grimoires, ())
    memory = grimoires.below(MEMORY)
    yield grimoires.below(NOTES)
    try:
        named = entries(memory)
    except Missing:
        return
    yield from (memory.below(entry.name) for entry in named if entry.kind == "file" and entry.name.endswith(".md"))


RECALL = FileTool(
    Declaration(
        name="recall",
        description="Search what was remembered, by words; no query gives all.",
        args=Arguments,
        capabilities=frozenset({"read"}),
    ),
    recall,
)
