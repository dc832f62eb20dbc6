"""Tells the owner: word when something turns bad and when it is well again, and a ping while finn works.

    look(report) ─▶ Watch ─ is_due ─▶ message ─▶ recorded ─▶ sent, until it is taken ─▶ recorded
                 └▶ not fail ─▶ a ping, each look; when they cease, whoever gets them knows

A look decides and returns; what waits for the disk or the network goes on beside it, each address with a thread and a
breaker of its own. What is told is durable here before it is sent. Where the log takes nothing (the disk is full) the
owner is told all the same: that is when it matters most. At level store a record waits for the store, which may be what
is broken, so a message waits for its record a little and no longer. What was sent and not known to be taken when a
process died is said again by the next, as it is then.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Mapping

from agent.outbound import NONE, Outbound
from gateway.places import Hook
from gateway.threads import Thread
from persistence.breaker import Breaker
from persistence.clock import Clock
from persistence.errors import Fenced, FinnError, OutboundError
from persistence.events import Event, OwnerReached, OwnerTold
from persistence.journal import Journal
from scheduler.alerts import ALERTS, LIMIT, Watch, ailing, is_due
from scheduler.health import Fact, Report
from scheduler.message import FORMS, Message, Sender, message

RECORD_S = 5.0  #: that a message waits for its record
AGAIN_S = 5.0  #: between two attempts to send one
ALERT_BROKEN = Breaker(threshold=3, cooldown_s=300.0)
PING_BROKEN = Breaker(threshold=3, cooldown_s=120.0)

log = logging.getLogger("finn.owner")


class Owner:
    """The way to the owner, in one life. `serve` must be running; `facts` say what is in the way."""

    def __init__(
        self,
        alert: Hook | None,
        ping: Hook | None,
        journal: Journal,
        clock: Clock,
        sender: Sender,
        outbound: Outbound | None = None,
    ) -> None:
        outbound = outbound or Outbound(clock)
        self._alert = _Line("FINN_ALERT_URL", alert, ALERT_BROKEN, clock, outbound) if alert else None
        self._ping = _Line("FINN_PING_URL", ping, PING_BROKEN, clock, outbound) if ping else None
        self._journal = journal
        self._clock = clock
        self._sender = sender
        self._told = journal.whole(ALERTS)
        self._watch = Watch(self._told.bad)
        self._waiting: deque[tuple[OwnerTold, Message]] = deque(maxlen=LIMIT)  # the last word is never lost
        self._word = asyncio.Event()
        self._beat = asyncio.Event()

    async def look(self, report: Report) -> None:
        """What follows from a look at everything. Waits for nothing."""
        first, self._watch = self._watch.last is None, self._watch.seen(ailing(report))
        if self._alert is not None and not first:
            self._consider(report)
        if self._ping is not None and report.status != "fail":
            self._beat.set()

    def _consider(self, report: Report) -> None:
        now, held = int(self._clock.now() * 1000), self._watch.held
        if not is_due(self._told, held, now):
            return
        word = message(self._told, held, report, self._sender, now, self._journal.redact)
        # It is on its way from here on: only what an earlier process left open is said again.
        self._told = self._told.told(held, now).reached()
        self._waiting.append((OwnerTold(status=word.status, text=word.text, bad=dict(held)), word))
        self._word.set()

    async def serve(self) -> None:
        """Sends what there is to say, until it is cancelled. Raises Fenced."""
        async with asyncio.TaskGroup() as group:
            if self._alert is not None:
                group.create_task(self._tell(self._alert, group))
            if self._ping is not None:
                group.create_task(self._pulse(self._ping))

    async def _tell(self, line: "_Line", group: asyncio.TaskGroup) -> None:
        while True:
            await self._word.wait()
            self._word.clear()
            while self._waiting:
                event, word = self._waiting[0]
                recording = group.create_task(self._record(event))
                await asyncio.wait([recording], timeout=RECORD_S)
                headers, body = FORMS[line.hook.form](word)
                while not await line.send("POST", headers, body):
                    await self._clock.sleep(max(AGAIN_S, line.wait_s))
                if self._waiting and self._waiting[0][0] is event:  # not pushed out by ten newer ones
                    self._waiting.popleft()
            group.create_task(self._record(OwnerReached()))

    async def _record(self, event: Event) -> None:
        try:
            await self._journal.commit(event)
        except Fenced:
            raise
        except FinnError as error:
            log.error("that the owner is told is not recorded: %s", error)

    async def _pulse(self, line: "_Line") -> None:
        while True:
            await self._beat.wait()
            self._beat.clear()
            if not line.wait_s:
                await line.send("GET")

    def facts(self) -> Iterable[Fact]:
        """Why the owner cannot be told, where that is so."""
        said = "; ".join(line.error for line in (self._alert, self._ping) if line is not None and line.error)
        if said:
            yield Fact("owner:lastError", said, output=said)

    def end(self) -> None:
        """Lets go, waiting for nothing."""
        for line in (self._alert, self._ping):
            if line is not None:
                line.end()


class _Line:
    """One address of the owner, behind its breaker. `error` says why the last attempt failed."""

    def __init__(self, name: str, hook: Hook, breaker: Breaker, clock: Clock, outbound: Outbound) -> None:
        self.hook = hook
        self.error = ""
        self._name = name
        self._breaker = breaker
        self._clock = clock
        self._outbound = outbound
        self._thread = Thread(f"finn-{name.lower().replace('_', '-')}")

    @property
    def wait_s(self) -> float:
        """How long it is left alone still."""
        return self._breaker.wait_s(self._clock.monotonic())

    async def send(self, method: str, headers: Mapping[str, str] = NONE, body: bytes = b"") -> bool:
        """Whether it was taken."""
        try:
            answer = await self._thread.run(self._outbound.send, method, self.hook.reveal(), headers, body)
            error = "" if 200 <= answer.status < 300 else f"{self.hook.origin} answers with {answer.status}"
        except OutboundError as refused:
            error = str(refused)
        if error:
            log.warning("%s: %s", self._name, error)
            self._breaker = self._breaker.failure(self._clock.monotonic())
        else:
            self._breaker = self._breaker.success()
        self.error = f"{self._name}: {error}" if error else ""
        return not error

    def end(self) -> None:
        self._thread.end()
