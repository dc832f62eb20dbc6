"""The fake says what its file tells it to, and which part of the file is due follows from the request alone."""

import json
from pathlib import Path

import pytest

from agent.model import Answer, Assistant, Delta, Message, Request, Result, TextDelta, ThinkingDelta, User
from agent.models.scripted import Scripted, load, parse
from agent.tool import Declaration
from persistence.clock import FakeClock
from persistence.errors import (
    ModelCut,
    ModelDenied,
    ModelError,
    ModelOverloaded,
    ModelRejected,
    ModelStalled,
    UsageError,
)
from persistence.events import Json, TextBlock, ThinkingBlock, ToolCallBlock, Usage, Value

FINISHED = Assistant((TextBlock(text="done"),), "scripted", "script")
CALLING = Assistant((ToolCallBlock(id="c1", name="bash", arguments={}),), "scripted", "script")
RESULT = Result("c1", "bash", "four", False)


def scripted(script: Json, clock: FakeClock | None = None) -> Scripted:
    return Scripted(parse(script, Path("script.json")), clock or FakeClock())


def request(*messages: Message, session: str = "s") -> Request:
    return Request("system", messages, (), session)


async def deltas(model: Scripted, asked: Request) -> list[Delta]:
    return [delta async for delta in model.stream(asked)]


async def answer(model: Scripted, *messages: Message, session: str = "s") -> Answer:
    last = (await deltas(model, request(*messages, session=session)))[-1]
    assert isinstance(last, Answer)
    return last


async def said(model: Scripted, *messages: Message, session: str = "s") -> str:
    return "".join(
        b.text for b in (await answer(model, *messages, session=session)).content if isinstance(b, TextBlock)
    )


async def test_a_call_streams_its_steps_in_order_and_ends_with_the_whole() -> None:
    clock = FakeClock(0.0)
    steps = [
        {"thinking": "hm", "signature": "sig"},
        {"text": "abcde", "chunk": 2, "delay": 0.5},
        {"sleep": 3},
        {"tool": "read", "args": {"path": "a"}, "id": "one"},
        {"tool": "read", "args": {"path": "b"}, "id": "two"},
        {"usage": {"input": 3, "output": 4, "totalTokens": 7}},
    ]
    assert await deltas(scripted([steps], clock), request(User("go"))) == [
        ThinkingDelta("hm"),
        TextDelta("ab"),
        TextDelta("cd"),
        TextDelta("e"),
        Answer(
            (
                ThinkingBlock(thinking="hm", thinkingSignature="sig"),
                TextBlock(text="abcde"),
                ToolCallBlock(id="one", name="read", arguments={"path": "a"}),
                ToolCallBlock(id="two", name="read", arguments={"path": "b"}),
            ),
            Usage(input=3, output=4, totalTokens=7),
            "tool_use",
        ),
    ]
    assert clock.monotonic() == 4.5


async def test_without_a_when_the_number_of_answers_in_the_request_says_which_call_is_due() -> None:
    model = scripted([[{"text": "one"}], [{"text": "two"}]])
    assert await said(model, User("a"), FINISHED, User("b")) == "two"
    assert await said(model, User("a")) == "one"


async def test_a_model_made_anew_goes_on_where_the_conversation_stands() -> None:
    script = [{"when": "go", "calls": [[{"tool": "bash"}], [{"text": "after the tool"}]]}]
    assert (await answer(scripted(script), User("go"))).stop_reason == "tool_use"
    assert await said(scripted(script), User("go"), CALLING, RESULT) == "after the tool"


async def test_what_was_said_decides_whatever_stands_before() -> None:
    model = scripted([{"when": "Tea", "calls": [[{"text": "tea it is"}]]}, [{"text": "fallback"}]])
    assert await said(model, User("x"), FINISHED, User("make TEA")) == "tea it is"
    assert await said(model, User("coffee")) == "fallback"


async def test_a_note_within_a_turn_goes_on_with_that_turn() -> None:
    model = scripted([{"when": "go", "calls": [[{"tool": "bash"}], [{"text": "second"}]]}])
    assert await said(model, User("go"), CALLING, RESULT, User("a note by finn")) == "second"


async def test_a_steering_message_with_a_when_of_its_own_begins_its_own_calls() -> None:
    model = scripted([{"when": "go", "calls": [[{"tool": "bash"}]]}, {"when": "stop", "calls": [[{"text": "ok"}]]}])
    assert await said(model, User("go"), CALLING, RESULT, User("stop")) == "ok"


async def test_a_finished_turn_has_no_say_in_the_next_one() -> None:
    model = scripted([{"when": "go", "calls": [[{"text": "a"}], [{"text": "b"}]]}])
    with pytest.raises(ModelRejected, match="no reply"):
        await said(model, User("go"), FINISHED, User("else"))


