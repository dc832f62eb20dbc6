"""Beads put right by the doctor: as records, with a finn that runs or without one.

edits ─┬─ within a finn, from the doctor's thread ─▶ its beads, on its loop
       └─ nothing runs ─▶ the log itself, under its lock; the file is written before it is let go
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as TooLate

from gateway.desk import Near
from gateway.settings import Settings
from persistence.amends import Edit
from persistence.beads import Beads
from persistence.errors import StoreUnreachable
from persistence.events import By

WAIT_S = 15.0  #: at level store a record waits for the store

Mend = Callable[[Sequence[Edit]], None]  #: raises FinnError


def within(beads: Beads, loop: asyncio.AbstractEventLoop, by: By) -> Mend:
    """For a doctor in the running finn, in the name of who asked it. Called in a thread that is not the loop's."""

    def mend(edits: Sequence[Edit]) -> None:
        mending = asyncio.run_coroutine_threadsafe(beads.mend(edits, by), loop)
        try:
            mending.result(WAIT_S)
        except TooLate:
            raise StoreUnreachable(
                "the store has not confirmed the change in time", hint="it is taken once the store answers"
            ) from None

    return mend


def alone(settings: Settings) -> Mend:
    """For a doctor on a directory on which no finn runs."""

    def mend(edits: Sequence[Edit]) -> None:
        desk = Near(settings, "owner")
        try:
            desk.mend(edits)
        finally:
            desk.close()

    return mend
