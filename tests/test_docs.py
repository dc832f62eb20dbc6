"""The documentation names everything a person can set, call or type."""

import re
import subprocess
import sys
from argparse import ArgumentParser, _SubParsersAction
from pathlib import Path

import pytest

from agent.tools import TOOLS
from gateway.cli import parser
from gateway.settings import SETTINGS
from gateway.tasks import TASKS
from scheduler import health
from scheduler.checks import CHECKS
from scheduler.report import breaking_test, table

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "deploy" / "README.md")
LOGGED = ("starts", "is", "drains", "has")  #: of lines of the log that begin with finn's name
SOURCES = [one for floor in ("agent", "gateway", "persistence", "scheduler") for one in (ROOT / floor).rglob("*.py")]
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")


def text(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def commands() -> list[str]:
    """The commands as `finn --help` lists them, one a line."""
    finn = [sys.executable, "-P", "-c", "from gateway.cli import main; main()", "--help"]
    usage = subprocess.run(finn, capture_output=True, text=True, check=True).stdout
    listed = re.findall(r"^    ([a-z]+) ", usage, re.MULTILINE)
    assert listed, usage
    return listed


def test_every_setting_is_documented() -> None:
    documented = text("settings.md")
    assert [setting.name for setting in SETTINGS if f"`{setting.name}`" not in documented] == []


def test_every_tool_is_documented() -> None:
    documented = text("tools.md")
    assert [tool.declaration.name for tool in TOOLS if f"`{tool.declaration.name}`" not in documented] == []


def test_the_table_of_health_is_the_one_that_decides() -> None:
    assert health.table() in text("health.md")


def test_every_task_is_documented_with_what_its_breaker_means() -> None:
    documented = text("tasks.md")
    assert [task.__name__ for task in TASKS if documented.count(f"\n| `{task.__name__}` |") != 2] == []


def test_every_check_of_the_doctor_is_documented_as_it_is() -> None:
    assert table(CHECKS) in text("doctor.md")


def test_every_check_of_the_doctor_has_a_test_that_breaks_what_it_looks_at() -> None:
    folder = ROOT / "tests" / "scheduler"
    sources = {one.stem: one.read_text(encoding="utf-8") for one in folder.glob("test_checks_*.py")}
    named = {one.id: f"def {breaking_test(one)}(" for one in CHECKS}
    untested = [name for name, test in named.items() if test not in sources[f"test_checks_{name.partition('.')[0]}"]]
    assert untested == []
    assert len(named) == len(CHECKS) >= 40
    assert sum(one.mend is not None for one in CHECKS) >= 20


def test_every_command_is_documented() -> None:
    documented = text("commands.md")
    assert [command for command in commands() if f"`finn {command}" not in documented] == []


def told(page: Path) -> list[tuple[str, ...]]:
    """What the page or source tells people to type: `finn COMMAND`, with its verb where the command has some."""
    found = re.findall(r"`finn ([a-z]+)(?: ([a-z]+))?", page.read_text(encoding="utf-8"))
    return [tuple(filter(None, words)) for words in found if words[0] not in LOGGED]


def test_every_command_that_people_are_told_to_type_is_there() -> None:
    there = {name: verbs(one) for name, one in verbs(parser()).items()}
    known = {*((name,) for name in there), *((name, verb) for name, of in there.items() for verb in of)}
    typed = {words if there.get(words[0]) else words[:1] for page in (*PAGES, *SOURCES) for words in told(page)}
    assert len(typed) > 10
    assert sorted(typed - known) == []


def verbs(of: ArgumentParser) -> dict[str, ArgumentParser]:
    """The commands within a command."""
    found = [action.choices for action in of._actions if isinstance(action, _SubParsersAction)]
    return dict(found[0]) if found else {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_between_pages_leads_somewhere(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
