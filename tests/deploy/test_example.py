"""`.env.example` is what the table of settings says, and may be used as it is."""

import re
from pathlib import Path

import pytest

from deploy.example import example
from gateway import settings
from persistence.errors import UsageError

FILE = Path(__file__).parents[2] / ".env.example"


def test_the_file_is_made_of_the_table() -> None:
    assert FILE.read_text() == example(), "run .venv/bin/python -P -m deploy.example >.env.example"


def test_as_it_is_it_changes_nothing() -> None:
    assert settings.read_env_file(FILE) == {}


def test_every_setting_may_be_said_with_its_default_and_means_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    said = dict(re.findall(r"^#([A-Z0-9_]+)=(.*)$", FILE.read_text(), re.MULTILINE))
    assert said.keys() == settings.KNOWN
    assert settings.read(said) == settings.read({})


def test_the_file_is_refused_in_a_data_directory_that_it_would_move(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(FILE.read_text().replace("#FINN_DATA_DIR", "FINN_DATA_DIR"))
    with pytest.raises(UsageError, match="FINN_DATA_DIR"):
        settings.read({"FINN_DATA_DIR": str(tmp_path)})
