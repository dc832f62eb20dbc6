"""remember: one dated line in the agent's own notes, `NOTES.md` or `memory/<topic>.md`.

    - 2026-11-20: The owner's cat is called Momo.

What already stands there word for word, whatever its date, is not written twice.
"""

import re
from typing import Annotated

from pydantic import Field

from agent.confine import Place, rewrite
from agent.tool import Declaration, FileTool, Site, ToolResult
from persistence.clock import iso
from persistence.events import Value

NOTES = "NOTES.md"
MEMORY = "memory"
NOTES_BYTES = 2**20  #: of one file of notes
LINE = re.compile(r"- \d{4}-\d\d-\d\d: (.*)")


class Arguments(Value):
    text: Annotated[str, Field(min_length=1, max_length=2000)]
    topic: Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9-]{0,63})?$")] = ""


def remember(args: Arguments, site: Site) -> ToolResult:
    """Says where the line stands now, or that it stood there before."""
    place = Place("grimoires", site.grimoires, (MEMORY, f"{args.topic}.md") if args.topic else (NOTES,))
    text = " ".join(args.text.split())
    if not text:
        return ToolResult("There is nothing to remember: the text is empty.", is_error=True)
    known: list[bool] = []

    def change(data: bytes | None) -> bytes:
        before = data or b""
        known.append(text in notes(before))
        return before if known[-1] else _ended(before) + f"- {iso(site.clock.now())[:10]}: {text}\n".encode()

    rewrite(place, change, NOTES_BYTES)
    return ToolResult(f"{place} has this already." if known[-1] else f"Remembered in {place}.")


def notes(data: bytes) -> set[str]:
    """The texts that stand in a file of notes, without their dates."""
    lines = data.decode(errors="replace").split("\n")
    return {match[1].strip() for line in lines if (match := LINE.fullmatch(line.strip()))}


def _ended(data: bytes) -> bytes:
    return data if not data or data.endswith(b"\n") else data + b"\n"


REMEMBER = FileTool(
    Declaration(
        name="remember",
        description="Keep a fact for all future sessions, in NOTES.md or memory/topic.md.",
        args=Arguments,
        capabilities=frozenset({"write"}),
        alone=True,
    ),
    remember,
)
