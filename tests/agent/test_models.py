"""Which model is meant, what is known of it, what importing it costs, and what a call cost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent import models
from agent.model import About, Request, User
from agent.models import Chosen, choose, preload
from agent.models.builtin import MAKERS, PHRASES, Builtin, route
from agent.models.catalog import MODELS, VENDORS, Limits, Wire, limits, takes_tools
from agent.models.price import cost
from agent.models.scripted import Scripted
from agent.tools import TOOLS
from persistence.clock import FakeClock
from persistence.errors import ModelDenied, ModelError, UsageError
from persistence.events import Usage

CLOCK = FakeClock()


@pytest.mark.parametrize(
    ("chosen", "about"),
    [
        (Chosen(), ("finn", "builtin", "builtin")),
        (Chosen(model="", base_url="", openai_key=""), ("finn", "builtin", "builtin")),
        (Chosen(model="builtin", anthropic_key="k"), ("finn", "builtin", "builtin")),
        (Chosen(anthropic_key="k"), ("anthropic", VENDORS["anthropic"].default, "anthropic-messages")),
        (Chosen(openai_key="k"), ("openai", VENDORS["openai"].default, "openai-completions")),
        (Chosen(anthropic_key="k", openai_key="k"), ("anthropic", VENDORS["anthropic"].default, "anthropic-messages")),
        (Chosen(model="openai:gpt-5", anthropic_key="k", openai_key="k"), ("openai", "gpt-5", "openai-completions")),
        (
            Chosen(model="openai:qwen3:8b", base_url="http://localhost:11434/v1"),
            ("openai:localhost:11434", "qwen3:8b", "openai-completions"),
        ),
        (
            Chosen(model="anthropic:x", base_url="https://user:secret@gate.example/a"),
            ("anthropic:gate.example", "x", "anthropic-messages"),
        ),
    ],
)
def test_the_settings_name_the_model(chosen: Chosen, about: tuple[str, str, str]) -> None:
    found = choose(chosen, CLOCK).about
    assert (found.provider, found.name, found.api) == about
    assert found.ready


@pytest.mark.parametrize(
    "chosen",
    [
        Chosen(model="gpt-5"),
        Chosen(model="openai:"),
        Chosen(model="anthropic"),
        Chosen(model="builtin:x"),
        Chosen(model="scripted:"),
        Chosen(model="gemini:pro"),
        Chosen(model="OpenAI:gpt-5"),
        Chosen(base_url="http://localhost:1/v1"),
        Chosen(base_url="http://localhost:1/v1", openai_key="k"),
        Chosen(model="openai:x", base_url="localhost:1/v1"),
        Chosen(model="openai:x", base_url="ftp://localhost/v1"),
        Chosen(model="openai:x", base_url="http://"),
        Chosen(model="openai:x", base_url="http://[::1"),
        Chosen(model="openai:x", base_url="http://localhost:port/v1"),
    ],
    ids=str,
)
def test_a_setting_that_means_no_model_is_refused_with_what_would(chosen: Chosen) -> None:
    with pytest.raises(UsageError, match="FINN_MODEL") as caught:
        choose(chosen, CLOCK)
    assert caught.value.hint


def test_a_script_is_read_at_once(tmp_path: Path) -> None:
    file = tmp_path / "script.json"
    file.write_text(json.dumps([[{"text": "hello"}]]))
    model = choose(Chosen(model=f"scripted:{file}"), CLOCK)
    assert isinstance(model, Scripted)
    assert model.about == About("script.json", "scripted", "scripted", 128_000)


def test_keys_hide_from_repr() -> None:
    assert "secret" not in repr(Chosen(anthropic_key="secret", openai_key="secret"))


@pytest.mark.parametrize(("model", "key"), [("anthropic:x", "ANTHROPIC_API_KEY"), ("openai:x", "OPENAI_API_KEY")])
async def test_a_model_without_its_key_is_there_but_not_ready_and_says_why(model: str, key: str) -> None:
    chosen = choose(Chosen(model=model), CLOCK)
    assert (chosen.about.ready, chosen.about.note) == (False, f"{key} is not set")
    with pytest.raises(ModelDenied, match=key):
        async for _ in chosen.stream(Request("", (User("go"),), (), "s")):
            pass
    await models.close(chosen)


async def test_a_library_that_cannot_be_imported_is_told_by_the_model_and_kills_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "agent.models.pydantic_ai", None)
    model = choose(Chosen(model="openai:x", openai_key="k"), CLOCK)
    with pytest.raises(ModelError, match="does not work"):
        preload(model)
    assert not model.about.ready
    assert "does not work" in model.about.note


HEAVY = {"pydantic_ai", "openai", "anthropic", "httpx2", "genai_prices"}
CHOOSE = """
import sys
from agent import models
from persistence.clock import SystemClock
models.choose(models.Chosen(model="openai:x", openai_key="k"), SystemClock())
models.choose(models.Chosen(anthropic_key="k"), SystemClock())
models.choose(models.Chosen(), SystemClock())
print(" ".join(sys.modules))
"""


def test_choosing_a_model_imports_no_sdk() -> None:
    found = subprocess.run([sys.executable, "-c", CHOOSE], capture_output=True, text=True, check=True)
    assert not {name.split(".")[0] for name in found.stdout.split()} & HEAVY


def test_preloading_serves_every_kind_of_model(tmp_path: Path) -> None:
    file = tmp_path / "script.json"
    file.write_text("[]")
    preload(Builtin())
    preload(choose(Chosen(model=f"scripted:{file}"), CLOCK))
    preload(choose(Chosen(model="openai:x", openai_key="k"), CLOCK))


# ---------------------------------------------------------------- the catalog


@pytest.mark.parametrize(
    ("wire", "name", "found"),
    [
        ("anthropic", "claude-haiku-4-5", Limits(200_000, 64_000)),
        ("anthropic", "claude-haiku-4-5-20251001", Limits(200_000, 64_000)),
        ("anthropic", "claude-opus-5", Limits(1_000_000, 128_000)),
        ("anthropic", "claude-of-the-future", VENDORS["anthropic"].unknown),
        ("openai", "gpt-5.4-mini", Limits(400_000, 128_000)),
        ("openai", "gpt-5.4-mini-2026-03-17", Limits(400_000, 128_000)),
        ("openai", "gpt-5-mini", VENDORS["openai"].unknown),
        ("openai", "llama3", VENDORS["openai"].unknown),
        ("openai", "claude-haiku-4-5", VENDORS["openai"].unknown),
    ],
)
def test_a_name_stands_for_its_dated_releases_and_for_nothing_else(wire: Wire, name: str, found: Limits) -> None:
    assert limits(wire, name) == found


def test_each_default_is_listed_and_takes_tools_and_no_line_is_there_twice() -> None:
    names = [(wire, name) for wire, name, _, _ in MODELS]
    assert len(set(names)) == len(names)
    assert {(wire, vendor.default) for wire, vendor in VENDORS.items()} <= set(names)
    assert all(takes_tools(wire, vendor.default) for wire, vendor in VENDORS.items())


def test_a_model_that_may_call_no_tools_says_so_unless_another_server_answers() -> None:
    assert "no tools" in choose(Chosen(model="openai:gpt-6.1-sol", openai_key="k"), CLOCK).about.note
    assert choose(Chosen(model="openai:gpt-6.1-sol", base_url="http://localhost:1/v1"), CLOCK).about.note == ""


# ---------------------------------------------------------------- the price


def test_a_call_costs_what_the_list_says_with_the_caches_apart() -> None:
    usage = Usage(input=1_000_000, output=100_000, cacheRead=200_000, cacheWrite=100_000)
    found = cost(usage, "anthropic", "claude-sonnet-4-5", CLOCK.now())
    assert found is not None
    assert found.total == pytest.approx(found.input + found.output + found.cacheRead + found.cacheWrite)
    # the whole input is above the 200,000 tokens where this model's higher prices begin
    assert (found.input, found.output, found.cacheRead, found.cacheWrite) == pytest.approx((6.0, 2.25, 0.12, 0.75))


def test_every_listed_model_has_a_price_and_an_unknown_one_has_none() -> None:
    usage = Usage(input=1000, output=100)
    assert [name for wire, name, _, _ in MODELS if cost(usage, wire, name, CLOCK.now()) is None] == []
    assert cost(usage, "openai", "llama3", CLOCK.now()) is None


# ---------------------------------------------------------------- builtin and the tools it calls

SENTENCES = ("list files", "read a.txt", "find notes", "grep x in src", "run ls", "remember x", "recall x", "recall")


@pytest.mark.parametrize("said", SENTENCES)
def test_what_builtin_calls_is_what_the_tools_take(said: str) -> None:
    tools = {tool.declaration.name: tool.declaration for tool in TOOLS}
    calls = route(said)
    assert isinstance(calls, tuple)
    for call in calls:
        tools[call.tool].args.model_validate(call.args)


def test_each_phrase_is_written_once_and_each_maker_used() -> None:
    phrases = [line for line in PHRASES.splitlines() if line and not line.startswith("#")]
    assert len({phrase.split(maxsplit=1)[1] for phrase in phrases}) == len(phrases)
    assert {phrase.split()[0] for phrase in phrases} == set(MAKERS)
