"""The program and its process, broken one way at a time."""

import json
import resource
from importlib import metadata
from pathlib import Path

import pytest

from persistence.clock import FakeClock
from scheduler.checks import runtime
from scheduler.notes import FOLDER
from scheduler.site import Running
from tests.scheduler.ward import Ward, kernel, new_ward

NOBODY = 2**22 - 1  #: no process has this number for long enough to be met


def test_runtime_python(monkeypatch: pytest.MonkeyPatch) -> None:
    ward = new_ward()
    monkeypatch.setattr(runtime, "PYTHON", (9, 0))
    assert "needs 9.0" in ward.broken("runtime.python", "fail").detail


def test_runtime_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    ward = new_ward()
    monkeypatch.setattr(runtime, "PACKAGES", ("agent", "json"))
    assert "2 places" in ward.broken("runtime.packages", "fail").detail


def test_runtime_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    ward = new_ward()
    needs = ["surely-not-there>=1", "starlette==1", 'nor-this; extra == "test"']
    monkeypatch.setattr(metadata, "requires", lambda _: needs)
    assert ward.broken("runtime.distributions", "fail").data["found"] == ["surely-not-there"]


def test_runtime_clock() -> None:
    ward = new_ward()
    ward.changed["clock"] = FakeClock(ward.site().clock.now() - 86_400.0)
    finding = ward.broken("runtime.clock", "warn")
    assert 86_000 < finding.data["behind_s"] <= 86_400


def test_runtime_files(monkeypatch: pytest.MonkeyPatch) -> None:
    ward = new_ward()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 4096))
    assert ward.broken("runtime.files", "warn").data["soft"] == 64


def test_runtime_files_of_the_finn_that_runs(tmp_path: Path) -> None:
    ward = new_ward()
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "limits").write_text("Limit  Soft  Hard\nMax open files            128   4096   files\n")
    ward.changed |= {"proc": tmp_path, "running": Running(7, "http://127.0.0.1:1", 1, answers=True)}
    assert ward.examine()["runtime.files"].data["soft"] == 128


def note(ward: Ward, pid: int) -> None:
    path = ward.root / "run.json"
    path.write_text(json.dumps({"pid": pid, "url": "http://127.0.0.1:1", "epoch": 1}))
    path.chmod(0o600)


def test_runtime_note() -> None:
    ward = new_ward()
    note(ward, NOBODY)
    assert "does not run" in ward.broken("runtime.note", "warn").detail
    ward.cured("runtime.note")


SILENT = Running(NOBODY, "http://127.0.0.1:1", 1, answers=False)


def test_runtime_answers(tmp_path: Path) -> None:
    """A process that has the lock, and says nothing."""
    ward = new_ward()
    note(ward, NOBODY)
    lock = ward.root / "wal" / "LOCK"
    lock.write_text(json.dumps({"pid": NOBODY}))
    (kernel(tmp_path) / "locks").write_text(f"1: FLOCK  ADVISORY  WRITE {NOBODY} 08:01:{lock.stat().st_ino} 0 EOF\n")
    ward.changed |= {"proc": tmp_path, "running": SILENT}
    assert f"kill {NOBODY}" in ward.broken("runtime.answers", "fail").remediation


def test_runtime_answers_of_a_process_that_is_another_by_now() -> None:
    ward = new_ward()
    note(ward, NOBODY)
    ward.changed["running"] = SILENT
    assert "is no finn" in ward.broken("runtime.answers", "warn").detail


def test_runtime_fixes() -> None:
    ward = new_ward()
    name = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    (ward.root / FOLDER / name / "kept").mkdir(parents=True, mode=0o700)
    (ward.root / FOLDER).chmod(0o700)
    assert ward.broken("runtime.fixes", "warn").remediation == f"`finn doctor --undo {name}`"
    ward.undo(name)
    assert ward.examine()["runtime.fixes"].severity == "pass"


def test_runtime_tasks() -> None:
    ward = new_ward()
    ward.changed["facts"] = {"task:archive": "open", "task:health": "closed", "wal:lastSeq": 3}
    assert "archive (open)" in ward.broken("runtime.tasks", "warn").detail
