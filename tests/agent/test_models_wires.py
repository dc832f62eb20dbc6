"""Both wires against a local provider: every way an answer can go ends in the right outcome, and no part is a whole."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from agent import models
from agent.model import Answer, Assistant, Delta, Message, Model, Request, Result, TextDelta, ThinkingDelta, User
from agent.models import Chosen, choose
from agent.models.catalog import VENDORS, Wire
from agent.models.history import Forms
from agent.tool import Declaration
from agent.tools import TOOLS
from persistence.clock import FakeClock
from persistence.errors import ModelCut, ModelDenied, ModelError, ModelOverloaded, ModelRejected, ModelStalled
from persistence.events import Block, TextBlock, ThinkingBlock, ToolCallBlock, Usage, Value
from tests.model_server import ModelServer, Step

WIRES = ("anthropic", "openai")
NAMES = {"anthropic": "claude-sonnet-5-5", "openai": "gpt-6.1-terra"}
KEY = "sk-a-secret-that-nobody-may-see"
NOW = 1_795_000_000.0  # Wed, 18 Nov 2026 11:06:40 GMT
SHORT_S = 0.3  # an idle limit short enough to be waited for

both = pytest.mark.parametrize("wire", WIRES)


class Arguments(Value):
    path: str
    limit: int = 10


TOOL = Declaration("read", "Reads a file.", Arguments, frozenset({"read"}))


@dataclass
class Talk:
    """A model and the provider it talks to."""

    model: Model
    server: ModelServer

    async def deltas(self, *messages: Message, system: str = "You are finn.") -> list[Delta]:
        return [delta async for delta in self.model.stream(Request(system, messages or (User("go"),), (TOOL,), "s"))]

    async def answer(self, *messages: Message) -> Answer:
        last = (await self.deltas(*messages))[-1]
        assert isinstance(last, Answer)
        return last

    def sent(self) -> Any:
        return self.server.requests[-1].json

    def assistant(self, *content: Block, model: str | None = None) -> Assistant:
        return Assistant(content, self.model.about.provider, model or self.model.about.name)


@asynccontextmanager
async def talk(wire: str, *script: list[Step], idle_s: float = 20.0, key: str | None = KEY) -> AsyncIterator[Talk]:
    async with ModelServer(list(script)) as server:
        name = f"{wire}:{NAMES[wire]}"
        model = choose(Chosen(name, server.url(wire), key, key, idle_s), FakeClock(NOW))
        try:
            yield Talk(model, server)
        finally:
            await models.close(model)


# ---------------------------------------------------------------- answers


@both
async def test_text_is_streamed_as_it_comes_and_the_answer_is_all_of_it(wire: str) -> None:
    async with talk(wire, [{"text": "Hällo, wörld", "chunk": 5}]) as t:
        *deltas, answer = await t.deltas()
    assert deltas == [TextDelta("Hällo"), TextDelta(", wör"), TextDelta("ld")]
    assert answer == Answer((TextBlock(text="Hällo, wörld"),), Usage(input=10, output=5, totalTokens=15), "stop")


@both
async def test_thinking_comes_apart_from_text(wire: str) -> None:
    async with talk(wire, [{"thinking": "let me see", "signature": "c2ln"}, {"text": "yes"}]) as t:
        *deltas, answer = await t.deltas()
    signature = {"anthropic": "c2ln", "openai": "reasoning_content"}[wire]
    assert deltas == [ThinkingDelta("let me see"), TextDelta("yes")]
    assert isinstance(answer, Answer)
    assert answer.content == (
        ThinkingBlock(thinking="let me see", thinkingSignature=signature),
        TextBlock(text="yes"),
    )


@both
async def test_parallel_calls_come_with_their_arguments_as_objects(wire: str) -> None:
    steps: list[Step] = [
        {"text": "I look."},
        {"tool": "read", "args": {"path": "a", "limit": 3}, "id": "one"},
        {"tool": "read", "args": {"path": "ä/ b"}, "id": "two"},
    ]
    async with talk(wire, steps) as t:
        answer = await t.answer()
    assert answer.stop_reason == "tool_use"
    assert answer.content == (
        TextBlock(text="I look."),
        ToolCallBlock(id="one", name="read", arguments={"path": "a", "limit": 3}),
        ToolCallBlock(id="two", name="read", arguments={"path": "ä/ b"}),
    )


@both
@pytest.mark.parametrize("args", ['{"path": "a"', "[1]", "not json", '"a"', "[" * 5000])
async def test_arguments_that_are_no_object_become_a_call_that_the_gate_refuses(wire: str, args: str) -> None:
    async with talk(wire, [{"tool": "read", "args": args}]) as t:
        (call,) = (await t.answer()).content
    assert isinstance(call, ToolCallBlock)
    assert list(call.arguments.values()) == [args]
    for tool in TOOLS:
        with pytest.raises(ValidationError):
            tool.declaration.args.model_validate(call.arguments)


@both
async def test_calls_that_share_an_id_are_told_apart(wire: str) -> None:
    same: Step = {"tool": "read", "id": "same"}
    async with talk(wire, [same, same]) as t:
        ids = [block.id for block in (await t.answer()).content if isinstance(block, ToolCallBlock)]
    assert len(set(ids)) == 2


@both
async def test_usage_tells_the_caches_apart_and_nobody_knows_what_another_server_costs(wire: str) -> None:
    async with talk(wire, [{"text": "a"}, {"usage": {"input": 100, "output": 7, "read": 30, "written": 20}}]) as t:
        usage = (await t.answer()).usage
    written = {"anthropic": 20, "openai": 0}[wire]
    assert usage == Usage(input=100, output=7, cacheRead=30, cacheWrite=written, totalTokens=137 + written, cost=None)


LENGTH = {"anthropic": "max_tokens", "openai": "length"}


@both
async def test_an_answer_that_reached_its_limit_says_so(wire: str) -> None:
    async with talk(wire, [{"text": "half a sen"}, {"finish": LENGTH[wire]}]) as t:
        answer = await t.answer()
    assert (answer.content, answer.stop_reason) == ((TextBlock(text="half a sen"),), "length")


FILTERED = {
    "anthropic": [{"text": "I was about"}, {"finish": "refusal"}],
    "openai": [{"text": "I was about"}, {"finish": "content_filter"}],
}


@both
async def test_what_the_provider_filtered_is_refused_and_nothing_of_it_kept(wire: str) -> None:
    async with talk(wire, FILTERED[wire]) as t:
        answer = await t.answer()
    assert (answer.content, answer.stop_reason) == ((), "refused")


async def test_a_refusal_in_words_is_the_answer() -> None:
    async with talk("openai", [{"refusal": "I will not."}]) as t:
        answer = await t.answer()
    assert (answer.content, answer.stop_reason) == ((TextBlock(text="I will not."),), "refused")


@both
async def test_keep_alive_lines_are_no_text(wire: str) -> None:
    async with talk(wire, [{"comment": 3}, {"text": "a"}, {"comment": 3}]) as t:
        assert (await t.answer()).content == (TextBlock(text="a"),)


async def test_half_a_character_becomes_one_that_can_be_written() -> None:
    chunk = '{"id":"1","object":"x","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"a\\ud83d"}}]}'
    async with talk("openai", [{"raw": f"data: {chunk}\n\n"}]) as t:
        assert (await t.answer()).content == (TextBlock(text="a\ufffd"),)


# ---------------------------------------------------------------- failures


@dataclass(frozen=True)
class Case:
    """What the provider does, and what has to become of it."""

    name: str
    steps: Callable[[str], list[Step]]
    kind: type[ModelError]
    hint: str = ""
    retry_after: float | None = None


def status(code: int, message: str = "no", kind: str = "error", **headers: str) -> Callable[[str], list[Step]]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda wire: [{"status": code, "message": message, "type": kind, "headers": named}]


def overflow(wire: str) -> list[Step]:
    if wire == "anthropic":
        return [{"status": 400, "type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 8"}]
    return [{"status": 400, "type": "invalid_request_error", "code": "context_length_exceeded", "message": "too long"}]


def after_text(*steps: Step) -> Callable[[str], list[Step]]:
    return lambda wire: [{"text": "a part", "chunk": 2}, *steps]


def misshapen(wire: str) -> list[Step]:
    event = {
        "anthropic": {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta"}},
        "openai": {"id": "1", "object": "x", "created": 1, "model": "m", "choices": 7},
    }[wire]
    return [{"text": "a part"}, {"raw": f"event: content_block_delta\ndata: {json.dumps(event)}\n\n"}]


def textless(wire: str) -> list[Step]:
    event = {
        "anthropic": {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 7}},
        "openai": {"id": "1", "object": "x", "created": 1, "choices": [{"index": 0, "delta": {"content": 7}}]},
    }[wire]
    return [{"text": "a part"}, {"raw": f"event: content_block_delta\ndata: {json.dumps(event)}\n\n"}]


def within_stream(kind: str) -> Callable[[str], list[Step]]:
    return lambda wire: [{"text": "a part", "chunk": 2}, {"fault": "sorry", "type": kind}]


CASES = (
    Case("429 with seconds", status(429, retry_after="7"), ModelOverloaded, retry_after=7.0),
    Case(
        "429 with milliseconds", status(429, retry_after_ms="1500", retry_after="9"), ModelOverloaded, retry_after=1.5
    ),
    Case(
        "429 with a date", status(429, retry_after="Wed, 18 Nov 2026 11:07:10 GMT"), ModelOverloaded, retry_after=30.0
    ),
    Case(
        "429 with a past date",
        status(429, retry_after="Wed, 18 Nov 2015 10:27:10 GMT"),
        ModelOverloaded,
        retry_after=0.0,
    ),
    Case("429 with nonsense", status(429, retry_after="soon"), ModelOverloaded),
    Case("500", status(500), ModelError),
    Case("503", status(503, retry_after="2"), ModelOverloaded, retry_after=2.0),
    Case("529", status(529, kind="overloaded_error"), ModelOverloaded),
    Case("401", status(401, f"Incorrect API key provided: {KEY}"), ModelDenied, hint="API_KEY"),
    Case("403", status(403), ModelDenied),
    Case("402", status(402), ModelDenied, hint="billing"),
    Case("404", status(404), ModelRejected, hint="FINN_MODEL"),
    Case("400", status(400), ModelRejected),
    Case("400 too long", overflow, ModelRejected, hint="new session"),
    Case("cut cleanly", after_text({"cut": True}), ModelCut),
    Case("cut cleanly before anything", lambda wire: [{"cut": True}], ModelCut),
    Case("cut cleanly after a call", lambda wire: [{"tool": "read", "args": {"path": "a"}}, {"cut": True}], ModelCut),
    Case("cut within a chunk", after_text({"drop": True}), ModelCut),
    Case("reset", after_text({"reset": True}), ModelCut),
    Case("reset before anything", lambda wire: [{"reset": True}], ModelCut),
    Case("malformed event", after_text({"raw": "event: message_delta\ndata: {broken\n\n"}), ModelCut),
    Case("an event without what it needs", misshapen, ModelCut),
    Case("text that is none", textless, ModelCut),
    Case("an event that is no object", after_text({"raw": "event: content_block_delta\ndata: 7\n\n"}), ModelCut),
    Case("100,000 brackets", after_text({"raw": f"event: content_block_delta\ndata: {'[' * 100_000}\n\n"}), ModelCut),
    Case("bytes that are no text", after_text({"raw": "data: \udcff\udcfe\n\n"}), ModelCut),
    Case("an error in the stream", within_stream("api_error"), ModelError),
    Case("overload in the stream", within_stream("overloaded_error"), ModelError),
    Case("an end for an unknown reason", after_text({"finish": "sunspots"}), ModelCut),
    Case("an announced call that never came", after_text({"finish": "tool_calls"}), ModelCut),
)


@both
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_failure_is_told_for_what_it_is_and_nothing_of_it_is_an_answer(wire: str, case: Case) -> None:
    heard: list[Delta] = []
    async with talk(wire, case.steps(wire)) as t:
        with pytest.raises(case.kind) as caught:
            async for delta in t.model.stream(Request("system", (User("go"),), (TOOL,), "s")):
                heard.append(delta)  # noqa: PERF401 - what came before the error counts
        assert len(t.server.requests) == 1, "retries are the loop's business"
    assert not any(isinstance(delta, Answer) for delta in heard)
    assert case.hint in caught.value.hint
    assert caught.value.hint
    assert caught.value.retry_after == case.retry_after
    assert KEY not in str(caught.value)


@both
@pytest.mark.parametrize("steps", [[{"stall": True}], [{"text": "a part"}, {"stall": True}]], ids=["at once", "later"])
async def test_silence_beyond_the_idle_limit_is_a_stall(wire: str, steps: list[Step]) -> None:
    async with talk(wire, steps, idle_s=SHORT_S) as t:
        with pytest.raises(ModelStalled, match=r"0\.3 s"):
            await t.deltas()


@both
async def test_a_provider_that_is_not_there_may_be_there_later(wire: str) -> None:
    async with talk(wire, [{"text": "a"}]) as t:
        gone = t.server.url(wire)
    model = choose(Chosen(model=f"{wire}:{NAMES[wire]}", base_url=gone), FakeClock(NOW))
    with pytest.raises(ModelOverloaded, match="cannot be reached") as caught:
        await Talk(model, t.server).deltas()
    assert "FINN_MODEL_BASE_URL" in caught.value.hint
    await models.close(model)


@both
async def test_closing_the_iterator_closes_the_stream(wire: str) -> None:
    async with talk(wire, [{"text": "a"}, {"stall": True}]) as t:
        async with aclosing(t.model.stream(Request("s", (User("go"),), (), "s"))) as deltas:
            assert await anext(deltas) == TextDelta("a")
        await left(t.server)


@both
async def test_cancelling_the_turn_closes_the_stream(wire: str) -> None:
    async with talk(wire, [{"text": "a"}, {"stall": True}]) as t:
        turn = asyncio.create_task(t.deltas())
        while not t.server.requests:
            await asyncio.sleep(0.01)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        await left(t.server)


async def left(server: ModelServer) -> None:
    """Returns when the server has seen that the client is gone."""
    while not server.left:
        await asyncio.sleep(0.01)


# ---------------------------------------------------------------- what is sent


@both
async def test_the_conversation_is_sent_as_the_wire_wants_it(wire: str) -> None:
    async with talk(wire, [{"text": "a"}]) as t:
        call = ToolCallBlock(id="call_1", name="read", arguments={"path": "ä"})
        other = ToolCallBlock(id="call_2", name="read", arguments={})
        said = t.assistant(TextBlock(text="I look."), call, other)
        results = Result("call_1", "read", "text", False), Result("call_2", "read", "no path", True)
        await t.answer(User("read it"), said, *results, User("[Note]"), User("and now?"))
        sent = t.sent()
    assert sent["model"] == NAMES[wire]
    assert sent["messages"] == SENT[wire]


CACHED = {"type": "ephemeral", "ttl": "5m"}
SENT: dict[str, Any] = {
    "openai": [
        {"role": "system", "content": "You are finn."},
        {"role": "user", "content": "read it"},
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "read", "arguments": '{"path":"ä"}'}},
                {"id": "call_2", "type": "function", "function": {"name": "read", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "text"},
        {"role": "tool", "tool_call_id": "call_2", "content": "no path"},
        {"role": "user", "content": "[Note]"},
        {"role": "user", "content": "and now?"},
    ],
    "anthropic": [
        {"role": "user", "content": [{"type": "text", "text": "read it"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "call_1", "name": "read", "input": {"path": "ä"}},
                {"type": "tool_use", "id": "call_2", "name": "read", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "call_1",
                    "content": [{"type": "text", "text": "text"}],
                    "is_error": False,
                },
                {
                    "type": "tool_result",
                    "tool_use_id": "call_2",
                    "content": [{"type": "text", "text": "no path"}],
                    "is_error": True,
                },
                {"type": "text", "text": "[Note]"},
                {"type": "text", "text": "and now?", "cache_control": CACHED},
            ],
        },
    ],
}


async def test_anthropic_is_told_to_cache_system_tools_and_conversation() -> None:
    async with talk("anthropic", [{"text": "a"}]) as t:
        await t.answer()
        sent = t.sent()
    assert [block["cache_control"] for block in sent["system"]] == [CACHED]
    assert [tool["cache_control"] for tool in sent["tools"]] == [CACHED]
    assert sent["messages"][-1]["content"][-1]["cache_control"] == CACHED


def thoughts(sent: Any) -> list[Any]:
    """What of the assistant's messages is thinking, in either wire."""
    answers = [message for message in sent["messages"] if message["role"] == "assistant"]
    fields = [message["reasoning_content"] for message in answers if message.get("reasoning_content")]
    blocks = [block for message in answers for block in message["content"] if isinstance(message["content"], list)]
    return fields + [block for block in blocks if block["type"].endswith("thinking")]


