"""A real S3 server on loopback: moto behind werkzeug, with what moto leaves out.

    with S3Server() as server:
        store = open_store(f"s3://{server.bucket()}/prefix", server.access())

`server.stop()` and `server.start()` take it away and bring it back on the same port, with what it held.
`S3Server(conditional=False)` ignores If-None-Match, as several servers do that call themselves compatible.
As a process: `python -m tests.s3_server --port 0 [--bucket NAME]` prints `PORT` and serves until it is killed.
"""

import argparse
import io
import itertools
import logging
import threading
from collections.abc import Callable, Iterable
from http.client import HTTPConnection
from typing import Any, Self

from werkzeug.serving import BaseWSGIServer, make_server

from persistence.store import Access

KEY_ID = "AKIDCANARYEXAMPLE"
SECRET = "canary/secret+of+the+tests"

_numbers = itertools.count(1)


class S3Server:
    """The server, in a thread of this process. Buckets are its own: their names are never given twice."""

    def __init__(self, *, conditional: bool = True, port: int = 0) -> None:
        self._conditional = conditional
        self._port = port
        self._one_put = threading.Lock()
        self._app: Callable[..., Iterable[bytes]] | None = None
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        return self._port

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def access(self, endpoint: str = "") -> Access:
        """What a store needs to get in, here or through a proxy before it."""
        return Access(endpoint or self.endpoint, "us-east-1", KEY_ID, SECRET)

    def bucket(self, name: str = "") -> str:
        """The name of a new bucket."""
        name = name or f"bucket-{next(_numbers):04d}"
        connection = HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("PUT", f"/{name}", headers={"Authorization": authorization()})
            assert connection.getresponse().status == 200
        finally:
            connection.close()
        return name

    def start(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = make_server("127.0.0.1", self._port, self._answer, threaded=True, request_handler=_handling())
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
        self._server = None

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """moto looks and then writes; between the two another thread would win the same name a second time."""
        if not self._conditional:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        if environ["REQUEST_METHOD"] != "PUT":
            return self._moto()(environ, start_response)
        size = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(size)
        if len(body) < size:
            start_response("400 Bad Request", [("Content-Length", "0"), ("Connection", "close")])
            return []  # the client left: half an object is none, and nobody waits for the rest of it
        environ["wsgi.input"] = io.BytesIO(body)
        with self._one_put:
            return self._moto()(environ, start_response)

    def _moto(self) -> Callable[..., Iterable[bytes]]:
        if self._app is None:
            from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

            self._app = DomainDispatcherApplication(create_backend_app)
        return self._app


def _handling() -> Any:
    from moto.moto_server.werkzeug_app import MotoRequestHandler

    class Kept(MotoRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept, as by every store there is

    return Kept


def authorization() -> str:
    """moto looks at the service's name in it and at nothing else."""
    return f"AWS4-HMAC-SHA256 Credential={KEY_ID}/20261121/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


def main() -> None:
    parser = argparse.ArgumentParser(description="serves S3 on loopback until it is killed")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--bucket", action="append", default=[])
    options = parser.parse_args()
    with S3Server(port=options.port) as server:
        for name in options.bucket:
            server.bucket(name)
        print(f"PORT {server.port}", flush=True)  # noqa: T201 - the parent waits for this line
        threading.Event().wait()


if __name__ == "__main__":
    main()
