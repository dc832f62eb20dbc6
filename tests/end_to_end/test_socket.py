"""The WebSocket and the event stream: dropped anywhere and resumed, repeated, refused, flooded and not read."""

import asyncio
import contextlib
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.conftest import count
from tests.end_to_end.finn import ECHO, PATIENCE_S, RECORDS, Finn, Frame, Line, finn, slow, until

pytestmark = pytest.mark.slow

ANSWER = " ".join(f"word{n}" for n in range(12))
WITH_TOOLS = {
    "when": "tools",
    "calls": [
        [
            {"thinking": "Let me think about it.", "chunk": 6, "delay": 0.004},
            {"text": "I will look.", "chunk": 4, "delay": 0.004},
            {"tool": "bash", "args": {"command": "for n in 1 2 3; do echo $n; sleep 0.02; done"}},
            {"tool": "read", "args": {"path": "."}},
        ],
        [{"tool": "bash", "args": {"command": "echo again"}}],
        [slow(ANSWER, chunk=6, delay=0.004)],
    ],
}
LONG = {"when": "long", "calls": [[slow("word " * 400)]]}


@pytest.fixture
def it(tmp_path: Path) -> Any:
    with finn(tmp_path, [WITH_TOOLS, LONG, ECHO]) as running:
        yield running


def records(frames: list[Frame]) -> list[Frame]:
    return [frame for frame in frames if frame["type"] in RECORDS]


class Reader:
    """What a client makes of frames: the records, and the message that is being written."""

    def __init__(self) -> None:
        self.records: list[Frame] = []
        self.text = self.thinking = ""
        self.live: list[tuple[str, str]] = []
        self.finished: list[tuple[str, str]] = []

    @property
    def seq(self) -> int:
        return self.records[-1]["seq"] if self.records else 0

    def hear(self, frame: Frame) -> None:
        match frame["type"]:
            case "hello":
                turn = frame["turn"] or {"text_so_far": "", "thinking_so_far": ""}
                self.text, self.thinking = turn["text_so_far"], turn["thinking_so_far"]
            case "text_delta":
                self.text += frame["data"]["delta"]
            case "thinking_delta":
                self.thinking += frame["data"]["delta"]
            case kind if kind in RECORDS:
                self._keep(frame)

    def _keep(self, frame: Frame) -> None:
        assert frame["seq"] > self.seq, "a record came twice or out of order"
        self.records.append(frame)
        if frame["type"] == "message":
            self.finished.append((self.text, self.thinking))
            self.text = self.thinking = ""


# ---------------------------------------------------------------- dropped and resumed


@pytest.mark.limit(120)
async def test_a_socket_dropped_at_any_frame_and_resumed_gives_the_same_transcript(it: Finn) -> None:
    """Watchers are cut off after 1, 2, 3 … frames and come back with their cursor, while one is never cut off."""
    session = it.new_session()
    async with it.open(session, after=0) as whole:
        before = len(whole.frames)
        watchers = [asyncio.create_task(watched(it, session, cuts)) for cuts in range(1, 1 + count(40, 100))]
        await until_connected(it, len(watchers) + 1)
        await whole.turn("use your tools")
        readers = await asyncio.gather(*watchers)
    everything = records(whole.frames[before - 1 :])
    assert Counter(frame["type"] for frame in everything) == {
        "user_message": 1, "turn_start": 1, "message": 3, "tool_start": 3, "tool_end": 3, "turn_end": 1,
    }  # fmt: skip
    for cuts, reader in enumerate(readers, 1):
        assert reader.records == everything, f"dropped after every {cuts} frames"
        assert set(reader.finished) <= messages_of(everything)
    assert sum(len(reader.finished) for reader in readers) >= len(readers)


def messages_of(frames: list[Frame]) -> set[tuple[str, str]]:
    """The text and the thinking of each message."""
    shown = [frame["data"] for frame in frames if frame["type"] == "message"]
    return {(data["text"], data.get("thinking", "")) for data in shown}


async def watched(it: Finn, session: str, cuts: int) -> Reader:
    """A reader that drops its socket after every `cuts` frames, until the turn has ended."""
    reader = Reader()
    epoch = 1
    while not reader.records or reader.records[-1]["type"] != "turn_end":
        async with it.open(session, after=reader.seq, epoch=epoch) as line:
            assert line.hello["epoch"] == epoch
            reader.hear(line.hello)
            for _ in range(cuts):
                frame = await line.next()
                if frame["type"] in RECORDS and frame["seq"] <= line.hello["seq"] and frame["type"] == "message":
                    # A replayed message was streamed before; what is being written now is the next one.
                    reader.records.append(frame)
                else:
                    reader.hear(frame)
                if frame["type"] == "turn_end":
                    break
    return reader


