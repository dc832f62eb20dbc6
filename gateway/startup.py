"""What answers while finn itself is still being loaded.

    port open ─▶ probes are answered, everybody else waits ─▶ the app is built in a thread, its lifespan begins
                                                           ─▶ every request goes to the app

Half of a start is reading Python modules. None of them is needed to say that the process lives, so they come after the
port is open, and whoever asks for more meanwhile waits for that moment.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.doors import PROBES
from gateway.problem import EXCEPTION_HANDLERS, starting
from gateway.routes.health import MEDIA_TYPE

Build = Callable[[], Starlette]  #: imports and makes the app; waits for the disk
Watch = Callable[[], Coroutine[None, None, None]]


async def _nobody_watches() -> None:
    """What is not watched needs nothing."""


class Startup:
    """An ASGI app that hands over to the one that `build` gives, and begins and ends its lifespan.

    `failure` is what `build` raised; `on_failure` is called then. `watch` is run from beginning to end, also while the
    app is built.
    """

    def __init__(
        self,
        build: Build,
        on_failure: Callable[[], None],
        layers: Sequence[Middleware],
        release: Mapping[str, str],
        watch: Watch = _nobody_watches,
    ) -> None:
        self.failure: Exception | None = None
        self._build = build
        self._on_failure = on_failure
        self._watch = watch
        self._app: Starlette | None = None
        self._built = asyncio.Event()
        self._leaving = asyncio.Event()

        async def live(_: Request) -> Response:
            return PlainTextResponse("ok")

        async def refuse(_: Request) -> Response:
            raise starting()

        async def health(_: Request) -> Response:
            return JSONResponse({"status": "warn", **release, "output": "finn is starting"}, media_type=MEDIA_TYPE)

        self._own = Starlette(
            routes=[Route("/livez", live), Route("/health", health), Route("/{path:path}", refuse)],
            middleware=layers,
            exception_handlers=EXCEPTION_HANDLERS,
            lifespan=self._life,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._own(scope, receive, send)
            return
        if scope["path"] not in PROBES:
            await self._built.wait()
        await (self._app or self._own)(scope, receive, send)

    @asynccontextmanager
    async def _life(self, _: Starlette) -> AsyncIterator[None]:
        watching, opening = asyncio.create_task(self._watch()), asyncio.create_task(self._open())
        try:
            yield
        finally:
            self._leaving.set()
            await opening
            watching.cancel()
            await asyncio.wait([watching])

    async def _open(self) -> None:
        try:
            app = await asyncio.to_thread(self._build)
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever runs this tells it
            self.failure = error
            self._built.set()
            self._on_failure()
            return
        async with app.router.lifespan_context(app):
            self._app = app
            self._built.set()
            await self._leaving.wait()
