"""What the commands print: an answer as it comes, a conversation."""

import json
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from gateway.client import Client, Unreachable
from persistence.clock import Ids, SystemClock, system_entropy
from persistence.events import Json

PROMPT = "you> "
SHOWN_CHARS = 100  #: of a tool's arguments
ENDS_WELL = ("stop", "length")


def say(client: Client, session: str, text: str) -> int:
    """Says one thing and prints the answer while it comes; 0 where the turn ended well."""
    with client.socket(session) as socket:
        return exchange(socket, text)


def converse(client: Client, session: str) -> int:
    """A conversation, until the input ends."""
    with client.socket(session) as socket:
        print(f"session {session}; an empty line or Ctrl-D ends it", file=sys.stderr)
        while True:
            try:
                text = input(PROMPT)
            except EOFError:
                return 0
            if not text.strip():
                return 0
            exchange(socket, text)


def exchange(socket: Any, text: str) -> int:
    """Sends a prompt and prints what follows until its turn ends."""
    request_id = Ids(SystemClock(), system_entropy).new()
    text = text.encode(errors="surrogateescape").decode(errors="replace")  # bytes of the terminal that are no UTF-8
    turn: str | None = None
    waits = ""  # what the turn waits for: finn says it again and again, and people want to hear it once
    for frame in _frames(socket, {"type": "prompt", "text": text, "request_id": request_id}):
        data = frame.get("data", {})
        if frame["type"] == "user_message" and data["request_id"] == request_id:
            turn = frame["turn"]
        elif frame["type"] == "error" and data.get("request_id") == request_id:
            print(f"finn: {data['message']}", file=sys.stderr)
            return 1
        elif turn is not None and frame.get("turn") == turn:
            if frame["type"] == "turn_end":
                return _ended(data)
            waiting = data["message"] if frame["type"] == "error" else ""
            if waiting and waiting != waits:
                print(f"finn: {waiting}; the answer waits for that", file=sys.stderr)
            waits = waiting
            _show(frame["type"], data)
    raise Unreachable("the connection ended before the turn did", hint="the turn goes on; say it in the page or again")


def _frames(socket: Any, said: Json) -> Iterator[Json]:
    """What comes back when something was said. Raises Unreachable with the reason that finn gave for hanging up."""
    from websockets.exceptions import ConnectionClosed

    try:
        socket.send(json.dumps(said))
        for text in socket:
            yield json.loads(text)
    except ConnectionClosed as closed:
        reason = closed.rcvd.reason if closed.rcvd else "it broke off"
        hint = "a turn that has begun goes on without it"
        raise Unreachable(f"finn closed the connection: {reason}", hint=hint) from closed


def _show(kind: str, data: Json) -> None:
    match kind:
        case "text_delta":
            print(data["delta"], end="", flush=True)
        case "message":
            print(flush=True)
        case "tool_start":
            print(f"  · {data['name']} {data['args'][:SHOWN_CHARS]}", file=sys.stderr)
        case "retry":
            print(f"\n  · {data['message']}; trying again", file=sys.stderr)


def _ended(data: Json) -> int:
    if data["stop_reason"] in ENDS_WELL:
        return 0
    error = data.get("error") or {}
    print(f"finn: the turn ended: {error.get('message') or data['stop_reason']}", file=sys.stderr)
    return 1


def pages(client: Client, session: str) -> Iterator[Json]:
    """Every message of a session."""
    after = "0"
    while after is not None:
        page = client.get(f"/api/sessions/{quote(session, safe='')}/messages?limit=1000&after={after}")
        yield from page["messages"]
        after = page["next"]
