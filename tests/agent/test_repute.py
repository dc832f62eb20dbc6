"""What is remembered of a model's last call."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from agent.model import About, Answer, Delta, Request, TextDelta
from agent.repute import LATELY_S, Watched
from persistence.clock import FakeClock
from persistence.errors import ModelDenied, ModelError, ModelOverloaded
from persistence.events import TextBlock, Usage

REQUEST = Request("", (), (), "s")
ANSWER = Answer((TextBlock(text="yes"),), Usage(), "stop")
DENIED = ModelDenied("the provider does not accept the key", hint="check the key")
BUSY = ModelOverloaded("the provider is overloaded", hint="it is asked again")


class Fickle:
    """A model that does what it is told next."""

    about = About("fickle", "test", "test", 1000)

    def __init__(self) -> None:
        self.next: ModelError | Answer = ANSWER

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        yield TextDelta("y")
        if isinstance(self.next, ModelError):
            raise self.next
        yield self.next


class Asked:
    """Such a model, watched."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.model = Fickle()
        self.watched = Watched(self.model, self.clock)

    async def ask(self, becomes: ModelError | Answer) -> list[Delta]:
        self.model.next = becomes
        return [delta async for delta in self.watched.stream(REQUEST)]

    async def fail(self, error: ModelError) -> None:
        with pytest.raises(type(error)):
            await self.ask(error)


async def test_an_answer_comes_through_as_it_is_and_is_no_trouble() -> None:
    asked = Asked()
    assert await asked.ask(ANSWER) == [TextDelta("y"), ANSWER]
    assert asked.watched.trouble == ""
    assert asked.watched.about is Fickle.about


@pytest.mark.parametrize("error", [DENIED, BUSY], ids=lambda error: error.code + type(error).__name__)
async def test_a_failed_call_is_told_with_what_to_do_until_there_is_an_answer(error: ModelError) -> None:
    asked = Asked()
    await asked.fail(error)
    assert asked.watched.trouble == f"the last call failed: {error}"
    assert error.hint in asked.watched.trouble
    await asked.ask(ANSWER)
    assert asked.watched.trouble == ""


async def test_what_passes_by_itself_is_forgotten_and_what_a_person_must_mend_is_not() -> None:
    for error, kept in ((BUSY, False), (DENIED, True)):
        asked = Asked()
        await asked.fail(error)
        asked.clock.advance(LATELY_S)
        assert asked.watched.trouble
        asked.clock.advance(1)
        assert bool(asked.watched.trouble) is kept


async def test_a_call_that_is_not_heard_to_its_end_tells_nothing() -> None:
    asked = Asked()
    await asked.fail(DENIED)
    asked.model.next = ANSWER
    async with aclosing(asked.watched.stream(REQUEST)) as deltas:
        assert await anext(deltas) == TextDelta("y")
    assert asked.watched.trouble
