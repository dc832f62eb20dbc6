"""Anthropic's Messages and OpenAI's Chat Completions, streamed through the `direct` layer of pydantic_ai.

    Request ─▶ history (made once per message) ─▶ SDK ─ HTTP ─▶ events ─▶ TextDelta | ThinkingDelta … ─▶ Answer
                                                                      └▶ ModelError, and nothing of it is whole

Only `agent.models` imports this, and in a thread: the SDKs take one to two seconds. What the library gets wrong for us
is closed here: its prefix `openai` means another API, so the models are built by hand; a stream that is cut cleanly
counts as complete there, so an answer is whole only where the provider said why it ended; the SDKs retry by themselves,
which is the loop's business, so they are told not to.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Literal, cast
from urllib.parse import urlsplit

import httpx2
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic_ai.direct import model_request_stream
from pydantic_ai.messages import (
    InstructionPart,
    ModelResponse,
    ModelResponsePart,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
)
from pydantic_ai.models import ModelRequestParameters, StreamedResponse
from pydantic_ai.models.anthropic import AnthropicModel, AnthropicModelSettings
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIChatModelSettings
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.usage import RequestUsage

from agent.model import About, Answer, Delta, Request, TextDelta, ThinkingDelta
from agent.models import history
from agent.models.calls import call_id, tool_call
from agent.models.catalog import Wire
from agent.models.failures import failure
from agent.models.price import cost
from agent.models.provider import Provider
from agent.models.stream import checking
from agent.tool import Declaration
from persistence.clock import Clock
from persistence.errors import ModelCut, ModelError
from persistence.events import Block, TextBlock, ThinkingBlock, ToolCallBlock, Usage
from persistence.values import mended

CONNECT_S = 10.0
KEEP_ALIVE_S = 60.0  # a tool may run so long and the next call still finds the connection open
ANSWER_TOKENS = 32_000  # the longest answer that is asked for where the wire wants a number
NO_KEY = "none"  # the SDKs want one, the servers that need none ignore it

Stop = Literal["stop", "length", "tool_use", "refused"]

# Why an answer ended, in the providers' words. A word that is not here proves nothing about the answer.
STOPS: dict[str, Stop] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refused",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_use",
    "refusal": "refused",
}


class PydanticAI:
    """A provider's model. It keeps its connections; `close` ends them."""

    def __init__(self, provider: Provider, about: About, clock: Clock) -> None:
        self.about = about
        self._provider = provider
        self._clock = clock
        self._http = http_client(provider)
        self._wire: OpenAIWire | AnthropicWire = WIRES[provider.wire](provider, about, self._http)

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """Streams one answer. Raises ModelError; closed early, it closes the connection."""
        with self._translated():
            async with self._wire.open(request) as response, aclosing(_events(response)) as events:
                async for event in events:
                    if delta := spoken(event):
                        yield delta
                answer = answered(response.get(), request)
        yield replace(answer, usage=self._priced(answer.usage))

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    def _priced(self, usage: Usage) -> Usage:
        """`usage` with its cost, where the vendor itself answered: what others ask nobody here knows."""
        provider = self._provider
        if not provider.is_vendor:
            return usage
        return usage.model_copy(update={"cost": cost(usage, provider.wire, provider.name, self._clock.now())})

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except ModelError:
            raise
        except Exception as error:  # what a provider sends can make any of three libraries raise anything
            raise failure(
                error,
                model=self.about.name,
                key_name=self._provider.vendor.key_name,
                secret=self._provider.key,
                idle_s=self._provider.idle_s,
                now=self._clock.now(),
            ) from error


def _events(response: StreamedResponse) -> AsyncGenerator[ModelResponseStreamEvent, None]:
    return cast(AsyncGenerator[ModelResponseStreamEvent, None], aiter(response))


def http_client(provider: Provider) -> httpx2.AsyncClient:
    """The client of every call: silence is limited, length is not. A proxy of the environment never serves loopback."""
    loopback = urlsplit(provider.base_url or "").hostname in ("127.0.0.1", "localhost", "::1")
    return httpx2.AsyncClient(
        timeout=timeout(provider),
        limits=httpx2.Limits(keepalive_expiry=KEEP_ALIVE_S),
        headers={"accept-encoding": "identity"},  # compression would hold tokens back, and hide events from the check
        event_hooks={"response": [checking(provider.wire)]},
        trust_env=not loopback,
    )


def timeout(provider: Provider) -> httpx2.Timeout:
    return httpx2.Timeout(provider.idle_s, connect=min(CONNECT_S, provider.idle_s))


# ---------------------------------------------------------------- the two wires


class AnthropicWire:
    """Messages. The system prompt, the tools and the conversation so far are marked for the provider's cache."""

    def __init__(self, provider: Provider, about: About, http: httpx2.AsyncClient) -> None:
        client = AsyncAnthropic(
            api_key=provider.key or NO_KEY,
            base_url=provider.address,
            timeout=timeout(provider),
            max_retries=0,
            http_client=http,
        )
        self._model = AnthropicModel(provider.name, provider=AnthropicProvider(anthropic_client=client))
        self._settings = AnthropicModelSettings(
            max_tokens=min(provider.limits.output, ANSWER_TOKENS),
            anthropic_cache_instructions=True,
            anthropic_cache_tool_definitions=True,
            anthropic_cache_messages=True,
        )
        self._forms = history.Forms(history.parts(about))

    def open(self, request: Request) -> AbstractAsyncContextManager[StreamedResponse]:
        """The call; nothing is sent before it is entered."""
        return model_request_stream(
            self._model,
            history.messages(self._forms.of(request)),
            model_settings=self._settings,
            model_request_parameters=ModelRequestParameters(
                function_tools=defined(request.tools), instruction_parts=[InstructionPart(request.system)]
            ),
            instrument=False,
        )