@both
async def test_thinking_goes_back_to_the_model_that_thought_it(wire: str) -> None:
    async with talk(wire, [{"thinking": "hm", "signature": "c2ln"}, {"text": "a"}]) as t:
        first = await t.answer(User("go"))
        await t.answer(User("go"), t.assistant(*first.content), User("on"))
        sent = t.sent()
    whole = {"anthropic": {"type": "thinking", "thinking": "hm", "signature": "c2ln"}, "openai": "hm"}
    assert thoughts(sent) == [whole[wire]]


@both
async def test_thinking_goes_to_nobody_else(wire: str) -> None:
    signed = ThinkingBlock(thinking="hm", thinkingSignature={"anthropic": "c2ln", "openai": "reasoning_content"}[wire])
    async with talk(wire, [{"text": "a"}]) as t:
        text = TextBlock(text="said")
        strangers = (
            t.assistant(signed, text, model="another-model"),
            Assistant((signed, text), "elsewhere", t.model.about.name),
            t.assistant(ThinkingBlock(thinking="unsigned"), text),
        )
        for stranger in strangers:
            await t.answer(User("go"), stranger, User("on"))
            assert thoughts(t.sent()) == []
            assert "hm" not in json.dumps(t.sent()["messages"])
            assert "unsigned" not in json.dumps(t.sent()["messages"])