async def until_connected(it: Finn, wanted: int) -> None:
    def connected() -> bool:
        checks = it.ask("GET", "/health").json["checks"]
        return bool(checks["ws:connections"][0]["observedValue"] >= wanted)

    await asyncio.to_thread(until, connected)


@pytest.mark.limit(120)
async def test_what_hello_says_and_the_deltas_after_it_are_the_message_being_written(it: Finn) -> None:
    """A newcomer at any moment of a streamed answer has the whole of it, thinking included."""
    session = it.new_session()
    text = " ".join(f"word{n}" for n in range(40))
    joined: list[tuple[str, str]] = []

    async def newcomer() -> None:
        reader = Reader()
        async with it.open(session) as line:
            if line.hello["turn"] is None:
                return
            reader.hear(line.hello)
            while (await line.next())["type"] != "turn_end":
                reader.hear(line.frames[-1])
        joined.extend(reader.finished)

    async with it.open(session) as line:
        await line.say(f"tools {text}")
        newcomers = []
        while (frame := await line.next())["type"] != "turn_end":
            if frame["type"] in ("text_delta", "thinking_delta", "tool_update"):
                newcomers.append(asyncio.create_task(newcomer()))
        await asyncio.gather(*newcomers)
    assert set(joined) <= messages_of(line.frames)
    assert len(joined) >= 20


async def test_the_order_is_hello_then_replay_up_to_its_seq_then_live(it: Finn) -> None:
    session = it.new_session()
    await asyncio.to_thread(it.say, session, "one")
    await asyncio.to_thread(it.say, session, "two")
    async with it.open(session) as other, it.open(session, after=0) as line:
        seq = line.hello["seq"]
        await other.turn("three")
        while len(line.of("turn_end")) < 3:
            await line.next()
    kinds = [frame["type"] for frame in line.frames]
    assert kinds[0] == "hello"
    assert kinds[1:9] == ["user_message", "turn_start", "message", "turn_end"] * 2
    assert all(frame["seq"] <= seq for frame in line.frames[1:9])
    assert all(frame["seq"] > seq for frame in records(line.frames[9:]))
    assert "text_delta" in kinds[9:]


async def test_without_after_nothing_is_replayed(it: Finn) -> None:
    session = it.new_session()
    await asyncio.to_thread(it.say, session, "one")
    async with it.open(session) as line:
        await line.turn("two")
    assert [frame["data"]["text"] for frame in line.of("user_message")] == ["two"]


@pytest.mark.parametrize(
    ("after", "epoch", "expected"),
    [("ahead", None, "head"), ("ahead", 1, "head"), (1, 99, "head"), ("ahead", 99, "head"), (3, 0, 0)],
)
async def test_a_cursor_that_is_not_of_this_history_is_reset(
    it: Finn, after: int | str, epoch: int | None, expected: int | str
) -> None:
    session = it.new_session()
    await asyncio.to_thread(it.say, session, "one")
    head = it.hello(session)["seq"]
    async with it.open(session, after=head + 100 if after == "ahead" else int(after), epoch=epoch) as line:
        reset = await line.next()
        assert reset["type"] == "reset"
        assert reset["seq"] <= head
        await line.turn("two")
    told = [frame["data"]["text"] for frame in line.of("user_message")]
    assert told == (["two"] if reset["seq"] == head else ["one", "two"])


async def test_a_cursor_of_an_earlier_start_goes_on_without_a_reset(it: Finn) -> None:
    session = it.new_session()
    async with it.open(session, after=0) as line:
        await line.turn("one")
        last = records(line.frames)[-1]["seq"]
        epoch = line.hello["epoch"]
    it.restart()
    async with it.open(session, after=last, epoch=epoch) as line:
        await line.turn("two")
    assert not line.of("reset")
    assert [frame["data"]["text"] for frame in line.of("user_message")] == ["two"]


# ---------------------------------------------------------------- request ids


