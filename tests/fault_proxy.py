"""A proxy on loopback before a server, which breaks what it is told to break.

    reset_before   the request is read and the connection broken; the server never saw it
    reset_after    the server answered, and the connection is broken instead of telling: the ambiguous one
    half           half of the answer's body, then the connection is broken
    blackhole      the request is read and nothing comes until the client leaves
    delay          the answer comes `seconds` later
    status         `status` with an S3 error's `code`, and the server never saw it
    flip           one bit of the answer's body is another one

    with FaultProxy(server.port) as proxy:
        proxy.add(Fault("reset_after", method="PUT", path=r"/log/", times=1))
        … proxy.endpoint …, then proxy.seen, proxy.requests

A fault applies to the requests that its method and path match, after the first `after` of them, `times` times (None:
always). The first fault that applies is the one that happens. `proxy.clear()` ends all of them, `proxy.cut()` breaks
the connections that are open. `proxy.away = True` breaks everything, as a store that is gone does.
"""

import contextlib
import re
import socket
import struct
import threading
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, NamedTuple, Self

UPSTREAM_S = 30.0
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"})

Kind = Literal["reset_before", "reset_after", "half", "blackhole", "delay", "status", "flip"]


@dataclass(frozen=True)
class Fault:
    """What happens to which requests."""

    kind: Kind
    method: str = ""
    path: str = ""
    times: int | None = 1
    after: int = 0
    status: int = 503
    code: str = "SlowDown"
    seconds: float = 0.0

    def fits(self, method: str, path: str) -> bool:
        return self.method in ("", method) and re.search(self.path, path) is not None


class Request(NamedTuple):
    """A request as it came, and what was done to it ("" for nothing)."""

    method: str
    path: str
    fault: str


class FaultProxy:
    """The proxy, in threads of this process. Safe to change from any thread."""

    def __init__(self, upstream: int, port: int = 0) -> None:
        self.upstream = upstream
        self.away = False
        self.requests: list[Request] = []
        self.leaving = threading.Event()
        self._faults: list[tuple[Fault, int]] = []  # with how many requests it has fitted
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._server = _Server(("127.0.0.1", port), _Exchange)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.leaving.set()
        self._server.shutdown()
        self.cut()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def seen(self) -> list[str]:
        """The faults that happened, in order."""
        return [request.fault for request in self.requests if request.fault]

    def add(self, *faults: Fault) -> None:
        with self._lock:
            self._faults += [(fault, 0) for fault in faults]

    def clear(self) -> None:
        """No fault from now on; the server is back."""
        with self._lock:
            self._faults, self.away = [], False

    def cut(self) -> None:
        """Breaks every connection that is open."""
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)

    def judge(self, method: str, path: str) -> Fault | None:
        """The fault for this request, which is thereby spent."""
        with self._lock:
            chosen = Fault("reset_before") if self.away else None
            for index, (fault, fitted) in enumerate(self._faults):
                if chosen is None and fault.fits(method, path):
                    self._faults[index] = (fault, fitted + 1)
                    within = fault.times is None or fitted < fault.after + fault.times
                    chosen = fault if fitted >= fault.after and within else None
            self.requests.append(Request(method, path, chosen.kind if chosen else ""))
            return chosen


class _Server(ThreadingHTTPServer):
    proxy: FaultProxy
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is what half of the tests here are about."""


class _Broken(Exception):
    """The connection ends here."""


class _Exchange(BaseHTTPRequestHandler):
    """One connection of a client: request after request, until one of them is broken."""

    server: _Server
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server.proxy.opened(self.connection)
        try:
            super().handle()
        except (_Broken, OSError):
            self.close_connection = True
        finally:
            self.server.proxy.closed(self.connection)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class has it so
        """Says nothing."""

    def _exchange(self) -> None:
        body = self.rfile.read(size := int(self.headers.get("Content-Length") or 0))
        if len(body) < size:
            raise _Broken  # the client left: half a request is none
        fault = self.server.proxy.judge(self.command, self.path)
        kind = fault.kind if fault else ""
        if kind == "reset_before":
            self._break()
        if kind == "blackhole":
            self._say_nothing()
        if fault and kind == "status":
            self._answer(fault.status, [("Content-Type", "application/xml")], _error(fault.code))
            return
        status, headers, data = self._ask(body)
        if kind == "reset_after":
            self._break()
        if fault and kind == "delay":
            self.server.proxy.leaving.wait(fault.seconds)
        if kind == "flip" and data:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self._answer(status, headers, data, half=kind == "half")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _exchange  # noqa: N815 - the base class looks for these names

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """The server's answer to the same request."""
        upstream = HTTPConnection("127.0.0.1", self.server.proxy.upstream, timeout=UPSTREAM_S)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    upstream.putheader(name, value)
            upstream.endheaders(body or None)
            answer: HTTPResponse = upstream.getresponse()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
            return answer.status, headers, answer.read()
        except OSError:
            raise _Broken from None  # the server is gone: so is the client's connection
        finally:
            upstream.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, *, half: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if half:
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            raise _Broken
        if self.command != "HEAD":
            self.wfile.write(data)

    def _break(self) -> None:
        """A reset: with lingering off and nothing to wait for, close sends RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _Broken

    def _say_nothing(self) -> None:
        """Until the client leaves, or the proxy does."""
        with contextlib.suppress(OSError):
            self.connection.recv(1)
        raise _Broken


def _error(code: str) -> bytes:
    return (
        f"<?xml version='1.0' encoding='UTF-8'?>\n<Error><Code>{code}</Code><Message>a fault</Message></Error>".encode()
    )
