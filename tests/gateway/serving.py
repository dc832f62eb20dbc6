"""A server on a free port of loopback, in the loop of the test, and a client that sends bytes as they are."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from gateway.address import Network
from gateway.auth import Auth
from gateway.body import parse_json
from gateway.connections import DEFAULT_LIMITS, Limits
from gateway.doors import NO_SOCKET, Closed, GuardFor, guards, layers
from gateway.listener import bind
from gateway.problem import EXCEPTION_HANDLERS
from gateway.routes.login import login_routes
from gateway.server import Server
from gateway.settings import read
from persistence.clock import Clock, FakeClock, system_entropy


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def problem(self) -> Any:
        assert self.headers["content-type"] == "application/problem+json", self
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.problem["code"])


@dataclass
class Site:
    """What is being served. `asked` lists what reached the code behind the checks."""

    port: int
    auth: Auth
    clock: Clock
    server: Server
    asked: list[str] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def origin(self) -> str:
        return f"http://{self.host}"

    @property
    def token(self) -> str:
        return self.auth.token.reveal()

    async def send(self, data: bytes) -> Answer:
        """Raw bytes, on a connection of their own."""
        async with self.connection() as (reader, writer):
            writer.write(data)
            return await read_answer(reader)

    async def ask(self, line: str, *headers: str, body: bytes = b"", host: str | None = None) -> Answer:
        """`ask("GET /", "Origin: x")`; the Host is ours and the length right unless it says otherwise."""
        own = [f"Host: {host or self.host}", *([f"Content-Length: {len(body)}"] if body else [])]
        return await self.send(request(line, *own, *headers) + body)

    async def ask_with_token(self, line: str, *headers: str, body: bytes = b"") -> Answer:
        return await self.ask(line, self.bearer(), *headers, body=body)

    async def post(self, path: str, value: object, *headers: str) -> Answer:
        return await self.ask(
            f"POST {path}", "Content-Type: application/json", *headers, body=json.dumps(value).encode()
        )

    async def upgrade(self, path: str, *headers: str, host: str | None = None) -> Answer:
        """Asks for a WebSocket; gives the answer to that."""
        return await self.ask(f"GET {path}", *UPGRADE, *headers, host=host)

    def bearer(self) -> str:
        return f"Authorization: Bearer {self.token}"

    def cookie(self) -> str:
        return f"Cookie: finn_session={self.auth.new_cookie()}"

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()


UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)


def request(line: str, *headers: str) -> bytes:
    return "\r\n".join((f"{line} HTTP/1.1", *headers, "", "")).encode("latin-1")


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Answer(int(first.split()[1]), headers, body)


async def close_code(reader: asyncio.StreamReader) -> int:
    """The code of a close frame, which is the next thing on an accepted socket."""
    first, length = await reader.readexactly(2)
    assert first == 0x88, f"not a close frame: {first:#x}"
    return int.from_bytes((await reader.readexactly(length))[:2], "big")


async def nothing() -> None:
    return


@asynccontextmanager
async def serving(
    folder: Path,
    *,
    environ: Mapping[str, str] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    proxies: Collection[Network] = (),
    drain: Callable[[], Awaitable[None]] = nothing,
    closed: Closed = lambda: None,
    routes: Sequence[BaseRoute] = (),
    guarded: Callable[[GuardFor], Sequence[BaseRoute]] = lambda guard: (),
) -> AsyncIterator[Site]:
    """The checks, the login and a few routes that note who reached them."""
    settings = read({"FINN_DATA_DIR": str(folder), "FINN_PORT": "0", **(environ or {})})
    clock = FakeClock()
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    auth = Auth.open(folder / "auth", clock=clock, entropy=system_entropy, token=settings.token)
    entrance = settings.entrance(port)
    guard = guards(auth, closed)
    asked: list[str] = []

    async def note(incoming: Request) -> Response:
        asked.append(f"{incoming.method} {incoming.url.path}")
        return PlainTextResponse("noted")

    async def echo(incoming: Request) -> Response:
        return JSONResponse(parse_json(await incoming.body()))

    async def fail(_: Request) -> Response:
        raise RuntimeError("the secret reason")

    async def talk(socket: WebSocket) -> None:
        asked.append(f"WS {socket.url.path}")
        await socket.accept()
        await socket.close(4404)

    app = Starlette(
        routes=[
            Route("/livez", note),
            Route("/health", note),
            Route("/", note),
            Route("/things", note, methods=["GET"], middleware=guard("read")),
            Route("/things", note, methods=["POST"], middleware=guard("chat")),
            Route("/things/{name}", note, methods=["DELETE"], middleware=guard("owner")),
            Route("/echo", echo, methods=["POST"], middleware=guard("chat")),
            Route("/fail", fail),
            *login_routes(auth, guard, secure=entrance.secure),
            *routes,
            *guarded(guard),
            WebSocketRoute("/ws/{session}", talk, middleware=guard("chat")),
            NO_SOCKET,
        ],
        middleware=layers(entrance, clock=clock, entropy=system_entropy),
        exception_handlers=EXCEPTION_HANDLERS,
    )
    server = Server(app, listener, entropy=system_entropy, drain=drain, proxies=proxies, limits=limits)
    running = asyncio.create_task(server.serve_here())
    while not server.started:
        await asyncio.sleep(0)
    try:
        yield Site(port, auth, clock, server, asked)
    finally:
        server.stop()
        await running