async def test_the_end_of_the_script_is_an_error_or_its_beginning() -> None:
    with pytest.raises(ModelRejected, match=r"script\.json"):
        await said(scripted([[{"text": "only"}]]), User("a"), FINISHED, User("b"))
    assert (
        await said(scripted({"replies": [[{"text": "only"}]], "loop": True}), User("a"), FINISHED, User("b")) == "only"
    )


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("overloaded", ModelOverloaded),
        ("stalled", ModelStalled),
        ("cut", ModelCut),
        ("denied", ModelDenied),
        ("rejected", ModelRejected),
    ],
)
async def test_an_error_comes_after_what_was_streamed_and_instead_of_an_answer(
    code: str, kind: type[ModelError]
) -> None:
    model = scripted([[{"text": "half"}, {"error": code, "message": "no", "retry_after": 7}]])
    heard: list[Delta] = []
    with pytest.raises(kind, match="no") as caught:
        async for delta in model.stream(request(User("go"))):
            heard.append(delta)  # noqa: PERF401 - what came before the error is what the test is about
    assert heard == [TextDelta("half")]
    assert caught.value.retry_after == 7


async def test_each_try_of_the_same_request_gets_its_own_attempt_and_the_last_serves_the_rest() -> None:
    model = scripted({"replies": [{"attempts": [[{"error": "cut"}], [{"text": "well"}]]}], "loop": True})
    with pytest.raises(ModelCut):
        await said(model, User("go"))
    assert await said(model, User("go")) == "well"
    assert await said(model, User("go")) == "well"
    with pytest.raises(ModelCut):
        await said(model, User("go"), session="another")


async def test_prompt_and_result_are_filled_in_everywhere() -> None:
    model = scripted([[{"text": "{prompt}/{result}/{x}"}, {"tool": "bash", "args": {"a": ["{prompt}"], "n": 1}}]])
    text, call = (await answer(model, User("{odd}"))).content
    assert text == TextBlock(text="{odd}//{x}")
    assert isinstance(call, ToolCallBlock)
    assert call.arguments == {"a": ["{odd}"], "n": 1}


async def test_calls_without_an_id_get_one_of_their_own_that_the_same_request_repeats() -> None:
    model = scripted({"replies": [[{"tool": "bash"}, {"tool": "bash"}]], "loop": True})
    ids = [
        [b.id for b in (await answer(model, *m)).content if isinstance(b, ToolCallBlock)]
        for m in ((User("go"),), (User("go"),), (User("go"), CALLING, RESULT, User("go")))
    ]
    assert ids[0] == ids[1]
    assert len({*ids[0], *ids[2]}) == 4


async def test_an_answer_says_why_it_ends() -> None:
    assert (await answer(scripted([[{"text": "a"}]]), User("go"))).stop_reason == "stop"
    assert (await answer(scripted([[{"text": "a"}, {"stop": "length"}]]), User("go"))).stop_reason == "length"
    assert (await answer(scripted([[{"stop": "refused"}]]), User("go"))).stop_reason == "refused"


async def test_usage_that_nobody_named_grows_with_what_was_said() -> None:
    model = scripted({"replies": [[{"text": "abcdefgh"}]], "loop": True})
    assert (await answer(model, User("x" * 34))).usage == Usage(input=10, output=2, totalTokens=12)


async def test_requests_are_kept_for_tests_in_the_same_process() -> None:
    model = scripted({"replies": [[]], "loop": True})
    await answer(model, User("a"))
    await answer(model, User("b"))
    assert model.requests == [request(User("a")), request(User("b"))]


class Arguments(Value):
    path: str


async def test_requests_are_logged_beside_the_script_before_anything_is_streamed(tmp_path: Path) -> None:
    file = tmp_path / "script.json"
    file.write_text(json.dumps({"log": "sent.jsonl", "replies": [[{"error": "cut"}]], "loop": True, "window": 500}))
    model = Scripted(load(file), FakeClock())
    tool = Declaration("read", "Reads.", Arguments, frozenset({"read"}))
    with pytest.raises(ModelCut):
        await deltas(model, Request("sys", (User("ä"), CALLING, RESULT), (tool,), "s1"))
    (line,) = (tmp_path / "sent.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line) == {
        "session": "s1",
        "system": "sys",
        "tools": [{"name": "read", "description": "Reads.", "parameters": tool.parameters}],
        "messages": [
            {"role": "user", "text": "ä"},
            {"role": "assistant", "content": [{"type": "toolCall", "id": "c1", "name": "bash", "arguments": {}}]},
            {"role": "result", "call": "c1", "name": "bash", "text": "four", "is_error": False},
        ],
    }
    assert model.about.window == 500


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("{", "Expecting property name"),
        ('"x"', 'object with a list "replies"'),
        ('{"replies": [], "lop": true}', "unknown key 'lop'"),
        ('[{"when": "x"}]', r'replies\[0\] needs a text "when"'),
        ('[[], {"when": "x", "calls": [[{}]]}]', r"replies\[1\].calls\[0\]\[0\] must have exactly one"),
        ('[[{"text": "a", "error": "cut"}]]', r"replies\[0\]\[0\] must have exactly one"),
        ('[[{"text": "a", "dealy": 1}]]', r"replies\[0\]\[0\].dealy: Extra inputs"),
        ('[[{"error": "boom"}]]', r"replies\[0\]\[0\].error: Input should be"),
        ('["text"]', r"replies\[0\] is neither a list of steps"),
    ],
)
def test_a_script_with_a_fault_is_refused_with_its_place(tmp_path: Path, text: str, place: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=place) as caught:
        load(file)
    assert str(file) in str(caught.value)


def test_a_script_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the script"):
        load(tmp_path / "none.json")
