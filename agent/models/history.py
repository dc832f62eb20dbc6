"""What was said, in the forms in which the providers want to hear it again.

A message is converted once and its form kept while requests of its session hold it, so a long conversation costs a call
no more than a short one. Thinking goes back only to the model that thought it: its signature proves nothing elsewhere.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Generic, Literal, TypeVar

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from agent.model import About, Assistant, Message, Request, Result, User
from persistence.events import Block, Json, TextBlock, ThinkingBlock, ToolCallBlock

SESSIONS = 8  # whose forms are kept; four turns run at once
REDACTED = "redacted:"  # marks a signature that is all there is of a thought

# The fields in which servers of OpenAI's wire send thinking, and want it back. As in Pi, the name is the signature.
THINKING_FIELDS = ("reasoning_content", "reasoning")

Form = TypeVar("Form")


class Forms(Generic[Form]):
    """The forms of the messages of the last requests, by identity: a message is frozen."""

    def __init__(self, make: Callable[[Message], Form]) -> None:
        self._make = make
        self._sessions: OrderedDict[str, dict[int, tuple[Message, Form]]] = OrderedDict()

    def of(self, request: Request) -> list[Form]:
        """The form of each message, made now only where the session's last request did not hold it."""
        before = self._sessions.pop(request.session, {})
        kept = {id(message): before.get(id(message)) or (message, self._make(message)) for message in request.messages}
        self._sessions[request.session] = kept
        if len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)
        return [kept[id(message)][1] for message in request.messages]


def is_own(message: Assistant, about: About) -> bool:
    """Whether this very model at this very place said it."""
    return (message.provider, message.model) == (about.provider, about.name)


# ---------------------------------------------------------------- Anthropic's wire: pydantic_ai's messages

Part = ModelRequestPart | ModelResponse


def parts(about: About) -> Callable[[Message], Part]:
    """Makes the part of a request, or the response, that a message is."""

    def made(message: Message) -> Part:
        match message:
            case User():
                return UserPromptPart(message.text)
            case Result():
                return _returned(message)
            case Assistant():
                return _response(message, own=is_own(message, about))

    return made


def _returned(result: Result) -> ToolReturnPart:
    outcome: Literal["failed", "success"] = "failed" if result.is_error else "success"
    return ToolReturnPart(result.name, result.text, result.call, outcome=outcome)


def messages(forms: Iterable[Part]) -> list[ModelMessage]:
    """Parts as messages that take turns: what stands between two answers is one request, results first as they come."""
    found: list[ModelMessage] = []
    for is_response, group in groupby(forms, lambda form: isinstance(form, ModelResponse)):
        if is_response:
            found.extend(form for form in group if isinstance(form, ModelResponse))
        else:
            found.append(ModelRequest(parts=[form for form in group if not isinstance(form, ModelResponse)]))
    return found


def _response(message: Assistant, *, own: bool) -> ModelResponse:
    made = [part for block in message.content if (part := _part(block, own=own)) is not None]
    return ModelResponse(parts=made, provider_name="anthropic", model_name=message.model)


def _part(block: Block, *, own: bool) -> ModelResponsePart | None:
    match block:
        case TextBlock():
            return TextPart(block.text) if block.text else None
        case ToolCallBlock():
            return ToolCallPart(block.name, block.arguments, block.id)
        case ThinkingBlock():
            return _thinking(block) if own and block.thinkingSignature else None


def _thinking(block: ThinkingBlock) -> ThinkingPart:
    signature = block.thinkingSignature or ""
    if signature.startswith(REDACTED):
        data = signature.removeprefix(REDACTED)
        return ThinkingPart("", id="redacted_thinking", signature=data, provider_name="anthropic")
    return ThinkingPart(block.thinking, signature=signature, provider_name="anthropic")


def signature_of(part: ThinkingPart) -> str | None:
    """What has to be kept with a thought so that it can be sent back."""
    if part.id == "redacted_thinking":
        return f"{REDACTED}{part.signature}"
    return part.signature or (part.id if part.id in THINKING_FIELDS else None)


# ---------------------------------------------------------------- OpenAI's wire: the message itself

Sent = dict[str, Json]


def sent(about: About) -> Callable[[Message], Sent | None]:
    """Makes the message of the Chat Completions wire, or None of an answer that says nothing.

    Made here and not by the library, whose SDK looks at each field of each message again for each call: 30 ms for 200.
    """

    def made(message: Message) -> Sent | None:
        match message:
            case User():
                return {"role": "user", "content": message.text}
            case Result():
                return {"role": "tool", "tool_call_id": message.call, "content": message.text}
            case Assistant():
                return _sent_answer(message, own=is_own(message, about))

    return made


def _sent_answer(message: Assistant, *, own: bool) -> Sent | None:
    texts = [block.text for block in message.content if isinstance(block, TextBlock) and block.text]
    calls = [_sent_call(block) for block in message.content if isinstance(block, ToolCallBlock)]
    if not texts and not calls:
        return None
    answer: Sent = {"role": "assistant", "content": "\n\n".join(texts) or None}
    for block in message.content:
        if own and isinstance(block, ThinkingBlock) and block.thinkingSignature in THINKING_FIELDS:
            answer[block.thinkingSignature] = answer.get(block.thinkingSignature, "") + block.thinking
    return {**answer, "tool_calls": calls} if calls else answer


def _sent_call(block: ToolCallBlock) -> Sent:
    arguments = json.dumps(block.arguments, ensure_ascii=False, separators=(",", ":"))
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": arguments}}


def chat(system: str, forms: Iterable[Sent | None]) -> list[Sent]:
    """The messages of a request. Servers that think want their field in every answer with a call, if in any."""
    said = [form for form in forms if form is not None]
    field = next((name for name in THINKING_FIELDS if any(name in form for form in said)), None)
    if field:
        said = [{**form, field: ""} if "tool_calls" in form and field not in form else form for form in said]
    return [{"role": "system", "content": system}, *said]
