"""The time that a stop may take in all, and what each of its steps may take of it.

What hangs is left behind and what fails is told: the log on this disk has it all, whatever becomes of the step.
"""

import asyncio
import logging
from collections.abc import Awaitable

from persistence.clock import Clock
from persistence.errors import FinnError

log = logging.getLogger("finn.budget")


class Budget:
    """So many seconds, from now on."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        self.seconds = seconds
        self._clock = clock
        self._began = clock.monotonic()

    @property
    def spent(self) -> float:
        """The seconds since it began."""
        return self._clock.monotonic() - self._began

    @property
    def left(self) -> float:
        """The seconds that are left; less than none where it is used up."""
        return self.seconds - self.spent

    async def share(self, share: float, step: Awaitable[None], what: str) -> None:
        """Takes a step, for such a share of the whole at most."""
        await within(self.seconds * share, step, what)


async def within(seconds: float, step: Awaitable[None], what: str) -> None:
    """Takes a step of a stop, so long at most."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await step
    except TimeoutError:
        log.warning("%s did not end in time", what)
    except (FinnError, OSError) as error:
        log.warning("%s failed: %s", what, error)
