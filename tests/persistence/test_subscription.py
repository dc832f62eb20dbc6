import asyncio
import random
from pathlib import Path

import pytest

from persistence.chunks import SEAL_BYTES
from persistence.events import Json, Record, UserMessage
from persistence.journal import Journal
from persistence.subscription import BUFFER_BYTES, PAGE, Moment, Overrun, Subscription
from tests.conftest import count
from tests.persistence.journals import STREAM, commit, opened, prompt, say


def moment(text: str) -> Moment:
    return Moment("text_delta", "t", {"delta": text})


async def take(subscription: Subscription, until: str) -> list[str]:
    """What a reader sees, up to the text `until`: records as their text, moments in brackets."""
    seen: list[str] = []
    async for item in subscription:
        text: Json = item.data["delta"] if isinstance(item, Moment) else _text(item)
        seen.append(f"({text})" if isinstance(item, Moment) else text)
        if text == until:
            break
    return seen


def _text(record: Record) -> str:
    return record.event.text if isinstance(record.event, UserMessage) else record.type


async def test_without_a_cursor_only_what_comes_is_seen(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await say(journal, "before")
        subscription = journal.subscribe(STREAM)
        await say(journal, "elsewhere", stream="other")
        await say(journal, "after")
        assert await take(subscription, "after") == ["after"]


@pytest.mark.parametrize("skipped", [0, 1, 2, 3])
async def test_a_reader_sees_what_is_durable_after_its_cursor_and_then_what_happens(
    tmp_path: Path, skipped: int
) -> None:
    async with opened(tmp_path) as journal:
        said = await say(journal, "one", "two", "three")
        subscription = journal.subscribe(STREAM, said[skipped - 1].seq if skipped else 0)
        assert subscription.seq == journal.seq
        await say(journal, "four")
        journal.announce(STREAM, moment("five"))
        assert await take(subscription, "five") == [*["one", "two", "three"][skipped:], "four", "(five)"]


async def test_more_than_a_page_is_replayed_whole(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        said = [str(n) for n in range(PAGE * 2 + 1)]
        await asyncio.gather(*(journal.commit(prompt(text), stream=STREAM) for text in said))
        await journal.seal(STREAM)
        subscription = journal.subscribe(STREAM, 0)
        await say(journal, "last")
        assert await take(subscription, "last") == [*said, "last"]


async def test_whoever_joins_whenever_sees_every_record_once_and_in_order(tmp_path: Path, seed: int) -> None:
    """Readers join with any cursor while several write and the tail is sealed under their feet."""
    for n in range(count(4, 60)):
        draw = random.Random(seed + n)
        async with opened(tmp_path / str(n)) as journal:
            said: list[Record] = []
            readers: list[tuple[int, asyncio.Task[list[int]]]] = []
            async with asyncio.TaskGroup() as group:
                writers = [group.create_task(_write(journal, said, draw)) for _ in range(3)]
                while not all(writer.done() for writer in writers):
                    for _ in range(draw.randrange(30)):
                        await asyncio.sleep(0)
                    after = draw.randrange(journal.seq + 1)
                    readers.append((after, group.create_task(_seqs(journal, after))))
                last = (await say(journal, "the end"))[0]
            committed = sorted(record.seq for record in said)
            for after, reader in readers:
                expected = [*(seq for seq in committed if seq > after), last.seq]
                assert reader.result() == expected, (seed + n, after)
            assert journal._subscriptions == {}


async def _write(journal: Journal, said: list[Record], draw: random.Random) -> None:
    for _ in range(20):
        said.extend(await commit(journal, prompt("x" * draw.randrange(200))))
        if draw.random() < 0.1:
            await journal.seal(STREAM)


async def _seqs(journal: Journal, after: int) -> list[int]:
    subscription = journal.subscribe(STREAM, after)
    seqs: list[int] = []
    async for item in subscription:
        if isinstance(item, Record) and isinstance(item.event, UserMessage):
            seqs.append(item.seq)
            if item.event.text == "the end":
                break
    journal.unsubscribe(STREAM, subscription)
    return seqs


async def test_a_moment_that_is_shown_after_a_commit_never_overtakes_its_record(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        subscription = journal.subscribe(STREAM)
        for n in range(50):
            await say(journal, f"{n}")
            journal.announce(STREAM, moment(f"{n}!"))
        expected = [text for n in range(50) for text in (f"{n}", f"({n}!)")]
        assert await take(subscription, "49!") == expected


async def test_a_reader_that_does_not_keep_up_is_cut_off_and_holds_no_memory(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        slow, quick = journal.subscribe(STREAM), journal.subscribe(STREAM)
        reading = asyncio.create_task(take(quick, "the end"))
        for _ in range(BUFFER_BYTES // (SEAL_BYTES - 1000) + 2):
            await commit(journal, prompt("x" * (SEAL_BYTES - 1000)))
        await say(journal, "the end")
        assert len(await reading) == BUFFER_BYTES // (SEAL_BYTES - 1000) + 3
        with pytest.raises(Overrun):
            await take(slow, "the end")
        assert len(slow._items) == 0


async def test_a_subscription_that_is_ended_gives_what_waits_and_stops(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        subscription = journal.subscribe(STREAM)
        await say(journal, "one")
        journal.unsubscribe(STREAM, subscription)
        await say(journal, "two")
        assert await take(subscription, "never") == ["one"]
        journal.unsubscribe(STREAM, subscription)
        assert journal._subscriptions == {}
