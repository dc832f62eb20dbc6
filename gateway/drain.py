"""The end of a process that was told to stop, within its budget.

    no new turns, those that run are closed ─▶ every client is sent away ─▶ beads and files ─▶ the copies catch up

Each step has its share: what hangs is left behind, and the log on this disk has it all.
"""

import asyncio
import logging
from collections.abc import Awaitable

from gateway.equipment import Equipment
from gateway.life import Life

TURNS_SHARE, FILES_SHARE = 0.4, 0.1  #: of the budget

log = logging.getLogger("finn.drain")


async def drain(own: Equipment, life: Life | None) -> None:
    """Ends what goes on in a process; `life` is None where there is none now."""
    budget_s, began = own.settings.shutdown_budget, own.clock.monotonic()
    log.info("finn drains", extra={"budget_s": budget_s})
    if life is None:
        await own.lobby.send_all_away()
    else:
        await _close_down(own, life, budget_s, began + budget_s)
    log.info("finn has drained", extra={"seconds": round(own.clock.monotonic() - began, 3)})


async def _close_down(own: Equipment, life: Life, budget_s: float, end: float) -> None:
    rooms, storage = life.rooms, own.storage
    if storage is not None:
        storage.hurry()
    await _within(budget_s * TURNS_SHARE, rooms.turns.drain())
    await own.lobby.send_all_away()
    await _within(budget_s * FILES_SHARE, rooms.bead_file.attempt())
    if storage is not None:
        await _within(budget_s * FILES_SHARE, life.look_at_files())
        await storage.finish(rooms.journal, budget_s, end)
    rooms.turns.give_up()


async def _within(seconds: float, step: Awaitable[None]) -> None:
    """Waits for a step, so long at most."""
    try:
        async with asyncio.timeout(seconds):
            await step
    except TimeoutError:
        log.warning("a step of the drain did not end within %.1f s", seconds)
