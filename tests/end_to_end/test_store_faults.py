"""The store fails in every way a network has; nothing is lost, nothing is doubled, and at level local nobody waits.

finn ─▶ fault proxy ─▶ moto          what is compared is the log on the disk with the log in the bucket, byte by byte
"""

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from persistence import unfenced
from persistence.clock import SystemClock
from tests.conftest import count
from tests.end_to_end.bucket import (
    Bucket,
    checks,
    frames_of,
    local_frames,
    lose,
    puts,
    ready,
    saved,
    status,
    texts,
    tier,
)
from tests.end_to_end.finn import ECHO, RECORDS, Answer, Finn, Line, slow, until
from tests.fault_proxy import Fault, FaultProxy
from tests.s3_server import S3Server

pytestmark = pytest.mark.slow

LOG, MANIFEST = "/log/", "/manifest/0"
OBJECT_BYTES = 4 << 20  #: of frames in one log object; an outage that leaves more behind needs several
LARGE = "x" * 200_000  #: as much as a record takes in
LARGER = "y" * 300_000  #: what leaves its record for a blob
HELD = Fault("blackhole", "PUT", LOG, times=None)  #: until `let_go`
DOWN = (Fault("blackhole", times=None), Fault("status", times=None), Fault("reset_before", times=None))
WORK = [
    {
        "when": "work",
        "calls": [
            [slow("I shall write it down."), {"tool": "write", "args": {"path": "started", "content": "yes"}}],
            [{"text": "It is written."}],
        ],
    },
    ECHO,
]


def let_go(proxy: FaultProxy) -> None:
    """The store answers again; what it is silent about is broken off, and asked again."""
    proxy.clear()
    proxy.cut()


def post(it: Finn, session: str, text: str) -> Answer:
    """A prompt under the request id `k`, and what it is answered with."""
    return it.ask("POST", f"/api/sessions/{session}/messages", {"text": text}, {"Idempotency-Key": "k"})


async def quiet(line: Line) -> None:
    """Returns when everything that was sent to this socket until now has been read."""
    await line.send({"type": "ping"})
    await line.until("pong")


# ---------------------------------------------------------------- away, and back


def test_all_that_was_said_in_a_long_outage_arrives_once(bucket: Bucket) -> None:
    it, proxy = bucket.finn(), bucket.proxy()
    session = it.new_session()
    it.say(session, "before")
    saved(it)
    known = len(bucket.frames())
    proxy.away = True
    proxy.cut()
    for number in range(count(15, 100)):
        it.say(session, f"{number} {LARGE}")
    it.say(session, LARGER)
    assert len(local_frames(it)) - known > OBJECT_BYTES
    proxy.clear()
    saved(it)
    assert bucket.has(it)
    before = it.messages(session)
    lose(it)
    it.start()
    assert it.messages(session) == before


def test_health_says_how_far_the_store_lags_behind_and_says_when_it_is_well(bucket: Bucket) -> None:
    it, proxy = bucket.finn(), bucket.proxy()
    session = it.new_session()
    saved(it)
    proxy.away = True
    it.say(session, "unheard")
    until(lambda: tier(it)["state"] == "failing")
    told = checks(it)
    assert (status(it), ready(it)) == ("warn", "ok")
    assert told["store:lagSeq"] == it.ask("GET", "/api/storage").json["seq"] - tier(it)["last_seq"] > 0
    until(lambda: checks(it)["store:lagSeconds"] > 0)
    assert bucket.name in told["store:lastError"]
    proxy.clear()
    saved(it)
    told = checks(it)
    assert (status(it), told["store:lagSeq"], told["store:lagSeconds"]) == ("pass", 0, 0)
    assert "store:lastError" not in told


@pytest.mark.parametrize("level", ["local", "store"])
def test_puts_whose_answer_is_lost_lose_and_double_nothing(bucket: Bucket, level: str, seed: int) -> None:
    draw, proxy = random.Random(seed), bucket.proxy()
    proxy.add(Fault("reset_after", "PUT", MANIFEST), Fault("reset_after", "PUT", LOG))  # of the claim
    it = bucket.finn(FINN_DURABILITY=level)
    session = it.new_session()
    rounds = count(4, 100)
    for number in range(rounds):
        proxy.add(Fault("reset_after", "PUT", after=draw.randrange(2), times=draw.randrange(1, 3)))
        it.say(session, f"{number} {LARGER if number == 2 else ''}")
        saved(it)
    assert proxy.seen.count("reset_after") > rounds // 2
    assert bucket.has(it)
    before = it.messages(session)
    assert len(before) == 2 * rounds
    lose(it)
    it.start()
    assert it.messages(session) == before


# ---------------------------------------------------------------- a store that ignores conditions


