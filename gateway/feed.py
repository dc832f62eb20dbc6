"""A session as a stream of frames, for WebSocket and SSE alike.

    hello ─▶ (reset) ─▶ records after the cursor ─▶ live frames

hello.seq is the last seq at the moment of subscribing, so frames up to it are replay. A cursor that is not part of this
log's history gets `reset`: what comes after that seq is to be forgotten, and replay starts there.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

from agent.session import Session, queue
from gateway.frames import Frame, clip, frame
from gateway.rooms import Rooms
from persistence.events import Json, Record, SessionDeleted
from persistence.reigns import Reigns
from persistence.subscription import Subscription

PROTOCOL = 1
HEARTBEAT_S = 20


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last seq that a reader saw, and the reign in which it saw it (None: the present one)."""

    seq: int
    epoch: int | None = None


def settle(cursor: Cursor, reigns: Reigns, epoch: int, head: int) -> int | None:
    """Where a reader goes on whose cursor is not part of this history; None if it is."""
    seen = epoch if cursor.epoch is None else cursor.epoch
    if reigns.holds(seen, cursor.seq, head):
        return None
    return head if seen == epoch else min(reigns.last_of(seen), head)


class Feed:
    """One reader's frames. It subscribes when it is first asked for one; `close` ends it."""

    def __init__(self, rooms: Rooms, session: str, cursor: Cursor | None) -> None:
        """Raises NotFound."""
        rooms.turns.session(session)
        self._rooms = rooms
        self._session = session
        self._cursor = cursor
        self._subscription: Subscription | None = None
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[Frame]:
        """Frames in order. Raises Overrun for a reader that does not keep up, NotFound when the session is deleted."""
        journal, turns, cursor = self._rooms.journal, self._rooms.turns, self._cursor
        reset = settle(cursor, journal.reigns, journal.epoch, journal.seq) if cursor else None
        after = None if cursor is None else cursor.seq if reset is None else reset
        subscription = self._subscription = journal.subscribe(self._session, after)
        if self._closed:
            self.close()
        yield _hello(self._rooms, self._session, turns.session(self._session))
        if reset is not None:
            yield {"type": "reset", "seq": reset}
        async for item in subscription:
            made = frame(item)
            if made is not None:
                yield made
            if isinstance(item, Record) and isinstance(item.event, SessionDeleted):
                turns.session(self._session)  # gone, unless this is the past and it was restored since

    def close(self) -> None:
        """Ends the subscription, or keeps it from beginning."""
        self._closed = True
        if self._subscription is not None:
            self._rooms.journal.unsubscribe(self._session, self._subscription)


def _hello(rooms: Rooms, session: str, state: Session) -> Frame:
    return {
        "type": "hello",
        "protocol": PROTOCOL,
        "session": session,
        "epoch": rooms.journal.epoch,
        "seq": rooms.journal.seq,
        "heartbeat_s": HEARTBEAT_S,
        "queue": queue(state),
        "turn": _running(rooms, session, state),
    }


def _running(rooms: Rooms, session: str, state: Session) -> Json:
    if state.running is None:
        return None
    live = rooms.turns.live(session)
    return {
        "id": state.running.turn,
        "text_so_far": "".join(live.text) if live else "",
        "thinking_so_far": "".join(live.thinking) if live else "",
        "tools": [
            {"call": call.id, "name": call.name, "args": clip(json.dumps(call.arguments))[0]}
            for call in (live.calls.values() if live else ())
        ],
    }
