"""A machine that confines nothing, in each of its ways."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from agent import confine, sandbox
from scheduler.checks.sandbox import NAMESPACES
from tests.scheduler.ward import Ward, new_ward

NOTHING: Mapping[str, str] = {}


@pytest.fixture
def ward() -> Ward:
    return new_ward()


def kernel(folder: Path, files: Mapping[str, str] = NOTHING, uid: int = 1000) -> Path:
    """A /proc that says this."""
    said = {"self/status": f"Name:\tfinn\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"}
    said |= {name: files[name.rpartition("/")[2]] for name, _, _ in NAMESPACES if name.rpartition("/")[2] in files}
    for name, text in said.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")
    return folder


def test_sandbox_rung(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SEARCH_PATH", "/nowhere")
    finding = ward.broken("sandbox.rung")
    assert (finding.data["rung"], "is not installed; install" in finding.detail) == ("refused", True)


def test_sandbox_choice(ward: Ward) -> None:
    ward.environ["FINN_SANDBOX"] = "none"
    assert "all the rights of finn's own user" in ward.broken("sandbox.choice").detail


def test_sandbox_network(ward: Ward) -> None:
    ward.environ["FINN_SANDBOX_NETWORK"] = "on"
    assert ward.broken("sandbox.network", severity="info")


@pytest.mark.parametrize(("name", "value"), [(name.rpartition("/")[2], bad) for name, bad, _ in NAMESPACES])
def test_sandbox_namespaces(ward: Ward, tmp_path: Path, name: str, value: str) -> None:
    ward.changed["proc"] = kernel(tmp_path, {name: value})
    finding = ward.examine()["sandbox.namespaces"]
    assert (finding.severity, name in finding.detail, name in finding.remediation) == ("warn", True, True)
    ward.changed["proc"] = kernel(tmp_path, {name: "5"})
    assert ward.examine()["sandbox.namespaces"].severity == "pass"


def test_sandbox_root(ward: Ward, tmp_path: Path) -> None:
    ward.changed["proc"] = kernel(tmp_path, uid=0)
    assert ward.examine()["sandbox.root"].severity == "info"
    ward.changed["proc"] = kernel(tmp_path)
    finding = ward.examine()["sandbox.root"]
    assert (finding.severity, finding.detail) == ("pass", "finn runs as user 1000")


def test_sandbox_file_tools(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "has_openat2", lambda: False)
    assert "openat2" in ward.examine()["sandbox.file_tools"].detail
    assert ward.examine()["sandbox.file_tools"].severity == "info"