async def test_a_repeated_request_is_answered_to_the_asking_socket_only_and_not_run_again(it: Finn) -> None:
    session = it.new_session()
    async with it.open(session) as one, it.open(session) as two:
        first = await one.say("hello", "my-id")
        await one.until("turn_end")
        await two.until("turn_end")
        again = await one.say("hello", "my-id")
        assert again == first
        await one.turn("fence")
        await two.until("turn_end")
        assert len([frame for frame in two.of("user_message") if frame["data"]["request_id"] == "my-id"]) == 1
    assert [one["text"] for one in it.messages(session)] == ["hello", "You said: hello", "fence", "You said: fence"]
    assert len(it.sent()) == 2


async def test_a_repeated_request_after_a_restart_is_the_same_frame(it: Finn) -> None:
    session = it.new_session()
    async with it.open(session) as line:
        first = await line.say("hello", "my-id")
        await line.until("turn_end")
    it.restart()
    async with it.open(session) as line:
        assert await line.say("hello", "my-id") == first
    assert len(it.sent()) == 1


async def test_another_text_under_a_used_id_is_refused_by_name(it: Finn) -> None:
    session = it.new_session()
    async with it.open(session) as line:
        await line.say("hello", "my-id")
        await line.send({"type": "prompt", "text": "other", "request_id": "my-id"})
        error = (await line.until("error"))["data"]
    assert (error["code"], error["request_id"]) == ("idempotency_mismatch", "my-id")
    answer = it.ask("POST", f"/api/sessions/{session}/messages", {"text": "other"}, {"Idempotency-Key": "my-id"})
    assert (answer.status, answer.code) == (409, "idempotency_mismatch")


async def test_socket_and_rest_share_their_request_ids(it: Finn) -> None:
    session = it.new_session()
    async with it.open(session) as line:
        said = await line.say("hello", "shared")
        await line.until("turn_end")
        path = f"/api/sessions/{session}/messages"
        answer = it.ask("POST", path, {"text": "hello"}, {"Idempotency-Key": "shared"})
        assert (answer.status, answer.json) == (202, {"turn": said["turn"], "seq": said["seq"]})
    assert len(it.messages(session)) == 2


# ---------------------------------------------------------------- what a client may send


BAD = (
    b"not json", b"[]", b"null", b"1", b'"text"', b"{}", b'{"type":"dance"}', b'{"type":"prompt"}', b"",
    b'{"type":"prompt","text":"x"}', b'{"type":"prompt","text":1,"request_id":"a"}',
    b'{"type":"prompt","text":"x","request_id":""}', b'{"type":"prompt","text":"x","request_id":"a","more":1}',
    b'{"type":"prompt","text":"","request_id":"a"}', b'{"type":"prompt","text":" \\n","request_id":"b"}',
    b"[" * 100_000 + b"]" * 100_000, b'{"type":"ping","n":' + b"9" * 5000 + b"}",
    b'{"type":"prompt","text":"\\ud800","request_id":"c"}',
)  # fmt: skip


async def test_a_bad_frame_gets_an_error_and_the_socket_stays_open(it: Finn) -> None:
    session = it.new_session()
    async with it.open(session) as line:
        for frame in BAD:
            await line.send(frame.decode())
            error = (await line.until("error"))["data"]
            assert error["recoverable"] is True
            assert error["code"] in ("invalid_json", "invalid_body", "empty_prompt"), frame[:80]
            await asyncio.sleep(0.06)  # a client may send 20 frames a second
        await line.send(b"\x00\x01binary")
        assert (await line.until("error"))["data"]["code"] == "invalid_json"
        assert (await line.turn("hello"))[-1]["data"]["stop_reason"] == "stop"
    assert len(it.sent()) == 1


async def test_more_than_twenty_frames_a_second_are_refused_and_use_up_no_id(it: Finn) -> None:
    session = it.new_session()
    async with it.open(session) as line:
        for _ in range(60):
            await line.send({"type": "ping"})
        await line.send({"type": "prompt", "text": "late", "request_id": "late"})
        refused = await line.until("error", lambda frame: frame["data"].get("request_id") == "late")
        assert refused["data"]["code"] == "rate_limited"
        assert 20 <= len(line.of("pong")) < 60
        while True:
            await line.send({"type": "prompt", "text": "late", "request_id": "late"})
            frame = await line.next()
            if frame["type"] == "user_message":
                break
            await asyncio.sleep(0.05)
        await line.until("turn_end")
    assert [one["text"] for one in it.messages(session)] == ["late", "You said: late"]


