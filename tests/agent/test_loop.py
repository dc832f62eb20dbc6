"""One turn on a channel without a disk: what is recorded, what is shown, what the model is sent, in which order."""

import asyncio
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from agent.context import Entry
from agent.loop import Turn
from agent.model import Assistant, Message, Result, User
from agent.tool import Tool, ToolResult
from persistence.errors import NotFound
from persistence.events import (
    OWNER,
    AssistantMessage,
    By,
    CallFailed,
    ContextCut,
    Event,
    Json,
    MessageCheckpointed,
    Problem,
    PromptMode,
    Record,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolEnded,
    ToolStarted,
    TurnStop,
    Usage,
    UserMessage,
)
from persistence.subscription import Moment
from tests.agent.houses import ECHO, ManualClock, agent, scripted, told, trick

PROMPT = Entry("1-1", None, "t", User("go"), 2)


class Channel:
    """Keeps what is recorded and what is shown in one list."""

    def __init__(self, clock: ManualClock) -> None:
        self.happened: list[Event | Moment] = []
        self.at: list[float] = []
        self.mail: dict[PromptMode, deque[str]] = {"steer": deque(), "follow_up": deque()}
        self._clock = clock
        self._began = clock.time
        self._seq = 1

    async def record(self, event: Event, by: By) -> Record:
        self._happens(event)
        return self._record(event)

    def show(self, kind: str, data: dict[str, Json]) -> None:
        self._happens(Moment(kind, "t", data))

    async def take(self, mode: PromptMode, parent: str | None) -> tuple[Record, ...]:
        said = [UserMessage(turn="x", parent=None, text=t, request_id=t, mode=mode) for t in self.mail[mode]]
        self.mail[mode].clear()
        return tuple(map(self._record, said))

    def _happens(self, what: Event | Moment) -> None:
        self.happened.append(what)
        self.at.append(round(self._clock.time - self._began, 3))

    def _record(self, event: Event) -> Record:
        self._seq += 1
        return Record(self._seq, "", 0, 1, 0, "s", OWNER, event.kind, event.v, event, "", b"")

    @property
    def events(self) -> list[Event]:
        return [one for one in self.happened if isinstance(one, Event)]

    def told(self) -> list[str]:
        return [told(event) for event in self.events]


class Setup:
    """A turn with its channel, its clock and its model."""

    def __init__(
        self,
        root: Path,
        script: Json,
        tools: tuple[Tool, ...] = (ECHO,),
        entries: tuple[Entry, ...] = (PROMPT,),
        **limits: Any,
    ) -> None:
        self.clock = ManualClock()
        self.model = scripted(script, self.clock)
        self.channel = Channel(self.clock)
        self.agent = agent(root, self.model, self.clock, tools, **limits)
        self.turn = Turn(self.agent, self.channel, "t", "s", "You are.", list(entries))

    async def run(self) -> tuple[TurnStop, Problem | None]:
        return await self.clock.drive(self.turn.run())

    @property
    def sent(self) -> list[Message]:
        """What the model was sent last."""
        return list(self.model.requests[-1].messages)


def call(id: str, text: str = "", name: str = "echo") -> Json:  # noqa: A002 - the model's word
    return {"tool": name, "id": id, "args": {"text": text}}


USAGE = Usage(input=1, output=2, totalTokens=3)


