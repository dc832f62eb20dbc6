"""The one place where a tool call is refused.

    name, arguments ─▶ known? ─▶ capabilities allowed? ─▶ sandbox ready? ─▶ arguments fit? ─▶ path allowed? ─▶ Prepared
                          └───────────┴──────────────────────┴────────────────┴───────────────────┴────────▶ Refusal

A decision and no effect: it looks at no disk. What tools may write is the workspace, less what makes git run programs,
and of the grimoires the state zone: NOTES.md and memory/. The identity is the system zone; tools read it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from agent.confine import PathError, Place, locate
from agent.tool import Capability, Site, Tool
from persistence.events import Json, Value

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
    reason = _closed(tool, args, site)
    return Refusal(reason) if reason else Prepared(tool, args)


def sealed(place: Place) -> str | None:
    """Why no tool may write there, or None."""
    names = tuple(name.casefold() for name in place.names)
    if place.zone == "grimoires" and place.names != ("NOTES.md",) and place.names[:1] != ("memory",):
        return f"{place} is not yours to change; in grimoires you can write NOTES.md and memory/ only."
    if any(pair in ((".git", "hooks"), (".git", "config")) for pair in pairwise(names)):
        return f"{place} would make git run programs; it is not writable by tools."
    return None


def _missing(tool: Tool, allowed: frozenset[Capability]) -> str | None:
    lacking = sorted(tool.declaration.capabilities - allowed)
    if not lacking:
        return None
    return f"{tool.declaration.name} needs the capability {', '.join(lacking)}, which is not allowed here."


def _unready(tool: Tool, site: Site) -> str | None:
    if "exec" not in tool.declaration.capabilities or not site.sandbox.refused:
        return None
    return f"{tool.declaration.name} is not available: {site.sandbox.rung.reason}. The other tools work."


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
    faults = error.errors(include_url=False, include_context=False)
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
