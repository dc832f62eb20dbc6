"""The composition root: the one place where things are introduced to each other.

    settings ─▶ port bound ─▶ Finn.app serves (starting) ─▶ the log opens, the agent wakes ─▶ serving ─▶ drain ─▶ closed

Only here is named what there is: FOLDS, the tools, the routes. The port answers before the log is open, and what is
heavy (the model's SDK) is loaded after it.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from agent import models, sandbox
from agent.identity import IdentityFiles
from agent.loop import Agent
from agent.mirror import Mirror
from agent.model import Model
from agent.repute import Watched
from agent.session import SESSIONS
from agent.tool import Site
from agent.tools import TOOLS
from agent.turns import Turns
from gateway.auth import Auth
from gateway.chat import chat_endpoint
from gateway.condition import Condition, nobody
from gateway.copies import Copies, local_tier
from gateway.doors import NO_SOCKET, guards, layers
from gateway.facts import own_facts, room_facts
from gateway.hub import Close, Hub
from gateway.metrics import Metrics, Reading, readings
from gateway.openapi import openapi_route
from gateway.premises import Premises
from gateway.problem import EXCEPTION_HANDLERS, Refused, silent, standing_by, starting
from gateway.rooms import Rooms
from gateway.routes.beads import bead_routes
from gateway.routes.doctor import doctor_routes
from gateway.routes.health import VERSION, State, health_routes, release_of
from gateway.routes.login import login_routes
from gateway.routes.metrics import metrics_routes
from gateway.routes.page import page_routes
from gateway.routes.sessions import session_routes
from gateway.routes.storage import storage_routes
from gateway.routes.tasks import task_routes
from gateway.routes.tokens import token_routes
from gateway.settings import Settings
from gateway.tally import Tally
from gateway.tasks import Parts, scheduler_of, task_facts
from gateway.tokens import TOKENS, Tokens
from persistence.bead import Bead
from persistence.bead_file import FOLDER, BeadFile
from persistence.beads import BEADS, Beads
from persistence.breaker import BREAKERS
from persistence.clock import Clock, Entropy, Ids
from persistence.disk import SystemDisk
from persistence.errors import Fenced, FinnError, first
from persistence.events import AGENT, SYSTEM, By, Record, TokenRevoked
from persistence.files import FILES, Files
from persistence.fold import Fold
from persistence.journal import Journal
from persistence.limits import Limits
from persistence.measure import Observe
from persistence.orphans import ORPHANS
from persistence.own_beads import shown
from persistence.redact import Redactor
from persistence.replay import Means, Paths
from persistence.swap import RESTORED, RESTORING, settled
from scheduler.alerts import ALERTS
from scheduler.health import Fact, Source, judge
from scheduler.scheduler import Scheduler

if TYPE_CHECKING:
    from gateway.owner import Owner
    from gateway.storage import Storage
    from persistence.cascade import Recovered
    from persistence.origin import Origin
    from scheduler.site import Site as Place

FOLDS: tuple[Fold[Any], ...] = (SESSIONS, FILES, ORPHANS, BEADS, BREAKERS, TOKENS, ALERTS)
LOOK_S = 300.0  #: how often the grimoires are looked at, besides after every tool
RETRY_MS = 1000  #: when a client that is sent away comes back
QUIET_S = 10.0  #: a start that takes longer says where it is before it is ready
ASK_AGAIN_S = (0.2, 1.0, 2.0, 5.0)  #: between two attempts to learn the past, where no copy answers
TURNS_SHARE, FILES_SHARE = 0.4, 0.1  #: of the budget of a stop
LETTING_GO_S = 1.0  #: a turn that waits for a full disk only lets go when the log is closed

log = logging.getLogger("finn.app")


class Finn:
    """One agent behind one port."""

    def __init__(self, settings: Settings, model: Model, auth: Auth, clock: Clock, entropy: Entropy, port: int) -> None:
        self.state: State = "starting"
        self.failure: BaseException | None = None
        self.redactor = Redactor({**settings.secrets, "FINN_TOKEN": auth.token.reveal()})
        self._settings = settings
        self._model = model
        self._auth = auth
        self._clock = clock
        self._entropy = entropy
        self._entrance = settings.entrance(port)
        self._hub = Hub()  # the sockets
        self._readers = Hub()  # the event streams
        self._rooms: Rooms | None = None
        self._scheduler: Scheduler | None = None
        self._condition: Condition | None = None
        self._owner: Owner | None = None
        ids = Ids(clock, entropy)
        self._metrics = Metrics()
        self._storage = _storage(settings, clock, entropy, ids, self._metrics.observe)
        fetch = self._storage.fetch if self._storage is not None else None
        replicated, observe = bool(settings.store_url), self._metrics.observe
        self._means = Means(SystemDisk(), clock, ids, self.redactor, fetch, replicated, observe)
        self._why: FinnError | None = None  # this state, where it says more than its name
        self._on_answering: Callable[[], None] = lambda: None
        self._on_failure: Callable[[], None] = lambda: None

    def rooms(self) -> Rooms:
        """The open rooms. Raises what a guard would where they were closed since the guard let somebody in."""
        if self._rooms is None:
            raise self._closed() or RuntimeError("a route without a guard asked for the rooms while finn was starting")
        return self._rooms

    @property
    def epoch(self) -> int | None:
        """The epoch of this life; None while there is none."""
        return None if self._rooms is None else self._rooms.journal.epoch

    def app(self, on_answering: Callable[[], None], on_failure: Callable[[], None]) -> Starlette:
        """The application.

        Calls `on_answering` in a thread whenever it is known what clients are told from now on: prompts are taken, or
        why not; and `on_failure` when a start failed.
        """
        self._on_answering, self._on_failure = on_answering, on_failure
        self._auth.learn(lambda: self._rooms.tokens if self._rooms is not None else None)
        guard = guards(self._auth, self._closed)
        routes = [
            *health_routes(self._unready, self._sources, self._auth, self._clock, release_of(self._settings)),
            *metrics_routes(self._metrics, self._readings, guards(self._auth, lambda: None)),
            *login_routes(self._auth, guard, secure=self._entrance.secure),
            *session_routes(self.rooms, self._readers, guard),
            *bead_routes(self.rooms, self._clock, guard),
            *token_routes(self.rooms, self._clock, guard),
            *storage_routes(self.rooms, lambda: self.rooms().files, self._copies, guard),
            *task_routes(self._tasks, self._clock, guard),
            *doctor_routes(self._place, self._means.ids, VERSION, guards(self._auth, self._opening), guard),
            WebSocketRoute(
                "/ws/{session}", chat_endpoint(self.rooms, self._hub, self._clock), middleware=guard("read")
            ),
            openapi_route(VERSION),
            NO_SOCKET,
            *page_routes(),
        ]
        app = Starlette(
            routes=routes,
            middleware=layers(
                self._entrance, clock=self._clock, entropy=self._entropy, answered=self._metrics.answered
            ),
            exception_handlers=EXCEPTION_HANDLERS,
            lifespan=self._lifespan,
        )
        app.router.redirect_slashes = False  # one spelling a path
        return app

    # ------------------------------------------------------------ lives

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        living = asyncio.create_task(self._live())
        try:
            yield
        finally:
            living.cancel()
            await asyncio.wait([living], timeout=LETTING_GO_S)
            if self._rooms is not None:
                await self._close(self._rooms)
            await models.close(self._model)
            if self._storage is not None:
                self._storage.end()
            await asyncio.wait([living])

    async def _live(self) -> None:
        """One life after the other, until it is cancelled. What ends it otherwise ends the process."""
        log.info("finn starts", extra=_about(self._settings, self._model))
        try:
            while True:
                await self._stand_by()
                began = self._clock.monotonic()
                with suppress(Fenced):  # another claimed at the same moment: stand by again
                    await self._one_life(await self._recover(), began)
        except Exception as error:
            self.failure = first(error)
            if not isinstance(self.failure, FinnError | OSError):
                log.exception("finn cannot go on")
            self._on_failure()

    async def _one_life(self, recovered: "Recovered | None", began: float) -> None:
        """Opens the rooms and keeps them, until it is cancelled or another writer has taken over.

        It began when it was first asked what the past is.
        """
        rooms = self._rooms = await self._open(recovered.origin if recovered else None)
        if self._storage is not None and recovered is not None:
            self._storage.attach(rooms.journal, recovered)
        try:
            async with asyncio.TaskGroup() as group:
                for activity in self._activities(rooms):
                    group.create_task(activity)
                await self._become("serving")
                log.info("finn is ready", extra=_origin(rooms.journal, self._clock.monotonic() - began))
        except* Fenced as fenced:
            log.warning("another instance has taken over: %s", first(fenced))
            await self._retire(rooms)

    async def _retire(self, rooms: Rooms) -> None:
        """Ends a life that was fenced: nobody hears anything more of it, and what it had promised is kept."""
        assert self._storage is not None
        await self._storage.remember()  # before anybody hears of it: who is restarted then must not begin a fight
        await self._become("fenced")
        rooms.turns.leave()
        await self._send_all_away()
        await self._storage.retire()
        await self._close(rooms)
        self._rooms = self._scheduler = self._condition = self._owner = None

    async def _stand_by(self) -> None:
        """Returns when this process may act: at once, or when the one that took over has stopped or is dead."""
        if self._storage is not None and await self._storage.stands_by():
            await self._become("fenced")
            await self._storage.stand_by()
            await self._become("starting")

    async def _recover(self) -> "Recovered | None":
        """What the log is to go on from. Where the disk is empty and no copy answers, it asks until one does."""
        if self._storage is None:
            return await asyncio.to_thread(_finished, self._settings.data_dir, self._means)
        for attempt in count():
            recovering = asyncio.ensure_future(self._storage.recover(FOLDS, self._means))
            try:
                if not (await asyncio.wait([recovering], timeout=QUIET_S))[0]:
                    await asyncio.to_thread(self._on_answering)  # it takes long; where to ask is worth knowing
                return await recovering
            except Fenced:
                await self._storage.mark()
                raise
            except FinnError as problem:
                if problem.code != "store_unavailable":
                    raise
                log.warning("the past is not known yet: %s", problem)
                if attempt:  # one lost answer is no silence
                    await self._become("silent", problem)
                await self._clock.sleep(ASK_AGAIN_S[min(attempt, len(ASK_AGAIN_S) - 1)])
        raise AssertionError("unreachable")

    async def _become(self, state: State, why: FinnError | None = None) -> None:
        """Says what is so from now on. A process that drains is on its way out, whatever else happens to it."""
        if self.state == "draining":
            return
        self.state, self._why = state, why
        if state != "starting":
            await asyncio.to_thread(self._on_answering)

    async def _open(self, origin: "Origin | None") -> Rooms:
        settings, disk = self._settings, SystemDisk()
        # As the sandbox sees them: a path that bash prints is one that the file tools take.
        root = settings.data_dir.resolve()
        workspace, grimoires = root / "workspace", root / "grimoires"
        mirrors = settings.data_dir / "state" / "sessions"
        journal = await Journal.open(settings.data_dir, FOLDS, self._means, origin)
        lost = {root for root in (workspace, grimoires) if not root.exists()}  # nobody deletes file by file like that
        await asyncio.to_thread(_make, workspace, grimoires, mirrors)
        limits = Limits(file_bytes=settings.workspace_file_max, total_bytes=settings.workspace_max)
        notes = Files(journal, disk, self.redactor, "grimoires", grimoires, limits)
        roots = (notes, Files(journal, disk, self.redactor, "workspace", workspace, limits))
        for each in roots:
            if journal.source != "local" or root / each.name in lost:
                await each.write_back()
        await notes.fill(await asyncio.to_thread(template))
        fence = await asyncio.to_thread(sandbox.probe, settings.sandbox, settings.sandbox_network == "on", workspace)
        identity = await asyncio.to_thread(IdentityFiles, grimoires)
        await asyncio.to_thread(identity.look)

        async def changed() -> None:
            for each in roots:
                await each.look(AGENT, own=True)

        admit = () if self._storage is None else (self._storage.admit,)
        beads = Beads(journal, self._clock, *admit)
        folder = settings.data_dir / "state" / FOLDER
        bead_file = BeadFile(beads, disk, folder, journal.paths.quarantine, self._clock, self._shown)
        journal.listen(bead_file.follow)
        journal.listen(self._show_out)
        journal.listen(Tally(self._metrics.observe, [tool.declaration.name for tool in TOOLS]).follow)
        await bead_file.attempt()
        await beads.expire()
        site = Site(workspace, grimoires, fence, self._clock, beads)
        model = Watched(self._model, self._clock)
        agent = Agent(model, TOOLS, site, self._clock, self._entropy, changed)
        turns = Turns(journal, agent, identity, self._means.ids)
        if self._storage is not None:
            turns = Turns(journal, agent, identity, self._means.ids, admit=self._storage.admit)
        return Rooms(
            journal=journal,
            turns=turns,
            identity=identity,
            files=roots,
            mirror=Mirror(journal, disk, mirrors, journal.paths.quarantine, workspace),
            beads=beads,
            bead_file=bead_file,
            tokens=Tokens(journal, self._clock, self._means.ids, self._entropy, *admit),
            model=model,
            sandbox=fence,
            ids=self._means.ids,
            workspace=workspace,
            premises=await asyncio.to_thread(Premises, settings.data_dir, self._clock, os.getpid()),
        )

    def _activities(self, rooms: Rooms) -> Iterable[Coroutine[None, None, None]]:
        """What goes on beside the requests."""
        owner = self._owner = _owner(self._settings, rooms.journal, self._clock, self._entrance.url)
        condition = self._condition = self._watch(rooms, owner)
        parts = Parts(self._settings, FOLDS, self._means, rooms.journal, rooms.beads, self._storage, condition.look)
        scheduler, ledger = scheduler_of(parts, self._clock, self._entropy, self._metrics.observe)
        self._scheduler = scheduler
        return (
            rooms.journal.tend(),
            rooms.turns.serve(),
            rooms.mirror.serve(),
            rooms.bead_file.serve(),
            self._hub.watch(self._auth),
            self._readers.watch(self._auth),
            self._look_after(rooms),
            scheduler.serve(),
            ledger.serve(),
            self._load(),
            *(self._storage.serve() if self._storage is not None else ()),
            *((owner.serve(),) if owner is not None else ()),
        )

    async def _look_after(self, rooms: Rooms) -> None:
        """Sees what people changed in the files."""
        while True:
            await self._look_at_files(rooms)
            await self._clock.sleep(LOOK_S)

    async def _look_at_files(self, rooms: Rooms) -> None:
        try:
            for each in rooms.files:
                await each.look(SYSTEM)
            if not any(each.owed for each in rooms.files):
                await asyncio.to_thread(settled, self._means.disk, self._settings.data_dir)
            await asyncio.to_thread(rooms.identity.look)
        except Fenced:
            raise
        except (FinnError, OSError) as error:
            log.error("the files cannot be looked at: %s", error)

    def _watch(self, rooms: Rooms, owner: "Owner | None") -> Condition:
        """Looks at a life as a whole."""

        def look() -> Sequence[Fact]:
            rooms.identity.look()
            return rooms.premises.look()

        def leaving() -> bool:
            return self.state == "draining"

        heed = owner.look if owner is not None else nobody
        return Condition(look, self._sources, rooms.beads, self._clock, heed, leaving=leaving)

    def _tasks(self) -> Scheduler:
        """The tasks of this life, for routes behind a guard."""
        self.rooms()
        assert self._scheduler is not None
        return self._scheduler

    def _opening(self) -> FinnError | None:
        """Why there is nothing to see yet."""
        return starting() if self.state == "starting" else None

    def _place(self, loop: asyncio.AbstractEventLoop, by: By) -> "Place":
        """What the doctor looks at. Called in a thread of its own; what it asks of finn is done on the loop."""
        from gateway.bead_mending import within
        from gateway.site import acting, inside
        from scheduler.site import Running

        async def facts() -> Mapping[str, Any]:
            return {fact.name: fact.value for source in self._sources() for fact in source()}

        rooms = self._rooms
        acts: dict[str, Callable[[], Awaitable[object]]] = {}
        if rooms is not None:
            acts = {"mirrors": rooms.mirror.anew, "snapshot": rooms.journal.snapshot, "prune": rooms.journal.save}
        own = Running(os.getpid(), self._entrance.url, self.epoch, answers=True)
        return inside(
            self._settings,
            own,
            again=lambda: self._place(loop, by),
            clock=self._clock,
            facts=asyncio.run_coroutine_threadsafe(facts(), loop).result(),
            acts={name: acting(act, loop) for name, act in acts.items()},
            change=within(rooms.beads, loop, by) if rooms is not None else None,
        )

    def _task_facts(self) -> Iterable[Fact]:
        return task_facts(self._tasks().runs, self._clock.monotonic())

    async def _load(self) -> None:
        """Imports what the first answer will need."""
        try:
            await asyncio.to_thread(models.preload, self._model)
        except FinnError as error:
            log.error("the model cannot be loaded: %s", error)

    # ------------------------------------------------------------ the end

    async def drain(self) -> None:
        """Takes no new turns, closes those that run, sends every client away, and lets the copies catch up.

        Each step has its share of the budget: what hangs is left behind, and the log on this disk has it all.
        """
        self.state = "draining"
        rooms, budget_s = self._rooms, self._settings.shutdown_budget
        log.info("finn drains", extra={"budget_s": budget_s})
        began = self._clock.monotonic()
        end = began + budget_s
        if rooms is not None and self._storage is not None:
            self._storage.hurry()
        if rooms is not None:
            await _within(budget_s * TURNS_SHARE, rooms.turns.drain())
        await self._send_all_away()
        if rooms is not None:
            await _within(budget_s * FILES_SHARE, rooms.bead_file.attempt())
        if rooms is not None and self._storage is not None:
            await _within(budget_s * FILES_SHARE, self._look_at_files(rooms))
            await self._storage.finish(rooms.journal, budget_s, end)
        if rooms is not None:
            rooms.turns.give_up()
        log.info("finn has drained", extra={"seconds": round(self._clock.monotonic() - began, 3)})

    def _show_out(self, record: Record) -> None:
        """A token that is taken back ends what it had opened, at once and not when it next says something."""
        if isinstance(record.event, TokenRevoked):
            self._hub.stir()
            self._readers.stir()

    async def _close(self, rooms: Rooms) -> None:
        for each in (self._condition, self._owner):
            if each is not None:
                each.end()
        await rooms.journal.close()
        rooms.premises.close()

    async def _send_all_away(self) -> None:
        for hub in (self._hub, self._readers):
            await hub.leave_all(Close.RESTARTING, "restarting", retry_ms=RETRY_MS)

    # ------------------------------------------------------------ facts

    def _closed(self) -> FinnError | None:
        """Why nobody is let in now."""
        match self.state:
            case "starting":
                return starting()
            case "silent":
                return silent()
            case "fenced":
                return standing_by()
        return None

    def _unready(self) -> FinnError | None:
        """Why no work is taken now, as a probe is told it."""
        if self.state == "draining":
            return Refused("draining", "finn is stopping", hint="its successor will answer")
        return starting() if self.state == "silent" else self._closed()

    def _copies(self) -> Copies:
        journal = self.rooms().journal
        local = local_tier(journal, self._clock.now(), str(self._settings.data_dir))
        return Copies(
            journal.seq,
            journal.epoch,
            (local, *(self._storage.tiers(journal.seq) if self._storage is not None else ())),
        )

    def _shown(self, bead: Bead) -> Bead:
        """A bead as its file shows it: the agent's own says whether the copies have everything."""
        seq = self.rooms().journal.seq if self._rooms is not None else 0
        tiers = self._storage.tiers(seq) if self._storage is not None else ()
        return shown(bead, complete=all(tier.state == "saved" for tier in tiers))

    def _sources(self) -> Sequence[Source]:
        return (
            self._own_facts,
            *((self._storage.facts,) if self._storage is not None else ()),
            *((self._room_facts, self._task_facts) if self._rooms is not None and self._scheduler is not None else ()),
            *(each.facts for each in (self._condition, self._owner) if each is not None),
        )

    def _readings(self) -> Iterator[Reading]:
        """The gauges of /metrics: what health is told, and what is of no interest to it."""
        facts = [fact for source in self._sources() for fact in source()]
        yield from readings(facts, judge([lambda: facts], self._clock.now()).status)
        yield "streams_open", len(self._readers), {}
        about = release_of(self._settings)
        yield "build_info", 1, {"version": about["version"], "release": about["releaseId"]}

    def _own_facts(self) -> Iterable[Fact]:
        reasons = [one for one in (self._closed() or self._unready(), self._why) if one]
        return own_facts(self.state, reasons, self._settings.problems, len(self._hub))

    def _room_facts(self) -> Iterable[Fact]:
        return room_facts(self.rooms())


