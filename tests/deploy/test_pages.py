"""What the pages about deploying say is there: tests, files, commands."""

import re
from pathlib import Path

import pytest

from deploy.rollback import PLATFORMS

ROOT = Path(__file__).parents[2]
THREATS = (ROOT / "docs" / "threats.md").read_text()
DEPLOYING = (ROOT / "docs" / "deploying.md").read_text()
PAGES = (
    "SECURITY.md",
    "CONTRIBUTING.md",
    *(f"deploy/{name}/README.md" for name in ("fly", "systemd", "freebsd", "kubernetes")),
)
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")


def test_every_threat_has_its_line_and_every_line_its_tests() -> None:
    rows = re.findall(r"^\| (T[0-9]+) \|(.*)$", THREATS, re.MULTILINE)
    assert [name for name, _ in rows] == [f"T{number}" for number in range(1, 20)]
    assert [name for name, row in rows if "::test_" not in row] == []


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`(tests/\S+::test_\w+)`", THREATS))))
def test_a_test_that_is_named_is_there(named: str) -> None:
    path, _, test = named.partition("::")
    assert f"def {test}(" in (ROOT / path).read_text()


@pytest.mark.parametrize("page", PAGES)
def test_a_link_leads_somewhere(page: str) -> None:
    path = ROOT / page
    assert [link for link in LINK.findall(path.read_text()) if not (path.parent / link).exists()] == []


def test_every_platform_that_can_be_put_back_is_told_of() -> None:
    assert [each for each in PLATFORMS if each != "local" and f"--platform {each}" not in DEPLOYING] == []


def test_every_folder_of_deploy_is_told_of() -> None:
    folders = (each.name for each in (ROOT / "deploy").iterdir() if each.is_dir() and each.name != "__pycache__")
    assert [name for name in folders if f"deploy/{name}" not in DEPLOYING] == []
