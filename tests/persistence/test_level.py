"""What is seen when: at level store nothing before the store has it, behind a fence nothing any more."""

import asyncio
from pathlib import Path

import pytest

from persistence.errors import Fenced, StoreUnreachable
from persistence.events import Record
from persistence.journal import Journal
from tests.persistence.journals import STREAM, logged, means, opened, prompt, say, texts


def saying(journal: Journal, *words: str) -> list[asyncio.Task[Record]]:
    return [asyncio.create_task(journal.commit(prompt(word), stream=STREAM)) for word in words]


async def durable(journal: Journal, seq: int) -> None:
    await journal.growth(seq - 1)
    await asyncio.sleep(0)


async def test_at_level_store_nobody_sees_a_record_before_it_is_confirmed(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        head, before = journal.seq, journal.state_sha()
        seen: list[int] = []
        journal.listen(lambda record: seen.append(record.seq))
        subscription = journal.subscribe(STREAM)
        journal.hold()
        tasks = saying(journal, "one", "two", "three")
        await durable(journal, head + 3)
        assert (journal.seq, journal.state_sha(), seen) == (head, before, [])
        assert await journal.read(STREAM) == ()
        assert not any(task.done() for task in tasks)
        journal.confirm(head + 2)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert [task.done() for task in tasks] == [True, True, False]
        assert (journal.seq, journal.confirmed, seen) == (head + 2, head + 2, [head + 1, head + 2])
        assert texts(await journal.read(STREAM)) == ["one", "two"]
        journal.confirm(head + 3)
        await tasks[2]
        subscription.close()
        assert [item.seq async for item in subscription if isinstance(item, Record)] == [head + 1, head + 2, head + 3]


async def test_what_was_confirmed_before_it_was_seen_is_seen_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        journal.hold()
        journal.confirm(journal.seq + 1)
        (record,) = await say(journal, "one")
        assert journal.seq == record.seq


async def test_at_level_local_a_confirmation_only_moves_the_mark(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        (record,) = await say(journal, "one")
        assert (journal.confirmed, journal.holding) == (0, False)
        journal.confirm(record.seq)
        journal.confirm(record.seq - 1)
        assert journal.confirmed == record.seq


async def test_behind_a_fence_what_waits_and_what_comes_is_refused_and_nothing_is_seen(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        head, before = journal.seq, journal.state_sha()
        seen: list[int] = []
        journal.listen(lambda record: seen.append(record.seq))
        journal.hold()
        waiting = saying(journal, "one", "two")
        await durable(journal, head + 2)
        journal.fence("epoch 9 has the log")
        for task in waiting:
            with pytest.raises(Fenced, match="epoch 9"):
                await task
        with pytest.raises(Fenced):
            await say(journal, "three")
        journal.confirm(head + 2)
        assert (journal.seq, journal.state_sha(), seen, journal.fenced) == (head, before, [], True)
        assert journal.frames(head, 1 << 20).last == head + 2, "it is in the log, and can be kept as orphans"


async def test_a_fence_at_level_local_also_refuses_what_is_on_its_way_to_the_disk(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await say(journal, "one")
        head = journal.seq
        (coming,) = saying(journal, "two")
        await asyncio.sleep(0)
        journal.fence("epoch 9 has the log")
        with pytest.raises(Fenced):
            await coming
        assert journal.seq == head


async def test_who_waits_for_the_store_when_finn_stops_is_told_and_the_record_is_there_after_a_start(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as journal:
        head = journal.seq
        journal.hold()
        (waiting,) = saying(journal, "one")
        await durable(journal, head + 1)
    with pytest.raises(StoreUnreachable, match=f"record {head + 1}"):
        await waiting
    async with opened(tmp_path) as journal:
        assert texts(await journal.read(STREAM)) == ["one"]


async def test_a_claim_after_the_start_changes_the_epoch_of_what_comes(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        (before,) = await say(journal, "one")
        journal.reign(4)
        assert journal.reigns.holds(4, journal.seq, journal.seq)
        (after,) = await say(journal, "two")
        assert (before.epoch, after.epoch, journal.epoch) == (1, 4, 4)
    assert [record.epoch for record in logged(tmp_path)][-2:] == [1, 4]
    async with opened(tmp_path, with_means=means(seed=1)) as journal:
        assert journal.epoch == 4
