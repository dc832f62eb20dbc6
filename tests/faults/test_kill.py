"""kill -9 at random moments under eight chatting clients: what was acknowledged is there, once, in order.

    clients ──▶ logs of their own (JSON lines: sent, acked, hello, frame, seen)
       │              └───────────────┐
    finn serve  ✗ SIGKILL ✗ SIGKILL   ├─▶ check: reads these logs, then asks the server that is up at the end
                                      │
    the model's log, a file that tools append to ─▶ nothing ran twice

Four clients talk over a WebSocket and resume it with their cursor, four by REST under an Idempotency-Key; one of each
kind share a session. Like the page, a client says a thing again under the same id until it is acknowledged. A round
counts only once prompts were acknowledged in it. The seed that is printed repeats the moments.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import WebSocketException

from tests.conftest import count
from tests.end_to_end.finn import RECORDS, Answer, Finn, Frame, finn, slow

pytestmark = pytest.mark.slow

ROUNDS = 20  #: kills of one finn
SESSIONS = 4
AGAIN_S = 0.02  #: before a client tries again
BUSY = ("busy", "rate_limited", "starting", "draining")
GONE = (OSError, WebSocketException, HTTPException, TimeoutError)

REPLIES = (
    {"when": "tellme", "calls": [[slow("You said: {prompt}", chunk=3, delay=0.004)]]},
    {
        "when": "runit",
        "calls": [
            [{"text": "At once."}, {"tool": "bash", "args": {"command": "echo '{prompt}' >> ran.txt"}}],
            [slow("Done: {prompt}", chunk=3, delay=0.004)],
        ],
    },
)
ANSWERS = {"tellme": "You said: ", "runit": "Done: "}


class Load:
    """Tells when prompts were acknowledged, so that no round is killed before it had any."""

    def __init__(self) -> None:
        self._acked = 0
        self._more = asyncio.Condition()

    async def acked(self) -> None:
        async with self._more:
            self._acked += 1
            self._more.notify_all()

    async def wait(self, count: int) -> None:
        """Returns when `count` more were acknowledged."""
        goal = self._acked + count
        async with self._more:
            await self._more.wait_for(lambda: self._acked >= goal)


class Client:
    """What the two kinds share: things to say, one after the other, and a log of what was seen."""

    def __init__(self, it: Finn, session: str, name: str, load: Load, seed: str) -> None:
        self._it = it
        self.session = session
        self.name = name
        self._load = load
        self._random = random.Random(f"{seed} {name}")
        self._log = (it.folder / f"client-{name}.jsonl").open("w")
        self._said = 0
        self.over = False

    def note(self, event: str, **fields: object) -> None:
        self._log.write(json.dumps({"event": event, "client": self.name, "session": self.session, **fields}) + "\n")

    def next_prompt(self) -> tuple[str, str]:
        """A text that nobody else says, and its id."""
        self._said += 1
        text = f"{self._random.choice(('tellme', 'tellme', 'runit'))} {self.name}-{self._said}"
        self.note("sent", request_id=text, text=text)
        return text, text

    async def acked(self, request_id: str, turn: str, seq: int) -> None:
        self.note("acked", request_id=request_id, turn=turn, seq=seq)
        await self._load.acked()

    async def run(self) -> None:
        """Talks until it is told that it is over and nothing it said is unacknowledged."""
        try:
            while not self.over:
                await self.talk(*self.next_prompt())
        finally:
            self._log.close()

    async def talk(self, text: str, request_id: str) -> None:
        """Says it until it is acknowledged."""
        raise NotImplementedError


class SocketClient(Client):
    """Over a WebSocket, resumed with its cursor; sees every frame of the session."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._seq = 0
        self._epoch: int | None = None

    async def talk(self, text: str, request_id: str) -> None:
        acknowledged = ended = False
        turn = ""
        while not (acknowledged and (ended or self.over)):
            with suppress(*GONE):
                async for frame in self._frames(None if acknowledged else (text, request_id)):
                    data = frame.get("data", {})
                    if frame["type"] == "user_message" and data["request_id"] == request_id:
                        turn = frame["turn"]
                        if not acknowledged:
                            await self.acked(request_id, turn, frame["seq"])
                        acknowledged = True
                    ended = ended or (frame["type"] == "turn_end" and frame["turn"] == turn)
                    if acknowledged and (ended or self.over or self._random.random() < 0.02):
                        return  # now and then it does not wait, so that prompts queue
                    if frame["type"] == "error" and data.get("request_id") == request_id:
                        assert data["code"] in BUSY, frame
                        break
            await asyncio.sleep(AGAIN_S)

    async def _frames(self, prompt: tuple[str, str] | None) -> AsyncIterator[Frame]:
        """One connection: what it sends first, and everything it is sent."""
        epoch = "" if self._epoch is None else f"&epoch={self._epoch}"
        async with self._it.connect(f"/ws/{self.session}?after={self._seq}{epoch}") as socket:
            async for text in socket:
                frame = json.loads(text)
                if frame["type"] == "hello":
                    self.note("hello", epoch=frame["epoch"], seq=frame["seq"], after=self._seq)
                    self._epoch = frame["epoch"]
                    if prompt:
                        said = {"type": "prompt", "text": prompt[0], "request_id": prompt[1]}
                        await socket.send(json.dumps(said))
                elif frame["type"] == "reset":
                    self.note("reset", seq=frame["seq"], after=self._seq)
                elif frame["type"] in RECORDS:
                    self._keep(frame)
                yield frame

    def _keep(self, frame: Frame) -> None:
        """The answer to a repeated request comes twice, and is not news."""
        if frame["seq"] > self._seq:
            self._seq = frame["seq"]
            self.note("frame", frame=frame)
        else:
            self.note("again", frame=frame)


