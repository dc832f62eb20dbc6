"""Scoped tokens to try things on: those of a journal of their own."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.tokens import TOKENS, Tokens
from persistence.clock import Clock, Ids, system_entropy
from persistence.journal import Journal
from tests.persistence.journals import means, opened


def tokens_of(journal: Journal, clock: Clock) -> Tokens:
    return Tokens(journal, clock, Ids(clock, random.Random(7).randbytes), system_entropy)


@asynccontextmanager
async def tokens_in(root: Path, clock: Clock) -> AsyncIterator[Tokens]:
    async with opened(root, TOKENS, with_means=means(clock=clock)) as journal:
        yield tokens_of(journal, clock)
