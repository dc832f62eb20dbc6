"""The log on its way to the store, for as long as one claim holds.

    growth ─▶ flush, 20 ms later ─ confirmed ─▶ journal.confirm ─▶ (level store: acknowledgements)
       └ while a flush is in flight: coalesced
    idle   ─▶ a look each minute, and before the first prompt after silence
    an error ─▶ again, 0.25 s … 10 s later        Fenced ─▶ the journal is closed to records, and this life ends
                                                  StoreLost ─▶ whoever holds this claims anew

Everything the replica does is done in one thread, call after call, so a store that hangs holds up copies and nothing
else.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from gateway.copies import Trouble
from gateway.threads import Thread
from persistence.breaker import Breaker
from persistence.clock import Clock, Entropy
from persistence.errors import Fenced, FinnError, StoreError, StoreLost

GATHER_S = 0.02  #: between growth and flush: what a turn records comes in pairs, and one object is cheaper than two
SILENCE_S = 10.0  #: without an answer of the store, before a prompt waits for one
ADMIT_S = 0.3  #: the longest that it waits, so that a store which is down stalls nobody
CHECK_S = 60.0  #: between two looks of an idle writer
JUMP_S = 2.0  #: between the two clocks, that says the machine was asleep or set
RETRY_FIRST_S, RETRY_MOST_S = 0.25, 10.0
BROKEN = Breaker(threshold=3, cooldown_s=RETRY_MOST_S)


def pause_s(failures: int, entropy: Entropy) -> float:
    """Until the next attempt; drawn from the upper half, so that two processes do not march in step."""
    longest: float = min(RETRY_MOST_S, RETRY_FIRST_S * 2.0 ** min(failures, 10))
    return longest * (0.5 + entropy(1)[0] / 512)


class Copying(Protocol):
    """What is done to the store, in the thread. Each raises Fenced, StoreLost, or what may be tried again."""

    confirmed: int

    @property
    def complete(self) -> bool:
        """Whether a state can be made of what is there alone; a log that begins later than at 1 needs its snapshot."""

    def flush(self) -> int:
        """Uploads what is durable; the last seq that is safe in the store."""

    def prove(self) -> None:
        """Asks whether another has written."""

    def check(self) -> None:
        """The look of every minute: that, or whether a standby knocks."""


class Log(Protocol):
    """What is copied: the journal, as far as this needs it."""

    @property
    def durable(self) -> int:
        """The last seq that is safe on this disk. In any thread."""

    async def growth(self, after: int) -> int:
        """Returns when something later than `after` is durable."""

    def confirm(self, seq: int) -> None:
        """What is up to `seq` is safe in the store."""

    def fence(self, reason: str) -> None:
        """Nothing is acknowledged from now on."""


class Replication:
    """Keeps one replica up to date. `serve` must be running; what it shows is for health and for people.

    `upkeep` is awaited after each success; what it does in the thread may call `breathe` between two steps.
    """

    def __init__(
        self,
        journal: Log,
        replica: Copying,
        thread: Thread,
        clock: Clock,
        entropy: Entropy,
        upkeep: Callable[[], Awaitable[None]],
    ) -> None:
        self.trouble = Trouble()  #: why the last attempt failed
        self.breaker = BROKEN
        self.confirmed_at: float | None = None  #: when something was last confirmed, in seconds since 1970
        self._journal = journal
        self._replica = replica
        self._thread = thread
        self._clock = clock
        self._entropy = entropy
        self._upkeep = upkeep
        self._asked = asyncio.Event()
        self._turned = asyncio.Event()  # set and replaced at the end of each attempt
        self._answered = self._moment()  # when the call began that the store answered last
        self._behind_since: float | None = None
        self._told = 0  # the last seq that was confirmed
        self._loop = asyncio.get_running_loop()

    # ------------------------------------------------------------ what is

    @property
    def confirmed(self) -> int:
        """The last seq that is safe in the store: nothing is, while what it builds on is not there."""
        return self._replica.confirmed if self._replica.complete else 0

    @property
    def lag_seq(self) -> int:
        """How many records are on this disk only."""
        return max(0, self._journal.durable - self.confirmed)

    @property
    def lag_s(self) -> float:
        """For how long the oldest of them has been. May be asked in any thread."""
        since = self._behind_since
        return 0.0 if since is None else self._clock.monotonic() - since

    # ------------------------------------------------------------ the loop

    async def serve(self) -> None:
        """Uploads whatever comes, until it is cancelled. Raises Fenced, StoreLost."""
        self._confirm()
        if not self._replica.complete:
            self.hurry()
        while True:
            await self._due()
            await self.attempt()
            if self.trouble.error:
                await self._first_of(
                    self._asked.wait(), self._clock.sleep(pause_s(self.breaker.failures, self._entropy))
                )

    async def attempt(self) -> None:
        """One flush or look, and what is due after it; `trouble` says whether it worked. Raises Fenced, StoreLost."""
        began, asked = self._moment(), self._asked.is_set()
        self._asked.clear()
        try:
            await self._thread.run(self._step, asked)
            self._succeed(began)
            await self._upkeep()
            self._confirm()
        except Fenced as fenced:
            self._journal.fence(fenced.message)
            raise
        except StoreLost as lost:
            self._fail(lost)
            raise
        except (FinnError, OSError) as error:
            self._fail(error)
        finally:
            self._turned.set()
            self._turned = asyncio.Event()

    async def catch_up(self) -> None:
        """Returns once what is durable now is in the store. Raises StoreError where the next attempt fails."""
        target = self._journal.durable
        while self.confirmed < target or self.trouble.error:
            turned = self._turned
            self.hurry()
            await turned.wait()
            if self.trouble.error:
                raise StoreError(self.trouble.error)

    def hurry(self) -> None:
        """The next attempt is made now, whatever it waits for."""
        self._asked.set()

    async def admit(self) -> None:
        """Before a prompt: after silence, or where the clock jumped, the store is asked, and waited for a moment."""
        if self._is_fresh() or self.breaker.state(self._clock.monotonic()) == "open":
            return
        turned = self._turned
        self.hurry()
        await self._first_of(turned.wait(), self._clock.sleep(ADMIT_S))

    async def _due(self) -> None:
        """Returns when something waits to be uploaded, somebody asks, or a minute has passed."""
        sent = self._replica.confirmed
        if self._journal.durable <= sent and not self._asked.is_set():
            await self._first_of(self._journal.growth(sent), self._asked.wait(), self._clock.sleep(CHECK_S))
            if self._journal.durable > sent:
                await self._first_of(self._asked.wait(), self._clock.sleep(GATHER_S))
        if self._behind_since is None and self.lag_seq:
            self._behind_since = self._clock.monotonic()

    @staticmethod
    async def _first_of(*waits: Awaitable[object]) -> None:
        """Returns when one of these has come to its end; the others go."""
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    # ------------------------------------------------------------ in the thread

    def _step(self, asked: bool) -> None:
        if self._journal.durable > self._replica.confirmed:
            self._flush()
        elif asked:
            self._replica.prove()
        else:
            self._replica.check()

    def _flush(self) -> None:
        self._replica.flush()
        self._loop.call_soon_threadsafe(self._confirm)

    def breathe(self) -> None:
        """For upkeep, which takes long: what is said meanwhile need not wait for its end."""
        if self._journal.durable > self._replica.confirmed:
            self._flush()

    # ------------------------------------------------------------ outcomes

    def _confirm(self) -> None:
        if self.confirmed > self._told:
            self._told, self.confirmed_at = self.confirmed, self._clock.now()
            self._behind_since = None  # what waits now has come since
        if not self.lag_seq:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = self._clock.monotonic()
        self._journal.confirm(self.confirmed)

    def _succeed(self, began: tuple[float, float]) -> None:
        self._answered = began
        self.trouble = Trouble()
        self.breaker = self.breaker.success()

    def _fail(self, error: FinnError | OSError) -> None:
        self.trouble = self.trouble.heard(str(error), self._clock.now())
        self.breaker = self.breaker.failure(self._clock.monotonic())

    def _moment(self) -> tuple[float, float]:
        return self._clock.boottime(), self._clock.now()

    def _is_fresh(self) -> bool:
        """Whether the store answered a short while ago, by both clocks: one that jumped may hide a night."""
        steady, wall = (now - then for now, then in zip(self._moment(), self._answered, strict=True))
        return steady < SILENCE_S and abs(wall - steady) < JUMP_S
