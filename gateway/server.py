"""The listening side: uvicorn, with the limits that it does not have.

    connection ─▶ room? ─▶ Protocol ─┬▶ request ─▶ app ─▶ answer ─▶ next request on the same connection
      too many ──┘            │      └▶ upgrade ─▶ Socket ─▶ app
                              └▶ 400 408 421 431, said as a problem, then the connection lingers and closes

A request has RECEIVE_S from its first byte to its last. A connection that has asked for nothing yet gives way when its
address, or finn, is full, so that somebody who only holds connections open locks nobody out.

A stop: first signal ─▶ drain() ─▶ connections end ─▶ lifespan ends ─▶ 0; a second signal ends the waiting.
"""

import asyncio
import json
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from gateway.address import Network
from gateway.connections import DEFAULT_LIMITS, Connections, Limits
from gateway.doors import Headers, request_id, sealed
from gateway.listener import BACKLOG
from gateway.problem import MEDIA_TYPE, Refused, describe, retry_after
from persistence.clock import Entropy

KEEP_ALIVE_S = 5
LINGER_S = 2.0  #: how long a refused connection may still send, so that it gets to read why
MAX_MESSAGE = 2**20  #: bytes of a WebSocket message
PING_S = 20.0
LEAVING_S = 1  #: what open connections have left after the drain

logger = logging.getLogger("finn.server")


# Code and message of each refusal; an exception object that was raised twice would hold on to both callers.
HEADERS_TOO_LARGE = ("headers_too_large", "the request has more or longer headers than finn takes")
MALFORMED = ("bad_request", "this is not HTTP/1.1 as finn understands it")
NOT_ORIGIN_FORM = ("misdirected", "the request target is not a path")
TIMED_OUT = ("request_timeout", "the request did not arrive in time")
TOO_MANY = ("busy", "too many connections are open")


# ---------------------------------------------------------------- protocols


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 on one connection, within limits."""

    config: "Config"

    def __init__(self, config: "Config", *rest: Any, **named: Any) -> None:
        super().__init__(config, *rest, **named)
        self._limits = config.limits
        self._connections = config.connections
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._begun = False
        self._fed = 0  #: bytes of an unfinished head, from its second piece on
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._start_timer()
        if self._connections.enter(self, self.client[0] if self.client else ""):
            self._connections.idle(self)
        else:
            self._refuse(Refused(*TOO_MANY))

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._connections.leave(self)
        super().connection_lost(exc)

    def give_way(self) -> None:
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unset_keepalive_if_required()
        if self._is_idle():
            self._start_timer()
        continued = self._in_head
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
        except httptools.HttpParserError as error:
            self._refuse(error.__context__ if isinstance(error.__context__, Refused) else Refused(*MALFORMED))
        else:
            self._fed += len(data) if continued and self._in_head else 0
            if self._fed > self._limits.header_bytes:
                self._refuse(Refused(*HEADERS_TOO_LARGE))

    # What the parser calls. A Refused raised here ends up in data_received, as the context of the parser's own error.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._start_timer()
        self._in_head = self._begun = True
        self._fed = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer, which must not pass for a header that was checked
        super().on_header(name, value)
        if len(self.headers) > self._limits.headers:
            raise Refused(*HEADERS_TOO_LARGE)

    def on_headers_complete(self) -> None:
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self._limits.header_bytes:
            raise Refused(*HEADERS_TOO_LARGE)
        if not self.url.startswith(b"/"):
            raise Refused(*NOT_ORIGIN_FORM)
        super().on_headers_complete()
        self._in_head = False

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._stop_timer()
        self._begun = False
        if not self._is_idle():
            self._connections.busy(self)
        else:  # answered before its body was here, which has stopped what uvicorn counts from the answer on
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_idle():
            self._connections.idle(self)

    def handle_websocket_upgrade(self) -> None:
        self._unset_keepalive_if_required()  # a socket is meant to be silent for long
        self._connections.leave(self)
        super().handle_websocket_upgrade()

    def _is_idle(self) -> bool:
        """Whether no request waits for its answer."""
        return self.cycle is None or self.cycle.response_complete

    # The deadline, and the way out.

    def _start_timer(self) -> None:
        self._timer = self._timer or self.loop.call_later(self._limits.receive_s, self._late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self.flow.read_paused:
            self._start_timer()  # it is we who do not read
        elif self._begun:
            self._refuse(Refused(*TIMED_OUT))
        else:
            self.transport.close()

    def _refuse(self, error: Refused) -> None:
        """Says why, hangs up, and reads on for a while: closing on unread bytes would take the answer back."""
        self._refused = True
        self._stop_timer()
        unsaid = self._is_unanswered()
        if not self._is_idle():
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        logger.info("refused a connection", extra={"code": error.code, "address": self.client and self.client[0]})
        if unsaid:
            self.transport.write(told(error, self.config, self.headers or ()))
        self.flow.resume_reading()
        self.transport.write_eof()
        self._timer = self.loop.call_later(LINGER_S, self.transport.abort)

    def _is_unanswered(self) -> bool:
        """Whether what is said now would be taken for the answer to the request that is at fault."""
        if self._begun and not self._in_head:
            return self.cycle is None or not self.cycle.response_started
        return self._is_idle()


def told(error: Refused, config: "Config", headers: Headers) -> bytes:
    """The whole answer to a request that no app will see; `headers` are the request's, as far as they are known."""
    own_id = request_id(headers, config.entropy)
    problem = describe(error, own_id)
    body = json.dumps(problem).encode()
    wait = retry_after(error)
    own = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *([(b"retry-after", wait.encode())] if wait else []),
    ]
    lines = [b"%s: %s" % header for header in sealed(own, own_id)]
    status = f"HTTP/1.1 {problem['status']} {problem['title']}".encode()
    return b"\r\n".join([status, *lines, b"", body])


