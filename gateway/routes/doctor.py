"""The doctor over HTTP: what it sees, and what it mends, in the finn that runs."""

import asyncio
from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.body import read_model
from gateway.caller import caller_of
from gateway.doors import GuardFor
from persistence.clock import Ids
from persistence.events import Value

if TYPE_CHECKING:
    from gateway.rounds import Rounds, See


class Wanted(Value):
    """What is to be mended: these findings, these categories, or, where neither is said, all."""

    ids: tuple[str, ...] = ()
    only: tuple[str, ...] = ()


class Undoing(Value):
    """Which fix is to be taken back."""

    id: str


def doctor_routes(see: "See", ids: Ids, version: str, looking: GuardFor, guard: GuardFor) -> Sequence[BaseRoute]:
    """GET /doctor, POST /doctor/fix and /doctor/undo. `looking` lets a probe in whenever there is something to see."""
    rounds = _once(lambda: _rounds(see, ids, version))

    async def look(request: Request) -> Response:
        only = [name for name in request.query_params.get("only", "").split(",") if name]
        return JSONResponse(await (await asyncio.to_thread(rounds)).look(only))

    async def mend(request: Request) -> Response:
        wanted, by = await read_model(request, Wanted), caller_of(request).who
        return JSONResponse(await (await asyncio.to_thread(rounds)).fix(wanted.only, wanted.ids, by))

    async def take_back(request: Request) -> Response:
        name, by = (await read_model(request, Undoing)).id, caller_of(request).who
        return JSONResponse(await (await asyncio.to_thread(rounds)).undo(name, by))

    return (
        Route("/doctor", look, methods=["GET"], middleware=looking("probe")),
        Route("/doctor/fix", mend, methods=["POST"], middleware=guard("owner")),
        Route("/doctor/undo", take_back, methods=["POST"], middleware=guard("owner")),
    )


def _rounds(see: "See", ids: Ids, version: str) -> "Rounds":
    from gateway.rounds import Rounds  # imported on use: it loads every check

    return Rounds(see, ids, version)


def _once(make: "Callable[[], Rounds]") -> "Callable[[], Rounds]":
    """Made by the first who asks, in whichever thread."""
    made: list[Rounds] = []
    one = Lock()

    def get() -> "Rounds":
        with one:
            if not made:
                made.append(make())
            return made[0]

    return get
