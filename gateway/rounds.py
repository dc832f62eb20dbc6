"""The doctor in a finn that runs: looks and fixes in a thread, a long look in a process of its own, one at a time.

Who asks for a look while somebody has the same one made gets that one's answer. Of different ones only a few wait, so
that nobody who may look keeps away who may mend. Importing this loads every check, which no start needs:
routes/doctor.py does it when it is first asked.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import TypeVar

from gateway.lookout import look
from gateway.problem import Refused
from persistence.clock import Ids
from persistence.errors import UsageError
from persistence.events import OWNER, By
from persistence.values import Json
from scheduler.check import Check
from scheduler.checks import CHECKS
from scheduler.doctor import chosen, fix
from scheduler.report import as_json
from scheduler.site import Site
from scheduler.undo import undo

LOOKS = 4  #: different ones, that are made or wait

T = TypeVar("T")
See = Callable[[asyncio.AbstractEventLoop, By], Site]  #: this finn's site: what it asks of the loop, in whose name


class Rounds:
    """One doctor at a time. Every call raises FinnError."""

    def __init__(self, see: See, ids: Ids, version: str) -> None:
        self._see = see
        self._ids = ids
        self._version = version
        self._one = asyncio.Lock()
        self._looks: dict[tuple[Check, ...], asyncio.Task[Json]] = {}

    async def look(self, only: Collection[str]) -> Json:
        """The report on these categories, or on everything. Raises Refused `busy`."""
        checks = _chosen(only)
        if checks not in self._looks:
            if len(self._looks) >= LOOKS:
                raise Refused("busy", "the doctor is asked for too many different looks at once", hint="ask for all")
            self._looks[checks] = asyncio.create_task(self._look(checks))
        return await asyncio.shield(self._looks[checks])

    async def _look(self, checks: tuple[Check, ...]) -> Json:
        try:
            return await self._alone(lambda site: as_json(look(checks, site), self._version))
        finally:
            del self._looks[checks]

    async def fix(self, only: Collection[str], ids: Collection[str], by: By) -> Json:
        """Mends, and the report of how it is afterwards. It is done to its end, also where nobody waits for that."""
        checks = _chosen(only, ids)

        def mend(site: Site) -> Json:
            done = fix(checks, site, self._ids.new)
            return as_json(done.findings, self._version, done)

        return await asyncio.shield(asyncio.create_task(self._alone(mend, by)))

    async def undo(self, name: str, by: By) -> Json:
        """Takes a fix back, likewise."""

        def take_back(site: Site) -> Json:
            return {"id": name, "restored": list(undo(site, name))}

        return await asyncio.shield(asyncio.create_task(self._alone(take_back, by)))

    async def _alone(self, act: Callable[[Site], T], by: By = OWNER) -> T:
        async with self._one:
            loop = asyncio.get_running_loop()
            return await asyncio.to_thread(lambda: act(self._see(loop, by)))


def _chosen(only: Collection[str], ids: Collection[str] = ()) -> tuple[Check, ...]:
    """Raises Refused `invalid_body` for a category or a check that there is not."""
    try:
        return chosen(CHECKS, only, ids)
    except UsageError as error:
        raise Refused("invalid_body", error.message, hint=error.hint) from None
