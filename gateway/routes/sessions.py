"""Sessions, their messages, and what is said to them, over HTTP."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from agent.mirror import export
from agent.session import SESSIONS, Session
from agent.turns import Accepted
from gateway.body import read_model
from gateway.caller import Caller, caller_of
from gateway.doors import GuardFor
from gateway.export import markdown
from gateway.feed import HEARTBEAT_S, Cursor, Feed
from gateway.frames import Frame, failure
from gateway.hub import Hub
from gateway.problem import Refused
from gateway.rooms import Open, Rooms
from gateway.transcript import backwards, forwards
from persistence.clock import iso
from persistence.errors import NotFound
from persistence.events import Json, SessionCreated, SessionDeleted, SessionRenamed, SessionRestored, Value
from persistence.subscription import Moment, Overrun

LIMIT = 100
LIMIT_MOST = 1000
ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")

Title = Annotated[str, Field(max_length=200)]


class NewSession(Value):
    title: Title = ""


class Renaming(Value):
    title: Title


class Prompt(Value):
    text: str


def session_routes(rooms: Open, readers: Hub, guard: GuardFor) -> Sequence[BaseRoute]:
    """Every route below /api/sessions. `readers` counts the event streams that are open."""

    async def create(request: Request) -> Response:
        new = await read_model(request, NewSession)
        session = rooms().ids.new()
        record = await rooms().turns.record(SessionCreated(title=new.title), session, caller_of(request).who)
        body = {"id": session, "title": new.title, "created_at": iso(record.time / 1000), "seq": record.seq}
        return JSONResponse(body, 201)

    async def listed(request: Request) -> Response:
        limit, states = limit_of(request), rooms().journal.streams(SESSIONS)
        everything = sorted(((one.updated_at, session) for session, one in states.items() if one.exists), reverse=True)
        after = request.query_params.get("after")
        mark = _mark(after) if after else None
        rest = [one for one in everything if mark is None or one < mark]
        shown = rest[:limit]
        following = f"{shown[-1][0]}.{shown[-1][1]}" if len(rest) > limit else None
        return JSONResponse({"sessions": [view(one, states[one]) for _, one in shown], "next": following})

    async def show(request: Request) -> Response:
        session, state = found(rooms(), request)
        return JSONResponse({**view(session, state), "usage": state.usage.model_dump(mode="json")})

    async def rename(request: Request) -> Response:
        session, _ = found(rooms(), request)
        title = (await read_model(request, Renaming)).title
        await rooms().turns.record(SessionRenamed(title=title), session, caller_of(request).who)
        rooms().journal.announce(session, Moment("session", None, {"id": session, "title": title}))
        return JSONResponse(view(session, rooms().turns.session(session)))

    async def delete(request: Request) -> Response:
        session, _ = found(rooms(), request)
        await rooms().turns.record(SessionDeleted(), session, caller_of(request).who)
        return Response(status_code=204)

    async def restore(request: Request) -> Response:
        session = session_id(request)
        state = rooms().journal.streams(SESSIONS).get(session)
        if state is None or not state.created_seq:
            raise unknown(session)
        if state.deleted:
            await rooms().turns.record(SessionRestored(), session, caller_of(request).who)
        return JSONResponse(view(session, rooms().turns.session(session)))

    async def messages(request: Request) -> Response:
        session, _ = found(rooms(), request)
        journal, limit, notes = rooms().journal, limit_of(request), request.query_params.get("notes") == "true"
        before = request.query_params.get("before")
        head = {"epoch": journal.epoch, "seq": journal.seq}
        if before is not None:
            page = await backwards(journal, session, number(before, "before"), limit, notes)
        else:
            after = number(request.query_params.get("after", "0"), "after")
            page = await forwards(journal, session, after, limit, notes)
        return JSONResponse({"messages": page.messages, "next": page.next, "prev": page.prev, **head})

    async def say(request: Request) -> Response:
        session, _ = found(rooms(), request)
        prompt = await read_model(request, Prompt)
        request_id = request.headers.get("idempotency-key") or rooms().ids.new()
        if len(request_id) > 256:
            raise Refused("invalid_body", "Idempotency-Key is longer than 256 characters", hint="use a UUID")
        accepted = await rooms().turns.say(session, prompt.text, request_id, by=caller_of(request).who)
        if request.query_params.get("wait") != "true":
            return JSONResponse({"turn": accepted.turn, "seq": accepted.seq}, 202)
        return JSONResponse(await outcome(rooms(), session, accepted))

    async def stop(request: Request) -> Response:
        session, _ = found(rooms(), request)
        return JSONResponse({"stopped": await rooms().turns.stop(session)})

    async def events(request: Request) -> Response:
        session, _ = found(rooms(), request)
        feed = Feed(rooms(), session, cursor_of(request))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        stream = EventStream(feed, rooms().journal.epoch)
        return StreamingResponse(
            stream.sent(readers, caller_of(request)), media_type="text/event-stream", headers=headers
        )

    async def exported(request: Request) -> Response:
        session, state = found(rooms(), request)
        kind = request.query_params.get("format", "md")
        if kind not in ("md", "jsonl"):
            raise Refused("invalid_body", f"format is md or jsonl, not {kind[:32]!r}", hint="?format=md")
        journal = rooms().journal
        if kind == "jsonl":
            body, media = await export(journal, session, state, rooms().workspace), "application/x-ndjson"
        else:
            body, media = await markdown(journal, session, state), "text/markdown; charset=utf-8"
        headers = {"Content-Disposition": f'attachment; filename="{session}.{kind}"'}
        return Response(body, media_type=media, headers=headers)

    base, one = "/api/sessions", "/api/sessions/{session}"
    return (
        Route(base, create, methods=["POST"], middleware=guard("chat")),
        Route(base, listed, methods=["GET"], middleware=guard("read")),
        Route(one, show, methods=["GET"], middleware=guard("read")),
        Route(one, rename, methods=["PATCH"], middleware=guard("chat")),
        Route(one, delete, methods=["DELETE"], middleware=guard("owner")),
        Route(f"{one}/restore", restore, methods=["POST"], middleware=guard("owner")),
        Route(f"{one}/messages", messages, methods=["GET"], middleware=guard("read")),
        Route(f"{one}/messages", say, methods=["POST"], middleware=guard("chat")),
        Route(f"{one}/stop", stop, methods=["POST"], middleware=guard("chat")),
        Route(f"{one}/events", events, methods=["GET"], middleware=guard("read")),
        Route(f"{one}/export", exported, methods=["GET"], middleware=guard("read")),
    )


def view(session: str, state: Session) -> dict[str, Json]:
    """A session as the contract has it."""
    return {
        "id": session,
        "title": state.title,
        "created_at": iso(state.created_at / 1000),
        "updated_at": iso(state.updated_at / 1000),
        "messages": state.messages,
        "turn": state.running.turn if state.running else None,
    }


async def outcome(rooms: Rooms, session: str, accepted: Accepted) -> dict[str, Json]:
    """The answer of `?wait=true`: how the turn ended, whatever its end."""
    ended = await rooms.turns.outcome(session, accepted)
    return {
        "turn": accepted.turn,
        "seq": accepted.seq,
        "reply": ended.reply,
        "stop_reason": ended.ended.stop_reason,
        **failure(ended.ended.error),
        "usage": ended.ended.usage.model_dump(mode="json"),
    }


class EventStream:
    """A feed as server-sent events."""

    def __init__(self, feed: Feed, epoch: int) -> None:
        self._feed = feed
        self._epoch = epoch
        self._last: Frame | None = None

    async def leave(self, code: int, reason: str, retry_ms: int | None = None) -> None:
        """Ends it, once what was on its way has been sent."""
        if retry_ms is not None:
            self._last = {"type": "draining", "retry_ms": retry_ms}
        self._feed.close()

    async def sent(self, readers: Hub, caller: Caller) -> AsyncIterator[str]:
        """Event after event; a comment now and then keeps proxies from hanging up."""
        frames = aiter(self._feed)
        waiting: asyncio.Task[Frame] | None = None
        readers.enter(self, caller)
        try:
            while True:
                waiting = waiting or asyncio.ensure_future(anext(frames))
                done, _ = await asyncio.wait([waiting], timeout=HEARTBEAT_S)
                if not done:
                    yield ": still here\n\n"
                    continue
                frame, waiting = waiting.result(), None
                yield self._event(frame)
        except StopAsyncIteration:
            if self._last is not None:
                yield self._event(self._last)
        except (Overrun, NotFound):
            return
        finally:
            readers.exit(self)
            if waiting is not None:
                waiting.cancel()
            self._feed.close()

    def _event(self, frame: Frame) -> str:
        is_record = "seq" in frame and frame["type"] not in ("hello", "reset")
        name = f"id: {self._epoch}-{frame['seq']}\n" if is_record else ""
        return f"{name}event: {frame['type']}\ndata: {json.dumps(frame, ensure_ascii=False)}\n\n"


def cursor_of(request: Request) -> Cursor | None:
    """The cursor of `Last-Event-ID` (EPOCH-SEQ), else of `?after=SEQ&epoch=E`."""
    match = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,18})", request.headers.get("last-event-id", ""))
    if match:
        return Cursor(int(match[2]), int(match[1]))
    after, epoch = request.query_params.get("after"), request.query_params.get("epoch")
    if after is None:
        return None
    return Cursor(number(after, "after"), number(epoch, "epoch") if epoch else None)


def session_id(request: Request) -> str:
    """The id in the path. Raises NotFound for what is not one of ours."""
    session: str = request.path_params["session"]
    if not ULID.fullmatch(session):
        raise unknown(session)
    return session


def found(rooms: Rooms, request: Request) -> tuple[str, Session]:
    """The session that the path names. Raises NotFound."""
    session = session_id(request)
    return session, rooms.turns.session(session)


def unknown(session: str) -> NotFound:
    return NotFound(f"there is no session {session[:64]!r}", hint="GET /api/sessions lists them")


def limit_of(request: Request) -> int:
    """`?limit`, 1 to 1000, 100 where it is not given. Raises Refused."""
    limit = number(request.query_params.get("limit", str(LIMIT)), "limit")
    if not 1 <= limit <= LIMIT_MOST:
        raise Refused("invalid_body", f"limit is {limit}", hint=f"1 to {LIMIT_MOST}")
    return limit


def number(text: str, name: str) -> int:
    """A number of the query. Raises Refused."""
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise Refused("invalid_body", f"{name} is not a number", hint="use the value that the last page gave")
    return int(text)


def _mark(text: str) -> tuple[int, str]:
    match = re.fullmatch(r"([0-9]{1,15})\.([0-9A-Z]{26})", text)
    if not match:
        raise Refused("invalid_body", "after is not a cursor of this list", hint="use the `next` of the last page")
    return int(match[1]), match[2]
