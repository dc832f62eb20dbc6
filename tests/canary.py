"""A small web server on an address of this machine, that notes who came. With an Authority it speaks TLS.

    with Canary(answer) as canary:              answer(request) gives the pieces of an answer, as bytes
        canary.url, canary.hits, canary.requests

A test asks it to see that something was sent, and exactly what, or that nobody ever connected.
"""

import datetime
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PATIENCE_S = 20.0


@dataclass(frozen=True)
class Request:
    """What was asked; names of headers in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answering = Callable[[Request], Iterable[bytes]]


def answer(status: int = 200, *headers: str, body: bytes = b"ok") -> list[bytes]:
    """An answer that is whole."""
    lines = (f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers, "", "")
    return ["\r\n".join(lines).encode() + body]


def well(_: Request) -> Iterable[bytes]:
    return answer()


class Canary:
    """The server. Every connection counts as a hit, whatever becomes of it."""

    def __init__(
        self,
        answering: Answering = well,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        authority: "Authority | None" = None,
        names: Sequence[str] = (),
    ) -> None:
        self.answering = answering
        self.hits = 0
        self.requests: list[Request] = []
        self.names: list[str | None] = []  # what clients asked for by SNI
        self._scheme = "https" if authority else "http"
        self._host = host
        self._context = authority.context(names or (host,), self.names) if authority else None
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{self._scheme}://{host}:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE_S)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.hits += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE_S)
        with suppress(OSError, ValueError):
            wrapped = self._context.wrap_socket(connection, server_side=True) if self._context else connection
            with wrapped, wrapped.makefile("rb") as stream:
                request = _read(stream)
                self.requests.append(request)
                for piece in self.answering(request):
                    wrapped.sendall(piece)
        connection.close()


def _read(stream: Any) -> Request:
    method, target, _ = stream.readline().decode().split()
    headers: dict[str, str] = {}
    while line := stream.readline().decode().strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Request(method, target, headers, stream.read(int(headers.get("content-length", 0))))


class Authority:
    """Who says that a certificate is right: for one test, and trusted by nobody else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "finn's tests")])
        self._count = 0
        self.path = folder / "authority.pem"
        made = self._signed(self._name, self._key, x509.BasicConstraints(ca=True, path_length=None), ())
        self.path.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def trusted(self) -> ssl.SSLContext:
        """What a client trusts that trusts us alone."""
        return ssl.create_default_context(cafile=str(self.path))

    def context(self, names: Sequence[str], asked: list[str | None]) -> ssl.SSLContext:
        """What a server of these names speaks with; the names that clients ask for go into `asked`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        made = self._signed(subject, key, x509.BasicConstraints(ca=False, path_length=None), names)
        self._count += 1
        path = self._folder / f"server-{self._count}.pem"
        plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path.write_bytes(key.private_bytes(*plain) + made.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        context.sni_callback = lambda _, name, __: asked.append(name)
        return context

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        constraints: x509.BasicConstraints,
        names: Sequence[str],
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(constraints, critical=True)
            .add_extension(own, critical=False)
            .add_extension(issuer, critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(one) for one in names]), False)
        return builder.sign(self._key, hashes.SHA256())


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
