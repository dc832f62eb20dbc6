"""The data directory, broken one way at a time."""

import os
import shutil

import pytest

from persistence.clock import FakeClock
from scheduler.checks import dirs
from tests.scheduler.ward import new_ward, tree


def test_dirs_data() -> None:
    ward = new_ward()
    shutil.rmtree(ward.root)
    findings = ward.examine_nothing()
    assert findings["dirs.data"].severity == "info"
    assert [one for one in findings.values() if one.severity in ("warn", "fail")] == []
    ward.root.write_text("a file")
    assert ward.examine_nothing()["dirs.data"].severity == "fail"


def test_dirs_missing() -> None:
    ward = new_ward()
    shutil.rmtree(ward.root / "chunks")
    shutil.rmtree(ward.root / "quarantine")
    assert ward.broken("dirs.missing", "warn").data["found"] == ["chunks", "quarantine"]
    ward.cured("dirs.missing")


def test_dirs_kind() -> None:
    ward = new_ward()
    (ward.root / "chunks").rmdir()
    (ward.root / "chunks").write_text("somebody wrote this here")
    (ward.root / "chunks").chmod(0o600)
    ward.broken("dirs.kind", "fail")
    ward.cured("dirs.kind")
    kept = next(path for path in (ward.root / "quarantine").iterdir() if "chunks" in path.name and not path.suffix)
    assert kept.read_text() == "somebody wrote this here"


def test_dirs_kind_makes_room_for_quarantine_before_anything_goes_there() -> None:
    ward = new_ward()
    for name in ("chunks", "quarantine"):
        (ward.root / name).rmdir()
        (ward.root / name).write_text(f"somebody wrote {name}")
        (ward.root / name).chmod(0o600)
    ward.broken("dirs.kind", "fail")
    ward.cured("dirs.kind")
    assert (ward.root / "quarantine-was-a-file").read_text() == "somebody wrote quarantine"


def test_what_earlier_fixes_keep_is_left_as_it_is() -> None:
    """No fix may touch it, and in a data directory that is closed nobody gets to it."""
    ward = new_ward()
    (ward.root / "doctor-undo").mkdir()
    (ward.root / "doctor-undo").chmod(0o755)
    assert ward.examine()["dirs.modes"].severity == "pass"


def test_dirs_kind_waits_until_finn_is_stopped() -> None:
    ward = new_ward()
    (ward.root / "cache").write_text("")
    (ward.root / "cache").chmod(0o600)
    from scheduler.site import Running

    ward.changed["running"] = Running(os.getpid(), "http://127.0.0.1:1", 1, answers=True)
    assert "stop finn" in ward.examine()["dirs.kind"].data["blocked"]
    before = tree(ward.root)
    ward.fix("dirs.kind")
    assert tree(ward.root) == before


def test_dirs_files() -> None:
    """No fix: an empty workspace would look as if everything in it had been deleted."""
    ward = new_ward()
    shutil.rmtree(ward.root / "workspace")
    assert ward.broken("dirs.files", "warn").fixability == "notfixable"
    ward.fix()
    assert not (ward.root / "workspace").exists()


def test_dirs_links() -> None:
    ward = new_ward()
    (ward.root / "blobs").rename(ward.root.parent / "elsewhere")
    (ward.root / "blobs").symlink_to(ward.root.parent / "elsewhere")
    assert "elsewhere" in ward.broken("dirs.links", "info").detail
    shutil.rmtree(ward.root.parent / "elsewhere")


def test_dirs_shut() -> None:
    ward = new_ward()
    (ward.root / "quarantine").chmod(0o500)
    ward.broken("dirs.shut", "fail")
    ward.cured("dirs.shut")


def test_dirs_modes() -> None:
    ward = new_ward()
    for name in (".", "blobs", "state/.beads"):
        (ward.root / name).chmod(0o755)
    assert ward.broken("dirs.modes", "warn").data["count"] == 3
    ward.cured("dirs.modes")


def test_dirs_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    ward = new_ward()
    monkeypatch.setattr(dirs, "_own_user", lambda: os.geteuid() + 1)
    assert f"chown -R {os.geteuid() + 1}" in ward.broken("dirs.owner", "warn").remediation


def test_dirs_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    ward = new_ward()
    monkeypatch.setattr(dirs, "_is_read_only", lambda _: True)
    ward.broken("dirs.writable", "fail")


def test_dirs_leftovers() -> None:
    ward = new_ward()
    for name in ("state/.finn-7-1", "blobs/39/.finn-7-2", ".finn-7-3"):
        (ward.root / name).parent.mkdir(exist_ok=True, mode=0o700)
        (ward.root / name).write_text("half")
        (ward.root / name).chmod(0o600)
    assert ward.examine()["dirs.leftovers"].severity == "pass"  # a write may be under way
    ward.changed["clock"] = FakeClock(ward.site().clock.now() + 90_000.0)
    assert ward.examine()["dirs.leftovers"].data["count"] >= 2
    ward.cured("dirs.leftovers")


def test_dirs_quarantine() -> None:
    ward = new_ward()
    (ward.root / "quarantine" / "thing").write_text("12345")
    (ward.root / "quarantine" / "thing.json").write_text("{}")
    finding = ward.broken("dirs.quarantine", "info")
    assert finding.data["found"] == ["thing"]


def test_dirs_restoring() -> None:
    ward = new_ward()
    (ward.root / ".restoring").mkdir()
    assert "start `finn serve`" in ward.broken("dirs.restoring", "warn").remediation


def test_dirs_strangers() -> None:
    ward = new_ward()
    (ward.root / "holiday.jpg").write_text("")
    assert ward.broken("dirs.strangers", "info").data["found"] == ["holiday.jpg"]
