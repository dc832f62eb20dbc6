"""The settings, broken one way at a time."""

import pytest

from agent import outbound
from tests.scheduler.ward import new_ward


def test_config_refused() -> None:
    ward = new_ward()
    ward.environ["FINN_PORT"] = "eighty"
    assert "FINN_PORT" in ward.broken("config.refused", "fail").detail


def test_config_refused_by_a_file_that_is_no_text() -> None:
    ward = new_ward()
    (ward.root / ".env").write_bytes(b"FINN_LOG_LEVEL=\xff\xfe")
    (ward.root / ".env").chmod(0o600)
    assert ".env cannot be read" in ward.broken("config.refused", "fail").detail


def test_config_refused_tells_everything_at_once_and_no_secret() -> None:
    ward = new_ward()
    ward.environ |= {"FINN_PORT": "x", "FINN_TOKEN": "hunter2hunter2", "FINN_TOKN": "1"}
    detail = ward.examine()["config.refused"].detail
    assert all(name in detail for name in ("FINN_PORT", "FINN_TOKEN", "did you mean"))
    assert "hunter2" not in detail


def test_config_names() -> None:
    ward = new_ward()
    ward.environ["FINN_WEATHER_SOURCE"] = "rain"
    assert "FINN_WEATHER_SOURCE" in ward.broken("config.names", "warn").detail


def test_config_odd() -> None:
    ward = new_ward()
    ward.environ |= {"FINN_WORKSPACE_FILE_MAX": "2GB"}
    assert "FINN_WORKSPACE_FILE_MAX" in ward.broken("config.odd", "warn").detail


def test_config_budget() -> None:
    ward = new_ward(store=True)
    ward.environ["FINN_SHUTDOWN_BUDGET"] = "1s"
    assert "1 s" in ward.broken("config.budget", "warn").detail


def test_config_intervals() -> None:
    ward = new_ward(store=True)
    ward.environ["FINN_SYNC_INTERVAL"] = "2h"
    assert "7200 s" in ward.broken("config.intervals", "warn").detail


def test_config_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    ward = new_ward()
    ward.environ["FINN_ALERT_URL"] = "https://hooks.example/secret-path-of-mine"
    monkeypatch.setattr(outbound, "addresses_of", lambda host, port: ["10.0.0.7"])
    finding = ward.broken("config.hooks", "warn")
    assert "FINN_ALERT_URL: hooks.example is 10.0.0.7, which is no public address" in finding.detail
    assert "secret-path" not in repr(finding)
