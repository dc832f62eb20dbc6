"""An agent at home: a journal, a scripted model, tools and turns in a folder, and a clock that waits to be moved."""

import asyncio
import heapq
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from agent.identity import IdentityFiles
from agent.loop import Agent, Limits
from agent.mirror import Mirror
from agent.models.scripted import Scripted, parse
from agent.sandbox import Refused, Rung
from agent.session import SESSIONS, Session
from agent.tool import Capability, Declaration, Show, Site, Tool, ToolResult
from agent.turns import Outcome, Turns
from persistence.clock import FakeClock, Ids
from persistence.disk import SystemDisk
from persistence.events import (
    OWNER,
    AssistantMessage,
    CallFailed,
    ContextCut,
    Event,
    Json,
    MessageCheckpointed,
    NoteAdded,
    PromptMode,
    Record,
    SessionCreated,
    SteerTaken,
    TextBlock,
    ToolCallBlock,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    TurnStarted,
    UserMessage,
    Value,
)
from persistence.journal import Journal
from persistence.redact import Redactor
from persistence.replay import Means
from persistence.subscription import Moment

T = TypeVar("T")

SESSION = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


class ManualClock(FakeClock):
    """A clock on which who sleeps waits until it is moved that far."""

    def __init__(self) -> None:
        super().__init__()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    async def sleep(self, seconds: float) -> None:
        if seconds > 0:
            future = asyncio.get_running_loop().create_future()
            heapq.heappush(self._sleepers, (self.time + seconds, next(self._numbers), future))
            await future

    def advance(self, seconds: float) -> None:
        """Moves time on and wakes whoever has slept long enough."""
        self.time += seconds
        while self._sleepers and self._sleepers[0][0] <= self.time:
            self._wake()

    async def drive(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs what waits for nothing but this clock: whenever all sleep, it is the next one's time."""
        task = asyncio.create_task(work)
        while not task.done():
            for _ in range(20):
                await asyncio.sleep(0)
            if not task.done() and self._sleepers:
                self.time = max(self.time, self._sleepers[0][0])
                self._wake()
        return await task

    def _wake(self) -> None:
        future = heapq.heappop(self._sleepers)[2]
        if not future.done():
            future.set_result(None)


# ---------------------------------------------------------------- tools


class Args(Value):
    text: str = ""


@dataclass(frozen=True)
class Trick:
    """A tool that does what it is told to."""

    declaration: Declaration
    act: Callable[[str], Awaitable[ToolResult]]

    async def run(self, args: Args, site: Site, show: Show) -> ToolResult:
        return await self.act(args.text)


def trick(
    name: str,
    act: Callable[[str], Awaitable[ToolResult]],
    *capabilities: Capability,
    alone: bool = False,
) -> Trick:
    return Trick(Declaration(name, f"does {name}", Args, frozenset(capabilities), alone), act)


async def echo(text: str) -> ToolResult:
    return ToolResult(f"echo {text}")


ECHO = trick("echo", echo)


def site(root: Path, clock: FakeClock) -> Site:
    workspace, grimoires = root / "workspace", root / "grimoires"
    for folder in (workspace, grimoires):
        folder.mkdir(parents=True, exist_ok=True)
    return Site(workspace, grimoires, Refused(workspace, Rung("refused", "not in this test")), clock)


async def nothing() -> None:
    """Nobody keeps the files of these tests."""


def scripted(script: Json, clock: FakeClock) -> Scripted:
    return Scripted(parse(script, Path("script.json")), clock)


def agent(root: Path, model: Scripted, clock: FakeClock, tools: Sequence[Tool] = (ECHO,), **limits: Any) -> Agent:
    return Agent(model, tuple(tools), site(root, clock), clock, lambda n: b"\x80" * n, nothing, limits=Limits(**limits))


# ---------------------------------------------------------------- the house


@dataclass
class House:
    """All of it, with the turns served."""

    root: Path
    clock: ManualClock
    journal: Journal
    model: Scripted
    turns: Turns
    mirror: Mirror
    records: list[Record] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def say(self, text: str, mode: PromptMode = "prompt", session: str = SESSION) -> int:
        """Says it under a request id of its own; gives its seq."""
        accepted = await self.turns.say(session, text, f"r{next(self._numbers)} {text[:20]}", mode, by=OWNER)
        return accepted.seq

    async def ask(self, text: str, session: str = SESSION) -> Outcome:
        """Says it and waits for the end of its turn."""
        accepted = await self.turns.say(session, text, f"r{next(self._numbers)} {text[:20]}", by=OWNER)
        return await self.turns.outcome(session, accepted)

    def state(self, session: str = SESSION) -> Session:
        return self.journal.streams(SESSIONS)[session]

    async def until(self, done: Callable[[], bool]) -> None:
        """Waits for what needs no time of this clock."""
        while not done():
            await asyncio.sleep(0.0005)

    async def idle(self, session: str = SESSION) -> None:
        await self.until(lambda: self.state(session).running is None and not self.state(session).waiting)

    async def log(self, session: str = SESSION) -> tuple[Record, ...]:
        """What was said and done in a session."""
        return await self.journal.read(session, after=self.state(session).created_seq)

    async def pass_time(self, until: Callable[[], bool]) -> None:
        """Moves the clock on until then."""
        while not until():
            self.clock.advance(0.5)
            await asyncio.sleep(0.0005)


@asynccontextmanager
async def house(
    root: Path,
    script: Json,
    tools: Sequence[Tool] = (ECHO,),
    sessions: Iterable[str] = (SESSION,),
    served: bool = True,
    **limits: Any,
) -> AsyncIterator[House]:
    """A house with these sessions, closed without a drain in the end: what runs then is interrupted."""
    clock = ManualClock()
    model = scripted(script, clock)
    ids = Ids(clock, random.Random(str(root)).randbytes)
    journal = await Journal.open(root, (SESSIONS,), Means(SystemDisk(), clock, ids, Redactor({})))
    inhabitant = agent(root, model, clock, tools, **limits)
    turns = Turns(journal, inhabitant, IdentityFiles(root / "grimoires"), ids)
    mirrors = root / "state" / "sessions"
    mirrors.mkdir(parents=True, exist_ok=True)
    mirror = Mirror(journal, SystemDisk(), mirrors, journal.paths.quarantine, root / "workspace")
    home = House(root, clock, journal, model, turns, mirror)
    journal.listen(home.records.append)
    for session in sessions:
        if session not in journal.streams(SESSIONS):
            await journal.commit(SessionCreated(title=""), stream=session, by=OWNER)
    serving = asyncio.create_task(turns.serve() if served else nothing())
    try:
        yield home
    finally:
        serving.cancel()
        await asyncio.wait([serving])
        await journal.close()


# ---------------------------------------------------------------- what happened, in words


def told(what: Event | Moment) -> str:
    """An event as one line."""
    match what:
        case Moment():
            return f"({what.type} {' '.join(str(value) for value in what.data.values())})"
        case UserMessage():
            return f"{what.mode}: {what.text}"
        case AssistantMessage():
            text = "".join(block.text for block in what.content if isinstance(block, TextBlock))
            calls = "".join(f" [{block.id}]" for block in what.content if isinstance(block, ToolCallBlock))
            return f"{what.stop_reason}: {text}{calls}"
        case ToolStarted():
            return f"start {what.call}"
        case ToolEnded():
            return f"end {what.call}{' badly' if what.is_error else ''}: {what.result}"
        case CallFailed():
            return f"failed {what.attempt}, again in {what.retry_in_s}"
        case MessageCheckpointed():
            return f"so far: {what.text}"
        case NoteAdded():
            return f"note: {what.text}"
        case TurnEnded():
            return f"ended: {what.stop_reason}"
        case TurnStarted() | SteerTaken() | ContextCut() | _:
            return what.kind


def well_formed(records: Iterable[Record]) -> None:
    """What must hold of a session that is at rest, however it came there."""
    entries: dict[str, str | None] = {}
    open_calls: set[str] = set()
    waiting: set[str] = set()
    running: str | None = None
    leaf: str | None = None
    for record in records:
        event = record.event
        parent: str | None = None
        if isinstance(event, UserMessage):
            waiting.add(record.entry)
            continue
        if isinstance(event, TurnStarted | SteerTaken):
            assert event.entry in waiting, "every message gets one place"
            waiting.discard(event.entry)
            if isinstance(event, TurnStarted):
                assert running is None, "one turn at a time"
                running = event.turn
            assert event.parent == leaf
            leaf, entries[event.entry] = event.entry, event.parent
            continue
        if isinstance(event, TurnEnded):
            assert event.turn == running
            assert not open_calls, "every call has its result when the turn ends"
            running = None
            continue
        if not isinstance(event, AssistantMessage | ToolEnded | NoteAdded):
            continue
        parent = event.parent
        assert event.turn == running, "nothing is said outside of a turn"
        assert parent == leaf, "each entry stands below the one before"
        leaf, entries[record.entry] = record.entry, parent
        if isinstance(event, AssistantMessage):
            assert not open_calls
            open_calls = {block.id for block in event.content if isinstance(block, ToolCallBlock)}
        elif isinstance(event, ToolEnded):
            assert event.call in open_calls, "no call has two results"
            open_calls.discard(event.call)
    assert running is None, "the turn is closed"
    assert len(entries) == len(set(entries))
