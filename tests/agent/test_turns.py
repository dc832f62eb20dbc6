"""Who runs when, what a request id is worth, and how a turn ends that did not come to its end."""

import asyncio
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from agent.interruption import NOTE, UNKNOWN_OUTCOME
from agent.model import User
from agent.tool import ToolResult
from agent.turns import TURNS_AT_ONCE, WAITING_MOST
from persistence.errors import Busy, Draining, EmptyPrompt, IdempotencyMismatch, NotFound
from persistence.events import (
    OWNER,
    AssistantMessage,
    NoteAdded,
    Record,
    SessionDeleted,
    SessionRestored,
    ToolEnded,
    TurnEnded,
    TurnStarted,
    UserMessage,
)
from persistence.subscription import Moment
from tests.agent.houses import ECHO, SESSION, House, house, told, trick, well_formed
from tests.persistence.journals import logged

SLOW: Any = {"replies": [[{"text": "{prompt}"}, {"sleep": 1}, {"text": "!"}]], "loop": True}
QUICK: Any = {"replies": [[{"text": "{prompt}!"}]], "loop": True}


def stories(records: Iterable[Record]) -> list[str]:
    return [told(record.event) for record in records]


def ends(records: Iterable[Record]) -> list[str]:
    return [record.event.stop_reason for record in records if isinstance(record.event, TurnEnded)]


async def streaming(home: House, session: str = SESSION) -> None:
    """Until the answer of the running turn has begun."""
    await home.until(lambda: (live := home.turns.live(session)) is not None and bool(live.text))


# ---------------------------------------------------------------- order


async def test_a_prompt_is_answered_and_the_next_one_knows_it(tmp_path: Path) -> None:
    async with house(tmp_path, QUICK) as home:
        outcome = await home.ask("one")
        assert (outcome.reply, outcome.ended.stop_reason) == ("one!", "stop")
        await home.ask("two")
        texts = [message.text for message in home.model.requests[-1].messages if isinstance(message, User)]
        assert texts == ["one", "two"]
        assert len(home.model.requests[-1].messages) == 3
        well_formed(await home.log())


async def test_prompts_of_a_session_run_one_after_the_other_in_the_order_in_which_they_were_said(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, QUICK) as home:
        await asyncio.gather(*(home.say(f"p{n}") for n in range(10)))
        await home.idle()
        log = await home.log()
        well_formed(log)
        said = [record for record in log if isinstance(record.event, UserMessage)]
        started = [record.event.entry for record in log if isinstance(record.event, TurnStarted)]
        assert [record.entry for record in said] == started
        replies = [told(record.event) for record in log if isinstance(record.event, AssistantMessage)]
        assert replies == [f"stop: {record.event.text}!" for record in said if isinstance(record.event, UserMessage)]


async def test_four_turns_run_at_once_and_the_others_when_there_is_room(tmp_path: Path) -> None:
    sessions = [f"s{n}" for n in range(TURNS_AT_ONCE + 2)]
    async with house(tmp_path, SLOW, sessions=sessions) as home:
        for session in sessions:
            await home.say("go", session=session)
        for session in sessions[:TURNS_AT_ONCE]:
            await streaming(home, session)
        for _ in range(50):
            await asyncio.sleep(0)
        assert home.turns.active == TURNS_AT_ONCE
        assert [home.state(session).running is None for session in sessions[TURNS_AT_ONCE:]] == [True, True]
        home.clock.advance(1)
        for session in sessions[TURNS_AT_ONCE:]:
            await streaming(home, session)
        home.clock.advance(1)
        for session in sessions:
            await home.idle(session)
        await home.until(lambda: home.turns.active == 0)


async def test_a_queue_takes_so_many_and_says_busy_to_the_next(tmp_path: Path) -> None:
    async with house(tmp_path, SLOW) as home:
        await home.say("first")
        await streaming(home)
        results = await asyncio.gather(*(home.say(f"p{n}") for n in range(WAITING_MOST + 3)), return_exceptions=True)
        assert sum(isinstance(one, int) for one in results) == WAITING_MOST
        assert [type(one) for one in results[WAITING_MOST:]] == [Busy] * 3
        assert len(home.state().waiting) == WAITING_MOST