async def test_too_big_and_not_utf8_close_with_their_codes(it: Finn) -> None:
    session = it.new_session()
    async with it.open(session) as line:
        await line.send("x" * (2**20 + 1))
        assert await line.closed() == 1009
    async with it.open(session) as line:
        with contextlib.suppress(ConnectionClosed):  # it may be hung up on before all of it is sent
            await line.send("x" * (2 * 2**20))
        assert await line.closed() == 1009
    async with it.open(session) as line:
        line.socket.transport.write(b"\x81\x82\x00\x00\x00\x00\xff\xfe")  # a masked text frame of two bytes
        assert await line.closed() == 1007
    async with it.open(session) as line:
        assert (await line.turn("hello"))[-1]["type"] == "turn_end"


async def test_a_prompt_of_nearly_a_mebibyte_is_taken_whole(it: Finn) -> None:
    session = it.new_session()
    text = "ä" * 500_000
    async with it.open(session) as line:
        said = await line.say(text)
        assert said["data"]["text"] == text
        await line.until("turn_end")
    assert it.messages(session)[0]["text"] == text
    it.restart()
    assert it.messages(session)[0]["text"] == text


async def test_who_has_no_right_to_the_socket_is_told_by_a_close_code_or_a_status(it: Finn) -> None:
    session = it.new_session()
    unknown = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    for path, headers, code in [
        (f"/ws/{session}", {}, 4401),
        (f"/ws/{session}", {"Authorization": "Bearer wrong"}, 4401),
        (f"/ws/{unknown}", it.bearer, 4404),
        (f"/ws/{'a' * 300}", it.bearer, 4404),
        ("/ws/%00", it.bearer, 4404),
    ]:
        async with it.connect(path, headers) as opened:
            assert await Line(opened).closed() == code, path
    for path, headers, status in [
        (f"/ws/{session}", {**it.bearer, "Origin": "http://evil.example"}, 403),
        ("/ws/..%2F..%2Fauth", it.bearer, 404),
        ("/socket", it.bearer, 404),
    ]:
        with pytest.raises(InvalidStatus) as refused:
            async with it.connect(path, headers):
                pass
        assert refused.value.response.status_code == status


async def test_a_rotated_token_closes_what_it_had_opened(tmp_path: Path) -> None:
    with finn(tmp_path, [ECHO]) as it:
        session = it.new_session()
        async with it.open(session) as line, events(it, session) as stream:
            assert (await anext(stream))[1]["type"] == "hello"
            await asyncio.to_thread(it.command, "token", "--rotate")
            assert await line.closed() == 4401
            assert [frame async for _, frame in stream] == []


# ---------------------------------------------------------------- steer, follow up, abort, queue


async def test_a_steering_word_is_heard_between_tools_and_a_follow_up_at_the_end(it: Finn) -> None:
    session = it.new_session()
    async with it.open(session) as line:
        said = await line.say("use your tools")
        await line.until("tool_start")
        steered = await line.say("rather quickly", kind="steer")
        followed = await line.say("and then rest", kind="follow_up")
        await line.until("turn_end")
    assert said["turn"] == steered["turn"] == followed["turn"]
    asked = [[one["text"] for one in request["messages"] if one["role"] == "user"] for request in it.sent()]
    assert asked[0] == ["use your tools"]
    assert asked[1] == ["use your tools", "rather quickly"]
    assert asked[-1] == ["use your tools", "rather quickly", "and then rest"]
    assert len(line.of("turn_end")) == 1
    await parents_are_a_chain(it, session)


async def parents_are_a_chain(it: Finn, session: str) -> None:
    """In the order in which the conversation went, each entry stands below the one before."""
    messages = await asyncio.to_thread(it.messages, session)
    parents = [one["parent"] for one in messages]
    assert parents.count(None) == 1
    assert len(set(parents)) == len(messages), "no two entries have the same parent"
    assert set(parents) - {None} <= {one["id"] for one in messages}


async def test_a_steering_word_to_an_idle_session_is_a_prompt(it: Finn) -> None:
    session = it.new_session()
    async with it.open(session) as line:
        await line.say("hello", kind="steer")
        assert (await line.until("turn_end"))["data"]["stop_reason"] == "stop"


