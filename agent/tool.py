"""A tool: what the model may ask for, declared as data.

    model ─ call ─▶ gate.check(tool, ...) ─▶ tool_started (durable) ─▶ tool.run ─▶ tool_ended (durable) ─▶ model

A tool names its Capabilities; one gate reads them and refuses what is not declared. Refusals and failures are ordinary
results with `is_error`, in words the model can act on; `run` raises only on its own defects and on cancellation.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from agent.sandbox import Sandbox
from persistence.beads import Beads
from persistence.clock import Clock
from persistence.errors import FinnError
from persistence.events import Json, Value

Capability = Literal["read", "write", "exec", "http", "env", "session", "events", "ui", "tool", "log"]
Show = Callable[[str], None]  #: shows output of a running call to whoever watches; ephemeral


@dataclass(frozen=True)
class Site:
    """Where tools work: two roots, the only files they can reach, the sandbox of bash, and the beads."""

    workspace: Path
    grimoires: Path
    sandbox: Sandbox
    clock: Clock
    beads: Beads | None = None  #: the tracked work, where there is any to be


@dataclass(frozen=True)
class ToolResult:
    """Text for the model, already cut to the tool's limits; `details` is data for the page (a diff, an exit code)."""

    text: str
    is_error: bool = False
    truncated: bool = False
    details: dict[str, Json] | None = None


@dataclass(frozen=True)
class Declaration:
    """What the model is told and the gate reads. The fields of `args` are the arguments, their types the check."""

    name: str
    description: str
    args: type[Value]
    capabilities: frozenset[Capability]
    alone: bool = False  #: never in parallel with another call of the same message

    @cached_property
    def parameters(self) -> dict[str, Json]:
        """The JSON schema of `args`, without the titles that only cost tokens; the same bytes every time."""
        schema: dict[str, Json] = untitled(self.args.model_json_schema())
        return schema


class Tool(Protocol):
    """One tool of TOOLS."""

    @property
    def declaration(self) -> Declaration: ...

    async def run(self, args: Any, site: Site, show: Show) -> ToolResult:
        """Does the work. `args` is a value of `declaration.args`. Cancelled, it leaves no process behind."""


@dataclass(frozen=True)
class FileTool:
    """A Tool whose work waits for the disk: it is done in a thread, and what the disk refuses becomes a result."""

    declaration: Declaration
    work: Callable[[Any, Site], ToolResult]

    async def run(self, args: Any, site: Site, show: Show) -> ToolResult:
        """Gives the result of `work`, or the words of its FinnError."""
        try:
            return await asyncio.to_thread(self.work, args, site)
        except FinnError as error:
            return ToolResult(str(error), is_error=True)


def untitled(schema: Json) -> Json:
    """The schema less every `title` that pydantic made up."""
    if isinstance(schema, list):
        return [untitled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: untitled(value) for key, value in schema.items() if key != "title" or not isinstance(value, str)}