async def test_whoever_watches_is_told_how_the_queue_stands(tmp_path: Path) -> None:
    async with house(tmp_path, SLOW) as home:
        await home.say("one")
        await streaming(home)
        subscription = home.journal.subscribe(SESSION)
        await home.say("two")
        await home.turns.stop(SESSION)
        home.clock.advance(1)
        queues = []
        async for item in subscription:
            if isinstance(item, Moment) and item.type == "queue":
                queues.append([one["text"] for one in item.data["queue"]])
            if isinstance(item, Record) and isinstance(item.event, TurnStarted):
                break
        assert queues[:2] == [["two"], ["two"]]


# ---------------------------------------------------------------- while a turn runs


async def test_steering_and_following_up_join_the_turn_that_runs(tmp_path: Path) -> None:
    script = [[{"text": "A"}, {"sleep": 1}, {"tool": "echo", "id": "a"}], [{"text": "B"}], [{"text": "C"}]]
    async with house(tmp_path, script) as home:
        await home.say("go")
        await streaming(home)
        await home.say("then", "follow_up")
        await home.say("left", "steer")
        home.clock.advance(1)
        await home.idle()
        log = await home.log()
        well_formed(log)
        assert stories(log) == [
            "prompt: go",
            "turn_started",
            "follow_up: then",
            "steer: left",
            "tool_use: A [a]",
            "start a",
            "end a: echo ",
            "steer_taken",
            "stop: B",
            "steer_taken",
            "stop: C",
            "ended: stop",
        ]
        assert len({record.event.turn for record in log if hasattr(record.event, "turn")}) == 1


@pytest.mark.parametrize("mode", ["steer", "follow_up"])
async def test_without_a_turn_to_join_a_message_is_a_prompt(tmp_path: Path, mode: Any) -> None:
    async with house(tmp_path, QUICK) as home:
        await home.say("hello", mode)
        await home.idle()
        assert stories(await home.log()) == ["prompt: hello", "turn_started", "stop: hello!", "ended: stop"]


async def test_a_message_that_its_turn_did_not_hear_any_more_gets_a_turn_of_its_own(tmp_path: Path) -> None:
    async with house(tmp_path, SLOW) as home:
        await home.say("go")
        await streaming(home)
        accepted = await home.turns.say(SESSION, "too late", "late", "steer", by=OWNER)
        await home.turns.stop(SESSION)
        await home.until(lambda: home.turns.active == 1 and not home.state().waiting)
        await streaming(home)
        home.clock.advance(1)
        outcome = await home.turns.outcome(SESSION, accepted)
        assert outcome.reply == "too late!"
        well_formed(await home.log())
        assert ends(await home.log()) == ["abort", "stop"]


# ---------------------------------------------------------------- request ids


async def test_a_repeated_request_gets_the_first_answer_and_is_not_run_again(tmp_path: Path) -> None:
    async with house(tmp_path, QUICK) as home:
        first = await home.turns.say(SESSION, "hi", "id", by=OWNER)
        again = await asyncio.gather(*(home.turns.say(SESSION, "hi", "id", by=OWNER) for _ in range(5)))
        assert {(one.turn, one.seq, one.repeated) for one in again} == {(first.turn, first.seq, True)}
        await home.idle()
    async with house(tmp_path, QUICK) as home:
        assert (await home.turns.say(SESSION, "hi", "id", by=OWNER)).seq == first.seq, "also after a restart"
        assert stories(await home.log()).count("prompt: hi") == 1


async def test_the_same_request_arriving_many_times_at_once_is_one_prompt(tmp_path: Path) -> None:
    async with house(tmp_path, QUICK) as home:
        answers = await asyncio.gather(*(home.turns.say(SESSION, "hi", "id", by=OWNER) for _ in range(20)))
        assert len({(one.turn, one.seq) for one in answers}) == 1
        assert sum(not one.repeated for one in answers) == 1
        await home.idle()
        assert stories(await home.log()).count("prompt: hi") == 1


