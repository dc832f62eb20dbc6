"""The place that finn was put in, broken one way at a time."""

from pathlib import Path

import pytest

from scheduler.checks import deploy
from tests.scheduler.test_checks_disk import mounted
from tests.scheduler.ward import new_ward

EXPOSED = {"FINN_HOST": "10.0.0.7", "FINN_TOKEN": "3c9f1a7be2d84f60b5a7c1d2e3f40516", "FINN_RELEASE": "abc123"}


def test_deploy_volume(tmp_path: Path) -> None:
    ward = new_ward()
    ward.changed["proc"] = mounted(tmp_path, ward.root.resolve(), "overlay")
    assert "mount a volume" in ward.broken("deploy.volume", "fail").remediation


def test_deploy_volume_matters_less_where_a_store_has_it_all(tmp_path: Path) -> None:
    ward = new_ward(store=True)
    ward.changed["proc"] = mounted(tmp_path, ward.root.resolve(), "overlay")
    assert ward.examine()["deploy.volume"].severity == "pass"


def test_deploy_reached() -> None:
    ward = new_ward(False, **EXPOSED, FINN_PUBLIC_URL="https://finn.example")
    ward.environ["FINN_PUBLIC_URL"] = "https://localhost:8080"
    assert "localhost" in ward.broken("deploy.reached", "warn").detail


def test_deploy_release() -> None:
    ward = new_ward(False, **EXPOSED, FINN_PUBLIC_URL="https://finn.example")
    del ward.environ["FINN_RELEASE"]
    ward.broken("deploy.release", "info")


def test_deploy_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    ward = new_ward()
    monkeypatch.setattr(deploy, "_is_boxed", lambda: True)
    ward.environ["FINN_SHUTDOWN_BUDGET"] = "30s"
    assert "30 s" in ward.broken("deploy.stop", "warn").detail


def test_deploy_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ward = new_ward()
    (tmp_path / "memory.max").write_text(f"{64 << 20}\n")
    monkeypatch.setattr(deploy, "MEMORY", (tmp_path / "nothing", tmp_path / "memory.max"))
    assert ward.broken("deploy.memory", "warn").data["bytes"] == 64 << 20
