"""The composition root: the one place where things are introduced to each other.

    settings ─▶ port bound ─▶ Finn.app serves (starting) ─▶ the log opens, the agent wakes ─▶ serving ─▶ drain ─▶ closed

Only here is named what there is: FOLDS, the tools, the routes. The port answers before the log is open, and what is
heavy (the model's SDK) is loaded after it.
"""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from agent import models, sandbox
from agent.identity import IdentityFiles
from agent.loop import Agent
from agent.mirror import Mirror
from agent.model import Model
from agent.session import SESSIONS
from agent.tool import Site
from agent.tools import TOOLS
from agent.turns import Turns
from gateway.auth import Auth
from gateway.chat import chat_endpoint
from gateway.checks import NO_SOCKET, guards, layers
from gateway.hub import Close, Hub
from gateway.openapi import openapi_route
from gateway.problem import EXCEPTION_HANDLERS
from gateway.rooms import Rooms
from gateway.routes.health import VERSION, State, health_routes, release_of
from gateway.routes.login import login_routes
from gateway.routes.page import page_routes
from gateway.routes.sessions import session_routes
from gateway.settings import Settings
from persistence.clock import Clock, Entropy, Ids
from persistence.disk import SystemDisk
from persistence.errors import FinnError, first
from persistence.events import AGENT, SYSTEM
from persistence.files import FILES, Files
from persistence.fold import Fold
from persistence.journal import Journal
from persistence.redact import Redactor
from persistence.replay import Means
from scheduler.health import Fact, Source

