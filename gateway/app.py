"""The composition root: the one place where things are introduced to each other.

    settings ─▶ port bound ─▶ Finn.app serves (starting) ─▶ the log opens, the agent wakes ─▶ serving ─▶ drain ─▶ closed
                                │                             └ lives.py, life.py, opening.py          └ drain.py
                                └ presence.py says what clients are told meanwhile

Only here is named which routes there are. The port answers before the log is open, and what is heavy (the
model's SDK) is loaded after it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import BaseRoute, WebSocketRoute

from agent.model import Model
from gateway.auth import Auth
from gateway.chat import chat_endpoint
from gateway.copies import Copies, local_tier
from gateway.doors import NO_SOCKET, guards, layers
from gateway.drain import drain
from gateway.equipment import equip
from gateway.facts import own_facts
from gateway.folds import FOLDS
from gateway.life import Life
from gateway.lives import Lives
from gateway.metrics import Reading, readings
from gateway.openapi import openapi_route
from gateway.presence import Presence
from gateway.problem import EXCEPTION_HANDLERS
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
from persistence.clock import Clock, Entropy
from persistence.events import By
from scheduler.health import Fact, Source, judge
from scheduler.scheduler import Scheduler

if TYPE_CHECKING:
    from scheduler.site import Site


class Finn:
    """One agent behind one port."""

    def __init__(self, settings: Settings, model: Model, auth: Auth, clock: Clock, entropy: Entropy, port: int) -> None:
        self._auth = auth
        self._own = equip(settings, model, auth, clock, entropy, port=port, folds=FOLDS)
        self._presence = Presence()
        self._lives = Lives(self._own, self._presence, self.sources)
        self.redactor = self._own.means.redactor

    @property
    def state(self) -> State:
        """What clients are told."""
        return self._presence.state

    @property
    def failure(self) -> BaseException | None:
        """Why it could not go on."""
        return self._lives.failure

    @property
    def epoch(self) -> int | None:
        """The epoch of this life; None while there is none."""
        rooms = self._lives.rooms
        return None if rooms is None else rooms.journal.epoch

    def rooms(self) -> Rooms:
        """The open rooms. Raises what a guard would where they were closed since the guard let somebody in."""
        return self._life().rooms

    def scheduler(self) -> Scheduler:
        """The tasks of this life. Raises likewise."""
        return self._life().scheduler

    def _life(self) -> Life:
        if self._lives.life is None:
            raise self._presence.closed() or RuntimeError("a route without a guard asked for what is not open yet")
        return self._lives.life

    # ------------------------------------------------------------ from the start to the end

    def app(self, on_answering: Callable[[], None], on_failure: Callable[[], None]) -> Starlette:
        """The application.

        Calls `on_answering` in a thread whenever it is known what clients are told from now on: prompts are taken, or
        why not; and `on_failure` when a start failed.
        """
        own = self._own
        self._presence.listen(on_answering)
        self._auth.learn(lambda: rooms.tokens if (rooms := self._lives.rooms) is not None else None)

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            async with self._lives.going_on(on_failure):
                yield

        app = Starlette(
            routes=self._routes(),
            middleware=layers(own.entrance, clock=own.clock, entropy=own.entropy, answered=own.metrics.answered),
            exception_handlers=EXCEPTION_HANDLERS,
            lifespan=lifespan,
        )
        app.router.redirect_slashes = False  # one spelling a path
        return app

    def _routes(self) -> Sequence[BaseRoute]:
        own, presence, auth = self._own, self._presence, self._auth
        clock, lobby, ids = own.clock, own.lobby, own.means.ids
        guard, looking, always = (guards(auth, closed) for closed in (presence.closed, presence.opening, lambda: None))
        chat = chat_endpoint(self.rooms, lobby.sockets, clock)
        return [
            *health_routes(presence.unready, self.sources, auth, clock, release_of(own.settings)),
            *metrics_routes(own.metrics, self._readings, always),
            *login_routes(auth, guard, secure=own.entrance.secure),
            *session_routes(self.rooms, lobby.streams, guard),
            *bead_routes(self.rooms, clock, guard),
            *token_routes(self.rooms, clock, guard),
            *storage_routes(self.rooms, self._copies, guard),
            *task_routes(self.scheduler, clock, guard),
            *doctor_routes(self._site, ids, VERSION, looking, guard),
            WebSocketRoute("/ws/{session}", chat, middleware=guard("read")),
            openapi_route(VERSION),
            NO_SOCKET,
            *page_routes(),
        ]

    async def drain(self) -> None:
        """Takes no new turns, closes those that run, sends every client away, and lets the copies catch up."""
        self._presence.leave()
        await drain(self._own, self._lives.life)

    # ------------------------------------------------------------ what is so

    def sources(self) -> Sequence[Source]:
        """Everything that health and /metrics are told."""
        storage, life = self._own.storage, self._lives.life
        return (
            self._facts,
            *((storage.facts,) if storage is not None else ()),
            *(life.sources() if life is not None else ()),
        )

    def _facts(self) -> Iterable[Fact]:
        own, presence = self._own, self._presence
        return own_facts(presence.state, presence.reasons(), own.settings.problems, len(own.lobby.sockets))

    def _readings(self) -> Iterator[Reading]:
        """The gauges of /metrics: what health is told, and what is of no interest to it."""
        facts = [fact for source in self.sources() for fact in source()]
        yield from readings(facts, judge([lambda: facts], self._own.clock.now()).status)
        yield "streams_open", len(self._own.lobby.streams), {}
        about = release_of(self._own.settings)
        yield "build_info", 1, {"version": about["version"], "release": about["releaseId"]}

    def _copies(self) -> Copies:
        own, journal = self._own, self.rooms().journal
        local = local_tier(journal, own.clock.now(), str(own.settings.data_dir))
        tiers = own.storage.tiers(journal.seq) if own.storage is not None else ()
        return Copies(journal.seq, journal.epoch, (local, *tiers))

    def _site(self, loop: asyncio.AbstractEventLoop, by: By) -> "Site":
        """What the doctor looks at. Called in a thread of its own; what it asks of finn is done on the loop."""
        from gateway.interior import Interior  # imported on use: no start needs the doctor

        own, lives = self._own, self._lives
        return Interior(own.settings, own.entrance.url, own.clock, lambda: lives.rooms, self.sources).site(loop, by)