async def test_a_turn_is_these_events_in_this_order(tmp_path: Path) -> None:
    """Two tools side by side, the second is done first; the model gets the results in the order of its calls."""
    clock: list[ManualClock] = []

    async def wait(text: str) -> ToolResult:
        await clock[0].sleep(float(text))
        return ToolResult(f"waited {text}", details={"s": text})

    spent = {"usage": USAGE.model_dump()}
    setup = Setup(
        tmp_path,
        [
            [
                {"thinking": "hm", "signature": "sig"},
                {"text": "Look."},
                call("a", "2", "wait"),
                call("b", "1", "wait"),
                spent,
            ],
            [{"text": "Done.", "chunk": 3}, spent],
        ],
        (trick("wait", wait),),
    )
    clock.append(setup.clock)
    assert await setup.run() == ("stop", None)
    said: dict[str, Any] = {
        "turn": "t",
        "api": "scripted",
        "provider": "scripted",
        "model": "script.json",
        "usage": USAGE,
    }
    a, b = (ToolCallBlock(id=i, name="wait", arguments={"text": t}) for i, t in (("a", "2"), ("b", "1")))
    thought = ThinkingBlock(thinking="hm", thinkingSignature="sig")
    assert setup.channel.happened == [
        Moment("thinking_delta", "t", {"delta": "hm"}),
        Moment("text_delta", "t", {"delta": "Look."}),
        AssistantMessage(
            parent="1-1", content=(thought, TextBlock(text="Look."), a, b), stop_reason="tool_use", **said
        ),
        ToolStarted(turn="t", call="a", name="wait", args={"text": "2"}),
        ToolStarted(turn="t", call="b", name="wait", args={"text": "1"}),
        ToolEnded(turn="t", parent="1-2", call="b", name="wait", result="waited 1", details={"s": "1"}),
        ToolEnded(turn="t", parent="1-5", call="a", name="wait", result="waited 2", details={"s": "2"}),
        Moment("text_delta", "t", {"delta": "Don"}),
        Moment("text_delta", "t", {"delta": "e."}),
        AssistantMessage(parent="1-6", content=(TextBlock(text="Done."),), stop_reason="stop", **said),
    ]
    assert setup.sent == [
        User("go"),
        Assistant((thought, TextBlock(text="Look."), a, b), "scripted", "script.json"),
        Result("a", "wait", "waited 2", False),
        Result("b", "wait", "waited 1", False),
    ]
    assert setup.turn.usage == Usage(input=2, output=4, totalTokens=6)
    assert (setup.turn.live.blocks(), setup.turn.live.calls) == ((), {})
    assert setup.channel.at[-1] == 2.0, "side by side"


async def test_a_tool_that_must_be_alone_runs_before_or_after_the_others(tmp_path: Path) -> None:
    async def slow(text: str) -> ToolResult:
        await asyncio.sleep(0)
        return ToolResult(text)

    tools = (trick("echo", slow), trick("edit", slow, "write", alone=True))
    setup = Setup(tmp_path, [[call("a"), call("b", name="edit"), call("c")], [{"text": "."}]], tools)
    await setup.run()
    assert setup.channel.told()[1:7] == ["start a", "end a: ", "start b", "end b: ", "start c", "end c: "]


async def test_a_call_that_is_refused_or_fails_is_a_result_that_the_model_can_act_on(tmp_path: Path) -> None:
    async def fail(text: str) -> ToolResult:
        raise NotFound("no such thing", hint="look elsewhere")

    async def odd(text: str) -> ToolResult:
        raise ValueError("odd")

    tools = (trick("fail", fail), trick("odd", odd))
    setup = Setup(
        tmp_path, [[call("a", name="none"), call("b", name="fail"), call("c", name="odd")], [{"text": "."}]], tools
    )
    assert await setup.run() == ("stop", None)
    assert sorted(setup.channel.told()[1:7]) == [
        "end a badly: There is no tool 'none'; there are fail, odd.",
        "end b badly: fail failed: no such thing (look elsewhere)",
        "end c badly: odd failed: odd",
        "start a",
        "start b",
        "start c",
    ]


