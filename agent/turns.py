"""Who runs now: one turn at a time in a session, four at once in all, the others wait in order.

    say ─▶ user_message (durable) ─▶ waiting ─▶ turn_started ─▶ the loop ─▶ turn_ended ─▶ the next that waits
                                        └ steer, follow_up: heard by the turn that runs

A message is taken once it is durable, at level store once the store has it; who waits for that for too long is told to
come back, and the same request id then gives the same answer.

A turn belongs to the agent, not to whoever asked for it. What was running when the process died is closed as
interrupted at the next start; what was waiting then runs, in order. Nothing is run again by itself.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from agent.context import Entry, entry_of, load
from agent.identity import IdentityFiles
from agent.interruption import INTERRUPTED, NOTE, UNKNOWN_OUTCOME, close_interrupted
from agent.loop import Agent, Live, Turn
from agent.running import STORE_WAIT_S, RunningTurn, in_time
from agent.session import SESSIONS, Session, Waiting, queue, text_sha
from persistence.clock import Ids
from persistence.errors import Busy, Draining, EmptyPrompt, FinnError, IdempotencyMismatch, NotFound, StoreUnreachable
from persistence.events import (
    SYSTEM,
    AssistantMessage,
    By,
    Event,
    MessageStop,
    NoteAdded,
    Problem,
    PromptMode,
    Record,
    SessionDeleted,
    SessionRestored,
    SteerTaken,
    TurnEnded,
    TurnStarted,
    TurnStop,
    Usage,
    UserMessage,
    seq_of,
)
from persistence.journal import Journal
from persistence.subscription import Moment, Overrun, Subscription

log = logging.getLogger("finn.turns")

TURNS_AT_ONCE = 4
WAITING_MOST = 32
LIVE_CONTEXTS = 16  #: sessions whose context is kept in memory

#: How a turn that did not come to its end closes what it left open: its message, its calls.
ABANDONED: Mapping[TurnStop, tuple[MessageStop, str]] = {
    "abort": ("abort", "Stopped by the user before it finished. Whether it took effect is unknown."),
    "interrupted": ("interrupted", UNKNOWN_OUTCOME),
    "error": ("error", "The turn failed before this finished. Whether it took effect is unknown."),
}


@dataclass(frozen=True)
class Accepted:
    """A prompt that is durable. `repeated`: it was said before under this request id."""

    turn: str
    seq: int
    repeated: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a turn ended, and the last thing that was said in it."""

    ended: TurnEnded
    seq: int
    reply: str


