"""What a request has to pass before it means anything, in the contract's order.

    Envelope   request id, security headers, access log; what nobody else answers is answered here
    Doors      Host (421), then Origin for whatever could change something (403)
    routing    404, 405
    Guard      not open (503), token (401, 429), scope (403), size (413); then the body, by whoever reads it
    Stay      what was let in is looked at again before each frame of a socket and each piece of a stream

Pure ASGI: nothing here holds a request back or buffers it. An upgrade is refused before it happens, by the same answer
that a request gets; without a valid token it is accepted and closed 4401, because a browser cannot read a status there.
"""

import logging
import re
from collections.abc import Callable, Iterable, Sequence

from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Connection
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.auth import Auth, has_credentials, is_by_cookie
from gateway.body import MAX_BODY
from gateway.caller import CALLER, Caller, Scope
from gateway.hub import Close
from gateway.logs import REQUEST_ID
from gateway.problem import Refused, answer, internal
from gateway.settings import Entrance
from persistence.clock import Clock, Entropy
from persistence.errors import FinnError

Headers = Iterable[tuple[bytes, bytes]]
GuardFor = Callable[[Scope | None], Sequence[Middleware]]  #: what a route needs, to what stands before it
Closed = Callable[[], FinnError | None]  #: why nobody is let in at this moment; None where finn is open
Answered = Callable[[Connection, int, float], None]  #: hears of each answer: its status, and how many seconds it took

CSP = (
    "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'; "
    "require-trusted-types-for 'script'; trusted-types dompurify lit-html"
)
#: On every answer that does not say otherwise itself.
SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-security-policy", CSP.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
OWN_SITES = ("same-origin", "none")  #: of Sec-Fetch-Site: our page, or typed by a person
PROBES = ("/livez", "/readyz", "/health")
REQUEST_ID_BYTES = 8
PROTO = (
    b"x-finn-proto",
    b"1",
)  #: version of what we and who stands before us expect of one another (deploy/cloudflare)
SWITCHED, LEFT = 101, 499  #: in the access log: an accepted socket; a caller who did not wait for the answer

access = logging.getLogger("finn.access")
logger = logging.getLogger("finn.doors")


# ---------------------------------------------------------------- the envelope


def request_id(headers: Headers, entropy: Entropy) -> str:
    """The caller's own X-Request-Id if it is one that can be told and logged, else a new one."""
    sent = next((value for name, value in headers if name == b"x-request-id"), b"").decode("latin-1")
    return sent if re.fullmatch(r"[A-Za-z0-9._:+/=@-]{1,128}", sent) else entropy(REQUEST_ID_BYTES).hex()


def sealed(headers: Headers, own_id: str) -> list[tuple[bytes, bytes]]:
    """The headers of an answer with the id, our version, and what it does not carry itself of SECURITY_HEADERS."""
    headers = list(headers)
    present = {name.lower() for name, _ in headers}
    missing = [(name, value) for name, value in SECURITY_HEADERS if name not in present]
    return [*headers, *missing, PROTO, (b"x-request-id", own_id.encode())]


class Envelope:
    """The outermost layer. Whatever goes wrong below, the caller gets an answer and the log gets the reason."""

    def __init__(self, app: ASGIApp, *, clock: Clock, entropy: Entropy, answered: Answered) -> None:
        self._app = app
        self._clock = clock
        self._entropy = entropy
        self._answered = answered

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        began = self._clock.monotonic()
        own_id = request_id(scope["headers"], self._entropy)
        REQUEST_ID.set(own_id)
        status = 0

        async def seal(message: Message) -> None:
            nonlocal status
            if message["type"] in STARTS:
                status = message.get("status", SWITCHED)
                message = {**message, "headers": sealed(message.get("headers", ()), own_id)}
            await send(message)

        try:
            await self._app(scope, receive, seal)
        except (ClientDisconnect, WebSocketDisconnect):
            status = status or LEFT
        except Exception as error:
            if status not in (0, SWITCHED):
                raise  # half an answer is out: uvicorn logs the error and cuts the connection
            logger.error("a request failed", exc_info=error, extra={"path": scope["path"]})
            await _apologise(scope, receive, seal, accepted=status == SWITCHED)
        seconds = self._clock.monotonic() - began
        self._answered(scope, status, seconds)
        log_answer(scope, status, seconds)


