"""Asks a running gateway, for the commands: HTTP and one WebSocket, with the owner's token.

DATA_DIR/run.json ─▶ url          DATA_DIR/auth/token or FINN_TOKEN ─▶ Authorization

The address may have a path, where finn stands under one. A finn that sleeps is woken, also to be asked how it is.
"""

import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from gateway.settings import Settings, strong_token
from persistence.errors import Damaged, FinnError, NotFound, UsageError
from persistence.events import Json

TIMEOUT_S = 30.0
LOOK_S = 5.0  #: for what is answered from memory


class Unreachable(FinnError):
    """No gateway answers."""

    code = "unreachable"
    retryable = True


class Answered(FinnError):
    """The gateway answered with a problem."""

    def __init__(self, problem: Json) -> None:
        super().__init__(problem.get("detail", "the request failed"), hint=problem.get("hint", ""))
        self.code = problem.get("code", "internal")


def running(data_dir: Path) -> Any:
    """What run.json says of a gateway whose process lives, or None.

    A note that came with a copy of a data directory tells of the original, and is none.
    """
    try:
        note = json.loads((data_dir / "run.json").read_text())
        os.kill(note["pid"], 0)
        urlsplit(note["url"])
        here = data_dir.stat().st_ino
        if note.get("inode", here) != here:
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):  # no process, or no note of ours
        return None
    return note


class Client:
    """One gateway."""

    def __init__(self, url: str, token: str, timeout_s: float = TIMEOUT_S) -> None:
        """Raises UsageError for what is no URL."""
        try:
            self._url = urlsplit(url)
            usable = self._url.scheme in ("http", "https") and self._url.hostname and self._url.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise UsageError(f"{url} is not the address of a finn", hint="say it as http://HOST:PORT")
        self._base = self._url.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}", "X-Wake": "1"}
        self._timeout_s = timeout_s

    @classmethod
    def find(cls, settings: Settings, url: str | None, timeout_s: float = TIMEOUT_S) -> "Client":
        """The gateway at `url`, or the one that runs on the data directory.

        Raises Unreachable, NotFound, UsageError, or Damaged where the file does not hold a token.
        """
        note = running(settings.data_dir)
        if url is None and note is None:
            what = f"no finn is running on {settings.data_dir}"
            raise Unreachable(what, hint="start it with finn serve, or say --data-dir for another")
        path = settings.data_dir / "auth" / "token"
        if settings.token is None and not path.is_file():
            raise NotFound(f"there is no token in {path}", hint="set FINN_TOKEN to the owner's token")
        try:
            token = settings.token or strong_token(path.read_text(errors="replace").strip())
        except ValueError as error:
            hint = "`finn token --rotate` makes a new one"
            raise Damaged(f"{path} does not hold a token: it {error}", hint=hint) from None
        return cls(url or note["url"], token.reveal(), timeout_s)

    def get(self, path: str, accept: Collection[int] = (200,)) -> Any:
        """The JSON at a path. Raises Answered, Unreachable."""
        return json.loads(self._request("GET", path, None, accept))

    def post(self, path: str, body: Json) -> Any:
        """The JSON answer to a JSON body. Raises Answered, Unreachable."""
        return json.loads(self._request("POST", path, json.dumps(body).encode(), (200, 201, 202)))

    def patch(self, path: str, body: Json) -> Any:
        """The JSON answer to a change. Raises Answered, Unreachable."""
        return json.loads(self._request("PATCH", path, json.dumps(body).encode(), (200,)))

    def delete(self, path: str) -> None:
        """Asks for something to go. Raises Answered, Unreachable."""
        self._request("DELETE", path, None, (204,))

    def download(self, path: str) -> bytes:
        """The bytes at a path. Raises Answered, Unreachable."""
        return self._request("GET", path, None, (200,))

    def _request(self, method: str, path: str, body: bytes | None, accept: Collection[int]) -> bytes:
        make = HTTPSConnection if self._url.scheme == "https" else HTTPConnection
        connection = make(self._url.hostname or "", self._url.port, timeout=self._timeout_s)
        try:
            connection.request(method, self._base + path, body, {**self._headers, "Content-Type": "application/json"})
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, HTTPException) as error:
            raise self._silent(error) from error
        finally:
            connection.close()
        if answer.status not in accept:
            raise Answered(_problem(data, answer.status))
        return data

    @contextmanager
    def socket(self, session: str) -> Iterator[Any]:
        """The session's WebSocket, as the `websockets` library gives it. Raises Unreachable."""
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import connect

        scheme = "wss" if self._url.scheme == "https" else "ws"
        try:
            opened = connect(
                f"{scheme}://{self._url.netloc}{self._base}/ws/{quote(session, safe='')}",
                additional_headers=self._headers,
                compression=None,
                max_size=None,
            )
        except (OSError, WebSocketException) as error:
            raise self._silent(error) from error
        with opened:
            yield opened

    def _silent(self, error: Exception) -> Unreachable:
        """Something listens there and says nothing, or nothing does."""
        hint = "finn doctor says what is wrong" if isinstance(error, TimeoutError) else "is finn running there?"
        return Unreachable(f"{self._url.geturl()} does not answer: {error}", hint=hint)


def _problem(data: bytes, status: int) -> Json:
    try:
        problem = json.loads(data)
    except ValueError:
        problem = None
    return problem if isinstance(problem, dict) else {"detail": f"the answer was {status}"}