async def test_prompts_said_meanwhile_wait_in_order_and_are_told_of(it: Finn) -> None:
    session = it.new_session()
    async with it.open(session) as line:
        await line.say("long")
        await line.until("text_delta")
        for text in ("a", "b", "c"):
            await line.say(text)
        queue = (await line.until("queue", lambda frame: len(frame["data"]["queue"]) == 3))["data"]["queue"]
        assert [one["text"] for one in queue] == ["a", "b", "c"]
        assert it.hello(session)["queue"] == queue
        waiting = await asyncio.to_thread(it.messages, session)
        assert [one["text"] for one in waiting] == ["long", "a", "b", "c"]
        assert [one["parent"] for one in waiting[1:]] == [None, None, None]
        await line.send({"type": "abort", "request_id": "stop"})
        while len(line.of("turn_end")) < 4:
            await line.next()
    ends = [frame["data"]["stop_reason"] for frame in line.of("turn_end")]
    assert ends == ["abort", "stop", "stop", "stop"]
    replies = [frame["data"]["text"] for frame in line.of("message")][-3:]
    assert replies == ["You said: a", "You said: b", "You said: c"]
    assert line.of("queue")[-1]["data"]["queue"] == []
    await parents_are_a_chain(it, session)


async def test_an_aborted_answer_keeps_its_beginning_and_is_never_called_whole(it: Finn) -> None:
    session = it.new_session()
    async with it.open(session) as line:
        await line.say("long")
        for _ in range(5):
            await line.until("text_delta")
        await line.send({"type": "abort"})
        message = await line.until("message")
        end = await line.until("turn_end")
    streamed = "".join(frame["data"]["delta"] for frame in line.of("text_delta"))
    assert (message["data"]["stop_reason"], end["data"]["stop_reason"]) == ("abort", "abort")
    assert message["data"]["text"] == streamed


async def test_the_thirty_fourth_prompt_is_refused_as_busy(it: Finn) -> None:
    session = it.new_session()
    path = f"/api/sessions/{session}/messages"
    assert it.ask("POST", path, {"text": "long"}).status == 202
    async with it.open(session) as line:
        while not line.frames[-1]["type"].endswith("delta"):
            await line.next()
        answers = [it.ask("POST", path, {"text": f"{n}"}) for n in range(32)]
        assert {answer.status for answer in answers} == {202}
        refused = it.ask("POST", path, {"text": "one too many"})
        assert (refused.status, refused.code) == (429, "busy")
        assert int(refused.headers["retry-after"]) >= 1
        await line.send({"type": "prompt", "text": "one too many", "request_id": "x"})
        assert (await line.until("error"))["data"]["code"] == "busy"
        await line.send({"type": "abort"})
        while len(line.of("turn_end")) < 33:
            await line.next()
    assert "one too many" not in [one["text"] for one in it.messages(session)]


async def test_four_turns_run_at_once_and_the_fifth_waits(it: Finn) -> None:
    sessions = [it.new_session() for _ in range(5)]
    for session in sessions:
        it.ask("POST", f"/api/sessions/{session}/messages", {"text": "long"})

    def active() -> Any:
        return it.ask("GET", "/health").json["checks"]["turn:active"][0]["observedValue"]

    await asyncio.to_thread(until, lambda: active() == 4)
    running = [session for session in sessions if it.hello(session)["turn"]]
    assert running == sessions[:4]
    assert len(it.hello(sessions[4])["queue"]) == 1
    it.ask("POST", f"/api/sessions/{sessions[0]}/stop")
    await asyncio.to_thread(until, lambda: it.hello(sessions[4])["turn"])


async def test_a_deleted_session_closes_its_sockets_and_stops_its_turn(it: Finn) -> None:
    session = it.new_session()
    async with it.open(session) as line:
        await line.say("long")
        await line.until("text_delta")
        assert it.ask("DELETE", f"/api/sessions/{session}").status == 204
        assert await line.closed() == 4404
    assert it.ask("GET", f"/api/sessions/{session}").status == 404
    assert it.ask("POST", f"/api/sessions/{session}/restore").status == 200
    it.idle(session)
    assert it.messages(session)[-1]["stop_reason"] == "abort"


# ---------------------------------------------------------------- server-sent events


@asynccontextmanager
async def events(
    it: Finn, session: str, query: str = "", last: str = ""
) -> AsyncIterator[AsyncIterator[tuple[str, Frame]]]:
    """The event stream: (id, frame) after frame."""
    headers = {**it.bearer, **({"Last-Event-ID": last} if last else {})}
    async with (
        httpx2.AsyncClient(timeout=PATIENCE_S, trust_env=False) as client,
        client.stream("GET", f"{it.url}/api/sessions/{session}/events{query}", headers=headers) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield parsed(answer.aiter_lines())


async def parsed(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, Frame]]:
    fields: dict[str, str] = {}
    async for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            frame = json.loads(fields["data"])
            assert fields["event"] == frame["type"]
            yield fields.get("id", ""), frame
            fields = {}


