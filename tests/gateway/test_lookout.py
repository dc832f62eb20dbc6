"""A look for a finn that runs, in another process: the same findings, and an error where it comes to no end."""

import os
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import replace

import pytest

from gateway import lookout
from persistence.errors import Busy
from scheduler import site as site_module
from scheduler.check import Check
from scheduler.checks import CHECKS
from scheduler.doctor import examine
from scheduler.finding import Finding, Seen
from scheduler.site import Running, Site
from tests.scheduler.ward import Ward, new_ward

NOW = ("runtime.clock", "disk.free", "disk.inodes", "runtime.memory")  #: differ from one look to the next
KEY = "sk-Lk20vTqWz8RrYp3uBn6M"


@pytest.fixture
def ward(monkeypatch: pytest.MonkeyPatch) -> Ward:
    monkeypatch.setattr(site_module, "LARGE", 0)
    ward = new_ward(OPENAI_API_KEY=KEY)
    ward.changed |= {
        "running": Running(os.getpid(), "http://127.0.0.1:1", 1, answers=True),
        "facts": {"task:sync": "open"},
        "acts": {"mirrors": lambda: None},
        "change": lambda edits: None,
    }
    return ward


def by_id(found: tuple[Finding, ...]) -> Mapping[str, Finding]:
    return {one.id: one for one in found if one.id not in NOW}


def test_another_process_finds_what_this_one_finds(ward: Ward) -> None:
    """Also a plan that asks the running finn, a secret that stands in a file, and what only this process can see."""
    next((ward.root / "state" / "sessions").glob("*.jsonl")).write_text("{}\n")
    (ward.root / "workspace" / "note.txt").write_text(KEY)
    there, here = by_id(lookout.look(CHECKS, ward.site())), by_id(examine(CHECKS, ward.site()))
    assert there == here
    assert there["sessions.mirrors"].fixability == "autofixable"
    assert there["security.secrets_in_files"].severity == "warn"
    assert list(there) == [check.id for check in CHECKS if check.id not in NOW]


def test_nothing_is_started_where_there_is_little_to_read(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_module, "LARGE", 1 << 30)
    monkeypatch.setattr(lookout, "_asked", None)
    assert len(lookout.look(CHECKS, ward.site())) == len(CHECKS)


def test_secrets_go_neither_by_argument_nor_by_environment(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    run = subprocess.run

    def spy(command: list[str], **rest: object) -> object:
        seen.append(repr((command, rest.get("env"))))
        return run(command, **rest)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", spy)
    lookout.look(CHECKS, ward.site())
    assert any("gateway.lookout" in one for one in seen) and not any(KEY in one for one in seen)


def test_a_look_that_dies_is_an_error_without_secrets(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "_PROGRAM", f"import sys; print('{KEY}', file=sys.stderr); sys.exit(3)")
    with pytest.raises(Busy, match=r"ended with 3: \[REDACTED:OPENAI_API_KEY\]"):
        lookout.look(CHECKS, ward.site())


def test_a_look_that_hangs_is_ended(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "_PROGRAM", "import signal; signal.pause()")
    monkeypatch.setattr(lookout, "LOOK_S", 0.1)
    with pytest.raises(Busy, match="came to no end"):
        lookout.look(CHECKS, ward.site())


def test_what_looks_at_its_own_process_is_looked_at_here(ward: Ward) -> None:
    def see(site: Site) -> Seen:
        return Seen("pass", str(threading.get_ident()))

    own = Check("config.own", "here", see, own=True)
    assert lookout.look([own], replace(ward.site()))[0].detail == str(threading.get_ident())