def _storage(settings: Settings, clock: Clock, entropy: Entropy, ids: Ids, observe: Observe) -> "Storage | None":
    """The copies, where there are any to be: what is not set costs no import."""
    if not (settings.store_url or settings.git_remote):
        return None
    from gateway.storage import Storage

    return Storage(
        settings,
        release_of(settings)["releaseId"],
        disk=SystemDisk(),
        clock=clock,
        entropy=entropy,
        ids=ids,
        observe=observe,
    )


def _owner(settings: Settings, journal: Journal, clock: Clock, url: str) -> "Owner | None":
    """The way to the owner, where one is set: what is not set costs no import."""
    if not (settings.alert_url or settings.ping_url):
        return None
    from gateway.owner import Owner
    from scheduler.message import Sender

    sender = Sender(settings.agent_id, release_of(settings)["releaseId"], url)
    return Owner(settings.alert_url, settings.ping_url, journal, clock, sender)


def _about(settings: Settings, model: Model) -> dict[str, str | None]:
    """What an operator wants to know of a start. Nothing here is secret."""
    about = release_of(settings)
    return {
        "version": about["version"],
        "release": about["releaseId"],
        "data_dir": str(settings.data_dir),
        "store": settings.store_url,
        "git": settings.git_remote.url if settings.git_remote else None,
        "durability": settings.durability,
        "model": f"{model.about.provider}:{model.about.name}",
    }


