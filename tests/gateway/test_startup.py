"""Startup on a real server: who is answered while the app is built, who waits, and what happens if it never is."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gateway.listener import bind
from gateway.server import Server
from gateway.startup import Startup
from persistence.clock import system_entropy
from persistence.errors import UsageError
from tests.gateway.serving import Answer, read_answer, request


class Gate:
    """A build that takes as long as the test wants, and the life of what it built."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.life: list[str] = []

    def build(self) -> Starlette:
        self.open.wait()
        return Starlette(routes=[Route("/{path:path}", self._inside)], lifespan=self._living)

    async def _inside(self, incoming: Request) -> Response:
        return PlainTextResponse(f"inside {incoming.url.path}")

    @asynccontextmanager
    async def _living(self, _: Starlette) -> AsyncIterator[None]:
        self.life.append("opened")
        yield
        self.life.append("closed")


@asynccontextmanager
async def standing(build: Callable[[], Starlette]) -> AsyncIterator[tuple[Startup, Server, int]]:
    listener = bind("127.0.0.1", 0)
    startup = Startup(build, lambda: setattr(server, "should_exit", True), (), {"version": "9"})
    server = Server(startup, listener, entropy=system_entropy)
    running = asyncio.create_task(server.serve_here())
    while not server.started:
        await asyncio.sleep(0)
    try:
        yield startup, server, listener.getsockname()[1]
    finally:
        server.stop()
        await running


async def ask(port: int, path: str) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(f"GET {path}", "Host: x"))
    answer = await read_answer(reader)
    writer.close()
    return answer


async def test_probes_are_answered_while_the_app_is_built_and_everybody_else_is_let_in_then() -> None:
    gate = Gate()
    async with standing(gate.build) as (_, _, port):
        waiting = asyncio.create_task(ask(port, "/page"))
        assert (await ask(port, "/livez")).body == b"ok"
        assert (await ask(port, "/readyz")).code == "starting"
        health = await ask(port, "/health")
        assert (health.status, health.body) == (200, b'{"status":"warn","version":"9","output":"finn is starting"}')
        assert not waiting.done()
        gate.open.set()
        assert (await waiting).body == b"inside /page"
        assert (await ask(port, "/livez")).body == b"inside /livez"


async def test_the_app_is_opened_and_closed_with_the_server() -> None:
    gate = Gate()
    gate.open.set()
    async with standing(gate.build) as (_, _, port):
        await ask(port, "/page")
        assert gate.life == ["opened"]
    assert gate.life == ["opened", "closed"]


async def test_an_app_that_cannot_be_built_ends_the_server_and_says_why() -> None:
    def build() -> Starlette:
        raise UsageError("FINN_MODEL=x is no model")

    async with standing(build) as (startup, server, _):
        while not server.should_exit:
            await asyncio.sleep(0)
        assert isinstance(startup.failure, UsageError)
