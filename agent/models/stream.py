"""The bytes of a streamed answer, looked at before the libraries see them.

    : comment · event: NAME · data: JSON · empty line        server-sent events; only `data` counts here

The SDKs build their objects without checking them, so an event without its text would be passed over in silence and the
answer would look whole without it. Here an event that is not what it claims to be ends the call.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx2

from agent.models.catalog import Wire
from persistence.errors import ModelCut
from persistence.events import Json

SHOWN = 100  # bytes of a malformed event in the message

# What each kind of Anthropic's deltas cannot be without. Kinds that are not here may be new, and are the library's.
DELTAS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}


def is_messages_event(event: dict[str, Json]) -> bool:
    """Whether an event of Anthropic's wire holds what its kind promises."""
    if event["type"] != "content_block_delta":
        return isinstance(event["type"], str)
    delta = event["delta"]
    return delta["type"] not in DELTAS or isinstance(delta[DELTAS[delta["type"]]], str)


def is_chat_event(event: dict[str, Json]) -> bool:
    """Whether a chunk of OpenAI's wire holds text as text and calls as calls."""
    deltas = [choice.get("delta") or {} for choice in event.get("choices") or ()]
    calls = [call.get("function") or {} for delta in deltas for call in delta.get("tool_calls") or ()]
    return all(isinstance(delta.get("content"), str | list | None) for delta in deltas) and all(
        isinstance(call.get("arguments"), str | dict | None) for call in calls
    )


CHECKS: dict[Wire, Callable[[dict[str, Json]], bool]] = {"anthropic": is_messages_event, "openai": is_chat_event}


def check(wire: Wire, data: bytes) -> None:
    """Raises ModelCut for an event that is not JSON or not of its wire."""
    if data in (b"", b"[DONE]"):
        return
    try:
        fits = CHECKS[wire](json.loads(data))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _malformed(data) from error
    if not fits:
        raise _malformed(data)


def _malformed(data: bytes) -> ModelCut:
    shown = data[:SHOWN].decode("utf-8", "replace")
    return ModelCut(f"the provider sent an event that cannot be understood: {shown}", hint="it is asked again")


class Checked(httpx2.AsyncByteStream):
    """A stream whose events are checked on their way through. The bytes are not changed."""

    def __init__(self, stream: httpx2.AsyncByteStream, wire: Wire) -> None:
        self._stream = stream
        self._wire: Wire = wire

    async def __aiter__(self) -> AsyncIterator[bytes]:
        rest = b""
        async for data in self._stream:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line.startswith(b"data:"):
                    check(self._wire, line[5:].strip())
            yield data

    async def aclose(self) -> None:
        await self._stream.aclose()


def checking(wire: Wire) -> Callable[[httpx2.Response], Awaitable[None]]:
    """The hook of a client whose streamed answers are to be checked."""

    async def hook(response: httpx2.Response) -> None:
        streamed = response.headers.get("content-type", "").startswith("text/event-stream")
        if streamed and isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = Checked(response.stream, wire)

    return hook
