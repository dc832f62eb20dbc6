"""Beads over HTTP: as `br --json` prints them, less its line breaks.

GET /api/beads[/ready], /api/beads/{id}     the file is looked at before, so that what was just edited is seen
POST /api/beads, PATCH /api/beads/{id}      durable before the answer
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.body import read_model
from gateway.caller import caller_of
from gateway.doors import GuardFor
from gateway.problem import Refused
from gateway.rooms import Open, recorded
from persistence.bead import Bead
from persistence.bead_file import BeadFile
from persistence.beads import Beads
from persistence.clock import Clock
from persistence.errors import NotFound
from persistence.events import Value
from persistence.ready import ORDERS, SORTS, Query, is_among, ready, select
from persistence.show import counted, detailed
from scheduler.health import Fact

LIMIT, LIMIT_MOST = 100, 1000
LOOK_MOST_S = 1.0  #: what a silent store keeps from being merged keeps nobody waiting
SHOWN = 3  #: stale beads that a warning names


class Edge(Value):
    """A dependency on another bead."""

    depends_on_id: str
    type: str = "blocks"


class Fields(Value):
    """What can be set of a bead."""

    description: str | None = None
    design: str | None = None
    acceptance_criteria: str | None = None
    notes: str | None = None
    status: str | None = None
    priority: int | None = None
    issue_type: str | None = None
    assignee: str | None = None
    owner: str | None = None
    estimated_minutes: int | None = None
    due_at: str | None = None
    defer_until: str | None = None
    external_ref: str | None = None
    labels: tuple[str, ...] | None = None
    parent: str | None = None
    dependencies: tuple[Edge, ...] | None = None


class New(Fields):
    title: str
    ephemeral: bool = False
    created_by: str | None = None


class Change(Fields):
    title: str | None = None
    add_labels: tuple[str, ...] | None = None
    remove_labels: tuple[str, ...] | None = None
    remove_dependencies: tuple[str, ...] | None = None
    close_reason: str | None = None
    closed_by_session: str | None = None
    comment: str | None = None
    claim: bool | None = None
    force: bool | None = None
    actor: str | None = None
    if_updated_at: str | None = None


def bead_routes(rooms: Open, clock: Clock, guard: GuardFor) -> Sequence[BaseRoute]:
    """Every route below /api/beads."""

    async def looked() -> Beads:
        looking = asyncio.ensure_future(rooms().bead_file.attempt())
        looking.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait([looking], timeout=LOOK_MOST_S)
        if looking.done():
            looking.result()
        return rooms().beads

    async def listed(request: Request) -> Response:
        beads = await looked()
        found = select(beads.board.beads.values(), query_of(request, SORTS), beads.now)
        return JSONResponse(counted(found[: limit_of(request)], beads.board.beads))

    async def what_is_ready(request: Request) -> Response:
        beads, query = await looked(), query_of(request, ORDERS)
        found = [bead for bead in ready(beads.board.beads, beads.now, query.sort or "hybrid") if is_among(bead, query)]
        return JSONResponse(counted(found[: limit_of(request)], beads.board.beads))

    async def show(request: Request) -> Response:
        board = (await looked()).board.beads
        return JSONResponse(detailed(board[named(request, board)], board))

    async def create(request: Request) -> Response:
        beads, new = await looked(), await read_model(request, New)
        made = beads.create(new.model_dump(mode="json", exclude_unset=True), caller_of(request).who)
        bead = await recorded(rooms(), clock, made)
        return JSONResponse(counted([bead], beads.board.beads)[0], 201)

    async def change(request: Request) -> Response:
        beads, asked = await looked(), await read_model(request, Change)
        fields = asked.model_dump(mode="json", exclude_unset=True, exclude={"actor"})
        name = named(request, beads.board.beads)
        changed = beads.update(name, fields, caller_of(request).who, asked.actor or "")
        bead = await recorded(rooms(), clock, changed)
        return JSONResponse(counted([bead], beads.board.beads)[0])

    base, one = "/api/beads", "/api/beads/{bead}"
    return (
        Route(base, listed, methods=["GET"], middleware=guard("read")),
        Route(base, create, methods=["POST"], middleware=guard("chat")),
        Route(f"{base}/ready", what_is_ready, methods=["GET"], middleware=guard("read")),
        Route(one, show, methods=["GET"], middleware=guard("read")),
        Route(one, change, methods=["PATCH"], middleware=guard("chat")),
    )


def named(request: Request, beads: Mapping[str, Bead]) -> str:
    """The whole id in the path; a part of one is for people to type. Raises NotFound."""
    name: str = request.path_params["bead"]
    if name not in beads:
        raise NotFound(f"there is no bead {name[:64]!r}", hint="GET /api/beads lists them")
    return name


def query_of(request: Request, sorts: Iterable[str]) -> Query:
    """The filters of a list: as the options of `br list` are called. Raises Refused."""
    asked = request.query_params
    sort = asked.get("sort", "")
    if sort and sort not in sorts:
        raise Refused("invalid_body", f"sort is not {sort[:32]!r}", hint=f"there are {', '.join(filter(None, sorts))}")
    return Query(
        statuses=tuple(asked.getlist("status")),
        types=tuple(asked.getlist("type")),
        priorities=tuple(_priority(text) for text in asked.getlist("priority")),
        ids=tuple(asked.getlist("id")),
        labels=tuple(asked.getlist("label")),
        labels_any=tuple(asked.getlist("label_any")),
        assignee=asked.get("assignee", ""),
        unassigned=asked.get("unassigned") == "true",
        title_contains=asked.get("title_contains", ""),
        desc_contains=asked.get("desc_contains", ""),
        notes_contains=asked.get("notes_contains", ""),
        overdue=asked.get("overdue") == "true",
        everything=asked.get("all") == "true",
        deleted=asked.get("deleted") == "true",
        sort=sort,
        reverse=asked.get("reverse") == "true",
    )


def _priority(text: str) -> int:
    if text.upper().removeprefix("P") not in ("0", "1", "2", "3", "4"):
        raise Refused("invalid_body", f"{text[:32]!r} is no priority", hint="0 to 4, where 0 is the most urgent")
    return int(text.upper().removeprefix("P"))


def limit_of(request: Request) -> int | None:
    """How many; 0 is all of them, as br has it."""
    text = request.query_params.get("limit", str(LIMIT))
    if not text.isascii() or not text.isdigit() or len(text) > 4 or int(text) > LIMIT_MOST:
        raise Refused("invalid_body", f"limit is not {text[:32]!r}", hint=f"it is 0, for all, to {LIMIT_MOST}")
    return int(text) or None


# ---------------------------------------------------------------- facts


def bead_facts(beads: Beads, file: BeadFile) -> Iterable[Fact]:
    """What health tells of them."""
    found = beads.board.stale
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    said = f"in progress and not touched for long: {', '.join(found[:SHOWN])}{more}; finn beads show tells more"
    yield Fact("beads:stale", len(found), output=said if found else "")
    trouble = "; ".join(filter(None, (file.trouble, file.left_out)))
    if trouble:
        yield Fact("beads:file", str(file.path.name), output=trouble)