async def _apologise(scope: Connection, receive: Receive, send: Send, *, accepted: bool) -> None:
    if accepted:
        await send({"type": "websocket.close", "code": Close.FAILED, "reason": "internal"})
    else:
        await answer(internal())(scope, receive, send)


def log_answer(scope: Connection, status: int, seconds: float) -> None:
    """One line for each answer, without the query. Probes ask all the time and are told about in debug only."""
    level = logging.DEBUG if scope["path"] in PROBES else logging.INFO
    fields = {
        "method": scope.get("method", "WS"),
        "path": scope["path"],
        "status": status,
        "ms": round(seconds * 1000, 1),
        "address": scope["client"][0] if scope.get("client") else None,
        "actor": scope[CALLER].who.actor if CALLER in scope else None,
    }
    access.log(level, "answered", extra=fields)


# ---------------------------------------------------------------- Host and Origin


class Doors:
    """Lets in what names one of our hosts and comes from one of our pages, or from no page at all."""

    def __init__(self, app: ASGIApp, *, entrance: Entrance) -> None:
        self._app = app
        self._entrance = entrance

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        refused = None if scope["type"] == "lifespan" else refusal(HTTPConnection(scope), self._entrance)
        await (answer(refused) if refused else self._app)(scope, receive, send)


def refusal(connection: HTTPConnection, entrance: Entrance) -> Refused | None:
    """Why a request is not let in, if it is not."""
    if not is_host_allowed(connection, entrance):
        return Refused(
            "misdirected",
            "finn is not known by the Host that this request names",
            hint=f"use {entrance.url}, or add the host to FINN_ALLOWED_HOSTS",
        )
    if not is_origin_allowed(connection, entrance):
        return Refused(
            "forbidden_origin",
            "this request comes from a page that is not finn's",
            hint=f"use {entrance.url}, or add the origin to FINN_ALLOWED_ORIGINS",
        )
    return None


def is_host_allowed(connection: HTTPConnection, entrance: Entrance) -> bool:
    """Exactly one Host, and one of ours. Probes often know no name, so without a token they may do without."""
    hosts = connection.headers.getlist("host")
    is_probe = connection.scope["path"] in PROBES and not has_credentials(connection)
    return len(hosts) <= 1 and (is_probe or (len(hosts) == 1 and hosts[0].lower() in entrance.hosts))


def is_origin_allowed(connection: HTTPConnection, entrance: Entrance) -> bool:
    """Whether something that may change something comes from our page or from a program.

    The comparison is exact: a browser writes an origin in one way only. A cookie comes from a browser, and a browser
    names the origin of each upgrade: a cookie without one is somebody pretending.
    """
    is_upgrade = connection.scope["type"] == "websocket"
    if not is_upgrade and connection.scope["method"] in SAFE_METHODS:
        return True
    origins = connection.headers.getlist("origin")
    if origins:
        return len(origins) == 1 and origins[0] in entrance.origins
    if connection.headers.get("sec-fetch-site", "none") not in OWN_SITES:
        return False
    return not (is_upgrade and is_by_cookie(connection))


# ---------------------------------------------------------------- token, scope, size