FOLDS: tuple[Fold[Any], ...] = (SESSIONS, FILES)
LOOK_S = 300.0  #: how often the grimoires are looked at, besides after every tool
RETRY_MS = 1000  #: when a client that is sent away comes back
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
        self._free_bytes: int | None = None
        self._on_ready: Callable[[], None] = lambda: None
        self._on_failure: Callable[[], None] = lambda: None

    def rooms(self) -> Rooms:
        """The open rooms."""
        if self._rooms is None:
            raise RuntimeError("a route without a guard asked for the rooms while finn was starting")
        return self._rooms

    def app(self, on_ready: Callable[[], None], on_failure: Callable[[], None]) -> Starlette:
        """The application. Calls `on_ready` in a thread when prompts are taken, `on_failure` when the start failed."""
        self._on_ready, self._on_failure = on_ready, on_failure
        guard = guards(self._auth, lambda: self.state == "starting")
        routes = [
            *health_routes(lambda: self.state, self._sources, self._auth, self._clock, release_of(self._settings)),
            *login_routes(self._auth, guard, secure=self._entrance.secure),
            *session_routes(self.rooms, self._readers, guard),
            WebSocketRoute(
                "/ws/{session}", chat_endpoint(self.rooms, self._hub, self._clock), middleware=guard("chat")
            ),
            openapi_route(VERSION),
            NO_SOCKET,
            *page_routes(),
        ]
        app = Starlette(
            routes=routes,
            middleware=layers(self._entrance, clock=self._clock, entropy=self._entropy),
            exception_handlers=EXCEPTION_HANDLERS,
            lifespan=self._lifespan,
        )
        app.router.redirect_slashes = False  # one spelling a path
        return app

    # ------------------------------------------------------------ life

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        living = asyncio.create_task(self._live())
        try:
            yield
        finally:
            living.cancel()
            await asyncio.wait([living], timeout=LETTING_GO_S)
            if self._rooms is not None:
                await self._rooms.journal.close()
                await models.close(self._rooms.model)
            await asyncio.wait([living])

    async def _live(self) -> None:
        """Wakes the agent and keeps it awake until it is cancelled. What ends it otherwise ends the process."""
        try:
            rooms = self._rooms = await self._open()
            async with asyncio.TaskGroup() as group:
                for task in self._tasks(rooms):
                    group.create_task(task)
                self.state = "serving"
                await asyncio.to_thread(self._on_ready)
        except Exception as error:
            self.failure = first(error)
            if not isinstance(self.failure, FinnError | OSError):
                log.exception("finn cannot go on")
            self._on_failure()

    async def _open(self) -> Rooms:
        settings, disk = self._settings, SystemDisk()
        # As the sandbox sees them: a path that bash prints is one that the file tools take.
        root = settings.data_dir.resolve()
        workspace, grimoires = root / "workspace", root / "grimoires"
        mirrors = settings.data_dir / "state" / "sessions"
        ids = Ids(self._clock, self._entropy)
        means = Means(disk, self._clock, ids, self.redactor)
        journal = await Journal.open(settings.data_dir, FOLDS, means)
        await asyncio.to_thread(_make, workspace, grimoires, mirrors)
        notes = Files(journal, disk, self.redactor, "grimoires", grimoires)
        await notes.fill(await asyncio.to_thread(template))
        fence = await asyncio.to_thread(sandbox.probe, settings.sandbox, settings.sandbox_network == "on", workspace)
        identity = await asyncio.to_thread(IdentityFiles, grimoires)
        await asyncio.to_thread(identity.look)

        async def changed() -> None:
            await notes.look(AGENT)

        site = Site(workspace, grimoires, fence, self._clock)
        agent = Agent(self._model, TOOLS, site, self._clock, self._entropy, changed)
        return Rooms(
            journal=journal,
            turns=Turns(journal, agent, identity, ids),
            identity=identity,
            grimoires=notes,
            mirror=Mirror(journal, disk, mirrors, journal.paths.quarantine, workspace),
            model=self._model,
            sandbox=fence,
            ids=ids,
            workspace=workspace,
        )

    def _tasks(self, rooms: Rooms) -> Iterable[Coroutine[None, None, None]]:
        """What goes on beside the requests."""
        return (
            rooms.journal.tend(),
            rooms.turns.serve(),
            rooms.mirror.serve(),
            self._hub.watch(self._auth, self._clock),
            self._readers.watch(self._auth, self._clock),
            self._look_after(rooms),
            self._load(rooms),
        )

    async def _look_after(self, rooms: Rooms) -> None:
        """Sees what people changed in the grimoires, and how full the disk is."""
        while True:
            try:
                await rooms.grimoires.look(SYSTEM)
                await asyncio.to_thread(rooms.identity.look)
            except (FinnError, OSError) as error:
                log.error("the grimoires cannot be looked at: %s", error)
            usage = await asyncio.to_thread(shutil.disk_usage, self._settings.data_dir)
            self._free_bytes = usage.free
            await self._clock.sleep(LOOK_S)

    async def _load(self, rooms: Rooms) -> None:
        """Imports what the first answer will need."""
        try:
            await asyncio.to_thread(models.preload, rooms.model)
        except FinnError as error:
            log.error("the model cannot be loaded: %s", error)

    async def drain(self) -> None:
        """Takes no new turns, closes those that run, and sends every client away to come back."""
        self.state = "draining"
        if self._rooms is not None:
            await self._rooms.turns.drain()
        for hub in (self._hub, self._readers):
            await hub.leave_all(Close.RESTARTING, "restarting", retry_ms=RETRY_MS)

    # ------------------------------------------------------------ facts

    def _sources(self) -> Sequence[Source]:
        return (self._own_facts, *((self._room_facts,) if self._rooms is not None else ()))

    def _own_facts(self) -> Iterable[Fact]:
        yield Fact("gateway:state", self.state, output="" if self.state == "serving" else f"finn is {self.state}")
        problems = self._settings.problems
        yield Fact("settings:problems", len(problems), output="; ".join(problems))
        yield Fact("ws:connections", len(self._hub))

    def _room_facts(self) -> Iterable[Fact]:
        rooms = self.rooms()
        journal, identity, about, rung = rooms.journal, rooms.identity.current, rooms.model.about, rooms.sandbox.rung
        yield Fact("wal:lastSeq", journal.seq)
        yield Fact("wal:bytes", journal.size, "bytes")
        if journal.error:
            yield Fact("wal:error", journal.error, output=journal.error)
        if journal.trouble:
            yield Fact("wal:upkeep", journal.trouble, output=journal.trouble)
        if journal.held:
            said = f"{len(journal.held)} records are of a kind or version this release does not know; they are kept"
            yield Fact("wal:held", len(journal.held), output=f"{said}; a newer release will read them")
        yield Fact("epoch", journal.epoch)
        yield Fact("recovery:source", journal.source, output=journal.loss)
        yield Fact("identity:checksum", identity.checksum, output=identity.problem)
        yield Fact("model:state", f"{about.provider}:{about.name}", output="" if about.ready else about.note)
        yield Fact("sandbox:rung", rung.name, output=rung.reason if rooms.sandbox.refused else "")
        yield Fact("turn:active", rooms.turns.active)
        if self._free_bytes is not None:
            yield Fact("disk:free", self._free_bytes, "bytes")


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