async def test_redacted_thinking_goes_back_as_it_came() -> None:
    async with talk("anthropic", [{"redacted": "b3BhcXVl"}, {"tool": "read", "id": "c1"}]) as t:
        first = await t.answer(User("go"))
        await t.answer(User("go"), t.assistant(*first.content), Result("c1", "read", "x", False))
        assert thoughts(t.sent()) == [{"type": "redacted_thinking", "data": "b3BhcXVl"}]


async def test_a_server_that_thinks_gets_its_field_in_every_answer_with_a_call() -> None:
    async with talk("openai", [{"text": "a"}]) as t:
        call = ToolCallBlock(id="c1", name="read", arguments={})
        thought = t.assistant(ThinkingBlock(thinking="hm", thinkingSignature="reasoning_content"), TextBlock(text="x"))
        foreign = Assistant((call,), "finn", "builtin")
        await t.answer(User("go"), foreign, Result("c1", "read", "x", False), thought, User("on"))
        answers = [message for message in t.sent()["messages"] if message["role"] == "assistant"]
    assert [message["reasoning_content"] for message in answers] == ["", "hm"]


@both
async def test_the_same_request_is_the_same_bytes_and_a_longer_one_keeps_system_and_tools(wire: str) -> None:
    async with talk(wire, [{"text": "a"}]) as t:
        await t.answer(User("go"))
        await t.answer(User("go"))
        await t.answer(User("go"), t.assistant(TextBlock(text="a")), User("on"))
        one, two, longer = t.server.requests
    assert one.body == two.body
    for key in ("system", "tools"):
        if key in one.json:
            assert raw(one.body, key) == raw(longer.body, key)
    shared = raw(one.body, "messages").split(b'"go"')[0]
    assert raw(longer.body, "messages").startswith(shared)


