"""The fake: a model that says what a JSON file tells it to, at the pace it is told. It needs no key and no network.

    {"replies": [ CALL, ...                                        one for each call of a session, in order
                , {"when": "weather", "calls": [CALL, ...]} ],     or for each call since a prompt that holds "weather"
     "loop": true, "log": "sent.jsonl", "window": 128000}
    CALL = [STEP, ...] | {"attempts": [[STEP, ...], ...]}          what the first, the second, ... try of a call gets
    STEP = {"text": ...} | {"thinking": ...} | {"tool": ...} | {"error": ...} | {"usage": ...} | {"stop": ...}
         | {"sleep": ...}

Which CALL answers a request is read from the request itself, so a process that was killed and started again goes on
where the conversation stands. Held in memory is only which attempt is due. docs/scripted.md is the manual.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError

from agent.model import About, Answer, Assistant, Delta, Message, Request, Result, TextDelta, ThinkingDelta, User
from agent.models.calls import call_id, tool_call
from persistence.clock import Clock
from persistence.errors import (
    ModelCut,
    ModelDenied,
    ModelError,
    ModelOverloaded,
    ModelRejected,
    ModelStalled,
    UsageError,
)
from persistence.events import Block, Json, TextBlock, ThinkingBlock, ToolCallBlock, Usage, Value

WINDOW = 128_000  # tokens
CHARACTERS_PER_TOKEN = 4  # for the usage of an answer whose script names none

ERRORS: dict[str, type[ModelError]] = {
    "overloaded": ModelOverloaded,
    "stalled": ModelStalled,
    "cut": ModelCut,
    "denied": ModelDenied,
    "rejected": ModelRejected,
}


# ---------------------------------------------------------------- the script


class Text(Value):
    """Text that is streamed in pieces of `chunk` characters (0: whole), each after `delay` seconds."""

    text: str
    chunk: int = Field(default=0, ge=0)
    delay: float = Field(default=0.0, ge=0)


class Thinking(Value):
    """Thinking, streamed like text."""

    thinking: str
    chunk: int = Field(default=0, ge=0)
    delay: float = Field(default=0.0, ge=0)
    signature: str | None = None


class Tool(Value):
    """A tool call; several in one CALL are parallel."""

    tool: str
    args: dict[str, Json] = Field(default_factory=dict)
    id: str | None = None


class Error(Value):
    """The call fails here; what was streamed before it is worthless."""

    error: Literal["overloaded", "stalled", "cut", "denied", "rejected"]
    message: str = "the script says so"
    retry_after: float | None = None


class Spent(Value):
    """What the answer says it cost."""

    usage: Usage


class Stop(Value):
    """Why the answer ends; without it `tool_use` after a tool call, else `stop`."""

    stop: Literal["stop", "length", "tool_use", "refused"]


class Sleep(Value):
    """Silence."""

    sleep: float = Field(ge=0)


Step = Text | Thinking | Tool | Error | Spent | Stop | Sleep
STEPS: dict[str, type[Step]] = {
    "text": Text,
    "thinking": Thinking,
    "tool": Tool,
    "error": Error,
    "usage": Spent,
    "stop": Stop,
    "sleep": Sleep,
}

Attempts = tuple[tuple[Step, ...], ...]  #: what each try of one call gets; the last one serves all further tries


@dataclass(frozen=True)
class Reply:
    """The calls that answer a prompt which holds `when`."""

    when: str
    calls: tuple[Attempts, ...]


@dataclass(frozen=True)
class Script:
    """A script that was read: `calls` in the order of the session, `replies` by what was said."""

    calls: tuple[Attempts, ...] = ()
    replies: tuple[Reply, ...] = ()
    loop: bool = False
    log: Path | None = None
    window: int = WINDOW
    name: str = "script"

    KEYS: ClassVar = {"replies", "loop", "log", "window"}


def load(path: Path) -> Script:
    """The script in `path`. A relative `log` lies beside it. Raises UsageError naming the file and the place in it."""
    try:
        return parse(json.loads(path.read_text("utf-8")), path)
    except OSError as error:
        raise UsageError(f"cannot read the script {path}: {error.strerror}", hint="FINN_MODEL=scripted:FILE") from error
    except ValueError as error:
        raise UsageError(f"the script {path} is not what docs/scripted.md describes: {error}") from error


def parse(data: Json, path: Path) -> Script:
    """The script that `data` describes. Raises ValueError with the place of what is wrong."""
    fields = {"replies": data} if isinstance(data, list) else data
    if not isinstance(fields, dict) or not isinstance(fields.get("replies"), list):
        raise ValueError('it is neither a list nor an object with a list "replies"')
    if unknown := sorted(set(fields) - Script.KEYS):
        raise ValueError(f"unknown key {unknown[0]!r}")
    entries = list(enumerate(fields["replies"]))
    return Script(
        calls=tuple(_call(entry, f"replies[{n}]") for n, entry in entries if not _conditional(entry)),
        replies=tuple(_reply(entry, f"replies[{n}]") for n, entry in entries if _conditional(entry)),
        loop=bool(fields.get("loop", False)),
        log=path.parent / fields["log"] if "log" in fields else None,
        window=int(fields.get("window", WINDOW)),
        name=path.name,
    )


def _conditional(entry: Json) -> bool:
    return isinstance(entry, dict) and "when" in entry


def _reply(entry: dict[str, Json], place: str) -> Reply:
    if set(entry) != {"when", "calls"} or not isinstance(entry["when"], str) or not isinstance(entry["calls"], list):
        raise ValueError(f'{place} needs a text "when" and a list "calls", and nothing else')
    return Reply(entry["when"].lower(), tuple(_call(c, f"{place}.calls[{n}]") for n, c in enumerate(entry["calls"])))


def _call(call: Json, place: str) -> Attempts:
    attempts = call["attempts"] if isinstance(call, dict) and set(call) == {"attempts"} else [call]
    if not isinstance(attempts, list) or not attempts or not all(isinstance(steps, list) for steps in attempts):
        raise ValueError(f'{place} is neither a list of steps nor {{"attempts": [[STEP, ...], ...]}}')
    return tuple(tuple(_step(step, f"{place}[{n}]") for n, step in enumerate(steps)) for steps in attempts)


def _step(step: Json, place: str) -> Step:
    kinds = [kind for kind in STEPS if isinstance(step, dict) and kind in step]
    if len(kinds) != 1:
        raise ValueError(f"{place} must have exactly one of {', '.join(STEPS)}")
    try:
        return STEPS[kinds[0]].model_validate(step)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{place}.{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


# ---------------------------------------------------------------- which call answers a request


@dataclass(frozen=True)
class Due:
    """A call of the script, and where it stands there."""

    place: tuple[int, int]
    attempts: Attempts


def due(script: Script, messages: tuple[Message, ...]) -> Due | None:
    """The call that answers a request with these messages, or None where the script has nothing for it.

    What was said since the last finished answer is searched, newest first, for a `when`; the answers since the message
    that holds it count the calls. Where no `when` fits, all answers of the request count the calls of the session.
    """
    for at in _said(messages):
        for n, reply in enumerate(script.replies):
            if reply.when in _text(messages[at]).lower():
                return _nth(n, reply.calls, _answers(messages[at:]), script.loop)
    return _nth(-1, script.calls, _answers(messages), script.loop)


def _nth(reply: int, calls: tuple[Attempts, ...], n: int, loop: bool) -> Due | None:
    if loop and calls:
        n %= len(calls)
    return Due((reply, n), calls[n]) if n < len(calls) else None


def _said(messages: tuple[Message, ...]) -> Iterator[int]:
    """Where the owner spoke since the last answer that called no tool, newest first."""
    for at in range(len(messages) - 1, -1, -1):
        message = messages[at]
        if isinstance(message, User):
            yield at
        elif isinstance(message, Assistant) and not any(isinstance(block, ToolCallBlock) for block in message.content):
            return


def _answers(messages: tuple[Message, ...]) -> int:
    return sum(isinstance(message, Assistant) for message in messages)


def _text(message: Message | None) -> str:
    return message.text if isinstance(message, User | Result) else ""


# ---------------------------------------------------------------- the model


class Scripted:
    """The model of a script. `requests` holds what it was asked, for tests in the same process."""

    def __init__(self, script: Script, clock: Clock) -> None:
        self.about = About(name=script.name, provider="scripted", api="scripted", window=script.window)
        self.requests: list[Request] = []
        self._script = script
        self._clock = clock
        self._tries: Counter[tuple[str, int, tuple[int, int]]] = Counter()

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """Plays the call that is due. Raises the error that the script names, ModelRejected where it is at its end."""
        self.requests.append(request)
        if self._script.log:
            await asyncio.to_thread(_append, self._script.log, request)
        content: list[Block] = []
        spent: Usage | None = None
        stop: Literal["stop", "length", "tool_use", "refused"] | None = None
        for step in self._steps(request):
            match step:
                case Text():
                    text = _filled(step.text, request)
                    async for piece in self._pieces(text, step):
                        yield TextDelta(piece)
                    content.append(TextBlock(text=text))
                case Thinking():
                    async for piece in self._pieces(step.thinking, step):
                        yield ThinkingDelta(piece)
                    content.append(ThinkingBlock(thinking=step.thinking, thinkingSignature=step.signature))
                case Tool():
                    content.append(_tool_call(step, request, len(content)))
                case Error():
                    raise ERRORS[step.error](f"scripted: {step.message}", retry_after=step.retry_after)
                case Spent():
                    spent = step.usage
                case Stop():
                    stop = step.stop
                case Sleep():
                    await self._clock.sleep(step.sleep)
        called = any(isinstance(block, ToolCallBlock) for block in content)
        yield Answer(tuple(content), spent or estimate(request, content), stop or ("tool_use" if called else "stop"))

    def _steps(self, request: Request) -> tuple[Step, ...]:
        found = due(self._script, request.messages)
        if found is None:
            raise ModelRejected(f"the script {self.about.name} has no reply for this", hint="see docs/scripted.md")
        key = (request.session, len(request.messages), found.place)
        self._tries[key] += 1
        return found.attempts[min(self._tries[key], len(found.attempts)) - 1]

    async def _pieces(self, text: str, pace: Text | Thinking) -> AsyncIterator[str]:
        size = pace.chunk or len(text) or 1
        for start in range(0, len(text), size):
            if pace.delay:
                await self._clock.sleep(pace.delay)
            yield text[start : start + size]


def _tool_call(step: Tool, request: Request, n: int) -> ToolCallBlock:
    return tool_call(step.id or call_id(request, n), step.tool, _filled(step.args, request))


def _filled(value: Any, request: Request) -> Any:
    """`value` with `{prompt}` and `{result}` replaced by what was last said and what a tool last gave back."""
    if isinstance(value, dict):
        return {key: _filled(item, request) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, request) for item in value]
    if not isinstance(value, str) or "{" not in value:
        return value
    return value.replace("{prompt}", _last(request, User)).replace("{result}", _last(request, Result))


def _last(request: Request, kind: type[User] | type[Result]) -> str:
    return _text(next((message for message in reversed(request.messages) if isinstance(message, kind)), None))


def estimate(request: Request, content: list[Block]) -> Usage:
    """Tokens by the length of the text, for a script that names no usage."""
    heard = len(request.system) + sum(_length(message) for message in request.messages)
    read, written = heard // CHARACTERS_PER_TOKEN, sum(map(_block_length, content)) // CHARACTERS_PER_TOKEN
    return Usage(input=read, output=written, totalTokens=read + written)


def _length(message: Message) -> int:
    return sum(map(_block_length, message.content)) if isinstance(message, Assistant) else len(message.text)


def _block_length(block: Block) -> int:
    match block:
        case TextBlock():
            return len(block.text)
        case ThinkingBlock():
            return len(block.thinking)
        case ToolCallBlock():
            return len(block.name) + len(str(block.arguments))


def _append(log: Path, request: Request) -> None:
    """One line of JSON for what the model was sent, in a single write, so that a killed process leaves whole lines."""
    line = json.dumps(
        {
            "session": request.session,
            "system": request.system,
            "tools": [
                {"name": t.name, "description": t.description, "parameters": t.parameters} for t in request.tools
            ],
            "messages": [_shown(message) for message in request.messages],
        },
        ensure_ascii=False,
    )
    with log.open("ab", buffering=0) as file:
        file.write(line.encode() + b"\n")


def _shown(message: Message) -> dict[str, Json]:
    role = {User: "user", Assistant: "assistant", Result: "result"}[type(message)]
    if isinstance(message, Assistant):
        return {"role": role, "content": [block.model_dump(exclude_none=True) for block in message.content]}
    return {"role": role, **asdict(message)}
