"""The one way from finn to an address that a person, a page or a program gave: checked, bounded, and without disguise.

    URL ─ place ─▶ host ─ resolve, once ─▶ addresses ─ judge, all of them ─▶ connect to one of these ─▶ TLS for the name
     ▲                                                                                                      │
     └───────────── a redirect: resolved and judged anew, never from https to http, a few of them ◀─────────┘

What is asked again by name after it was judged could answer something else, so a connection is made to the very address
that was judged. One public and one private address for the same name are a trap: the name is refused. No proxy, no
cookie, no credential in a URL; what authorizes at one place is not carried to another. An answer is taken as it comes,
never unpacked, and both its bytes and its time are counted in all.

Everything here waits for the network: call it in a thread.
"""

import http.client
import io
import re
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import urljoin

from agent.public import Address, is_public
from persistence.clock import Clock
from persistence.errors import OutboundFailed, OutboundRefused

PORTS = MappingProxyType({"http": 80, "https": 443})
URL = re.compile(
    r"(?P<scheme>[A-Za-z]+)://(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>[/?][!-\"$-\[\]-~]*)?(?:#[!-~]*)?"
)  #: printable ASCII without a backslash; no @, so that no name stands where a reader looks for the host
HEADER = re.compile(r"[\t -~]*")
FOLLOWED = (301, 302, 303, 307, 308)
REPEATED = (307, 308)  #: the same request again, with its body
KEPT_ELSEWHERE = ("accept", "content-type", "user-agent")  #: the headers that another host is sent after a redirect
USER_AGENT = "finn"
TRIED = 3  #: addresses of one name that are tried
CONNECT_S = 5.0  #: for each

Headers = Mapping[str, str]
Resolve = Callable[[str, int], Sequence[str]]  #: the addresses of a host; raises OSError
Judge = Callable[[Address], bool]
NONE: Headers = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may cost, with all its redirects: time, and bytes of each answer, head and body together."""

    seconds: float = 10.0
    bytes: int = 64 * 1024
    redirects: int = 3


@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL leads. `origin` may be shown; `target` may be a secret."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        """As the Host header has it."""
        return self.host if self.port == PORTS[self.scheme] else f"{self.host}:{self.port}"

    @property
    def name(self) -> str:
        """The host as it is resolved and as its certificate has it."""
        return self.host.strip("[]").removesuffix(".")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; names of headers in lower case, the body as it was sent."""

    status: int
    headers: Headers
    body: bytes


def place_of(url: str, schemes: Sequence[str] = tuple(PORTS)) -> Place:
    """Where a URL leads. Raises OutboundRefused for one that is not plainly written, and never shows it."""
    match = URL.fullmatch(url)
    if match is None:
        raise OutboundRefused("that is no plain URL", hint="write it like https://host/path, without user or password")
    scheme, host, port = match["scheme"].lower(), match["host"].lower(), match["port"]
    if scheme not in schemes:
        raise OutboundRefused(f"the URL is not {' or '.join(schemes)}", hint="nothing else is asked")
    number = int(port) if port else PORTS[scheme]
    if not 0 < number < 65536:
        raise OutboundRefused(f"{number} is no port")
    target = match["target"] or "/"
    return Place(scheme, host, number, target if target[0] == "/" else f"/{target}")


