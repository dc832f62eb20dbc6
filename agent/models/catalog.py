"""The models that are known by name, as of November 2026.

One line each: wire, name, context window and longest answer in tokens. A name also stands for its dated releases
(`claude-x` for `claude-x-20261001`). A name that is not here works too, with the modest limits of its wire.
"""

from dataclasses import dataclass
from typing import Literal

Wire = Literal["anthropic", "openai"]


@dataclass(frozen=True)
class Limits:
    """What a model takes and gives at most, in tokens."""

    window: int
    output: int


MODELS: tuple[tuple[Wire, str, int, int], ...] = (
    ("anthropic", "claude-fable-5-2", 1_000_000, 128_000),
    ("anthropic", "claude-haiku-4-5", 200_000, 64_000),
    ("anthropic", "claude-haiku-5-5", 1_000_000, 128_000),
    ("anthropic", "claude-opus-4-5", 200_000, 64_000),
    ("anthropic", "claude-opus-4-8", 1_000_000, 128_000),
    ("anthropic", "claude-opus-5", 1_000_000, 128_000),
    ("anthropic", "claude-opus-5-5", 1_000_000, 128_000),
    ("anthropic", "claude-sonnet-4-5", 200_000, 64_000),
    ("anthropic", "claude-sonnet-4-6", 1_000_000, 128_000),
    ("anthropic", "claude-sonnet-5", 1_000_000, 128_000),
    ("anthropic", "claude-sonnet-5-5", 1_000_000, 128_000),
    ("openai", "gpt-4.1", 1_000_000, 32_000),
    ("openai", "gpt-4o", 128_000, 16_000),
    ("openai", "gpt-5", 400_000, 128_000),
    ("openai", "gpt-5.4", 1_050_000, 128_000),
    ("openai", "gpt-5.4-mini", 400_000, 128_000),
    ("openai", "gpt-5.6-luna", 1_050_000, 128_000),
    ("openai", "gpt-5.6-sol", 1_050_000, 128_000),
    ("openai", "gpt-5.6-terra", 1_050_000, 128_000),
    ("openai", "gpt-6-astra", 1_050_000, 128_000),
    ("openai", "gpt-6-luna", 1_050_000, 128_000),
    ("openai", "gpt-6.1-sol", 1_050_000, 128_000),
    ("openai", "gpt-6.1-terra", 1_050_000, 128_000),
    ("openai", "gpt-oss-120b", 131_072, 32_000),
    ("openai", "gpt-oss-20b", 131_072, 32_000),
)


@dataclass(frozen=True)
class Vendor:
    """Whose wire it is. `api` is Pi's name of the wire, `unknown` holds for a name that is not in MODELS."""

    api: str
    address: str
    key_name: str
    default: str
    unknown: Limits


# Anthropic's own name that is not listed is newer than this table; one behind OpenAI's wire may be any local model.
VENDORS: dict[Wire, Vendor] = {
    "anthropic": Vendor(
        api="anthropic-messages",
        address="https://api.anthropic.com",
        key_name="ANTHROPIC_API_KEY",
        default="claude-sonnet-5-5",
        unknown=Limits(200_000, 32_000),
    ),
    "openai": Vendor(
        api="openai-completions",
        address="https://api.openai.com/v1",
        key_name="OPENAI_API_KEY",
        default="gpt-6.1-terra",
        unknown=Limits(32_000, 4_000),
    ),
}

# OpenAI takes tools on Chat Completions only from models that do not think there, and these cannot stop.
TOOLLESS = ("gpt-6-astra", "gpt-6.1-sol")


def limits(wire: Wire, name: str) -> Limits:
    """The limits of the longest listed name that `name` is a release of, or the modest ones of the wire."""
    fitting = [line for line in MODELS if line[0] == wire and _is_release(name, line[1])]
    if not fitting:
        return VENDORS[wire].unknown
    _, _, window, output = max(fitting, key=lambda line: len(line[1]))
    return Limits(window, output)


def takes_tools(wire: Wire, name: str) -> bool:
    """Whether the vendor itself lets the model call tools on its wire."""
    return wire != "openai" or not any(_is_release(name, known) for known in TOOLLESS)


def _is_release(name: str, known: str) -> bool:
    """`known` itself, or `known-DATE`: `gpt-5-mini` is no release of `gpt-5`."""
    rest = name.removeprefix(known)
    return name.startswith(known) and (not rest or rest.startswith(("-20", "@20")) or rest == "-latest")