class Socket(WebSocketsSansIOProtocol):
    """A WebSocket that is counted like every other connection."""

    config: "Config"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.config.connections.enter(self, self.client[0] if self.client else "")

    def connection_lost(self, exc: Exception | None) -> None:
        self.config.connections.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.handshake_initiated:  # a body, or a line longer than websockets reads: it would fall silent
            self.transport.write(told(Refused(*MALFORMED), self.config, ()))
            self.transport.close()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.loop.call_later(LINGER_S, self.transport.abort)

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "websocket.close" and self.handshake_complete:
            # Whoever does not read is not waited for: neither before the close frame, nor until it has been taken.
            self.loop.call_later(self.close_timeout if self.writable.is_set() else LINGER_S, self.transport.abort)
            self.writable.set()
        await super().send(message)
        if self.initial_response and self.close_sent:
            self.handshake_complete = True  # uvicorn forgets it after a refusal, and would log an error of ours


# ---------------------------------------------------------------- the server


class Config(uvicorn.Config):
    """uvicorn as finn wants it, and what the protocols share."""

    def __init__(self, app: ASGIApp, *, limits: Limits, proxies: Collection[Network], entropy: Entropy) -> None:
        self.limits = limits
        self.connections = Connections(limits, proxies)
        self.entropy = entropy
        super().__init__(
            app,
            http=Protocol,
            ws=Socket,
            ws_max_size=MAX_MESSAGE,
            ws_per_message_deflate=False,
            ws_ping_interval=PING_S,
            ws_ping_timeout=PING_S,
            interface="asgi3",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=bool(proxies),
            forwarded_allow_ips=[form for each in proxies for form in both_forms(each)],
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=LEAVING_S,
            workers=1,
            backlog=BACKLOG,
        )


def both_forms(proxies: Network) -> tuple[str, ...]:
    """A network as uvicorn compares it: an IPv4 peer of an IPv6 socket has an IPv6 address."""
    if proxies.version == 6:
        return (str(proxies),)
    return str(proxies), f"::ffff:{proxies.network_address}/{96 + proxies.prefixlen}"


async def _nothing() -> None:
    return


class Server(uvicorn.Server):
    """Serves an app on a bound socket until it is told to stop."""

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        *,
        entropy: Entropy,
        drain: Callable[[], Awaitable[None]] = _nothing,
        budget_s: float = 8.0,
        proxies: Collection[Network] = (),
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """`drain` is awaited at the first signal, for `budget_s` at most, while requests are still answered."""
        super().__init__(Config(app, limits=limits, proxies=proxies, entropy=entropy))
        self._listener = listener
        self._drain = drain
        self._budget_s = budget_s
        self._stopping: asyncio.Task[None] | None = None
        self._failed = False

    def run_to_the_end(self) -> int:
        """Serves until a signal comes. The exit code: 0 after a clean stop, 1 if the start or the stop failed."""
        try:
            self.run([self._listener])
        except SystemExit:
            return 1  # the lifespan failed at the start, which is logged
        return 1 if self._failed or self.lifespan.shutdown_failed else 0

    async def serve_here(self) -> None:
        """The same in a loop that runs already, for tests and programs around it."""
        await self.serve([self._listener])

    def stop(self) -> None:
        """The first time: drain, then end. Again: end now."""
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._end())
        else:
            self.should_exit = self.force_exit = True
            self._stopping.cancel()

    async def _end(self) -> None:
        try:
            async with asyncio.timeout(self._budget_s):
                await self._drain()
        except TimeoutError:
            logger.warning("the drain did not end in time", extra={"budget_s": self._budget_s})
        except Exception:
            logger.exception("the drain failed")
            self._failed = True
        finally:
            self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.force_exit:
            await self.lifespan.shutdown()  # uvicorn leaves it out, but the log is to be closed in any case

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ours instead of uvicorn's, which raises the signal again at the end and so never exits 0."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
