"""What the gateway has below it once the log is open: the things that routes and sockets talk to."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from agent.identity import IdentityFiles
from agent.mirror import Mirror
from agent.repute import Watched
from agent.running import in_time
from agent.sandbox import Sandbox
from agent.turns import Turns
from gateway.premises import Premises
from gateway.tokens import Tokens
from persistence.bead_file import BeadFile
from persistence.beads import Beads
from persistence.clock import Clock, Ids
from persistence.errors import StoreUnreachable
from persistence.files import Files
from persistence.journal import Journal

T = TypeVar("T")


@dataclass(frozen=True)
class Rooms:
    """One agent, awake."""

    journal: Journal
    turns: Turns
    identity: IdentityFiles
    files: tuple[Files, ...]  #: grimoires, workspace
    mirror: Mirror
    beads: Beads
    bead_file: BeadFile
    tokens: Tokens
    model: Watched
    sandbox: Sandbox
    ids: Ids
    workspace: Path
    premises: Premises


Open = Callable[[], Rooms]  #: gives the rooms; only called behind a guard, when they are open


async def recorded(rooms: Rooms, clock: Clock, change: Coroutine[Any, Any, T]) -> T:
    """What a change gave, once it is recorded. At level store nobody waits longer than for a prompt.

    Raises StoreUnreachable then; the change goes on, and is made when the store answers.
    """
    coming = asyncio.ensure_future(change)
    coming.add_done_callback(lambda done: done.cancelled() or done.exception())
    if not await in_time(coming, rooms.journal, clock):
        raise StoreUnreachable("the store has not confirmed this in time", hint="it is taken once the store answers")
    return coming.result()