class RestClient(Client):
    """By REST, under an Idempotency-Key; looks at the messages now and then."""

    async def talk(self, text: str, request_id: str) -> None:
        path = f"/api/sessions/{self.session}/messages"
        while True:
            answer = await self._ask("POST", path, {"text": text}, {"Idempotency-Key": request_id})
            if answer is not None and answer.status == 202:
                break
            assert answer is None or answer.code in BUSY, answer
            await asyncio.sleep(AGAIN_S)
        await self.acked(request_id, answer.json["turn"], answer.json["seq"])
        before = answer.json["seq"] + 1
        seen = await self._ask("GET", f"{path}?before={before}&limit=5", None, {})
        if seen is not None and seen.status == 200:
            self.note("seen", epoch=seen.json["epoch"], seq=seen.json["seq"], messages=seen.json["messages"])
        await asyncio.sleep(self._random.uniform(0.0, 0.3))

    async def _ask(self, *request: Any) -> Answer | None:
        try:
            return await asyncio.to_thread(self._it.ask, *request)
        except GONE:
            return None


@asynccontextmanager
async def chatting(clients: list[Client]) -> AsyncIterator[None]:
    """Lets the clients talk, and at the end say what they have begun to say."""
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.run())
        yield
        for client in clients:
            client.over = True


@pytest.mark.limit(180)
@pytest.mark.parametrize("campaign", range(count(1, 25)))
async def test_nothing_acknowledged_is_lost_doubled_or_run_twice_by_kills(
    tmp_path: Path, seed: int, campaign: int
) -> None:
    moments = random.Random(f"{seed} {campaign}")
    with finn(tmp_path, REPLIES, FINN_SANDBOX="none") as it:
        sessions = [it.new_session() for _ in range(SESSIONS)]
        load = Load()
        clients: list[Client] = [
            kind(it, session, f"{letter}{n}", load, f"{seed} {campaign}")
            for n, session in enumerate(sessions)
            for kind, letter in ((SocketClient, "s"), (RestClient, "r"))
        ]
        async with chatting(clients):
            for _ in range(ROUNDS):
                await load.wait(moments.randint(1, 25))
                await asyncio.sleep(moments.uniform(0.0, 0.1))
                it.kill()
                await asyncio.to_thread(it.start)
                assert (await asyncio.to_thread(it.verify))["ok"]
        await asyncio.to_thread(check, it, sessions)


# ---------------------------------------------------------------- the checker


def check(it: Finn, sessions: list[str]) -> None:
    """Compares what the clients wrote down with what the server has now."""
    for session in sessions:
        it.idle(session)
    seen = list(client_logs(it.folder))
    stored = {session: it.messages(session) for session in sessions}
    turns = {session: sum(one["role"] == "user" for one in stored[session]) for session in sessions}
    history = {session: asyncio.run(replayed(it, session, turns[session])) for session in sessions}
    every_acknowledged_prompt_is_there_once(seen, stored)
    every_frame_is_part_of_the_history(seen, history)
    every_message_seen_is_still_that_message(seen, stored)
    seq_never_goes_back(seen)
    prompts_ran_in_order(it, sessions, stored)
    nothing_ran_twice(it, stored, history)
    no_beginning_passes_for_an_answer(stored)


def client_logs(folder: Path) -> Iterator[Any]:
    for path in sorted(folder.glob("client-*.jsonl")):
        yield from map(json.loads, path.read_text().splitlines())


async def replayed(it: Finn, session: str, turns: int) -> list[Frame]:
    """Every record frame of a session of so many turns, as a newcomer gets it."""
    async with it.open(session, after=0) as line:
        while len(line.of("turn_end")) < turns:
            await line.next()
        return line.of(*RECORDS)


