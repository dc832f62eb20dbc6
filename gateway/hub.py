"""Who is connected now: every open socket or stream, so that all of them can be told and closed at once."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from enum import IntEnum
from typing import Protocol

from gateway.auth import Auth
from gateway.caller import Caller

WATCH_S = 1.0  #: how soon a rotated or expired token closes what it had opened, where no frame goes either way


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
    """The open connections of one kind, and who is at the other end."""

    def __init__(self) -> None:
        self._guests: dict[Guest, Caller] = {}
        self._stirred = asyncio.Event()

    def __len__(self) -> int:
        return len(self._guests)

    def enter(self, guest: Guest, caller: Caller) -> None:
        """Counts one in."""
        self._guests[guest] = caller

    def exit(self, guest: Guest) -> None:
        """Counts one out."""
        self._guests.pop(guest, None)

    async def leave_all(self, code: int, reason: str, retry_ms: int | None = None) -> None:
        """Ends every one."""
        await _leave(list(self._guests), code, reason, retry_ms)

    def stir(self) -> None:
        """Somebody may have lost the right to be here: `watch` looks now."""
        self._stirred.set()

    async def watch(self, auth: Auth) -> None:
        """Ends those who say nothing and are told nothing, once what they showed opens nothing; until it is cancelled.

        A frame does not wait for this: the guard looks before each one.
        """
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(WATCH_S):
                    await self._stirred.wait()
            self._stirred.clear()
            generation = auth.generation
            fallen = [guest for guest, caller in self._guests.items() if not auth.stands(caller, generation)]
            await _leave(fallen, Close.UNAUTHORIZED, "unauthorized")


async def _leave(guests: Iterable[Guest], code: int, reason: str, retry_ms: int | None = None) -> None:
    await asyncio.gather(*(guest.leave(code, reason, retry_ms) for guest in guests))