async def test_a_request_id_with_another_text_is_a_mismatch_also_while_the_first_arrives(tmp_path: Path) -> None:
    async with house(tmp_path, QUICK) as home:
        texts = [home.turns.say(SESSION, text, "id", by=OWNER) for text in ("hi", "ho", "hi")]
        results = await asyncio.gather(*texts, return_exceptions=True)
        assert [type(one).__name__ for one in results] == ["Accepted", "IdempotencyMismatch", "Accepted"]
        with pytest.raises(IdempotencyMismatch):
            await home.turns.say(SESSION, "ho", "id", by=OWNER)
        assert await home.turns.say(SESSION, "ho", "other id", by=OWNER)


@pytest.mark.parametrize(("session", "text", "error"), [(SESSION, " \n", EmptyPrompt), ("nobody", "hi", NotFound)])
async def test_what_cannot_be_taken_is_refused_and_leaves_no_trace(
    tmp_path: Path, session: str, text: str, error: type[Exception]
) -> None:
    async with house(tmp_path, QUICK) as home:
        seq = home.journal.seq
        with pytest.raises(error):
            await home.turns.say(session, text, "id", by=OWNER)
        assert home.journal.seq == seq


# ---------------------------------------------------------------- stop, delete, drain


async def test_a_stopped_turn_keeps_its_beginning_and_the_queue_goes_on(tmp_path: Path) -> None:
    async with house(tmp_path, SLOW) as home:
        accepted = await home.turns.say(SESSION, "one", "1", by=OWNER)
        await streaming(home)
        await home.say("two")
        assert await home.turns.stop(SESSION)
        outcome = await home.turns.outcome(SESSION, accepted)
        assert (outcome.ended.stop_reason, outcome.reply) == ("abort", "one")
        await streaming(home)
        home.clock.advance(1)
        await home.idle()
        assert ends(await home.log()) == ["abort", "stop"]
        well_formed(await home.log())
        assert not await home.turns.stop(SESSION)


async def test_a_deleted_session_stops_and_takes_nothing_and_what_waited_runs_when_it_is_back(tmp_path: Path) -> None:
    async with house(tmp_path, SLOW) as home:
        await home.say("one")
        waiting = await home.turns.say(SESSION, "two", "2", by=OWNER)
        await streaming(home)
        asked = asyncio.create_task(home.turns.outcome(SESSION, waiting))
        await home.journal.commit(SessionDeleted(), stream=SESSION, by=OWNER)
        await home.until(lambda: home.turns.active == 0)
        with pytest.raises(NotFound):
            await asked
        with pytest.raises(NotFound):
            await home.say("three")
        assert ends(await home.log()) == ["abort"]
        await home.journal.commit(SessionRestored(), stream=SESSION, by=OWNER)
        await streaming(home)
        home.clock.advance(1)
        await home.idle()
        assert ends(await home.log()) == ["abort", "stop"]


async def test_a_drain_closes_what_runs_keeps_what_waits_and_the_next_start_runs_it(tmp_path: Path) -> None:
    async with house(tmp_path, SLOW) as home:
        running = await home.turns.say(SESSION, "one", "1", by=OWNER)
        waiting = await home.turns.say(SESSION, "two", "2", by=OWNER)
        await streaming(home)
        outcomes = [asyncio.create_task(home.turns.outcome(SESSION, one)) for one in (running, waiting)]
        await home.turns.drain()
        assert (await outcomes[0]).ended.stop_reason == "interrupted"
        with pytest.raises(Draining):
            await outcomes[1]
        with pytest.raises(Draining):
            await home.turns.outcome(SESSION, waiting)
        with pytest.raises(Draining):
            await home.say("three")
        assert (await home.turns.say(SESSION, "two", "2", by=OWNER)).repeated, "what is known is answered still"
        story = stories(await home.log())
        assert story[-3:] == ["interrupted: one", f"note: {NOTE}", "ended: interrupted"]
    async with house(tmp_path, QUICK) as home:
        await home.idle()
        log = await home.log()
        well_formed(log)
        assert ends(log) == ["interrupted", "stop"]
        assert stories(log)[-2:] == ["stop: two!", "ended: stop"]