def every_acknowledged_prompt_is_there_once(seen: list[Any], stored: dict[str, list[Any]]) -> None:
    acked = [one for one in seen if one["event"] == "acked"]
    assert {one["request_id"] for one in acked} == {one["request_id"] for one in seen if one["event"] == "sent"}
    there: Counter[str] = Counter()
    for messages in stored.values():
        there.update(one["request_id"] for one in messages if one["role"] == "user")
    assert there == Counter({one["request_id"]: 1 for one in acked})
    for one in acked:
        (message,) = [each for each in stored[one["session"]] if each.get("request_id") == one["request_id"]]
        assert (message["text"], message["seq"], message["turn"]) == (one["request_id"], one["seq"], one["turn"])


def every_frame_is_part_of_the_history(seen: list[Any], history: dict[str, list[Frame]]) -> None:
    """A client that resumes sees all of it, once and in order, up to where it was last."""
    clients = {one["client"]: one["session"] for one in seen if one["event"] == "frame"}
    assert len(clients) == SESSIONS
    for client, session in clients.items():
        frames = [one["frame"] for one in seen if one["event"] == "frame" and one["client"] == client]
        last = frames[-1]["seq"]
        assert frames == [frame for frame in history[session] if frame["seq"] <= last], client
        repeated = [one["frame"] for one in seen if one["event"] == "again" and one["client"] == client]
        assert all(frame in frames for frame in repeated)
    assert not [one for one in seen if one["event"] == "reset"], "what was sent to a client is never taken back"


def every_message_seen_is_still_that_message(seen: list[Any], stored: dict[str, list[Any]]) -> None:
    """Only the parent of a message that waited comes later."""
    for one in seen:
        if one["event"] == "seen":
            now = {message["id"]: message for message in stored[one["session"]]}
            for message in one["messages"]:
                assert {**message, "parent": None} == {**now[message["id"]], "parent": None}


def seq_never_goes_back(seen: list[Any]) -> None:
    """For each client: neither the head it is told, nor what it is acknowledged, nor the reign."""
    latest: dict[str, tuple[int, int]] = {}
    for one in seen:
        epoch, seq = latest.get(one["client"], (0, 0))
        if one["event"] in ("hello", "seen"):
            assert (one["epoch"], one["seq"]) >= (epoch, seq), one
            latest[one["client"]] = (one["epoch"], one["seq"])
        elif one["event"] == "acked":
            assert one["seq"] > max((0, *acks(seen, one))), one


def acks(seen: list[Any], one: Any) -> list[int]:
    """What was acknowledged to the same client before."""
    mine = [each["seq"] for each in seen if each["event"] == "acked" and each["client"] == one["client"]]
    return mine[: mine.index(one["seq"])]


def prompts_ran_in_order(it: Finn, sessions: list[str], stored: dict[str, list[Any]]) -> None:
    requests = it.sent()
    for session in sessions:
        said = [one["text"] for one in stored[session] if one["role"] == "user"]
        places = {text: n for n, text in enumerate(said)}
        asked = [places[text] for text in first_calls(requests, session)]
        assert asked == sorted(asked)


def first_calls(requests: list[Any], session: str) -> list[str]:
    """The prompts of the calls that begin a turn: those whose last message is one."""
    last = [one["messages"][-1] for one in requests if one["session"] == session]
    return [one["text"] for one in last if one["role"] == "user"]


def nothing_ran_twice(it: Finn, stored: dict[str, list[Any]], history: dict[str, list[Frame]]) -> None:
    for session, frames in history.items():
        begun = Counter(first_calls(it.sent(), session))
        assert max(begun.values()) == 1, begun.most_common(1)
        ends = Counter(frame["turn"] for frame in frames if frame["type"] == "turn_end")
        prompts = Counter(one["turn"] for one in stored[session] if one["role"] == "user")
        assert ends == prompts, "each prompt has one turn, and each turn one end"
        reasons = {frame["data"]["stop_reason"] for frame in frames if frame["type"] == "turn_end"}
        assert reasons <= {"stop", "interrupted"}
    ran = Counter((it.data / "workspace" / "ran.txt").read_text().splitlines())
    assert max(ran.values()) == 1, ran.most_common(1)
    finished = {one["text"].removeprefix("Done: ") for one in answers(stored) if one["text"].startswith("Done: ")}
    assert finished <= set(ran)


def answers(stored: dict[str, list[Any]]) -> list[Any]:
    """The answers that count as whole."""
    messages = [one for messages in stored.values() for one in messages]
    return [one for one in messages if one["role"] == "assistant" and one["stop_reason"] == "stop"]


def no_beginning_passes_for_an_answer(stored: dict[str, list[Any]]) -> None:
    prompts = {one["turn"]: one["text"] for messages in stored.values() for one in messages if one["role"] == "user"}
    whole = answers(stored)
    assert whole
    for one in whole:
        text = prompts[one["turn"]]
        assert one["text"] == ANSWERS[text.split()[0]] + text
