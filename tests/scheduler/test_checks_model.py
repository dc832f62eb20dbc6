"""Models that cannot answer, each for one reason. Nothing is asked of any."""

import sys
from pathlib import Path

import pytest

from tests.scheduler.ward import Ward, new_ward

KEY = "sk-ant-api03-0123456789abcdef"


@pytest.fixture
def ward() -> Ward:
    return new_ward()


def with_(ward: Ward, **settings: str) -> Ward:
    """The same directory under other settings of the model; what was healthy under the first ones is as before."""
    ward.environ |= settings
    return ward


def test_model_choice(ward: Ward) -> None:
    finding = ward.examine()["model.choice"]
    assert (finding.severity, finding.data) == ("info", {"model": "builtin"})
    assert "ANTHROPIC_API_KEY" in finding.remediation
    assert (
        with_(ward, FINN_MODEL="anthropic:claude-x", ANTHROPIC_API_KEY=KEY).examine()["model.choice"].severity == "pass"
    )


def test_model_script(ward: Ward, tmp_path: Path) -> None:
    script = tmp_path / "replies.json"
    script.write_text('{"not": "a list; $(touch /tmp/pwn)"}')
    finding = with_(ward, FINN_MODEL=f"scripted:{script}").examine()["model.script"]
    assert finding.severity == "fail"
    assert str(script) in finding.detail
    script.write_text('{"replies": [[{"text": "hello"}]]}')
    assert ward.examine()["model.script"].severity == "info"


def test_model_key(ward: Ward) -> None:
    finding = with_(ward, FINN_MODEL="anthropic:claude-x").examine()["model.key"]
    assert (finding.severity, "ANTHROPIC_API_KEY is not set" in finding.detail) == ("warn", True)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("'sk-ant-0123456789abcdef'", "stands in quotes"),
        ("my-key-that-was-0123456789", "does not begin with sk-ant-"),
        ("sk-ant-1", "has fewer than 20 characters"),
        ("sk-ant-0123 456789abcdef", "holds spaces"),
    ],
)
def test_a_key_that_looks_like_none_is_told_without_a_letter_of_it(ward: Ward, key: str, said: str) -> None:
    finding = with_(ward, FINN_MODEL="anthropic:claude-x", ANTHROPIC_API_KEY=key).examine()["model.key"]
    assert finding.severity == "warn"
    assert said in finding.detail
    assert key not in f"{finding}"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://models.example/v1", "unencrypted to models.example"),
        ("https://models.example", "usually ends with /v1"),
    ],
)
def test_model_base_url(ward: Ward, url: str, said: str) -> None:
    finding = with_(ward, FINN_MODEL="openai:m", FINN_MODEL_BASE_URL=url).examine()["model.base_url"]
    assert (finding.severity, said in finding.detail) == ("warn", True)


@pytest.mark.parametrize("url", ["http://127.0.0.1:11434/v1", "http://ollama:11434/v1", "https://models.example/v1"])
def test_a_server_of_ones_own_is_fine(ward: Ward, url: str) -> None:
    found = with_(ward, FINN_MODEL="openai:m", FINN_MODEL_BASE_URL=url).examine()
    assert [found[name].severity for name in ("model.base_url", "model.key", "model.tools")] == ["pass"] * 3


def test_model_library(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    with_(ward, FINN_MODEL="anthropic:claude-x", ANTHROPIC_API_KEY=KEY)
    assert ward.examine()["model.library"].severity == "pass"
    monkeypatch.setitem(sys.modules, "anthropic", None)
    finding = ward.examine()["model.library"]
    assert (finding.severity, "anthropic is not installed" in finding.detail) == ("fail", True)


def test_model_tools(ward: Ward) -> None:
    finding = with_(ward, FINN_MODEL="openai:gpt-6-astra", OPENAI_API_KEY="sk-0123456789abcdefghij").examine()[
        "model.tools"
    ]
    assert finding.severity == "warn"
