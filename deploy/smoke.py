"""`scripts/smoke URL`: is the release that was just deployed there, and does it work?

    /health until releaseId is the expected one ─▶ /readyz ─▶ a session, a prompt, its turn to the end ─▶ GET /doctor

0 where all of it is as it should be; 1 with the one reason why not; 2 for a command line nobody can act on. It talks
as any client does, with the owner's token (FINN_TOKEN, or the data directory's own), and leaves nothing behind.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gateway import settings
from gateway.client import Answered, Client, Unreachable
from persistence.errors import FinnError, UsageError

PATIENCE = "5m"  #: a platform may pull an image, and a restore may be large
TURN_S = 120.0  #: for one answer of a model
ASK_S = 10.0  #: for one request
LOOK_S = 0.25  #: between two looks at a start
PROMPT = "This is the smoke test of a deployment. Answer with one short sentence."


class Failed(FinnError):
    """What was deployed is not what it should be."""

    code = "smoke"


@dataclass(frozen=True)
class Passed:
    """What was seen."""

    release: str
    stop_reason: str
    doctor: str

    def __str__(self) -> str:
        return f"release {self.release} answers: a turn ended with {self.stop_reason}, the doctor says {self.doctor}"


def smoke(client: Client, release: str | None, patience_s: float) -> Passed:
    """Waits for the release, then uses it. Raises Failed with what is wrong."""
    end = time.monotonic() + patience_s
    found = _awaited(lambda: _release(client, release), end)
    _awaited(lambda: _ready(client), end)
    return Passed(found, _turn(client, found), _doctor(client))


def release_at(client: Client) -> str:
    """The release that answers now. Raises Failed."""
    return _release(client, None)


# ---------------------------------------------------------------- one look


def _awaited(look: Callable[[], str], end: float) -> str:
    """What a look gives, once it gives anything. Raises Failed as the last look did."""
    while True:
        try:
            return look()
        except Failed:
            if time.monotonic() >= end:
                raise
        time.sleep(LOOK_S)


def _release(client: Client, wanted: str | None) -> str:
    try:
        health = client.get("/health", accept=(200, 503))
    except Answered as error:
        if error.code == "unauthorized":  # also in five minutes
            raise UsageError(f"it does not know the token: {error}", hint="set FINN_TOKEN to its owner's") from error
        raise Failed(f"it answers, and not how it is: {error}", hint="look at the log of its start") from error
    except (FinnError, ValueError) as error:
        raise Failed(f"nothing answers as finn does: {error}", hint="look at the log of its start") from error
    if "releaseId" not in health:  # whoever stands before it answers in its place
        told = health.get("detail", "no release is said")
        raise Failed(f"nothing answers as finn does: {told}", hint="look at the log of its start")
    found = str(health["releaseId"])
    if wanted is not None and found != wanted:
        raise Failed(f"release {found} answers, and {wanted} should", hint="the deployment has not replaced it")
    if health["status"] == "fail":
        bad = [f"{name}: {each[0].get('output', '')}" for name, each in _checks(health) if each[0]["status"] == "fail"]
        raise Failed(f"release {found} says that it fails: {'; '.join(bad)}", hint="GET /health tells more")
    return found


def _checks(health: Any) -> Sequence[tuple[str, Any]]:
    return sorted(health.get("checks", {}).items())


def _ready(client: Client) -> str:
    try:
        return client.download("/readyz").decode()
    except FinnError as error:
        raise Failed(f"it answers and takes no prompts: {error}", hint="GET /health tells more") from error


def _turn(client: Client, release: str) -> str:
    """A session, a prompt, its turn; the session is deleted again."""
    try:
        session = client.post("/api/sessions", {"title": f"smoke test of {release}"})["id"]
    except FinnError as error:
        raise Failed(f"it cannot write: {error}", hint="look at its disk and its store") from error
    try:
        return _exchange(client, session)
    finally:
        _forget(client, session)


def _exchange(client: Client, session: str) -> str:
    from websockets.exceptions import WebSocketException  # half of a second, needed from here on only

    end, turn = time.monotonic() + TURN_S, None
    asked = {"type": "prompt", "text": PROMPT, "request_id": f"smoke-{session}"}
    try:
        with client.socket(session) as socket:
            socket.send(json.dumps(asked))
            while True:
                frame = json.loads(socket.recv(max(0.0, end - time.monotonic())))
                data = frame.get("data", {})
                mine = data.get("request_id") == asked["request_id"]
                if frame["type"] == "error" and mine:
                    raise Failed(f"it takes no prompt: {data['message']}", hint="GET /health tells more")
                if frame["type"] == "user_message" and mine:
                    turn = frame["turn"]
                if frame["type"] == "turn_end" and frame["turn"] == turn:
                    return _ended(data)
    except TimeoutError as error:
        raise Failed(f"no turn ended within {TURN_S:g} s", hint="look at its model") from error
    except (WebSocketException, Unreachable, OSError) as error:
        raise Failed(f"the WebSocket broke off: {error}", hint="does a proxy let WebSockets pass?") from error


def _ended(data: Any) -> str:
    if data["stop_reason"] not in ("stop", "length"):
        told = (data.get("error") or {}).get("message") or data["stop_reason"]
        raise Failed(f"a turn ended badly: {told}", hint="GET /health tells how model, disk and store are")
    return str(data["stop_reason"])


def _forget(client: Client, session: str) -> None:
    try:
        client.delete(f"/api/sessions/{session}")
    except (Answered, Unreachable) as error:  # a chat token may not, and whatever else is wrong is told by the turn
        print(f"smoke: its session stays: {error}", file=sys.stderr)


def _doctor(client: Client) -> str:
    try:
        report = client.get("/doctor")
    except FinnError as error:
        raise Failed(f"the doctor does not answer: {error}", hint="look at its log") from error
    if report["overall"] == "fail":
        bad = [f"{each['id']}: {each['detail']}" for each in report["findings"] if each["severity"] == "fail"]
        raise Failed(f"the doctor found {'; '.join(bad)}", hint="finn doctor tells what to do")
    return str(report["overall"])


# ---------------------------------------------------------------- the command


def add_place(command: argparse.ArgumentParser) -> None:
    """What says which finn is meant, and how long it is waited for."""
    command.add_argument("url", help="where finn is, as people type it")
    command.add_argument("--timeout", default=PATIENCE, metavar="5m", help=f"how long a start may take ({PATIENCE})")
    command.add_argument("--data-dir", metavar="DIR", help="whose token is used where FINN_TOKEN is not set")


def client_of(args: argparse.Namespace) -> Client:
    """The finn that the arguments name. Raises FinnError where there is no token to ask it with."""
    said = settings.read(flags={"FINN_DATA_DIR": args.data_dir})
    return Client.find(said, args.url.rstrip("/"), ASK_S)


def seconds(text: str) -> float:
    """A duration of the command line. Raises UsageError."""
    try:
        return settings.duration(text)
    except ValueError as error:
        raise UsageError(f"--timeout {error} and not {text!r}", hint="it is how long a start may take") from None


def run(name: str, command: Callable[[], None]) -> int:
    """The exit code of a command; what went wrong is one line on stderr."""
    try:
        command()
    except FinnError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/smoke",
        description="Uses a deployed finn as a person would, and says in one line whether it works.",
        epilog="example: FINN_TOKEN=… scripts/smoke https://finn.example.org --release $(git rev-parse HEAD)",
    )
    add_place(parser)
    parser.add_argument("--release", metavar="ID", help="what /health must say; whatever is there otherwise")
    parser.add_argument("--which", action="store_true", help="only print the release that answers now")
    args = parser.parse_args(argv)

    def look() -> None:
        client = client_of(args)
        print(release_at(client) if args.which else f"smoke: {smoke(client, args.release, seconds(args.timeout))}")

    return run("smoke", look)


if __name__ == "__main__":
    sys.exit(main())
