"""write: a whole file in one step. Whoever reads it meanwhile sees the old one or the new one, and so does a crash."""

from agent.confine import locate, replace
from agent.tool import Declaration, FileTool, Site, ToolResult
from persistence.events import Value


class Arguments(Value):
    path: str
    content: str


def write(args: Arguments, site: Site) -> ToolResult:
    """Says how many bytes were written, and whether something was replaced."""
    place = locate(args.path, site.workspace, site.grimoires)
    data = args.content.encode()
    replaced = replace(place, data)
    return ToolResult(f"{'Replaced' if replaced else 'Created'} {place}: {len(data)} bytes written.")


WRITE = FileTool(
    Declaration(
        name="write",
        description="Create or replace a file.",
        args=Arguments,
        capabilities=frozenset({"write"}),
        alone=True,
    ),
    write,
)
