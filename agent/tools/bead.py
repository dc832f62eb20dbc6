"""bead: tracked work. The agent adds to it, looks at it, comments on it and closes what is done.

What it adds is `task:proposed`: only the owner makes it ready to be worked on. Labels that are states, and everything
else about a bead, are the owner's as well; persistence/changes.py holds that for whatever a tool may come to ask.
"""

from typing import Literal

from agent.tool import Declaration, Show, Site, ToolResult
from persistence.bead import Bead
from persistence.edges import find
from persistence.errors import Ambiguous, FinnError, NotFound
from persistence.events import TOOL, Json, Value
from persistence.ready import ById, Query, ready, select

SHOWN = 50  #: beads of a list
TEXT_CHARS = 4000  #: of a bead's texts, when it is shown
NAME = "agent"  #: who made it and who commented, as the file has it


class Arguments(Value):
    action: Literal["add", "list", "ready", "show", "comment", "close"]
    task: str = ""
    text: str = ""


class BeadTool:
    """The tool."""

    declaration = Declaration(
        name="bead",
        description="Tasks. task: title or id.",
        args=Arguments,
        capabilities=frozenset({"read", "events"}),
        alone=True,
    )

    async def run(self, args: Arguments, site: Site, show: Show) -> ToolResult:
        """Says what was done, or why it was not."""
        if site.beads is None:
            return ToolResult("There are no tasks to be kept here.", is_error=True)
        try:
            return ToolResult(await ACTIONS[args.action](args, site))
        except FinnError as error:
            return ToolResult(str(error), is_error=True)


async def _add(args: Arguments, site: Site) -> str:
    assert site.beads is not None
    fields: dict[str, Json] = {"title": args.task}
    bead = await site.beads.create({**fields, **({"description": args.text} if args.text else {})}, TOOL, NAME)
    return f"Added {_line(bead)}"


async def _list(args: Arguments, site: Site) -> str:
    assert site.beads is not None
    beads = site.beads.board.beads
    return _lines(select(beads.values(), Query(), site.beads.now), "There are no open tasks.")


async def _ready(args: Arguments, site: Site) -> str:
    assert site.beads is not None
    return _lines(ready(site.beads.board.beads, site.beads.now), "No task is ready.")


async def _show(args: Arguments, site: Site) -> str:
    assert site.beads is not None
    bead = _meant(args.task, site.beads.board.beads)
    parts = [_line(bead), *(bead.text(key) for key in ("description", "design", "acceptance_criteria", "notes"))]
    parts += [f"{one['author']}, {str(one['created_at'])[:16]}: {one['text']}" for one in bead.comments]
    waits = [f"{edge['type']} {edge['depends_on_id']}" for edge in bead.edges]
    parts += [f"labels: {', '.join(bead.labels)}"] if bead.labels else []
    parts += [f"depends on: {', '.join(waits)}"] if waits else []
    text = "\n\n".join(filter(None, parts))
    return text if len(text) <= TEXT_CHARS else f"{text[:TEXT_CHARS]}\n[{len(text) - TEXT_CHARS} characters more]"


async def _comment(args: Arguments, site: Site) -> str:
    assert site.beads is not None
    bead = _meant(args.task, site.beads.board.beads)
    await site.beads.update(bead.id, {"comment": args.text}, TOOL, NAME)
    return f"Commented on {_line(bead)}"


async def _close(args: Arguments, site: Site) -> str:
    assert site.beads is not None
    bead = _meant(args.task, site.beads.board.beads)
    if bead.ended:
        return f"{bead.id} is {bead.status} already: {bead.title}"
    reason = {"close_reason": args.text or "done"}
    return f"Closed {_line(await site.beads.update(bead.id, {'status': 'closed', **reason}, TOOL, NAME))}"


ACTIONS = {"add": _add, "list": _list, "ready": _ready, "show": _show, "comment": _comment, "close": _close}


def _meant(name: str, beads: ById) -> Bead:
    """The bead of an id, or of a title or a part of one. Raises NotFound, Ambiguous."""
    said = " ".join(name.split()).casefold()
    if not said:
        raise NotFound("which task? say its id or its title", hint="list shows them")
    open_ones = [bead for bead in beads.values() if not bead.ended]
    for means in (lambda bead: bead.title.casefold() == said, lambda bead: said in bead.title.casefold()):
        found = sorted((bead for bead in open_ones if means(bead)), key=lambda bead: bead.id)
        if len(found) == 1:
            return found[0]
        if found and said not in beads:
            raise Ambiguous(f"several tasks are called {name[:60]!r}: {_few(found)}", hint="say the id")
    return find(beads, name.strip())


def _few(found: list[Bead]) -> str:
    return ", ".join(bead.id for bead in found[:5])


def _lines(found: list[Bead], none: str) -> str:
    more = f"\n[{len(found) - SHOWN} more]" if len(found) > SHOWN else ""
    return "\n".join(map(_line, found[:SHOWN])) + more if found else none


def _line(bead: Bead) -> str:
    said = "proposed" if "task:proposed" in bead.labels and not bead.ended else bead.status.replace("_", " ")
    return f"{bead.id} [P{bead.priority} {bead.type}, {said}] {bead.title}"


BEAD = BeadTool()
