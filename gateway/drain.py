"""The end of a process that was told to stop, within its budget.

no new turns, those that run are closed ─▶ every client is sent away ─▶ beads and files ─▶ the copies catch up
"""

import logging

from gateway.budget import Budget
from gateway.equipment import Equipment
from gateway.life import Life

TURNS_SHARE, FILES_SHARE = 0.4, 0.1  #: of the budget

log = logging.getLogger("finn.drain")


async def drain(own: Equipment, life: Life | None) -> None:
    """Ends what goes on in a process; `life` is None where there is none now."""
    budget = Budget(own.settings.shutdown_budget, own.clock)
    log.info("finn drains", extra={"budget_s": budget.seconds})
    if life is None:
        await own.lobby.send_all_away()
    else:
        await _close_down(own, life, budget)
    log.info("finn has drained", extra={"seconds": round(budget.spent, 3)})


async def _close_down(own: Equipment, life: Life, budget: Budget) -> None:
    rooms, storage = life.rooms, own.storage
    if storage is not None:
        storage.hurry()
    await budget.share(TURNS_SHARE, rooms.turns.drain(), "the end of the turns")
    await own.lobby.send_all_away()
    await budget.share(FILES_SHARE, rooms.bead_file.attempt(), "the last look at the beads' file")
    if storage is not None:
        await budget.share(FILES_SHARE, life.look_at_files(), "the last look at the files")
        await storage.finish(rooms.journal, budget)
    rooms.turns.give_up()
