"""Who is connected now: every open socket or stream, so that all of them can be told and closed at once."""

import asyncio
from enum import IntEnum
from typing import Protocol

from gateway.auth import Auth
from persistence.clock import Clock

WATCH_S = 1.0  #: how soon a rotated token closes what it had opened


class Close(IntEnum):
    """Why a socket is closed."""

    FAILED = 1011  #: a mistake of ours
    RESTARTING = 1012
    TOO_SLOW = 1013
    UNAUTHORIZED = 4401
    NO_SESSION = 4404


class Guest(Protocol):
    """An open socket or stream."""

    async def leave(self, code: int, reason: str, retry_ms: int | None = None) -> None:
        """Ends it, with a `draining` frame before where `retry_ms` is given. May be called again."""


class Hub:
    """The open connections of one kind."""

    def __init__(self) -> None:
        self._guests: set[Guest] = set()

    def __len__(self) -> int:
        return len(self._guests)

    def enter(self, guest: Guest) -> None:
        """Counts one in."""
        self._guests.add(guest)

    def exit(self, guest: Guest) -> None:
        """Counts one out."""
        self._guests.discard(guest)

    async def leave_all(self, code: int, reason: str, retry_ms: int | None = None) -> None:
        """Ends every one."""
        await asyncio.gather(*(guest.leave(code, reason, retry_ms) for guest in list(self._guests)))

    async def watch(self, auth: Auth, clock: Clock) -> None:
        """Ends every one when the token becomes another one, until it is cancelled."""
        known = auth.generation
        while True:
            await clock.sleep(WATCH_S)
            if auth.generation != known:
                known = auth.generation
                await self.leave_all(Close.UNAUTHORIZED, "the token was changed")