def _origin(journal: Journal, seconds: float) -> dict[str, str | int | float]:
    """Where a life has its state from, and how long it took to open."""
    return {"seconds": round(seconds, 3), "source": journal.source, "seq": journal.seq, "epoch": journal.epoch}


def _finished(data_dir: Path, means: Means) -> "Recovered | None":
    """Brings to its end what a restoration left half done, also where the copy that it came from is no longer set."""
    if not any((data_dir / name).exists() for name in (RESTORING, RESTORED)):
        return None
    from persistence import cascade

    return cascade.recover(Paths(data_dir), FOLDS, means, cascade.Sources())


async def _within(seconds: float, step: Awaitable[None]) -> None:
    """Waits for a step, so long at most."""
    try:
        async with asyncio.timeout(seconds):
            await step
    except TimeoutError:
        log.warning("a step of the drain did not end within %.1f s", seconds)


def template() -> Mapping[str, bytes]:
    """The agent's own files as a clean start has them."""
    return dict(_files(files("grimoires"), ""))


def _files(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for one in folder.iterdir():
        if one.is_dir():
            if one.name != "__pycache__":
                yield from _files(one, f"{prefix}{one.name}/")
        elif not one.name.endswith((".py", ".pyc")):
            yield f"{prefix}{one.name}", one.read_bytes()


def _make(*folders: Path) -> None:
    for folder in folders:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
