"""Two roots and a sandbox for tests of tools, and a call as the loop makes it: through the gate, then run."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from agent.gate import EVERYTHING, Refusal, check
from agent.sandbox import Refused, Rung, probe
from agent.tool import Site, ToolResult
from agent.tools import TOOLS
from persistence.clock import FakeClock
from persistence.events import Json

IDENTITY = "# Beauvoir\n\nI am who I am.\n"


def site(folder: Path) -> Site:
    """A workspace and grimoires below `folder`; bash is refused."""
    workspace, grimoires = folder / "workspace", folder / "grimoires"
    (grimoires / "memory").mkdir(parents=True)
    workspace.mkdir()
    (grimoires / "BEAUVOIR.md").write_text(IDENTITY)
    (grimoires / "NOTES.md").write_text("# Notes\n")
    return Site(workspace, grimoires, Refused(workspace, Rung("refused", "not in this test")), FakeClock())


def sandboxed(folder: Path, choice: str = "bwrap", *, network: bool = False) -> Site:
    """The same with a sandbox that runs; skips where this machine allows none."""
    plain = site(folder)
    sandbox = probe(choice, network, plain.workspace)
    if sandbox.refused:
        pytest.skip(f"no sandbox here: {sandbox.rung.reason}")
    return replace(plain, sandbox=sandbox)


def shows_nothing(text: str) -> None:
    """For a test that does not look at live output."""


async def call(at: Site, name: str, **arguments: Json) -> ToolResult:
    """What the model gets for this call."""
    checked = check(name, arguments, tools=TOOLS, allowed=EVERYTHING, site=at)
    if isinstance(checked, Refusal):
        return ToolResult(checked.text, is_error=True)
    result = await checked.tool.run(checked.args, at, shows_nothing)
    result.text.encode()  # every result is valid UTF-8
    return result


def fingerprint(folder: Path) -> dict[str, str]:
    """Each path below `folder` with its kind, mode, and the hash of its bytes; no link is followed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        there = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
        found[os.fspath(path.relative_to(folder))] = f"{there.st_mode:o} {there.st_nlink} {content}"
    return found
