"""The disk, broken one way at a time."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from scheduler.checks import disk
from scheduler.notes import FOLDER
from tests.scheduler.ward import kernel, new_ward

MIB = 1 << 20


def usage(monkeypatch: pytest.MonkeyPatch, free: int, total: int = 100 << 30) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free, total=total, used=total - free))


@pytest.mark.parametrize(("free", "severity"), [(200 * MIB, "warn"), (10 * MIB, "fail")])
def test_disk_free(monkeypatch: pytest.MonkeyPatch, free: int, severity: str) -> None:
    ward = new_ward()
    usage(monkeypatch, free)
    assert ward.broken("disk.free", severity).data["free"] == free


def test_disk_inodes(monkeypatch: pytest.MonkeyPatch) -> None:
    ward = new_ward()
    monkeypatch.setattr(disk, "_inodes", lambda _: (12, 65_536))
    assert "12 more files" in ward.broken("disk.inodes", "warn").detail


def mounted(tmp_path: Path, root: Path, kind: str) -> Path:
    """A kernel that says the data directory is on such a file system."""
    place = str(root).replace(" ", chr(92) + "040")
    lines = f"20 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 20 0:31 / {place} rw - {kind} x rw\n"
    (kernel(tmp_path) / "self" / "mountinfo").write_text(lines)
    return tmp_path


def test_disk_kind(tmp_path: Path) -> None:
    ward = new_ward()
    ward.changed["proc"] = mounted(tmp_path, ward.root.resolve(), "tmpfs")
    assert "tmpfs" in ward.broken("disk.kind", "warn").detail


def test_disk_locks(tmp_path: Path) -> None:
    ward = new_ward()
    ward.changed["proc"] = mounted(tmp_path, ward.root.resolve(), "nfs4")
    assert "nfs4" in ward.broken("disk.locks", "warn").detail


def test_disk_log(monkeypatch: pytest.MonkeyPatch) -> None:
    ward = new_ward()
    monkeypatch.setattr(disk, "_free", lambda _: 1000)
    assert "no room" in ward.broken("disk.log", "warn").detail


def test_disk_undo(monkeypatch: pytest.MonkeyPatch) -> None:
    ward = new_ward()
    (ward.root / "quarantine").chmod(0o755)
    assert ward.fix("dirs.modes").id
    monkeypatch.setattr(disk, "UNDO_FIXES", 0)
    finding = ward.broken("disk.undo", "info")
    assert finding.data["fixes"] == 1
    assert str(ward.root / FOLDER) in finding.remediation