class Guard:
    """Stands before one route. `need` is the scope that opens it; None is a route for everybody."""

    def __init__(self, app: ASGIApp, *, auth: Auth, need: Scope | None, closed: Closed) -> None:
        self._app = app
        self._auth = auth
        self._need = need
        self._closed = closed

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        is_socket = scope["type"] == "websocket"
        closed = self._closed()
        if closed is not None:
            if is_socket:
                await _accept_and_close(receive, send, Close.RESTARTING, closed.code)
                return
            raise closed
        try:
            caller = self._admitted(connection, self._need) if self._need is not None else None
        except Refused as refused:
            if is_socket and refused.code != "forbidden_scope":
                await _accept_and_close(receive, send, Close.UNAUTHORIZED, refused.code)
                return
            raise
        receive = receive if is_socket else limited(connection, receive)
        if caller is not None:
            scope[CALLER] = caller
            stay = Stay(lambda: self._auth.stands(caller), receive, send)
            receive, send = stay.receive, stay.send
        await self._app(scope, receive, send)

    def _admitted(self, connection: HTTPConnection, need: Scope) -> Caller:
        caller = self._auth.identify(connection)
        caller.require(need)
        return caller


class Stay:
    """Permission to stay: a socket or a stream ends before its next frame, in or out, once it stands no longer.

    A request means nothing before all of it is here, so its body is a frame as well. An answer that is sent in one
    piece is not held back: it was due when it was asked for.
    """

    def __init__(self, stands: Callable[[], bool], receive: Receive, send: Send) -> None:
        self._stands = stands
        self._receive = receive
        self._send = send
        self._over = False

    async def receive(self) -> Message:
        """What the client sends, or that it is gone. Raises Refused `unauthorized` for the rest of a request."""
        message = await self._receive()
        if message["type"] == "http.request" and not self._stands():
            what = "the token was taken back, or ended, before all of this was here"
            raise Refused("unauthorized", what, hint="`finn token` prints a login link")
        if message["type"] != "websocket.receive" or (not self._over and self._stands()):
            return message
        await self._close()
        return {"type": "websocket.disconnect", "code": Close.UNAUTHORIZED, "reason": "unauthorized"}

    async def send(self, message: Message) -> None:
        """Passes a message on. Raises ClientDisconnect where it would go on with a stream."""
        is_frame = message["type"] == "websocket.send"
        if self._over or ((is_frame or message.get("more_body")) and not self._stands()):
            await (self._close() if message["type"].startswith("websocket") else self._end())
        else:
            await self._send(message)

    async def _close(self) -> None:
        if not self._over:
            self._over = True
            await self._send({"type": "websocket.close", "code": Close.UNAUTHORIZED, "reason": "unauthorized"})

    async def _end(self) -> None:
        if not self._over:
            self._over = True
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        raise ClientDisconnect


async def _accept_and_close(receive: Receive, send: Send, code: int, reason: str) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": code, "reason": reason})


def limited(connection: HTTPConnection, receive: Receive) -> Receive:
    """`receive` for at most MAX_BODY bytes. Raises Refused `too_large`, at once where the length is declared."""
    if int(connection.headers.get("content-length", 0)) > MAX_BODY:
        raise _too_large()
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY:
            raise _too_large()
        return message

    return receive_limited


def _too_large() -> Refused:
    return Refused("too_large", f"the body is larger than {MAX_BODY} bytes", hint="send less at a time")


# ---------------------------------------------------------------- what the composition needs


def layers(
    entrance: Entrance, *, clock: Clock, entropy: Entropy, answered: Answered = lambda *_: None
) -> Sequence[Middleware]:
    """The layers around the router, outermost first."""
    envelope = Middleware(Envelope, clock=clock, entropy=entropy, answered=answered)
    return (envelope, Middleware(Doors, entrance=entrance))


def guards(auth: Auth, closed: Closed) -> GuardFor:
    """What routes put before themselves: `Route(…, middleware=guard("chat"))`, and `guard(None)` where all may come."""

    def guard(need: Scope | None) -> Sequence[Middleware]:
        return (Middleware(Guard, auth=auth, need=need, closed=closed),)

    return guard


async def _no_socket(_: WebSocket) -> None:
    raise Refused("not_found", "there is no socket at this path", hint="it is /ws/SESSION")


#: The last route: an upgrade anywhere else is told 404, where Starlette would say 403.
NO_SOCKET = WebSocketRoute("/{path:path}", _no_socket)