class OpenAIWire:
    """Chat Completions."""

    def __init__(self, provider: Provider, about: About, http: httpx2.AsyncClient) -> None:
        client = AsyncOpenAI(
            api_key=provider.key or NO_KEY,
            base_url=provider.address,
            timeout=timeout(provider),
            max_retries=0,
            http_client=http,
        )
        self._model = OpenAIChatModel(provider.name, provider=OpenAIProvider(openai_client=client))
        self._forms = history.Forms(history.sent(about))
        self._is_vendor = provider.is_vendor
        # OpenAI refuses tools on this wire to a model that thinks, so a model that can leave it is told to.
        self._thinks_against_tools = bool(self._model.profile.get("openai_supports_reasoning_effort_none"))

    def open(self, request: Request) -> AbstractAsyncContextManager[StreamedResponse]:
        """The call; nothing is sent before it is entered. What is in `extra_body` replaces the SDK's own messages."""
        return model_request_stream(
            self._model,
            [],
            model_settings=self._settings(request),
            model_request_parameters=ModelRequestParameters(function_tools=defined(request.tools)),
            instrument=False,
        )

    def _settings(self, request: Request) -> OpenAIChatModelSettings:
        messages = history.chat(request.system, self._forms.of(request))
        settings = OpenAIChatModelSettings(extra_body={"messages": messages})
        if self._is_vendor:
            settings["openai_prompt_cache_key"] = request.session
            if self._thinks_against_tools:
                settings["openai_reasoning_effort"] = "none"
        return settings


WIRES: dict[Wire, type[AnthropicWire] | type[OpenAIWire]] = {"anthropic": AnthropicWire, "openai": OpenAIWire}


@lru_cache(maxsize=4)
def _defined(tools: tuple[Declaration, ...]) -> tuple[ToolDefinition, ...]:
    return tuple(
        ToolDefinition(name=t.name, description=t.description, parameters_json_schema=t.parameters, strict=False)
        for t in tools
    )


def defined(tools: tuple[Declaration, ...]) -> list[ToolDefinition]:
    """The tools as the library wants them. Never strict: optional arguments stay optional."""
    return list(_defined(tools))


# ---------------------------------------------------------------- what comes back


def spoken(event: ModelResponseStreamEvent) -> Delta | None:
    """What an event adds to the text or the thinking."""
    match event:
        case PartStartEvent(part=TextPart(content=str(text))) | PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
            return TextDelta(mended(text)) if text else None
        case PartStartEvent(part=ThinkingPart(content=str(text))):
            return ThinkingDelta(mended(text)) if text else None
        case PartDeltaEvent(delta=ThinkingPartDelta(content_delta=str(text))):
            return ThinkingDelta(mended(text)) if text else None
    return None


def answered(response: ModelResponse, request: Request) -> Answer:
    """The whole answer. Raises ModelCut where the provider did not say why it ended: then it is a part of one."""
    details = response.provider_details or {}
    word = details.get("finish_reason")
    usage = counted(response.usage)
    if details.get("refusal") or STOPS.get(word or "") == "refused":
        refusal = str(details.get("refusal") or "")
        return Answer((TextBlock(text=refusal),) if refusal else (), usage, "refused")
    if word not in STOPS:
        raise ModelCut(f"the stream ended before the answer did (finish reason {word})", hint="it is asked again")
    content = tuple(blocks(response.parts, request))
    called = any(isinstance(block, ToolCallBlock) for block in content)
    if STOPS[word] == "tool_use" and not called:
        raise ModelCut("the model announced a tool call and made none", hint="it is asked again")
    return Answer(content, usage, "tool_use" if called and STOPS[word] == "stop" else STOPS[word])


def blocks(parts: Sequence[ModelResponsePart], request: Request) -> Iterator[Block]:
    """The parts as content. Arguments that are no JSON object come as one that no tool takes, with the text in it."""
    ids: set[str] = set()
    for n, part in enumerate(parts):
        match part:
            case TextPart(content=text) if text:
                yield TextBlock(text=mended(text))
            case ThinkingPart() if part.content or part.signature:
                signature = history.signature_of(part)
                yield ThinkingBlock(thinking=mended(part.content), thinkingSignature=signature)
            case ToolCallPart():
                fresh = part.tool_call_id and part.tool_call_id not in ids
                call = part.tool_call_id if fresh else call_id(request, n)
                ids.add(call)
                yield tool_call(call, part.tool_name, part.args_as_dict())


def counted(usage: RequestUsage) -> Usage:
    """The tokens of a call; what came from or went into the provider's cache is not counted as input again."""
    cached = usage.cache_read_tokens + usage.cache_write_tokens
    return Usage(
        input=max(usage.input_tokens - cached, 0),
        output=usage.output_tokens,
        cacheRead=usage.cache_read_tokens,
        cacheWrite=usage.cache_write_tokens,
        totalTokens=usage.input_tokens + usage.output_tokens,
    )