async def test_what_is_said_meanwhile_is_heard_before_the_next_call_of_the_model(tmp_path: Path) -> None:
    """A steering message after the tools, or instead of the end; a follow-up only instead of the end."""
    setups: list[Setup] = []

    async def speak(text: str) -> ToolResult:
        for mode in ("steer", "follow_up"):
            setups[0].channel.mail[mode].extend([f"{mode} 1", f"{mode} 2"])
        return ToolResult("ok")

    setup = Setup(tmp_path, [[call("a")], [{"text": "A."}], [{"text": "B."}]], (trick("echo", speak),))
    setups.append(setup)
    assert await setup.run() == ("stop", None)
    heard = [message.text if isinstance(message, User | Result) else "…" for message in setup.sent]
    assert heard == ["go", "…", "ok", "steer 1", "steer 2", "…", "follow_up 1", "follow_up 2"]
    answers = [event for event in setup.channel.events if isinstance(event, AssistantMessage)]
    assert [event.parent for event in answers] == ["1-1", "1-6", "1-9"], "below what was heard last"


async def test_the_model_is_told_once_when_it_makes_the_same_call_for_the_third_time(tmp_path: Path) -> None:
    script = [[call("a", "x")], [call("b", "x"), call("c", "y")], [call("d", "x")], [call("e", "x")], [{"text": "."}]]
    setup = Setup(tmp_path, script)
    await setup.run()
    notes = [line for line in setup.channel.told() if line.startswith(("note", "end"))]
    assert [line[:35] for line in notes] == [
        "end a: echo x",
        "end b: echo x",
        "end c: echo y",
        "end d: echo x",
        "note: this is call number 3 of echo",
        "end e: echo x",
    ]
    assert any(isinstance(m, User) and "not from the user: this is call number 3" in m.text for m in setup.sent)


async def test_after_fifty_rounds_of_tools_the_turn_ends_and_says_so(tmp_path: Path) -> None:
    setup = Setup(tmp_path, {"replies": [[{"tool": "echo"}]], "loop": True})
    stop, problem = await setup.run()
    assert stop == "tool_limit"
    assert problem is not None
    assert "50 rounds" in problem.message
    assert len(setup.model.requests) == 50
    assert sum(isinstance(event, ToolEnded) for event in setup.channel.events) == 50, "the last round has its results"


OVERLOADED = {"error": "overloaded"}


@pytest.mark.parametrize(
    ("attempts", "waits", "end"),
    [
        ([[OVERLOADED], [{"text": "ok"}]], [2.0], "stop: ok"),
        ([[OVERLOADED]] * 3 + [[{"text": "ok"}]], [2.0, 4.0, 8.0], "stop: ok"),
        ([[OVERLOADED]], [2.0, 4.0, 8.0, None], "error: "),
        ([[{"text": "Beg"}, {"error": "cut"}], [{"text": "ok"}]], [2.0], "stop: ok"),
        ([[{"error": "stalled"}], [{"text": "ok"}]], [2.0], "stop: ok"),
        ([[{"error": "overloaded", "retry_after": 30}], [{"text": "ok"}]], [30.0], "stop: ok"),
        ([[{"error": "overloaded", "retry_after": 0.5}], [{"text": "ok"}]], [2.0], "stop: ok"),
        ([[{"error": "overloaded", "retry_after": 61}]], [None], "error: "),
        ([[{"error": "denied"}]], [None], "error: "),
        ([[{"text": "Beginning"}, {"error": "rejected"}]], [None], "error: Beginning"),
    ],
)
async def test_a_failed_call_is_made_again_as_often_and_as_late_as_is_right(
    tmp_path: Path, attempts: Json, waits: list[float | None], end: str
) -> None:
    setup = Setup(tmp_path, [{"attempts": attempts}])
    stop, problem = await setup.run()
    failed = [event for event in setup.channel.events if isinstance(event, CallFailed)]
    assert [event.retry_in_s for event in failed] == waits
    assert [event.attempt for event in failed] == list(range(1, len(waits) + 1))
    assert setup.channel.told()[-1] == end
    assert (stop, problem is None) == (("stop", True) if end.startswith("stop") else ("error", False))
    assert setup.clock.time - FIRST == sum(wait or 0 for wait in waits)
    assert len(setup.model.requests) == len(waits) + end.startswith("stop")


