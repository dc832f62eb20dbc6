"""A git server on the loopback, as GitHub is one: smart HTTP by `git http-backend`, behind a user and a password.

    with GitServer(folder, user="me", password="…") as server:  server.url("state.git")

It can also be a bad one: `silent` takes requests and never answers, `status` answers everything with an error,
`elsewhere` redirects. `seen` are the Authorization headers that came, `asked` the paths.
"""

import base64
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any


class GitServer:
    """Repositories below a folder, over HTTP."""

    def __init__(self, folder: Path, user: str = "", password: str = "") -> None:
        self.seen: list[str | None] = []
        self.asked: list[str] = []
        self.silent = False
        self.status = 0
        self.elsewhere = ""
        self.folder = folder
        self.expected = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}" if password else None
        self.over = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _requests(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/{name}"

    def __enter__(self) -> "GitServer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def _requests(server: GitServer) -> type[BaseHTTPRequestHandler]:
    class Request(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self) -> None:
            given = self.headers.get("Authorization")
            server.seen.append(given)
            server.asked.append(self.path)
            if server.silent:
                server.over.wait()
            elif server.status:
                self._say(server.status)
            elif server.elsewhere:
                self._say(302, ("Location", f"{server.elsewhere}{self.path}"))
            elif server.expected is not None and given != server.expected:
                self._say(401, ("WWW-Authenticate", 'Basic realm="git"'))
            else:
                self._backend()

        def _say(self, status: int, *headers: tuple[str, str]) -> None:
            self.send_response(status)
            for name, value in (*headers, ("Content-Length", "0")):
                self.send_header(name, value)
            self.end_headers()

        def _backend(self) -> None:
            path, _, query = self.path.partition("?")
            environment = {
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(server.folder),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_NOSYSTEM": "1",
                "REMOTE_USER": "somebody",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            }
            done = subprocess.run(
                ["git", "http-backend"], input=self._body(), capture_output=True, env=environment, check=False
            )
            head, _, body = done.stdout.partition(b"\r\n\r\n")
            fields = [line.partition(": ") for line in head.decode().split("\r\n") if line]
            status = next((value for name, _, value in fields if name == "Status"), "200 OK")
            self.send_response(int(status.split()[0]))
            for name, _, value in fields:
                if name != "Status":
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "") == "chunked":
                pieces = []
                while size := int(self.rfile.readline(), 16):
                    pieces.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(pieces)
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    return Request