# ---------------------------------------------------------------- defects and crashes


async def test_a_defect_ends_its_turn_in_words_and_nothing_else(tmp_path: Path) -> None:
    async def broken(text: str) -> ToolResult:
        raise KeyError("ours")

    script = {
        "replies": [
            {"when": "break", "calls": [[{"tool": "broken", "id": "b"}, {"tool": "echo", "id": "e"}]]},
            {"when": "and now", "calls": [[{"text": "fine"}]]},
        ]
    }
    async with house(tmp_path, script, (ECHO, trick("broken", broken))) as home:
        outcome = await home.ask("break it")
        assert outcome.ended.stop_reason == "error"
        assert outcome.ended.error is not None
        assert "KeyError" in outcome.ended.error.message or "ours" in outcome.ended.error.message
        assert (await home.ask("and now")).reply == "fine"
        well_formed(await home.log())


async def test_a_call_is_in_the_log_before_its_tool_runs(tmp_path: Path) -> None:
    seen: list[str] = []

    async def look(text: str) -> ToolResult:
        seen.extend(told(record.event) for record in logged(tmp_path)[-2:])
        return ToolResult("seen")

    async with house(tmp_path, [[{"tool": "look", "id": "a"}], [{"text": "."}]], (trick("look", look),)) as home:
        await home.ask("go")
    assert seen == ["tool_use:  [a]", "start a"]


RICH: Any = [
    [
        {"thinking": "hm", "chunk": 1},
        {"text": "Look", "chunk": 2},
        {"tool": "echo", "id": "a"},
        {"tool": "slow", "id": "b"},
    ],
    [{"text": "Done", "chunk": 1}],
]


async def slow(text: str) -> ToolResult:
    for _ in range(3):
        await asyncio.sleep(0)
    return ToolResult("slow")


TOOLS = (ECHO, trick("slow", slow))


class Watched:
    """Calls back at the N-th thing that happens in a session, be it a record or a moment."""

    def __init__(self, home: House, nth: int, call: Callable[[], None]) -> None:
        self.count = 0
        self._nth = nth
        self._call = call
        self._announce = home.journal.announce
        home.journal.listen(lambda record: self._tick())
        home.journal.announce = self._moment  # type: ignore[method-assign]

    def _moment(self, stream: str, moment: Moment) -> None:
        self._announce(stream, moment)
        self._tick()

    def _tick(self) -> None:
        self.count += 1
        if self.count == self._nth:
            self._call()


@pytest.mark.limit(60)
@pytest.mark.parametrize("reason", ["abort", "interrupted"])
async def test_wherever_a_turn_is_stopped_its_session_is_closed_well(tmp_path: Path, reason: str) -> None:
    nth = 0
    while True:
        nth += 1
        done: list[str] = []

        async def finish(text: str, done: list[str] = done) -> ToolResult:
            for _ in range(3):
                await asyncio.sleep(0)
            done.append("slow")
            return ToolResult("slow")

        async with house(tmp_path / str(nth), RICH, (ECHO, trick("slow", finish))) as home:

            def stop(home: House = home) -> None:
                running = home.turns._running.get(SESSION)
                if running is not None:
                    running.stop(reason)  # type: ignore[arg-type]

            watched = Watched(home, nth, stop)
            await home.say("go")
            await home.idle()
            log = await home.log()
            well_formed(log)
            end = ends(log)[-1]
            assert end in (reason, "stop"), nth
            assert len(ends(log)) == 1
            for record in log:
                if isinstance(record.event, ToolEnded) and record.event.name in done:
                    assert record.event.result == "slow", "what was done is told as it was"
            if watched.count < nth:
                break
    assert nth > 20
    assert end == "stop"