FIRST = ManualClock().time


async def test_the_wait_before_another_try_is_drawn_around_its_mean(tmp_path: Path) -> None:
    for byte, wait in ((0, 1.5), (128, 2.0), (255, 2.0 * (0.75 + 255 / 512))):
        setup = Setup(tmp_path, [{"attempts": [[OVERLOADED], [{"text": "ok"}]]}])
        object.__setattr__(setup.agent, "entropy", lambda n, byte=byte: bytes([byte]) * n)
        await setup.run()
        assert setup.clock.time - FIRST == pytest.approx(wait)


async def test_a_stream_that_ends_without_an_answer_was_cut(tmp_path: Path) -> None:
    setup = Setup(tmp_path, [[{"text": "x"}]])

    async def cut(request: Any) -> Any:
        setup.model.requests.append(request)
        if len(setup.model.requests) == 2:
            async for delta in type(setup.model).stream(setup.model, request):
                yield delta

    setup.model.stream = cut  # type: ignore[method-assign]
    assert await setup.run() == ("stop", None)
    assert setup.channel.told() == ["failed 1, again in 2.0", "stop: x"]


async def test_what_has_been_streamed_is_recorded_every_two_seconds_while_there_is_more(tmp_path: Path) -> None:
    script = [
        [{"thinking": "T", "delay": 0.5}, {"text": "abcd", "chunk": 1, "delay": 0.9}, {"sleep": 6}, {"text": "e"}]
    ]
    setup = Setup(tmp_path, script)
    await setup.run()
    checkpoints = [
        (at, event.thinking, event.text)
        for at, event in zip(setup.channel.at, setup.channel.happened, strict=True)
        if isinstance(event, MessageCheckpointed)
    ]
    assert checkpoints == [(2.0, "T", "a"), (4.0, "T", "abc"), (6.0, "T", "abcd")]
    assert setup.channel.told()[-1] == "stop: abcde"


@pytest.mark.parametrize(
    ("steps", "end"),
    [([{"text": "so"}, {"stop": "length"}], "length"), ([{"text": "No."}, {"stop": "refused"}], "refused")],
)
async def test_an_answer_that_is_not_whole_says_how_the_turn_ended(tmp_path: Path, steps: Json, end: str) -> None:
    stop, problem = await Setup(tmp_path, [steps]).run()
    assert stop == end
    assert (problem.code if problem else None) == (end if end == "refused" else None)


async def test_the_oldest_whole_turns_are_left_out_of_a_request_that_is_too_long_and_that_is_recorded(
    tmp_path: Path,
) -> None:
    old = [Entry(f"1-{n}", f"1-{n - 1}", f"t{n // 2}", User("x" * 400), 400) for n in range(2, 8)]
    entries = (*old, Entry("1-8", "1-7", "t", User("go"), 2))
    setup = Setup(tmp_path, {"replies": [[{"text": "."}]], "window": 400}, entries=entries)
    await setup.run()
    assert setup.channel.events[0] == ContextCut(turn="t", first_kept="1-6", left_out=4)
    assert len(setup.sent) == 3
    assert setup.sent[-1] == User("go")


async def test_the_same_system_and_tools_go_to_the_model_with_every_call(tmp_path: Path) -> None:
    setup = Setup(tmp_path, [[call("a")], [call("b")], [{"text": "."}]])
    await setup.run()
    assert {(request.system, request.tools, request.session) for request in setup.model.requests} == {
        ("You are.", (ECHO.declaration,), "s")
    }


async def test_what_a_failed_try_had_streamed_is_no_part_of_the_next_one(tmp_path: Path) -> None:
    tries = [[{"text": "Beg"}, {"error": "cut"}], [{"text": "ok"}, {"sleep": 3}]]
    setup = Setup(tmp_path, [{"attempts": tries}])
    await setup.run()
    assert setup.channel.told() == ["failed 1, again in 2.0", "so far: ok", "stop: ok"]