def raw(body: bytes, key: str) -> bytes:
    """The bytes of a top-level value of a JSON object, as they stand there."""
    text = body.decode()
    start = text.index(f'"{key}":') + len(key) + 3
    _, end = json.JSONDecoder().raw_decode(text, start)
    return text[start:end].encode()


def test_a_message_is_converted_once_while_requests_hold_it() -> None:
    made: list[Message] = []

    def make(message: Message) -> str:
        made.append(message)
        return str(message)

    forms = Forms(make)
    first, second = User("a"), User("b")
    forms.of(Request("", (first,), (), "s"))
    assert forms.of(Request("", (first, second), (), "s")) == [str(first), str(second)]
    assert made == [first, second]
    forms.of(Request("", (second,), (), "s"))
    forms.of(Request("", (first, second), (), "s"))
    assert made == [first, second, first]


@both
async def test_the_key_is_sent_and_a_local_server_needs_none(wire: str) -> None:
    async with talk(wire, [{"text": "a"}]) as t:
        await t.answer()
        assert KEY in json.dumps(t.server.requests[-1].headers)
    async with talk(wire, [{"text": "a"}], key=None) as t:
        assert t.model.about.ready
        await t.answer()
        assert KEY not in json.dumps(t.server.requests[-1].headers)


@both
async def test_only_the_vendor_itself_is_told_its_quirks_and_believed_its_prices(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with talk(wire, [{"text": "a"}]) as t:
        await t.answer()
        elsewhere = t.sent()
        monkeypatch.setitem(VENDORS, wire, replace(VENDORS[wire], address=t.server.url(wire)))
        model = choose(Chosen(model=f"{wire}:{NAMES[wire]}", anthropic_key=KEY, openai_key=KEY), FakeClock(NOW))
        answer = await Talk(model, t.server).answer()
        await models.close(model)
        vendor = t.sent()
    assert answer.usage.cost is not None
    assert answer.usage.cost.total > 0
    quirks = {"openai": {"prompt_cache_key": "s", "reasoning_effort": "none"}, "anthropic": {}}[wire]
    assert vendor == {**elsewhere, **quirks}


# ---------------------------------------------------------------- the local provider as a process


@pytest.mark.slow
async def test_the_local_provider_serves_as_a_process_and_logs_what_it_was_asked(tmp_path: Path) -> None:
    script, log = tmp_path / "script.json", tmp_path / "asked.jsonl"
    script.write_text(json.dumps([[{"text": "from a process"}]]))
    command = ["-m", "tests.model_server", "--port", "0", "--script", str(script), "--log", str(log)]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout
        port = int(await process.stdout.readline())
        model = choose(Chosen(model="openai:any", base_url=f"http://127.0.0.1:{port}/v1"), FakeClock(NOW))
        request = Request("s", (User("go"),), (), "s")
        assert TextDelta("from a process") in [delta async for delta in model.stream(request)]
        await models.close(model)
    finally:
        process.kill()
        await process.wait()
    assert json.loads(log.read_text())["path"] == "/v1/chat/completions"
