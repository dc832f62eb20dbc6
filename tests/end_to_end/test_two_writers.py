"""Two at once, by accident: one acts, and nothing that was acknowledged is overwritten or lost.

finn "one" ─▶ proxy ─┐
finn "two" ─▶ proxy ─┴▶ moto

The races of the claim itself, thousands of them, are in tests/persistence/test_claim.py; here whole processes meet.
"""

import asyncio
import signal
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.conftest import count
from tests.end_to_end.bucket import Bucket, checks, lose, puts, ready, saved, texts
from tests.end_to_end.finn import RECORDS, Finn, Frame, slow, until
from tests.fault_proxy import Fault, FaultProxy

pytestmark = pytest.mark.slow

LOG = "/log/"
PROMPTS = 1000  #: that a writer may take before the store has answered it
RACERS = ("one", "two", "three")


def say(it: Finn, session: str, text: str) -> str:
    """Says something and does not wait for the answer: `ok` if it was acknowledged, or the code of the refusal."""
    answer = it.ask("POST", f"/api/sessions/{session}/messages", {"text": text}, {"Idempotency-Key": text})
    return "ok" if answer.status == 202 else answer.code


def stands(it: Finn, expected: str) -> bool:
    """Whether a probe is told so."""
    return ready(it) == expected


def let_go(proxy: FaultProxy) -> None:
    """The store answers again; what it is silent about is broken off, and asked again."""
    proxy.clear()
    proxy.cut()


def fenced(bucket: Bucket, **settings: str) -> tuple[Finn, Finn]:
    """Two of them, of which the second has taken over."""
    one, two = bucket.finn("one", **settings), bucket.finn("two", **settings)
    one.ask("POST", "/api/sessions", {"title": "who am I?"})
    until(lambda: ready(one) == "fenced")
    return one, two


def kept(known: list[Frame], frames: Iterable[Frame]) -> list[Frame]:
    """What a client shows after these frames: records are added, and `reset` forgets what came after its seq."""
    for frame in frames:
        if frame["type"] == "reset":
            known = [one for one in known if one["seq"] <= frame["seq"]]
        elif frame["type"] in RECORDS:
            known = [*known, frame]
    return known


# ---------------------------------------------------------------- races


def test_of_processes_that_start_at_once_one_acknowledges_and_the_others_stand_by(bucket: Bucket) -> None:
    known = list[str]()
    for number in range(count(2, 20)):
        racers = [bucket.made(name, FINN_DURABILITY="store", FINN_RELEASE=str(number)) for name in RACERS]
        with ThreadPoolExecutor(len(racers)) as at_once:
            list(at_once.map(Finn.start, racers))
            answers = list(at_once.map(lambda it: it.ask("POST", "/api/sessions", {"title": "won"}), racers))
        told = sorted("ok" if answer.status == 201 else answer.code for answer in answers)
        assert told == ["fenced", "fenced", "ok"], number
        ((winner, created),) = [
            (it, one.json["id"]) for it, one in zip(racers, answers, strict=True) if one.status == 201
        ]
        for it in racers:
            until(partial(stands, it, "ok" if it is winner else "fenced"))
        known.append(created)
        assert winner.say(known[-1], "who?")["reply"] == "You said: who?"
        assert [texts(winner, session) for session in known] == [["who?", "You said: who?"]] * len(known)
        saved(winner)
        assert bucket.tip().manifest.epoch == checks(winner)["epoch"]
        assert bucket.has(winner)
        for it in racers:
            it.kill()


# ---------------------------------------------------------------- a process that was paused


def test_at_level_store_a_paused_writer_acknowledges_nothing_once_another_has_taken_over(bucket: Bucket) -> None:
    one = bucket.finn("one", FINN_DURABILITY="store")
    session = one.new_session()
    one.say(session, "together")
    bucket.proxy("one").add(Fault("blackhole", "PUT", LOG, times=None))
    with ThreadPoolExecutor() as aside:
        in_flight = aside.submit(say, one, session, "in the air")
        until(lambda: "blackhole" in bucket.proxy("one").seen)
        one.send_signal(signal.SIGSTOP)
        two = bucket.finn("two", FINN_DURABILITY="store")
        two.say(session, "in the light")
        let_go(bucket.proxy("one"))
        one.send_signal(signal.SIGCONT)
        assert say(one, session, "still me?") != "ok"
        assert in_flight.result() != "ok"
    until(lambda: ready(one) == "fenced")
    assert texts(two, session) == ["together", "You said: together", "in the light", "You said: in the light"]
    saved(two)
    assert bucket.has(two)


