"""What the model is sent: the path to the leaf, within the window, and nothing a provider would refuse."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.context import CHARS_PER_TOKEN, WINDOW_SHARE, Entry, cut, entries, entry_of, load, messages, path
from agent.interruption import UNKNOWN_OUTCOME
from agent.model import Assistant, Message, Result, User
from persistence.events import (
    OWNER,
    AssistantMessage,
    Block,
    Event,
    MessageStop,
    NoteAdded,
    Record,
    SteerTaken,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolEnded,
    TurnStarted,
    Usage,
    UserMessage,
)
from tests.agent.houses import SESSION, House, house
from tests.conftest import count


def record(seq: int, event: Event) -> Record:
    return Record(seq, "", 0, 1, 0, "s", OWNER, event.kind, event.v, event, "", b"")


def said(text: str, turn: str = "t", parent: str | None = None) -> UserMessage:
    return UserMessage(turn=turn, parent=parent, text=text, request_id=text)


def answered(*content: Block, stop: MessageStop = "stop", parent: str | None = None) -> AssistantMessage:
    return AssistantMessage(
        turn="t", parent=parent, content=content, api="a", provider="p", model="m", usage=Usage(), stop_reason=stop
    )


def called(id: str) -> ToolCallBlock:  # noqa: A002 - the model's word
    return ToolCallBlock(id=id, name="ls", arguments={})


def result(id: str, text: str = "ok") -> ToolEnded:  # noqa: A002
    return ToolEnded(turn="t", parent=None, call=id, name="ls", result=text)


def sent(*events: Event) -> list[Message]:
    found = (entry_of(record(seq, event)) for seq, event in enumerate(events, start=1))
    return list(messages(entry for entry in found if entry is not None))


HI = TextBlock(text="hi")
LOST = Result("a", "ls", UNKNOWN_OUTCOME, True)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([said("q"), answered(HI)], [User("q"), Assistant((HI,), "p", "m")]),
        (
            [answered(called("a"), called("b")), result("b"), result("a"), answered(HI)],
            [
                Assistant((called("a"), called("b")), "p", "m"),
                Result("a", "ls", "ok", False),
                Result("b", "ls", "ok", False),
                Assistant((HI,), "p", "m"),
            ],
        ),
        ([answered(called("a")), said("q")], [Assistant((called("a"),), "p", "m"), LOST, User("q")]),
        ([answered(called("a"))], [Assistant((called("a"),), "p", "m"), LOST]),
        ([result("a"), answered(HI)], [Assistant((HI,), "p", "m")]),
        *(
            ([answered(ThinkingBlock(thinking="x"), HI, called("a"), stop=stop)], [Assistant((HI,), "p", "m")])
            for stop in ("abort", "error", "interrupted")
        ),
        ([said("q"), answered(ThinkingBlock(thinking="x"), stop="interrupted"), said("r")], [User("q"), User("r")]),
        ([said("q"), answered()], [User("q")]),
        ([NoteAdded(turn="t", parent=None, text="n")], [User("[Note from finn, not from the user: n]")]),
    ],
    ids=lambda case: None,
)
def test_what_a_session_was_left_with_becomes_what_a_provider_takes(
    events: list[Event], expected: list[Message]
) -> None:
    assert sent(*events) == expected


def test_a_message_that_waited_stands_where_its_turn_put_it() -> None:
    log = [
        record(1, said("one", "t1")),
        record(2, said("two", "t2")),
        record(3, said("now!", "t1")),
        record(4, TurnStarted(turn="t1", entry="1-1", parent=None)),
        record(5, SteerTaken(turn="t1", entry="1-3", parent="1-1")),
        record(6, answered(HI, parent="1-3")),
        record(7, TurnStarted(turn="t3", entry="1-2", parent="1-6")),
    ]
    nodes = entries(log)
    assert [(one.id, one.parent, one.turn) for one in path(nodes, "1-2")] == [
        ("1-1", None, "t1"),
        ("1-3", "1-1", "t1"),
        ("1-6", "1-3", "t"),
        ("1-2", "1-6", "t3"),
    ]
    assert [one.id for one in path(nodes, "1-6", until="1-3")] == ["1-3", "1-6"]
    assert path(nodes, None) == path(nodes, "1-99") == []


@given(
    sizes=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 400)), max_size=20),  # also none, where all was lost
    fixed=st.integers(0, 300),
    window=st.integers(1, 1000),
)
def test_whole_turns_are_left_out_oldest_first_and_no_more_than_must_be(
    sizes: list[tuple[int, int]], fixed: int, window: int
) -> None:
    turns = sorted(turn for turn, _ in sizes)
    found = [
        Entry(str(n), None, str(turn), User(""), chars)
        for n, (turn, (_, chars)) in enumerate(zip(turns, sizes, strict=True))
    ]
    left_out = cut(found, fixed, window)
    budget = window * WINDOW_SHARE * CHARS_PER_TOKEN

    def size(start: int) -> int:
        return fixed + sum(one.chars for one in found[start:])

    starts = [n for n, one in enumerate(found) if n == 0 or one.turn != found[n - 1].turn]
    assert left_out in (starts or [0]), "at the beginning of a turn"
    assert size(left_out) <= budget or left_out == (starts or [0])[-1], "it fits, or only the running turn is left"
    earlier = [start for start in starts if start < left_out]
    assert all(size(start) > budget for start in earlier), "no turn too many"


def test_what_the_provider_counted_last_says_how_many_tokens_a_character_is() -> None:
    """The same characters, of which twice as many fit where each is half as many tokens."""

    def history(tokens: int) -> list[Entry]:
        counted = Usage(totalTokens=tokens)
        first = [Entry(f"{n}", None, f"t{n}", User(""), 100) for n in range(7)]
        return [*first, Entry("7", None, "t7", User(""), 100, counted), Entry("8", None, "t8", User(""), 0)]

    assert cut(history(800), 0, 500) == 4  # a token a character: 400 of them fit
    assert cut(history(400), 0, 500) == 0
    assert cut(history(0), 0, 500) == 0  # nothing counted: four characters a token


async def lived(home: House, draw: random.Random, turns: int) -> None:
    """A random history: turns with and without tools, messages that waited, that steered, that were aborted."""
    for n in range(turns):
        kind = draw.choice(("plain", "tools", "tools", "fail", "queue", "steer", "abort"))
        text = f"{kind} {n} " + "x" * draw.randrange(300)
        await home.say(text)
        if kind == "queue":
            await home.say(f"plain {n}b", "follow_up")
            await home.say(f"tools {n}c")
        elif kind in ("steer", "abort"):
            await home.until(lambda: home.turns.live(SESSION) is not None and bool(home.turns.live(SESSION).text))  # type: ignore[union-attr]
            if kind == "steer":
                await home.say(f"and {n}", "steer")
                await home.say(f"then {n}", "follow_up")
                home.clock.advance(1000)
            else:
                await home.turns.stop(SESSION)
        await home.idle()


LIFE = {
    "replies": [
        {"when": "plain", "calls": [[{"text": "Yes. {prompt}"}]]},
        {"when": "tools", "calls": [[{"thinking": "hm"}, {"tool": "echo"}, {"tool": "none"}], [{"text": "Done."}]]},
        {"when": "fail", "calls": [[{"text": "Beg"}, {"error": "rejected"}]]},
        {"when": "queue", "calls": [[{"text": "Queued."}]]},
        {"when": "steer", "calls": [[{"text": "Well"}, {"sleep": 1}, {"tool": "echo"}], [{"text": "Steered."}]]},
        {"when": "abort", "calls": [[{"text": "Long"}, {"sleep": 1}, {"text": "er"}]]},
        {"when": "and", "calls": [[{"text": "And."}]]},
        {"when": "then", "calls": [[{"text": "Then."}]]},
    ],
    "loop": True,
    "window": 1200,
}


@pytest.mark.limit(120)
async def test_a_session_that_is_loaded_from_the_log_is_what_it_was_in_memory(tmp_path: Path, seed: int) -> None:
    for n in range(count(3, 60)):
        root = tmp_path / str(n)
        async with house(root, LIFE) as home:
            await lived(home, random.Random(seed + n), turns=14)
            live = home.turns._contexts[SESSION]
            state = home.state()
            assert [one.id for one in live][-1:] == [state.leaf]
        async with house(root, LIFE) as home:
            assert home.state() == state
            loaded = await load(home.journal, SESSION, state.leaf, state.context_from, LIFE_WINDOW)
            assert loaded == live, seed + n


LIFE_WINDOW = 1200


async def test_of_a_long_session_no_more_is_read_than_could_fit(tmp_path: Path) -> None:
    script = {"replies": [[{"text": "a" * 300}]], "loop": True}
    async with house(tmp_path, script) as home:
        for n in range(120):
            await home.ask(f"prompt {n}")
        pages: list[int] = []
        read = home.journal.read

        async def counted(*args: object, **kwargs: object) -> object:
            pages.append(1)
            return await read(*args, **kwargs)  # type: ignore[arg-type]

        home.journal.read = counted  # type: ignore[assignment]
        found = await load(home.journal, SESSION, home.state().leaf, None, window=500)
        assert len(pages) == 1
        assert 6 < len(found) < 150
        assert isinstance(found[0].message, User), "from the beginning of a turn"
        assert found[-1].id == home.state().leaf
        everything = await load(home.journal, SESSION, home.state().leaf, None, window=100_000)
        assert len(everything) == 240
        assert len(pages) == 3


def test_a_message_that_is_its_own_ancestor_ends_the_path() -> None:
    """It was placed again, below its own answer, since the record of its first turn's start was lost."""
    again = TurnStarted(turn="t", entry="1-1", parent="1-2")
    nodes = entries(record(seq, one) for seq, one in enumerate((said("a"), answered(parent="1-1"), again), start=1))
    assert [entry.id for entry in path(nodes, "1-1")] == ["1-2", "1-1"]
