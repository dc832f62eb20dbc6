"""A model: what turns a context into an answer, streamed.

    Request ─▶ model.stream ─▶ TextDelta | ThinkingDelta | ... ─▶ Answer     (exactly one Answer, last)
                             └▶ raises ModelError                            (then nothing of it is whole)

`agent.loop` owns retries, limits and records; a model only speaks its wire. The implementations are in agent/models.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, Protocol

from agent.tool import Declaration
from persistence.events import Block, Usage


@dataclass(frozen=True, slots=True)
class User:
    """What the model hears from the owner, or from finn in the owner's place."""

    text: str


@dataclass(frozen=True, slots=True)
class Assistant:
    """What a model said before; `provider` and `model` tell whether its signed thinking may be sent back."""

    content: tuple[Block, ...]
    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class Result:
    """What a tool gave back to the call of that id."""

    call: str
    name: str
    text: str
    is_error: bool


Message = User | Assistant | Result


@dataclass(frozen=True, slots=True)
class Request:
    """One model call. The same system and tools give the same bytes on the wire, so that provider caches hit.

    Every tool call in `messages` is followed by its Result before the next Assistant.
    """

    system: str
    messages: tuple[Message, ...]
    tools: tuple[Declaration, ...]
    session: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The whole message, with what it cost. `refused`: the provider's own filter stopped it."""

    content: tuple[Block, ...]
    usage: Usage
    stop_reason: Literal["stop", "length", "tool_use", "refused"]


Delta = TextDelta | ThinkingDelta | Answer


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a model without calling it. `window` is in tokens; `ready` False says why in `note`."""

    name: str
    provider: str
    api: str
    window: int
    note: str = ""
    ready: bool = True


class Model(Protocol):
    """A model behind its wire."""

    @property
    def about(self) -> About:
        """What is known of it without calling it; a call may teach more."""

    def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """Streams one answer; closing the iterator ends the call at the provider. Raises ModelError."""