def addresses_of(host: str, port: int) -> Sequence[str]:
    """The addresses that this machine finds for a host. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Outbound:
    """Asks addresses outside. May be used in any thread, by several at once.

    `resolve`, `judge` and `trust` are the machine's own resolver, the table of public addresses and the machine's own
    certificates, unless a test says otherwise; no setting does.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        schemes: Sequence[str] = ("https",),
        limits: Limits = Limits(),
        resolve: Resolve = addresses_of,
        judge: Judge = is_public,
        trust: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        self._clock = clock
        self._schemes = schemes
        self._limits = limits
        self._resolve = resolve
        self._judge = judge
        self._trust = trust

    def send(self, method: str, url: str, headers: Headers = NONE, body: bytes = b"") -> Answer:
        """The answer, whatever its status. Raises OutboundRefused where finn does not go, and OutboundFailed."""
        place, end = place_of(url, self._schemes), self._clock.monotonic() + self._limits.seconds
        for _ in range(self._limits.redirects + 1):
            answer = self._ask(place, method, headers, body, end)
            if answer.status not in FOLLOWED or "location" not in answer.headers:
                return answer
            if method not in ("GET", "HEAD") and answer.status not in REPEATED:
                what = f"{place.origin} answers {method} with a redirect ({answer.status}) that would lose what is said"
                raise OutboundRefused(what, hint="set the URL that it leads to")
            there = self._redirected(place, answer.headers["location"])
            if there.origin != place.origin:
                headers = {name: value for name, value in headers.items() if name.lower() in KEPT_ELSEWHERE}
            place = there
        raise OutboundRefused(f"{place.origin} redirects more than {self._limits.redirects} times")

    def _redirected(self, here: Place, location: str) -> Place:
        try:
            there = place_of(urljoin(here.origin + here.target, location), tuple(PORTS))
        except (OutboundRefused, ValueError):
            raise OutboundRefused(f"{here.origin} redirects to what is no plain URL") from None
        if there.scheme not in self._schemes or (here.scheme, there.scheme) == ("https", "http"):
            raise OutboundRefused(f"{here.origin} redirects to {there.scheme}", hint="what is encrypted stays so")
        return there

    # ------------------------------------------------------------ one request

    def _ask(self, place: Place, method: str, headers: Headers, body: bytes, end: float) -> Answer:
        request = _written(place, method, headers, body)
        try:
            with self._connected(place, self._checked(place), end) as connection:
                connection.settimeout(self._left(end))
                connection.sendall(request)
                return self._read(_Wire(connection, lambda: self._left(end), self._limits.bytes), method)
        except OSError as error:
            raise OutboundFailed(f"{place.origin} gives no answer: {str(error) or type(error).__name__}") from None
        except (http.client.HTTPException, ValueError) as error:
            # What it said instead is not repeated: it may be of any length, and what opens the place may be in it.
            raise OutboundFailed(f"{place.origin} gives no answer that is HTTP: {type(error).__name__}") from None

    def _checked(self, place: Place) -> Sequence[str]:
        """Every address of the host, each of them public. Raises OutboundRefused, OSError, UnicodeError."""
        found = self._resolve(place.name, place.port)
        for one in found:
            if not self._judge(ip_address(one)):
                what = f"{place.origin} is at {one}, which is no public address"
                raise OutboundRefused(what, hint="finn sends to public addresses only")
        return found

    def _connected(self, place: Place, addresses: Sequence[str], end: float) -> socket.socket:
        """A connection to one of these addresses, encrypted where the scheme says so."""
        trouble: OSError = OSError("it has no address")
        for address in addresses[:TRIED]:
            try:
                connection = socket.create_connection((address, place.port), min(CONNECT_S, self._left(end)))
                break
            except OSError as error:
                trouble = error
        else:
            raise trouble
        if place.scheme == "http":
            return connection
        try:
            connection.settimeout(self._left(end))
            return self._context.wrap_socket(connection, server_hostname=place.name)
        except BaseException:
            connection.close()
            raise

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return self._trust()

    def _read(self, wire: "_Wire", method: str) -> Answer:
        response = http.client.HTTPResponse(cast(socket.socket, wire), method=method)
        try:
            response.begin()
            body = response.read(self._limits.bytes + 1)
            if response.length:
                raise http.client.IncompleteRead(body, response.length)
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, body)
        finally:
            response.close()

    def _left(self, end: float) -> float:
        """The seconds that are left. Raises TimeoutError."""
        left = end - self._clock.monotonic()
        if left <= 0:
            raise TimeoutError(f"it takes longer than {self._limits.seconds:g} s")
        return left


class _Wire(io.RawIOBase):
    """The bytes of one answer: no read outlasts the time that is left, and all together are `most` bytes."""

    def __init__(self, connection: socket.socket, left: Callable[[], float], most: int) -> None:
        self._connection = connection
        self._left = left
        self._room = most

    def makefile(self, _: str) -> io.BufferedReader:
        """What http.client asks a socket for."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(self._left())
        count = self._connection.recv_into(memoryview(buffer)[: self._room + 1])
        self._room -= count
        if self._room < 0:
            raise OSError("it says more than finn listens to")
        return count


def _written(place: Place, method: str, headers: Headers, body: bytes) -> bytes:
    """The request as it goes over the wire. Raises OutboundRefused for a header that is more than a line."""
    said = {
        "Host": place.authority,
        "User-Agent": USER_AGENT,
        "Accept-Encoding": "identity",
        "Connection": "close",
        **headers,
        **({"Content-Length": str(len(body))} if body or method not in ("GET", "HEAD") else {}),
    }
    if not all(HEADER.fullmatch(f"{name}{value}") for name, value in said.items()):
        raise OutboundRefused("a header holds what no header may")
    lines = (f"{method} {place.target} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items()), "", "")
    return "\r\n".join(lines).encode("ascii") + body
