"""What clients are told of this process: a state, and why nobody is let in.

starting ─▶ serving ─▶ draining          silent    this disk is empty, and no copy of the log answers
   ▲  └▶ silent ┘ │        ▲             fenced    another instance has taken over; this one stands by
   └──── fenced ◀─┘ ───────┘             draining  nothing leads out of it
"""

import asyncio
from collections.abc import Callable, Iterable

from gateway.problem import Refused, silent, standing_by, starting
from gateway.routes.health import State
from persistence.errors import FinnError


class Presence:
    """The state of one process. `why` is this state's reason, where it says more than its name."""

    def __init__(self) -> None:
        self.state: State = "starting"
        self.why: FinnError | None = None
        self._listener: Callable[[], None] = lambda: None

    def listen(self, listener: Callable[[], None]) -> None:
        """It is called in a thread whenever it is known what clients are told from now on."""
        self._listener = listener

    async def become(self, state: State, why: FinnError | None = None) -> None:
        """Says what is so from now on. A process that drains is on its way out, whatever else happens to it."""
        if self.leaving:
            return
        self.state, self.why = state, why
        if state != "starting":
            await self.announce()

    async def announce(self) -> None:
        """Has the listener look, also where nothing changed: where to ask is worth knowing when a start takes long."""
        await asyncio.to_thread(self._listener)

    def leave(self) -> None:
        """From now on this process is on its way out."""
        self.state = "draining"

    @property
    def leaving(self) -> bool:
        """Whether this process is on its way out."""
        return self.state == "draining"

    def opening(self) -> FinnError | None:
        """Why there is nothing to see yet."""
        return starting() if self.state == "starting" else None

    def closed(self) -> FinnError | None:
        """Why nobody is let in now."""
        match self.state:
            case "starting":
                return starting()
            case "silent":
                return silent()
            case "fenced":
                return standing_by()
        return None

    def unready(self) -> FinnError | None:
        """Why no work is taken now, as a probe is told it."""
        if self.leaving:
            return Refused("draining", "finn is stopping", hint="its successor will answer")
        return starting() if self.state == "silent" else self.closed()

    def reasons(self) -> Iterable[FinnError]:
        """Everything that keeps finn from its work, as health tells it."""
        return [one for one in (self.closed() or self.unready(), self.why) if one]
