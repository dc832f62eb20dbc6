"""The one place where a tool call is refused.

    name, arguments ─▶ known? ─▶ capabilities allowed? ─▶ sandbox ready? ─▶ arguments fit? ─▶ path allowed? ─▶ Prepared
                          └───────────┴──────────────────────┴────────────────┴───────────────────┴────────▶ Refusal

A decision and no effect: it looks at no disk. What tools may write is the workspace, less git's own folder, and of the
grimoires the state zone: NOTES.md and memory/. The identity is the system zone; tools read it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from agent.confine import PathError, Place, locate
from agent.tool import Capability, Site, Tool
from persistence.events import Json, Value
from persistence.values import is_text

EVERYTHING: frozenset[Capability] = frozenset(get_args(Capability))
FAULTS_SHOWN = 5
PATH = "path"  #: the argument that names a file, in every tool that has one


@dataclass(frozen=True)
class Prepared:
    """A call that may run: `tool.run(args, site, show)`."""

    tool: Tool
    args: Value


@dataclass(frozen=True)
class Refusal:
    """A call that may not; `text` is the result that the model gets, saying why and what it can do instead."""

    text: str


def check(
    name: str, arguments: Mapping[str, Json], *, tools: Sequence[Tool], allowed: frozenset[Capability], site: Site
) -> Prepared | Refusal:
    """Lets a call pass or says why not. Raises nothing."""
    tool = next((tool for tool in tools if tool.declaration.name == name), None)
    if tool is None:
        return Refusal(f"There is no tool {name[:100]!r}; there are {', '.join(t.declaration.name for t in tools)}.")
    reason = _missing(tool, allowed) or _unready(tool, site)
    if reason:
        return Refusal(reason)
    try:
        args = tool.declaration.args.model_validate(dict(arguments))
    except ValidationError as error:
        return Refusal(_faults(name, error))
    reason = _unsound(name, args) or _closed(tool, args, site)
    return Refusal(reason) if reason else Prepared(tool, args)


def sealed(place: Place) -> str | None:
    """Why no tool may write there, or None."""
    if place.zone == "grimoires" and not _state(place.names):
        return f"{place} is not yours to change; in grimoires you can write NOTES.md and files in memory/ only."
    if any(name.casefold() == ".git" for name in place.names):
        return f"{place} belongs to git, which runs what stands there; use the git command in bash."
    return None


def _state(names: tuple[str, ...]) -> bool:
    """Whether it is what the agent keeps for itself; everything else in grimoires is its identity."""
    return names == ("NOTES.md",) or (names[:1] == ("memory",) and len(names) > 1)


def _missing(tool: Tool, allowed: frozenset[Capability]) -> str | None:
    lacking = sorted(tool.declaration.capabilities - allowed)
    if not lacking:
        return None
    return f"{tool.declaration.name} needs the capability {', '.join(lacking)}, which is not allowed here."


def _unready(tool: Tool, site: Site) -> str | None:
    if "exec" not in tool.declaration.capabilities or not site.sandbox.refused:
        return None
    return f"{tool.declaration.name} is not available: {site.sandbox.rung.reason}. The other tools work."


def _unsound(name: str, args: Value) -> str | None:
    if is_text(args.model_dump()):
        return None
    return f"{name} was not called: the arguments hold half a character (a lone surrogate), which is no text."


def _closed(tool: Tool, args: Value, site: Site) -> str | None:
    path = getattr(args, PATH, None)
    if path is None:
        return None
    try:
        place = locate(path, site.workspace, site.grimoires)
    except PathError as error:
        return str(error)
    return sealed(place) if "write" in tool.declaration.capabilities else None


def _faults(name: str, error: ValidationError) -> str:
    told = error.errors(include_url=False, include_context=False)
    # Of a list whose items are at fault pydantic also says that it is too short without them.
    faults = [
        one for one in told if not any(other["loc"][: len(one["loc"])] == one["loc"] != other["loc"] for other in told)
    ]
    more = f"; and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
    return f"{name} was not called: " + "; ".join(map(_fault, faults[:FAULTS_SHOWN])) + more + "."


def _fault(fault: ErrorDetails) -> str:
    field = ".".join(map(str, fault["loc"]))[:100]
    match fault["type"]:
        case "missing":
            return f"{field} is missing"
        case "extra_forbidden":
            return f"{field} is not one of its arguments"
        case _:
            said = fault["msg"]
            return f"{field}: {said[:1].lower()}{said[1:]}"
