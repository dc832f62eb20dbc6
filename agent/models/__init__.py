"""The models, and which one is meant.

    FINN_MODEL   builtin | anthropic:NAME | openai:NAME | scripted:FILE
    unset        Anthropic's default if its key is set, else OpenAI's if its key is set, else builtin

Importing this costs nothing: what a wire needs (an SDK, 1-2 s) is imported by `preload` in a thread, or by the first
call, also in a thread.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agent.model import About, Delta, Model, Request
from agent.models import builtin, catalog, scripted
from agent.models.catalog import Wire
from agent.models.provider import Provider
from persistence.clock import Clock
from persistence.errors import ModelDenied, ModelError, UsageError

if TYPE_CHECKING:
    from agent.models.pydantic_ai import PydanticAI

IDLE_S = 60.0  # without a byte for so long, a stream counts as stalled

TOOLLESS = f"OpenAI lets this model call no tools on Chat Completions; {catalog.VENDORS['openai'].default} can"


@dataclass(frozen=True)
class Chosen:
    """What the settings say about the model. An empty value counts as not set."""

    model: str | None = None
    base_url: str | None = None
    anthropic_key: str | None = field(default=None, repr=False)
    openai_key: str | None = field(default=None, repr=False)
    idle_s: float = IDLE_S

    def key(self, wire: Wire) -> str | None:
        """The key of a wire, if there is one."""
        return {"anthropic": self.anthropic_key, "openai": self.openai_key}[wire] or None


def choose(chosen: Chosen, clock: Clock) -> Model:
    """The model that the settings mean. It can be asked at once; see `preload`. Raises UsageError."""
    if chosen.base_url and not chosen.model:
        raise UsageError("FINN_MODEL_BASE_URL is set without FINN_MODEL", hint="set FINN_MODEL=openai:NAME as well")
    kind, _, rest = (chosen.model or default(chosen)).partition(":")
    match kind:
        case "builtin" if not rest:
            return builtin.Builtin()
        case "scripted" if rest:
            return scripted.Scripted(scripted.load(Path(rest)), clock)
        case "anthropic" | "openai" if rest:
            return Remote(provider(kind, rest, chosen), clock)
    raise UsageError(
        f"FINN_MODEL={chosen.model} is no model", hint="builtin, anthropic:NAME, openai:NAME or scripted:FILE"
    )


def default(chosen: Chosen) -> str:
    """The model of a finn that was told none."""
    return next((f"{wire}:{vendor.default}" for wire, vendor in catalog.VENDORS.items() if chosen.key(wire)), "builtin")


def provider(wire: Wire, name: str, chosen: Chosen) -> Provider:
    """Where `name` is reached. Raises UsageError for a base URL that is none."""
    url = chosen.base_url or None
    if url and not is_http(url):  # the address may hold a password, so it is not repeated
        raise UsageError("FINN_MODEL_BASE_URL is no http address", hint="for example http://localhost:11434/v1")
    return Provider(wire, name, url, chosen.key(wire), catalog.limits(wire, name), chosen.idle_s)


def is_http(url: str) -> bool:
    """Whether a request can be sent to an address below `url`."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


async def close(model: Model) -> None:
    """Closes the connections that a model keeps, if it has any."""
    if isinstance(model, Remote):
        await model.close()


def preload(model: Model) -> None:
    """Does what the first call would otherwise wait for. To be run in a thread. Raises ModelError if it cannot."""
    match model:
        case Remote():
            model.load()
        case builtin.Builtin():
            builtin.rules()


class Remote:
    """A provider's model, whose SDK is imported when it is first needed and never in the event loop."""

    def __init__(self, provider: Provider, clock: Clock) -> None:
        self.about = about(provider)
        self._provider = provider
        self._clock = clock
        self._wire: PydanticAI | None = None
        self._lock = threading.Lock()

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """Streams from the provider. Raises ModelDenied without a request where the key is missing."""
        if not self.about.ready:
            raise ModelDenied(
                f"no answer from {self.about.name}: {self.about.note}",
                hint="mend that and restart finn, or unset FINN_MODEL",
            )
        wire = self._wire
        if wire is None:
            wire = await asyncio.to_thread(self.load)
        async with aclosing(wire.stream(request)) as deltas:
            async for delta in deltas:
                yield delta

    async def close(self) -> None:
        """Closes the connections to the provider."""
        if self._wire is not None:
            await self._wire.close()

    def load(self) -> "PydanticAI":
        """Imports the SDK and builds the wire, once. Raises ModelError and says so in `about` where that fails."""
        with self._lock:
            if self._wire is None:
                self._wire = self._build()
            return self._wire

    def _build(self) -> "PydanticAI":
        try:
            from agent.models.pydantic_ai import PydanticAI

            return PydanticAI(self._provider, self.about, self._clock)
        except Exception as error:  # whatever keeps a library from working, finn lives on and says so
            self.about = replace(self.about, ready=False, note=f"the library of this model does not work: {error}")
            raise ModelError(self.about.note, hint="install finn again from requirements.lock") from error


def about(provider: Provider) -> About:
    """What is known of a provider's model without calling it."""
    missing = provider.key is None and provider.is_vendor
    toolless = provider.is_vendor and not catalog.takes_tools(provider.wire, provider.name)
    return About(
        name=provider.name,
        provider=provider.place,
        api=provider.vendor.api,
        window=provider.limits.window,
        note=f"{provider.vendor.key_name} is not set" if missing else TOOLLESS if toolless else "",
        ready=not missing,
    )
