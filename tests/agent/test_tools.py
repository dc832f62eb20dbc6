"""What all tools have in common: what the model is told of them, and that none of them can change the identity."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agent.sandbox import NoSandbox
from agent.tool import Site, Tool
from agent.tools import TOOLS
from persistence.events import Json
from tests.site import IDENTITY, call, fingerprint, site

TOKENS = 550  # of all declarations together; the system prompt has the rest of a thousand


def told(tool: Tool) -> str:
    """A declaration as it goes over the wire."""
    declared = tool.declaration
    return declared.name + declared.description + json.dumps(declared.parameters, separators=(",", ":"))


def test_the_tools_stand_in_prompt_order_with_one_name_each() -> None:
    assert [tool.declaration.name for tool in TOOLS] == [
        "read",
        "find",
        "write",
        "edit",
        "bash",
        "remember",
        "recall",
        "bead",
    ]


def test_all_declarations_together_are_short() -> None:
    assert sum(len(told(tool)) for tool in TOOLS) / 4 <= TOKENS


def test_declarations_are_the_same_bytes_every_time() -> None:
    fresh = [replace(tool.declaration) for tool in TOOLS]  # which has not computed its schema yet
    first = [json.dumps(declared.parameters) for declared in fresh]
    assert [json.dumps(tool.declaration.parameters) for tool in TOOLS] == first
    assert [json.dumps(replace(declared).parameters) for declared in fresh] == first


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: str(tool.declaration.name))
def test_a_schema_holds_nothing_that_only_costs_tokens(tool: Tool) -> None:
    schema = json.dumps(tool.declaration.parameters)
    assert '"title"' not in schema
    assert '"null"' not in schema


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: str(tool.declaration.name))
def test_whoever_changes_something_runs_alone(tool: Tool) -> None:
    assert tool.declaration.alone == bool(tool.declaration.capabilities & {"write", "exec", "events"})


BEAUVOIR = (
    "grimoires/BEAUVOIR.md",
    "@grimoires/BEAUVOIR.md",
    "./grimoires//BEAUVOIR.md",
    "grimoires/memory/../BEAUVOIR.md",
    "x/../grimoires/BEAUVOIR.md",
    "grimoires/memory/link",
    "grimoires/memory/folder/BEAUVOIR.md",
    "grimoires/memory/hard",
    "grimoires/beauvoir.md",
    "../grimoires/BEAUVOIR.md",
    "link/BEAUVOIR.md",
    "file",
    "hard",
    "{grimoires}/BEAUVOIR.md",
    "{grimoires}/memory/../BEAUVOIR.md",
    "/{grimoires}/./BEAUVOIR.md",
    "{workspace}/../grimoires/BEAUVOIR.md",
    "~/grimoires/BEAUVOIR.md",
    "/proc/self/cwd/grimoires/BEAUVOIR.md",
)


def laid(folder: Path) -> Site:
    """Links to the identity from everywhere a tool can look, as an owner or an older program may have left them."""
    here = site(folder)
    (here.grimoires / "memory" / "link").symlink_to("../BEAUVOIR.md")
    (here.grimoires / "memory" / "folder").symlink_to("..")
    (here.grimoires / "memory" / "hard").hardlink_to(here.grimoires / "BEAUVOIR.md")
    (here.workspace / "link").symlink_to(here.grimoires)
    (here.workspace / "file").symlink_to(here.grimoires / "BEAUVOIR.md")
    (here.workspace / "hard").hardlink_to(here.grimoires / "BEAUVOIR.md")
    return replace(here, sandbox=NoSandbox(here.workspace))


def attempts(path: str) -> tuple[tuple[str, dict[str, Json]], ...]:
    return (
        ("read", {"path": path}),
        ("find", {"pattern": "*", "path": path}),
        ("find", {"pattern": path, "text": "I am"}),
        ("write", {"path": path, "content": "I am somebody else."}),
        ("edit", {"path": path, "edits": [{"oldText": "I am who I am.", "newText": "I am somebody else."}]}),
        ("remember", {"text": "I am somebody else.", "topic": path}),
        ("remember", {"text": f"# {path}\n\nI am somebody else."}),
        ("recall", {"query": path}),
    )


@pytest.mark.parametrize("path", BEAUVOIR)
async def test_no_tool_can_change_the_identity_by_any_spelling(tmp_path: Path, path: str) -> None:
    here = laid(tmp_path)
    before = fingerprint(tmp_path)
    for name, arguments in attempts(path.format(grimoires=here.grimoires, workspace=here.workspace)):
        await call(here, name, **arguments)
    after = fingerprint(tmp_path)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert (here.grimoires / "BEAUVOIR.md").read_text() == IDENTITY
    assert [name for name in changed if name != "grimoires/NOTES.md" and "/memory/" not in name] == []


async def test_the_identity_can_be_read(tmp_path: Path) -> None:
    assert (await call(site(tmp_path), "read", path="grimoires/BEAUVOIR.md")).text == IDENTITY


async def test_an_error_says_what_and_what_to_do(tmp_path: Path) -> None:
    result = await call(site(tmp_path), "read", path="nothing.txt")
    assert result.is_error
    assert result.text == "nothing.txt does not exist (find and read of a folder show what there is)"
