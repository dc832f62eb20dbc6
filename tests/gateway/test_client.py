"""What the commands ask of a gateway elsewhere."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from gateway.client import Client, Unreachable

Seen = list[tuple[str, str | None, str | None]]  #: path, Authorization, X-Wake


@contextmanager
def listening() -> Iterator[tuple[str, Seen]]:
    """A server that has nothing to say, and what it was asked."""
    seen: Seen = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers["Authorization"], self.headers["X-Wake"]))
            body = json.dumps({"status": "pass"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads along."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("below", "base"), [("", ""), ("/", ""), ("/a/main", "/a/main"), ("/a/main/", "/a/main")])
def test_a_finn_is_found_under_a_path_and_woken(below: str, base: str) -> None:
    with listening() as (url, seen):
        client = Client(url + below, "token")
        assert client.get("/health") == {"status": "pass"}
        with pytest.raises(Unreachable), client.socket("01ABC"):
            pass
    assert seen == [(f"{base}/health", "Bearer token", "1"), (f"{base}/ws/01ABC", "Bearer token", "1")]