class Turns:
    """Takes what is said and runs it. `serve` must be running."""

    def __init__(self, journal: Journal, agent: Agent, identity: IdentityFiles, ids: Ids) -> None:
        self._journal = journal
        self._agent = agent
        self._identity = identity
        self._ids = ids
        self._running: dict[str, RunningTurn] = {}
        self._serving: dict[str, asyncio.Task[None]] = {}
        self._arriving: dict[tuple[str, str], asyncio.Future[Record]] = {}
        self._contexts: OrderedDict[str, list[Entry]] = OrderedDict()
        self._places = asyncio.Semaphore(TURNS_AT_ONCE)
        self._group: asyncio.TaskGroup | None = None
        self._draining = self._drained = False
        self._awaited: set[Subscription] = set()
        self._over = asyncio.Event()

    # ------------------------------------------------------------ what is

    @property
    def active(self) -> int:
        """How many turns run now."""
        return len(self._running)

    def live(self, session: str) -> Live | None:
        """What the running turn of a session is writing, or None."""
        running = self._running.get(session)
        return running.turn.live if running and running.turn else None

    def session(self, session: str) -> Session:
        """The state of a session. Raises NotFound."""
        state = self._journal.streams(SESSIONS).get(session)
        if state is None or not state.exists:
            raise NotFound(f"there is no session {session[:64]!r}", hint="GET /api/sessions lists them")
        return state

    # ------------------------------------------------------------ saying

    async def say(self, session: str, text: str, request_id: str, mode: PromptMode = "prompt", *, by: By) -> Accepted:
        """Takes a message that `by` says; it is durable when this returns, and will be answered.

        Raises EmptyPrompt, NotFound, Draining, Busy, IdempotencyMismatch, StorageError, TooLarge, Fenced, and
        StoreUnreachable where the store takes too long to confirm it: it may yet be taken. The same request id with the
        same text gives the first answer again.
        """
        if not text.strip():
            raise EmptyPrompt("the prompt is empty", hint="say something")
        state = self.session(session)
        sha = text_sha(self._journal.redact(text))
        known = state.request(request_id)
        if known is not None:
            if known.text_sha != sha:
                raise IdempotencyMismatch(
                    f"the request id {request_id[:64]!r} was used for another text", hint="use a new one"
                )
            return Accepted(known.turn, known.seq, repeated=True)
        if (session, request_id) in self._arriving:
            await self._arrival(self._arriving[session, request_id])
            return await self.say(session, text, request_id, mode, by=by)
        if self._draining:
            raise Draining("finn is stopping and takes no new prompts", hint="it will be back in a moment")
        return await self._take_in(session, state, text, request_id, mode, by)

    async def _take_in(
        self, session: str, state: Session, text: str, request_id: str, mode: PromptMode, by: By
    ) -> Accepted:
        on_their_way = sum(1 for one, _ in self._arriving if one == session)
        if len(state.waiting) + on_their_way >= WAITING_MOST:
            raise Busy(f"{WAITING_MOST} prompts already wait in this session", hint="wait for an answer, or stop it")
        running = self._running.get(session)
        mode = mode if running else "prompt"
        turn = running.id if running and mode != "prompt" else self._ids.new()
        idle = state.running is None and not state.waiting and not on_their_way and running is None
        event = UserMessage(turn=turn, parent=state.leaf if idle else None, text=text, request_id=request_id, mode=mode)
        arriving = asyncio.ensure_future(self._record(event, session, by))
        self._arriving[session, request_id] = arriving
        arriving.add_done_callback(lambda done: self._arrived(session, request_id, done))
        await self._arrival(arriving)
        return Accepted(turn, arriving.result().seq)

    async def record(self, event: Event, session: str, by: By) -> Record:
        """Records what somebody did to a session, as carefully as a message. Raises like `say`."""
        arriving = asyncio.ensure_future(self._record(event, session, by))
        arriving.add_done_callback(_heard)
        await self._arrival(arriving)
        return arriving.result()

    async def _record(self, event: Event, session: str, by: By) -> Record:
        await self._journal.admit()
        return await self._journal.commit(event, stream=session, by=by)

    async def _arrival(self, arriving: asyncio.Future[Record]) -> None:
        """Waits until a message is taken or refused, as long as a caller can wait for the store, and finn is here."""
        taken = asyncio.ensure_future(in_time(arriving, self._journal, self._agent.clock))
        over = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait([taken, over], return_when=asyncio.FIRST_COMPLETED)
        finally:
            taken.cancel()
            over.cancel()
        if not arriving.done() and self._over.is_set():
            raise Draining("finn stopped before this was confirmed", hint="send it again under the same request id")
        if not arriving.done():
            raise StoreUnreachable(
                f"the store has not confirmed this within {STORE_WAIT_S:.0f} s",
                hint="it is taken once the store answers; a prompt may be sent again under the same request id",
            )

    def _arrived(self, session: str, request_id: str, done: asyncio.Future[Record]) -> None:
        del self._arriving[session, request_id]
        _heard(done)

    async def stop(self, session: str) -> bool:
        """Ends the running turn; whether there was one. What waits goes on waiting, then runs."""
        self.session(session)
        running = self._running.get(session)
        if running is not None:
            running.stop("abort")
        return running is not None

    async def outcome(self, session: str, accepted: Accepted) -> Outcome:
        """Waits until the turn of an accepted message has ended, whatever its end. Raises Draining, NotFound."""
        while True:
            try:
                return await self._outcome(session, accepted)
            except Overrun:
                continue  # what went by too fast is in the log

    async def _outcome(self, session: str, accepted: Accepted) -> Outcome:
        turn: str | None = None  # whose it is, once it has its place: a steering message may come too late for its turn
        reply = ""
        subscription = self._journal.subscribe(session, accepted.seq - 1)
        self._awaited.add(subscription)
        if self._drained:
            subscription.close()
        try:
            async for item in subscription:
                event = item.event if isinstance(item, Record) else None
                if isinstance(event, TurnStarted | SteerTaken) and event.entry.endswith(f"-{accepted.seq}"):
                    turn = event.turn
                elif isinstance(event, AssistantMessage) and event.turn == turn:
                    reply = event.text
                elif isinstance(event, TurnEnded) and event.turn == turn and isinstance(item, Record):
                    return Outcome(event, item.seq, reply)
                elif isinstance(event, SessionDeleted) and turn is None and not self._exists(session):
                    raise NotFound("the session was deleted", hint="POST …/restore brings it back")
        finally:
            self._awaited.discard(subscription)
            self._journal.unsubscribe(session, subscription)
        raise Draining("finn stopped before the turn ended", hint="ask again under the same Idempotency-Key")

    def _exists(self, session: str) -> bool:
        return self._journal.streams(SESSIONS)[session].exists

    # ------------------------------------------------------------ running

    async def serve(self) -> None:
        """Closes what was interrupted, then runs what waits and what comes, until it is cancelled."""
        sessions = self._journal.streams(SESSIONS)
        for session in [one for one, state in sessions.items() if state.running]:
            await close_interrupted(self._journal, session, self._agent.model.about)
        self._journal.listen(self._follow)
        async with asyncio.TaskGroup() as group:
            self._group = group
            for session in [one for one, state in sessions.items() if state.waiting]:
                self._kick(session)
            await asyncio.get_running_loop().create_future()

    async def drain(self) -> None:
        """Takes nothing new and closes the running turns as interrupted; what waits stays in the log."""
        self._draining = True
        for running in list(self._running.values()):
            running.stop("interrupted")
        if self._serving:
            await asyncio.wait(list(self._serving.values()))
        self.leave()

    def leave(self) -> None:
        """Tells whoever waits for a turn that finn stops before its end."""
        self._draining = self._drained = True
        for subscription in self._awaited:
            subscription.close()

    def give_up(self) -> None:
        """Tells whoever waits for a message to be taken that finn stops before that is known."""
        self._over.set()

    def _follow(self, record: Record) -> None:
        """Keeps an eye on the log: what was said is run, whoever said it and whether or not they still wait."""
        session = record.stream
        if session is None or not isinstance(record.event, QUEUE_CHANGES):
            return
        waiting = queue(self._journal.streams(SESSIONS)[session])
        self._journal.announce(session, Moment("queue", None, {"queue": waiting}))
        if isinstance(record.event, SessionDeleted):
            if session in self._running:
                self._running[session].stop("abort")
        else:
            self._kick(session)

    def _kick(self, session: str) -> None:
        state = self._journal.streams(SESSIONS)[session]
        if self._group is None or session in self._serving or self._draining or not (state.waiting and state.exists):
            return
        self._serving[session] = self._group.create_task(self._serve(session))

    async def _serve(self, session: str) -> None:
        """Runs what waits in a session, one turn after the other."""
        try:
            while True:
                async with self._places:
                    state = self._journal.streams(SESSIONS)[session]
                    if self._draining or not (state.waiting and state.exists):
                        return
                    await self._run_next(session, state.waiting[0])
        finally:
            # No await between the last look and this: what comes later finds no server and starts one.
            del self._serving[session]

    async def _run_next(self, session: str, head: Waiting) -> None:
        turn = head.turn if head.mode == "prompt" else self._ids.new()
        running = self._running[session] = RunningTurn(self._journal, self._agent, session, turn)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._run_to_the_end(running, head))
        finally:
            del self._running[session]

    async def _run_to_the_end(self, running: RunningTurn, head: Waiting) -> None:
        """One turn from its start to its end, whatever happens in between."""
        stop: TurnStop
        running.task = asyncio.current_task()
        try:
            stop, problem = await self._run(running, head)
        except asyncio.CancelledError:
            if running.stopping is None:
                raise
            running.uncancel()
            stop, problem = running.stopping, INTERRUPTED if running.stopping == "interrupted" else None
        except FinnError as error:
            stop, problem = "error", Problem.of(error)
        except Exception as error:
            # A defect of ours ends this turn, in words; it must not end the agent.
            log.exception("turn %s failed", running.id)
            stop, problem = "error", Problem(code="internal", message=f"the turn failed: {error!r}", hint="see the log")
        if running.turn is not None and stop in ABANDONED:
            await running.turn.abandon(*ABANDONED[stop])
        if stop == "interrupted":
            leaf = self._journal.streams(SESSIONS)[running.session].leaf
            await running.record(NoteAdded(turn=running.id, parent=leaf, text=NOTE), SYSTEM)
        usage = running.turn.usage if running.turn else Usage()
        await running.record(TurnEnded(turn=running.id, stop_reason=stop, error=problem, usage=usage), SYSTEM)

    async def _run(self, running: RunningTurn, head: Waiting) -> tuple[TurnStop, Problem | None]:
        parent = self._journal.streams(SESSIONS)[running.session].leaf
        await running.record(TurnStarted(turn=running.id, entry=head.entry, parent=parent), SYSTEM)
        if running.stopping is not None:
            raise asyncio.CancelledError
        identity = await asyncio.to_thread(self._identity.look)
        entries = await self._context(running, head.entry, parent)
        running.turn = Turn(self._agent, running, running.id, running.session, identity.prompt, entries)
        return await running.turn.run()

    async def _context(self, running: RunningTurn, entry: str, parent: str | None) -> list[Entry]:
        """The entries up to the message `entry`: from memory where the last turn left them, else from the log."""
        session = running.session
        entries = self._contexts.pop(session, None)
        if entries is not None and (entries[-1].id if entries else None) == parent:
            said = entry_of(await self._journal.record_at(session, seq_of(entry)))
            assert said is not None
            entries.append(replace(said, parent=parent, turn=running.id))
        else:
            until = self._journal.streams(SESSIONS)[session].context_from
            entries = await load(self._journal, session, entry, until, self._agent.model.about.window)
        self._contexts[session] = entries
        while len(self._contexts) > LIVE_CONTEXTS:
            self._contexts.popitem(last=False)
        return entries


def _heard(done: asyncio.Future[Record]) -> None:
    """An error was told to whoever still waits; that nobody does is no reason for a warning."""
    if not done.cancelled():
        done.exception()


QUEUE_CHANGES = (UserMessage, TurnStarted, SteerTaken, TurnEnded, SessionDeleted, SessionRestored)