async def test_a_stop_that_comes_before_the_first_step_of_a_turn_stops_that_turn(tmp_path: Path) -> None:
    async with house(tmp_path, QUICK) as home:
        stopped: list[bool] = []

        def look(record: Record) -> None:
            if isinstance(record.event, UserMessage):
                asyncio.get_running_loop().call_soon(soon)

        def soon() -> None:
            running = home.turns._running.get(SESSION)
            if running is None:
                asyncio.get_running_loop().call_soon(soon)
            elif not stopped:
                stopped.append(running.task is None)
                running.stop("abort")

        home.journal.listen(look)
        await home.say("go")
        await home.idle()
        log = await home.log()
        well_formed(log)
        assert stopped == [True]
        assert ends(log) == ["abort"]


@pytest.mark.limit(60)
async def test_a_crash_after_any_record_of_a_turn_ends_in_a_closed_session_with_a_result_for_every_call(
    tmp_path: Path,
) -> None:
    """The directory is copied after each record, and each copy is started."""
    copies: list[Path] = []
    clockwork = {"text": "Long", "chunk": 1, "delay": 1.5}
    script = {"replies": [{"when": "go on", "calls": [[{"text": "ok"}]]}, RICH[0], [clockwork]]}
    async with house(tmp_path / "live", script, TOOLS) as home:

        def copy(record: Record) -> None:
            copies.append(tmp_path / f"copy {record.seq}")
            shutil.copytree(tmp_path / "live", copies[-1])

        home.journal.listen(copy)
        await home.say("go")
        await home.pass_time(lambda: not (home.state().waiting or home.state().running))
        checkpoints = sum(line.startswith("so far") for line in stories(await home.log()))
    assert checkpoints
    assert len(copies) == 9 + checkpoints  # how many depends on what real time a commit takes, the others do not
    for path in copies:
        async with house(path, script, TOOLS) as home:
            await home.pass_time(lambda home=home: not (home.state().waiting or home.state().running))  # type: ignore[misc]
            log = await home.log()
            well_formed(log)
            assert ends(log)[0] in ("interrupted", "stop")
            if ends(log) == ["interrupted"]:
                story = stories(log)
                assert story[-2:] == [f"note: {NOTE}", "ended: interrupted"]
                kept = max((line.removeprefix("so far: ") for line in story if line.startswith("so far: ")), default="")
                if kept and "stop: Long" not in story:
                    assert f"interrupted: {kept}" in story
                assert all(line == f"end {line[4]} badly: {UNKNOWN_OUTCOME}" for line in story if " badly" in line)
            asked = asyncio.create_task(home.ask("go on"))
            await home.pass_time(asked.done)
            assert asked.result().ended.stop_reason == "stop"


async def test_an_interrupted_closing_is_taken_up_where_it_stopped(tmp_path: Path) -> None:
    copies: list[Path] = []
    async with house(tmp_path / "live", SLOW, TOOLS) as home:
        await home.say("go")
        await streaming(home)
        home.clock.advance(0.5)
        shutil.copytree(tmp_path / "live", tmp_path / "crashed")

    async with house(tmp_path / "crashed", SLOW, TOOLS, served=False) as home:

        def copy(record: Record) -> None:
            copies.append(tmp_path / f"copy {record.seq}")
            shutil.copytree(tmp_path / "crashed", copies[-1])

        home.journal.listen(copy)
        serving = asyncio.create_task(home.turns.serve())
        await home.idle()
        serving.cancel()
        await asyncio.wait([serving])
        expected = stories(await home.log())
    assert len(copies) >= 2
    for path in copies:
        async with house(path, SLOW, TOOLS) as home:
            await home.idle()
            assert stories(await home.log()) == expected


async def test_prompts_that_waited_at_a_crash_run_in_order_after_the_restart(tmp_path: Path) -> None:
    async with house(tmp_path / "live", SLOW) as home:
        await home.say("one")
        await streaming(home)
        for text in ("two", "three"):
            await home.say(text)
        shutil.copytree(tmp_path / "live", tmp_path / "crashed")
    async with house(tmp_path / "crashed", QUICK) as home:
        await home.idle()
        log = await home.log()
        well_formed(log)
        assert ends(log) == ["interrupted", "stop", "stop"]
        replies = [told(record.event) for record in log if isinstance(record.event, AssistantMessage)]
        assert replies == ["stop: two!", "stop: three!"]
        assert sum(isinstance(record.event, NoteAdded) for record in log) == 1
