"""The gate lets through what is declared, allowed and fits, and says why of everything else."""

from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from agent.gate import EVERYTHING, Prepared, Refusal, check
from agent.models.calls import tool_call
from agent.sandbox import NoSandbox
from agent.tool import Capability, Declaration, FileTool, Site, ToolResult
from agent.tools import TOOLS
from agent.tools.read import READ
from persistence.events import Json, Value
from persistence.values import DEPTH
from tests.site import site


@pytest.fixture
def here(tmp_path: Path) -> Site:
    return site(tmp_path)


def judge(
    here: Site, name: str, allowed: frozenset[Capability] = EVERYTHING, /, **arguments: Json
) -> Prepared | Refusal:
    return check(name, arguments, tools=TOOLS, allowed=allowed, site=here)


def refusal(here: Site, name: str, /, **arguments: Json) -> str:
    judged = judge(here, name, **arguments)
    assert isinstance(judged, Refusal), judged
    return judged.text


def test_a_call_that_fits_is_prepared_and_frozen(here: Site) -> None:
    prepared = judge(here, "read", path="a", limit=3)
    assert isinstance(prepared, Prepared)
    assert prepared.tool is READ
    assert prepared.args.model_dump() == {"path": "a", "offset": 1, "limit": 3}
    with pytest.raises(FrozenInstanceError):
        prepared.tool = READ  # type: ignore[misc]


def test_an_unknown_tool_is_answered_with_the_known_ones(here: Site) -> None:
    assert refusal(here, "fetch", url="http://x") == (
        "There is no tool 'fetch'; there are read, find, write, edit, bash, remember, recall, bead."
    )


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("read", {}, "path is missing."),
        ("read", {"path": "a", "line": 3}, "line is not one of its arguments."),
        (
            "read",
            {"path": 7, "limit": 0},
            "path: input should be a valid string; limit: input should be greater than or",
        ),
        ("bash", {"command": "ls", "timeout": 601}, "timeout: input should be less than or equal to 600."),
        ("write", {"path": "a", "content": "\ud800"}, "the arguments hold half a character"),
        ("edit", {"path": "a", "edits": [{"oldText": "x"}]}, "edits.0.newText is missing."),
        ("edit", {"path": "a", "edits": []}, "edits: tuple should have at least 1 item"),
        ("remember", {"text": "x", "topic": "../BEAUVOIR"}, "topic: string should match pattern"),
        ("remember", {"text": "x", "topic": "a/b"}, "topic: string should match pattern"),
        ("remember", {"text": "x", "topic": "a\n"}, "topic: string should match pattern"),
    ],
)
def test_arguments_that_do_not_fit_are_named(tmp_path: Path, name: str, arguments: dict[str, Json], said: str) -> None:
    plain = site(tmp_path)
    here = replace(plain, sandbox=NoSandbox(plain.workspace))
    assert refusal(here, name, **arguments).startswith(f"{name} was not called: {said}")


def test_many_faults_are_told_shortly(here: Site) -> None:
    said = refusal(here, "read", **{f"field{number}": 1 for number in range(100)})
    assert said.count(";") == 5
    assert said.endswith("; and 96 more.")


def test_a_capability_that_is_not_allowed_refuses_the_tool(here: Site) -> None:
    judged = judge(here, "edit", frozenset({"read"}), path="a", edits=[])
    assert judged == Refusal("edit needs the capability write, which is not allowed here.")


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: str(tool.declaration.name))
def test_a_tool_needs_each_capability_it_declares(here: Site, tool: FileTool) -> None:
    for capability in tool.declaration.capabilities:
        judged = judge(here, tool.declaration.name, EVERYTHING - {capability})
        assert isinstance(judged, Refusal)
        assert f"needs the capability {capability}" in judged.text


def test_bash_is_refused_with_the_reason_of_the_sandbox(here: Site) -> None:
    assert refusal(here, "bash", command="ls") == ("bash is not available: not in this test. The other tools work.")


def test_a_tool_that_is_not_in_the_tuple_does_not_exist(here: Site) -> None:
    class Nothing(Value):
        pass

    declaration = Declaration("extra", "Nothing.", Nothing, frozenset())
    extra = FileTool(declaration, lambda args, at: ToolResult(""))
    assert isinstance(check("extra", {}, tools=(extra,), allowed=frozenset(), site=here), Prepared)
    assert isinstance(check("extra", {}, tools=TOOLS, allowed=frozenset(), site=here), Refusal)


SYSTEM_ZONE = (
    "grimoires/BEAUVOIR.md",
    "./grimoires/BEAUVOIR.md",
    "@grimoires/BEAUVOIR.md",
    "grimoires//BEAUVOIR.md/",
    "x/../grimoires/BEAUVOIR.md",
    "grimoires/memory/../BEAUVOIR.md",
    "grimoires/../grimoires/./BEAUVOIR.md",
    "grimoires/beauvoir.md",
    "grimoires/BEAUVOIR.md.",
    "grimoires/notes.md",
    "grimoires/NOTES.md/x",
    "grimoires/MEMORY/x",
    "grimoires/memory",
    "grimoires",
    "grimoires/skills/x/SKILL.md",
    "grimoires/.git/config",
)


@pytest.mark.parametrize("path", SYSTEM_ZONE)
def test_the_identity_is_readable_and_never_writable(here: Site, path: str) -> None:
    absolute = str(here.grimoires) + "/" + path.removeprefix("@").split("grimoires", 1)[1]
    for spelling in (path, absolute, f"/{absolute}"):
        assert isinstance(judge(here, "read", path=spelling), Prepared)
        assert "not yours to change" in refusal(here, "write", path=spelling, content="")
        assert "not yours to change" in refusal(here, "edit", path=spelling, edits=[{"oldText": "a", "newText": "b"}])


@pytest.mark.parametrize(
    "path", [".git/hooks/x", ".git/config", "sub/.git/config", ".GIT/Hooks/x", ".git", "a/../.git/x"]
)
def test_what_git_would_run_is_not_written(here: Site, path: str) -> None:
    assert "belongs to git" in refusal(here, "write", path=path, content="")
    assert isinstance(judge(here, "read", path=path), Prepared)


@pytest.mark.parametrize(
    "path", ["a", "grimoires/NOTES.md", "grimoires/memory/a.md", "grimoires/memory/a/b.md", ".gitignore"]
)
def test_the_workspace_and_the_state_zone_are_writable(here: Site, path: str) -> None:
    assert isinstance(judge(here, "write", path=path, content=""), Prepared)


PATHS: tuple[tuple[str, dict[str, Json]], ...] = (
    ("read", {}),
    ("find", {"pattern": "*"}),
    ("write", {"content": ""}),
    ("edit", {"edits": [{"oldText": "a", "newText": "b"}]}),
)


@pytest.mark.parametrize(("name", "more"), PATHS)
@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "~/x", "a\0b", "x" * 4097])
def test_a_path_that_leads_out_is_refused_before_anything_runs(
    here: Site, name: str, more: dict[str, Json], path: str
) -> None:
    assert isinstance(judge(here, name, path=path, **more), Refusal)


@pytest.mark.parametrize("depth", [DEPTH + 1, 197, 900])
def test_arguments_too_deep_for_a_record_are_refused_like_any_that_do_not_fit(here: Site, depth: int) -> None:
    deep: Json = 1
    for _ in range(depth - 1):
        deep = [deep]
    call = tool_call("c", "read", {"path": deep})
    assert refusal(here, call.name, **call.arguments).endswith("path is missing; too_deep is not one of its arguments.")