def test_at_level_local_a_paused_writer_acknowledges_nothing_after_the_store_has_answered(bucket: Bucket) -> None:
    one = bucket.finn("one")
    session = one.new_session()
    one.say(session, "together")
    saved(one)
    one.send_signal(signal.SIGSTOP)
    two = bucket.finn("two")
    two.say(session, "in the light")
    bucket.proxy("one").add(Fault("blackhole", times=None))
    one.send_signal(signal.SIGCONT)
    told = [say(one, session, "into the void 0")]
    assert told == ["ok"]  # the store is silent, and at this level nobody waits for it
    let_go(bucket.proxy("one"))
    while told.count("fenced") < 5 and len(told) < PROMPTS:
        answered = say(one, session, f"into the void {len(told)}")
        told += [answered] if answered != "busy" else []  # then too many wait for their turn
    acknowledged = told.count("ok")
    assert told == ["ok"] * acknowledged + ["fenced"] * 5

    until(lambda: [*bucket.store.list("orphans/")])
    two.restart()
    said = [f"into the void {number}" for number in range(acknowledged)]
    until(lambda: set(said) <= set(texts(two, session)))
    until(lambda: not [*bucket.store.list("orphans/")])  # all of it is brought in, and nothing more comes
    shown = two.messages(session)
    back = [each["text"] for each in shown if each.get("recovered") and each["text"].startswith("into")]
    assert back[:acknowledged] == said
    assert len(back) <= acknowledged + 1, "one that was refused may have been written down, and then it is kept as well"
    assert [each["text"] for each in shown if not each.get("recovered")][-2:] == [
        "in the light",
        "You said: in the light",
    ]
    saved(two)
    assert bucket.has(two)
    assert ready(one) == "fenced"


# ---------------------------------------------------------------- the loser is started again


def test_supervisors_that_start_both_again_do_not_make_them_fight(bucket: Bucket) -> None:
    one, two = fenced(bucket)
    session = two.new_session()
    epoch = bucket.tip().manifest.epoch
    for number in range(count(2, 20)):
        one.restart()
        assert (ready(one), say(one, session, "me?")) == ("fenced", "fenced")
        assert two.say(session, f"{number}")["reply"] == f"You said: {number}"
        assert (ready(two), bucket.tip().epoch) == ("ok", epoch)
    two.restart()
    two.say(session, "still me")
    saved(two)
    assert (ready(one), ready(two), bucket.tip().epoch) == ("fenced", "ok", epoch + 1)
    assert bucket.has(two)


# ---------------------------------------------------------------- taking over


def test_a_start_after_a_clean_end_takes_over_with_five_requests(bucket: Bucket) -> None:
    it, proxy = bucket.finn(), bucket.proxy()
    session = it.new_session()
    it.say(session, "before")
    assert it.stop() == 0
    asked, began = len(proxy.requests), time.monotonic()
    it.start()
    print(f"a start takes over in {time.monotonic() - began:.2f} s, the start of the process in it")  # noqa: T201
    it.say(session, "after")
    saved(it)
    requests = proxy.requests[asked:]
    claimed = requests.index(puts(requests)[0])
    assert claimed < 5, requests[: claimed + 1]
    assert bucket.has(it)


def test_a_standby_takes_over_from_one_that_stopped_with_all_that_it_had_said(bucket: Bucket) -> None:
    one, two = fenced(bucket)
    session = two.new_session()
    two.say(session, "to the second")
    before = two.messages(session)
    assert two.stop() == 0
    began = time.monotonic()
    until(lambda: ready(one) == "ok")
    print(f"a standby takes over {time.monotonic() - began:.2f} s after the end of the other")  # noqa: T201
    assert one.messages(session) == before
    assert one.say(session, "to the first")["reply"] == "You said: to the first"
    saved(one)
    assert bucket.has(one)


# ---------------------------------------------------------------- who read what is gone


async def test_a_reader_of_what_was_lost_with_the_machine_ends_with_the_new_history(bucket: Bucket) -> None:
    it, proxy = await asyncio.to_thread(bucket.finn, "one", [[slow("word " * 40)]]), bucket.proxy()
    session = it.new_session()
    async with it.open(session) as line:
        await line.say("hello")
        await line.until("text_delta")
        await asyncio.to_thread(saved, it)
        proxy.away = True
        last = await line.until("turn_end")
        known, epoch = kept([], line.frames), line.hello["epoch"]
    stored = bucket.tip().seq
    assert stored == last["seq"] - 2  # the answer and the turn's end are on this machine only
    lose(it)
    proxy.clear()
    await asyncio.to_thread(it.start)
    await asyncio.to_thread(it.idle, session)
    async with it.open(session, last["seq"], epoch) as line:
        reset = await line.until("reset")
        assert reset["seq"] == stored
        await line.turn("and now?")
        known = kept(known, line.frames)
    async with it.open(session, 0) as fresh:
        await fresh.until("turn_end", lambda frame: frame["seq"] == known[-1]["seq"])
        assert kept([], fresh.frames) == known
    assert [frame["data"]["text"] for frame in known if frame["type"] == "user_message"] == ["hello", "and now?"]


async def test_a_reader_of_a_fenced_writer_ends_with_the_history_of_the_one_that_took_over(bucket: Bucket) -> None:
    one = await asyncio.to_thread(bucket.finn, "one")
    session = one.new_session()
    async with one.open(session) as line:
        await line.turn("together")
        await asyncio.to_thread(saved, one)
        bucket.proxy("one").away = True
        await line.turn("into the void")
        two = await asyncio.to_thread(bucket.finn, "two")
        bucket.proxy("one").clear()
        assert await line.closed() == 1012
        known, epoch = kept([], line.frames), line.hello["epoch"]
    async with two.open(session, known[-1]["seq"], epoch) as line:
        await line.until("reset")
        await line.turn("in the light")
        known = kept(known, line.frames)
    async with two.open(session, 0) as fresh:
        await fresh.until("turn_end", lambda frame: frame["seq"] == known[-1]["seq"])
        assert kept([], fresh.frames) == known
    assert [frame["data"]["text"] for frame in known if frame["type"] == "user_message"] == ["together", "in the light"]