def test_on_a_store_that_ignores_conditions_it_says_so_and_overwrites_nothing(tmp_path: Path) -> None:
    with S3Server(conditional=False) as server:
        bucket = Bucket(tmp_path, server)
        try:
            one, two = bucket.finn("one"), bucket.finn("two")
            for it, words in ((one, 1), (two, 3)):
                session = it.new_session()
                for number in range(words):
                    it.say(session, f"word {number}")
                saved(it)
                assert (status(it), ready(it), checks(it)["store:unfenced"]) == ("warn", "ok", True)
            paths = [request.path for name in ("one", "two") for request in puts(bucket.proxy(name).requests, "/")]
            written = [path for path in paths if "/log/" in path or "/manifest/0" in path]
            assert len(set(written)) == len(written) > 8
            survey = unfenced.survey(bucket.store, clock=SystemClock())
            held = {frames_of(candidate.store) for candidate in survey.candidates}
            assert held == {local_frames(one), local_frames(two)}

            there = bucket.objects()
            lose(one)
            one.start()
            assert one.messages(session) == two.messages(session)
            assert {key: bucket.objects()[key] for key in there} == there
        finally:
            bucket.close()


# ---------------------------------------------------------------- at level local


def test_at_level_local_a_store_that_is_down_stalls_no_prompt(bucket: Bucket) -> None:
    it, proxy = bucket.finn(), bucket.proxy()
    session = it.new_session()
    said = []
    for down in DOWN:
        let_go(proxy)
        proxy.add(down)
        asked = len(proxy.requests)
        for number in range(12):
            said.append(f"{down.kind} {number}")
            assert it.say(session, said[-1])["reply"] == f"You said: {said[-1]}"
        assert len(proxy.requests) - asked < 12, "not one attempt for each prompt"
    let_go(proxy)
    saved(it)
    assert bucket.has(it)
    assert texts(it, session)[::2] == said


# ---------------------------------------------------------------- at level store


async def test_at_level_store_nobody_is_told_of_a_prompt_that_is_not_confirmed(bucket: Bucket) -> None:
    it, proxy = await asyncio.to_thread(bucket.finn, FINN_DURABILITY="store"), bucket.proxy()
    session = it.new_session()
    async with it.open(session) as watcher, it.open(session) as speaker:
        proxy.add(HELD)
        await speaker.send({"type": "prompt", "text": "hello", "request_id": "r"})
        await asyncio.to_thread(until, lambda: "blackhole" in proxy.seen)
        await quiet(watcher)
        assert watcher.of(*RECORDS) == []
        assert (it.messages(session), it.hello(session)["queue"], it.sent()) == ([], [], [])
        let_go(proxy)
        for line in (watcher, speaker):
            await line.until("turn_end")
            assert [frame["type"] for frame in line.of(*RECORDS)] == [
                "user_message",
                "turn_start",
                "message",
                "turn_end",
            ]
    assert len(it.sent()) == 1


async def test_at_level_store_a_tool_starts_when_its_record_is_confirmed(bucket: Bucket) -> None:
    it, proxy = await asyncio.to_thread(bucket.finn, "one", WORK, FINN_DURABILITY="store"), bucket.proxy()
    written = it.data / "workspace" / "started"
    session = it.new_session()
    async with it.open(session) as line:
        await line.say("work")
        await line.until("text_delta")
        proxy.add(
            Fault("blackhole", "PUT", LOG, times=None, after=1)
        )  # the answer is let through, the tool's start not
        await line.until("message")
        await asyncio.to_thread(until, lambda: "blackhole" in proxy.seen)
        await quiet(line)
        assert (line.of("tool_start"), written.exists()) == ([], False)
        let_go(proxy)
        await line.until("turn_end")
        assert written.read_text() == "yes"


async def test_at_level_store_a_silent_store_is_said_and_the_same_request_gets_the_one_answer(bucket: Bucket) -> None:
    it, proxy = await asyncio.to_thread(bucket.finn, "one", WORK, FINN_DURABILITY="store"), bucket.proxy()
    busy, other = it.new_session(), it.new_session()

    async with it.open(busy) as line:
        await line.say("work")
        await line.until("text_delta")
        proxy.add(HELD)
        refused = await asyncio.to_thread(post, it, other, "are you there?")
        assert (refused.status, refused.code) == (503, "store_unavailable")
        told = await line.until("error")
        assert (told["data"]["code"], told["data"]["recoverable"]) == ("store_unavailable", True)
        assert texts(it, other) == []
        let_go(proxy)
        assert (await asyncio.to_thread(it.say, other, "are you there?", {"Idempotency-Key": "k"}))["reply"]
        await line.until("turn_end")
    assert post(it, other, "are you there?").status == 202
    assert texts(it, other) == ["are you there?", "You said: are you there?"]
    assert texts(it, busy)[-1] == "It is written."
    saved(it)
    assert bucket.has(it)


def test_at_level_store_whoever_waits_for_a_silent_store_is_told_of_the_end(bucket: Bucket) -> None:
    it, proxy = bucket.finn(FINN_DURABILITY="store", FINN_SHUTDOWN_BUDGET="2s"), bucket.proxy()
    session = it.new_session()
    saved(it)
    proxy.add(Fault("blackhole", times=None))
    with ThreadPoolExecutor() as aside:
        waiting = aside.submit(post, it, session, "anybody?")
        until(lambda: "blackhole" in proxy.seen)
        assert it.stop() == 0
        assert (waiting.result().status, waiting.result().code) == (503, "draining")
    let_go(proxy)
    it.start()
    assert it.say(session, "anybody?", {"Idempotency-Key": "k"})["reply"] == "You said: anybody?"
    assert texts(it, session) == ["anybody?", "You said: anybody?"]
