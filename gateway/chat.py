"""The WebSocket of a session: frames out, prompts in.

    /ws/{session}[?after=SEQ&epoch=E]
    out   hello ─▶ (reset) ─▶ replay ─▶ live …        in   prompt · steer · follow_up · abort · ping

The socket is a window and owns nothing: close it and the turn goes on. A bad frame gets an `error` and the socket stays
open; a reader that does not keep up is closed with 1013 and comes back with its cursor.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from gateway.body import faults, parse_json
from gateway.caller import Caller, caller_of
from gateway.feed import Cursor, Feed
from gateway.frames import Frame, frame
from gateway.hub import Close, Hub
from gateway.problem import Refused
from gateway.rooms import Open, Rooms
from persistence.clock import Clock
from persistence.errors import FinnError, NotFound
from persistence.events import Json, Value
from persistence.subscription import Overrun

RATE = 20  #: frames a second from one client
SEND_S = 10.0  #: a frame that the client does not take for so long ends the socket
LEAVE_S = 1.0  #: for the last frame and the close

RequestId = Annotated[str, Field(min_length=1, max_length=256)]


class Say(Value):
    """Something that is said to the agent."""

    type: Literal["prompt", "steer", "follow_up"]
    text: str
    request_id: RequestId


class Abort(Value):
    """Ends the running turn."""

    type: Literal["abort"]
    request_id: RequestId | None = None


class Ping(Value):
    """Asks for a sign of life."""

    type: Literal["ping"]


Said = Annotated[Say | Abort | Ping, Field(discriminator="type")]
SAID: TypeAdapter[Say | Abort | Ping] = TypeAdapter(Said)


class Rate:
    """At most RATE frames in any second: a bucket that refills."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left = float(RATE)
        self._at = clock.monotonic()

    def take(self) -> bool:
        """Whether one more frame is within the rate."""
        now = self._clock.monotonic()
        self._left = min(RATE, self._left + (now - self._at) * RATE)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Chat:
    """One open socket on one session. To read it takes `read`, to say anything `chat`."""

    def __init__(self, socket: WebSocket, caller: Caller, rooms: Rooms, session: str, feed: Feed, clock: Clock) -> None:
        self._socket = socket
        self._caller = caller
        self._rooms = rooms
        self._session = session
        self._feed = feed
        self._rate = Rate(clock)
        self._sending = asyncio.Lock()
        self._ending: tuple[int, str] | None = None

    async def serve(self) -> None:
        """Sends and receives until one side ends it."""
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._send_all())
            receiving = group.create_task(self._receive_all())
            await asyncio.wait([sending, receiving], return_when=asyncio.FIRST_COMPLETED)
            sending.cancel()
            receiving.cancel()

    async def leave(self, code: int, reason: str, retry_ms: int | None = None) -> None:
        """Ends the socket; one that takes nothing any more, or is gone, is not waited for."""
        with suppress(TimeoutError, WebSocketDisconnect):
            async with asyncio.timeout(LEAVE_S):
                if retry_ms is not None:
                    await self._send({"type": "draining", "retry_ms": retry_ms})
                await self._close(code, reason)

    # ------------------------------------------------------------ out

    async def _send_all(self) -> None:
        try:
            async for one in self._feed:
                await self._send(one)
            await self._close(Close.RESTARTING, "restarting")  # this log ends here: another instance goes on with it
        except (Overrun, TimeoutError):
            await self._close(Close.TOO_SLOW, "too slow")
        except NotFound as gone:
            await self._close(Close.NO_SESSION, gone.message)

    async def _send(self, one: Frame) -> None:
        async with self._sending:
            if self._socket.application_state is WebSocketState.CONNECTED and self._ending is None:
                async with asyncio.timeout(SEND_S):
                    await self._socket.send_text(json.dumps(one, ensure_ascii=False, separators=(",", ":")))

    async def _close(self, code: int, reason: str) -> None:
        if self._socket.application_state is WebSocketState.CONNECTED and self._ending is None:
            self._ending = (code, reason)
            await self._socket.close(code, reason)

    async def _error(self, error: FinnError, request_id: str | None) -> None:
        data: dict[str, Json] = {"code": error.code, "message": str(error), "recoverable": True}
        await self._send({"type": "error", "data": {**data, **({"request_id": request_id} if request_id else {})}})

    # ------------------------------------------------------------ in

    async def _receive_all(self) -> None:
        while True:
            received = await self._socket.receive()
            if received["type"] == "websocket.disconnect":
                return
            request_id = None
            try:
                data = _data(received.get("text"))
                request_id = _request_id(data)
                if not self._rate.take():
                    raise Refused("rate_limited", f"more than {RATE} frames a second", hint="send it again, slower")
                await self._hear(_said(data))
            except FinnError as error:
                await self._error(error, request_id)

    async def _hear(self, said: Say | Abort | Ping) -> None:
        turns = self._rooms.turns
        if not isinstance(said, Ping):
            self._caller.require("chat")
        match said:
            case Ping():
                await self._send({"type": "pong"})
            case Abort():
                await turns.stop(self._session)
            case Say():
                accepted = await turns.say(self._session, said.text, said.request_id, said.type, by=self._caller.who)
                if accepted.repeated:
                    shown = frame(await self._rooms.journal.record_at(self._session, accepted.seq))
                    if shown is not None:
                        await self._send(shown)


def _data(text: str | None) -> Json:
    """The JSON of a client's frame. Raises Refused."""
    if text is None:
        raise Refused("invalid_json", "frames are text", hint="send JSON as text")
    return parse_json(text.encode(errors="surrogatepass"))


def _request_id(data: Json) -> str | None:
    """The request id of a frame, so that a refusal can name it."""
    request_id = data.get("request_id") if isinstance(data, dict) else None
    return request_id[:256] if isinstance(request_id, str) else None


def _said(data: Json) -> Say | Abort | Ping:
    """What a client's frame says. Raises Refused."""
    try:
        return SAID.validate_python(data)
    except ValidationError as error:
        hint = "frames are prompt, steer, follow_up, abort and ping"
        raise Refused("invalid_body", faults(error, "frame"), hint=hint) from None


def cursor_of(socket: WebSocket) -> Cursor | None:
    """The cursor in the URL; what is not a number counts as none."""
    after, epoch = socket.query_params.get("after", ""), socket.query_params.get("epoch", "")
    if not re.fullmatch(r"[0-9]{1,18}", after):
        return None
    return Cursor(int(after), int(epoch) if re.fullmatch(r"[0-9]{1,9}", epoch) else None)


def chat_endpoint(open_rooms: Open, hub: Hub, clock: Clock) -> Callable[[WebSocket], Awaitable[None]]:
    """The endpoint of `/ws/{session}`."""

    async def chat(socket: WebSocket) -> None:
        rooms, caller, session = open_rooms(), caller_of(socket), socket.path_params["session"]
        await socket.accept()
        try:
            feed = Feed(rooms, session, cursor_of(socket))
        except NotFound:
            await socket.close(Close.NO_SESSION, "there is no such session")
            return
        guest = Chat(socket, caller, rooms, session, feed, clock)
        hub.enter(guest, caller)
        try:
            await guest.serve()
        except* WebSocketDisconnect:
            pass  # the other side is gone, which is how most sockets end
        finally:
            hub.exit(guest)
            feed.close()

    return chat
