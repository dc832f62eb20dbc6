"""Prompts and turns whose records count only once a store has them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent.running import STORE_WAIT_S
from agent.turns import Accepted
from persistence.errors import Fenced, StoreUnreachable, first
from persistence.events import OWNER, Record, TurnEnded
from persistence.subscription import Moment, Subscription
from tests.agent.houses import SESSION, House, house

QUICK: Any = {"replies": [[{"text": "{prompt}!"}]], "loop": True}


async def durable(home: House, count: int = 1) -> None:
    """Until so many more records are on the local disk, none of which the store has."""
    await home.journal.growth(home.journal.seq + count - 1)
    await settled()


async def settled() -> None:
    """Lets everything happen that waits for nothing."""
    for _ in range(30):
        await asyncio.sleep(0)


async def follow(home: House) -> None:
    """The store takes everything at once."""
    while True:
        home.journal.confirm(await home.journal.growth(home.journal.confirmed))


def hold(home: House) -> None:
    home.journal.confirm(home.journal.seq)
    home.journal.hold()


async def moments(subscription: Subscription) -> list[dict[str, Any]]:
    subscription.close()
    return [item.data for item in subscription_items([item async for item in subscription])]


def subscription_items(items: list[Any]) -> list[Moment]:
    return [item for item in items if isinstance(item, Moment) and item.type == "error"]


async def test_a_prompt_that_the_store_does_not_confirm_is_refused_after_ten_seconds_and_taken_when_it_does(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, QUICK) as home:
        hold(home)
        saying = asyncio.create_task(home.turns.say(SESSION, "hi", "r", by=OWNER))
        await durable(home)
        home.clock.advance(STORE_WAIT_S - 0.1)
        await settled()
        assert not saying.done()
        home.clock.advance(0.2)
        with pytest.raises(StoreUnreachable, match="10 s"):
            await saying
        again = asyncio.create_task(home.turns.say(SESSION, "hi", "r", by=OWNER))
        await asyncio.sleep(0)
        following = asyncio.create_task(follow(home))
        accepted = await again
        assert accepted.repeated
        assert (await home.turns.outcome(SESSION, accepted)).reply == "hi!"
        following.cancel()
        assert sum(record.type == "user_message" for record in home.records) == 1


async def test_a_turn_that_waits_for_the_store_says_so_and_goes_on_when_it_answers(tmp_path: Path) -> None:
    async with house(tmp_path, QUICK) as home:
        hold(home)
        saying = asyncio.create_task(home.turns.say(SESSION, "hi", "r", by=OWNER))
        await durable(home)
        subscription = home.journal.subscribe(SESSION)
        home.journal.confirm(home.journal.durable)
        accepted = await saying
        await durable(home)  # the start of the turn
        home.clock.advance(STORE_WAIT_S + 0.1)
        await settled()
        following = asyncio.create_task(follow(home))
        await home.turns.outcome(SESSION, accepted)
        following.cancel()
        (told,) = await moments(subscription)
        assert (told["code"], told["recoverable"]) == ("store_unavailable", True)


async def test_where_the_store_is_quick_nobody_is_told_anything(tmp_path: Path) -> None:
    async with house(tmp_path, QUICK) as home:
        hold(home)
        following = asyncio.create_task(follow(home))
        subscription = home.journal.subscribe(SESSION)
        assert (await home.ask("hi")).reply == "hi!"
        following.cancel()
        assert await moments(subscription) == []


async def test_a_fence_ends_the_turns_and_whoever_waits_for_them(tmp_path: Path) -> None:
    async with house(tmp_path, QUICK, served=False) as home:
        hold(home)
        serving = asyncio.create_task(home.turns.serve())
        saying = asyncio.create_task(home.turns.say(SESSION, "hi", "r", by=OWNER))
        await durable(home)
        home.journal.confirm(home.journal.durable)
        accepted: Accepted = await saying
        await durable(home)
        watching = home.journal.subscribe(SESSION)
        home.journal.fence("epoch 9 has the log")
        await asyncio.wait([serving])
        error = serving.exception()
        assert error is not None
        assert isinstance(first(error), Fenced)
        assert [item async for item in watching if isinstance(item, Record)] == []
        assert not any(isinstance(record.event, TurnEnded) for record in home.records)
        with pytest.raises(Fenced):
            await home.turns.say(SESSION, "again", "r2", by=OWNER)
        assert (await home.turns.say(SESSION, "hi", "r", by=OWNER)) == Accepted(
            accepted.turn, accepted.seq, repeated=True
        )