async def test_the_event_stream_resumed_across_a_restart_equals_the_socket(it: Finn) -> None:
    session = it.new_session()
    heard: list[Frame] = []
    last = ""
    async with it.open(session, after=0) as line, events(it, session, "?after=0") as stream:
        await line.say("use your tools")
        async for name, frame in stream:
            heard.append(frame)
            last = name or last
            if frame["type"] == "tool_end":
                break
    it.kill()
    it.start()
    it.idle(session)
    async with it.open(session, after=0) as line:
        await line.turn("hello")
    async with events(it, session, last=last) as stream:
        async for name, frame in stream:
            heard.append(frame)
            assert bool(name) == (frame["type"] in RECORDS)
            if frame["type"] == "turn_end" and frame["seq"] == line.of("turn_end")[-1]["seq"]:
                break
    assert records(heard) == line.of(*RECORDS)
    assert not [frame for frame in heard if frame["type"] == "reset"]


async def test_the_event_stream_shows_the_same_live_frames_as_the_socket(it: Finn) -> None:
    session = it.new_session()
    async with events(it, session) as stream, it.open(session) as line:
        heard = [await anext(stream)]
        turn = asyncio.create_task(line.turn("use your tools"))
        async for item in stream:
            heard.append(item)
            if item[1]["type"] == "turn_end":
                break
        await turn
    assert heard[0][1]["type"] == "hello"
    assert [frame for _, frame in heard[1:]] == line.frames[1:]


# ---------------------------------------------------------------- who does not read


MEGABYTES, TURNS = 100, 200
FLOOD = {"when": "flood", "calls": [[{"text": "x" * (MEGABYTES * 10**6 // TURNS), "chunk": 20_000, "delay": 0.0001}]]}
MOST_GROWTH = 10 * 2**20


@pytest.mark.limit(120)
async def test_a_client_that_never_reads_costs_little_and_is_cut_off(tmp_path: Path) -> None:
    """Answer after answer streams past it, 100 MB in all."""
    with finn(tmp_path, [FLOOD, ECHO]) as it:
        session = it.new_session()
        for _ in range(TURNS // 5):  # what it takes when nobody is slow
            await asyncio.to_thread(it.say, session, "flood")
        before = it.resident_bytes
        with deaf(it, session) as silent:
            for _ in range(50):
                await asyncio.to_thread(it.say, session, "flood")
            assert it.resident_bytes - before < MOST_GROWTH
            await asyncio.to_thread(until, lambda: not established(it.port, silent.getsockname()[1]))
        assert it.ask("GET", "/health").json["checks"]["ws:connections"][0]["observedValue"] == 0


def established(port: int, other: int) -> bool:
    """Whether the kernel still knows a connection between the two ports as open on the side of the first."""
    ends = f":{port:04X}", f":{other:04X}"
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[1].endswith(ends[0]) and row[2].endswith(ends[1]) and row[3] == "01" for row in table)


async def test_a_client_that_reads_too_late_is_sent_away_with_1013_and_finds_the_rest_when_it_is_back(
    tmp_path: Path,
) -> None:
    with finn(tmp_path, [FLOOD, ECHO]) as it:
        session = it.new_session()
        async with it.open(session, after=0) as line:
            line.socket.transport.pause_reading()
            for _ in range(16):
                await asyncio.to_thread(it.say, session, "flood")
            line.socket.transport.resume_reading()
            assert await line.closed() == 1013
            seen = line.of(*RECORDS)
        last = seen[-1]["seq"] if seen else 0
        async with it.open(session, after=last) as line, it.open(session, after=0) as whole:
            for each in (line, whole):
                await each.until("turn_end", lambda frame: frame["seq"] == line.hello["seq"])
        assert seen + line.of(*RECORDS) == whole.of(*RECORDS)
        assert len(whole.of("turn_end")) == 16


@contextlib.contextmanager
def deaf(it: Finn, session: str) -> Any:
    """A socket that was upgraded and is never read."""
    with socket.create_connection(("127.0.0.1", it.port), timeout=PATIENCE_S) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        connection.sendall(it.head(f"GET /ws/{session}", *upgrade, key))
        assert connection.recv(12) == b"HTTP/1.1 101"
        yield connection
