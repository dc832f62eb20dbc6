"""The doctor over HTTP: what it sees, and what it mends, in the finn that runs."""

import asyncio
from collections.abc import Sequence
from functools import cache
from importlib import import_module
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

    @cache
    def made() -> "Rounds":
        from gateway.rounds import Rounds

        return Rounds(see, ids, version)

    async def rounds() -> "Rounds":
        await asyncio.to_thread(import_module, "gateway.rounds")  # it loads every check: that takes a moment, once
        return made()

    async def look(request: Request) -> Response:
        only = [name for name in request.query_params.get("only", "").split(",") if name]
        return JSONResponse(await (await rounds()).look(only))

    async def mend(request: Request) -> Response:
        wanted, by = await read_model(request, Wanted), caller_of(request).who
        return JSONResponse(await (await rounds()).fix(wanted.only, wanted.ids, by))

    async def take_back(request: Request) -> Response:
        name, by = (await read_model(request, Undoing)).id, caller_of(request).who
        return JSONResponse(await (await rounds()).undo(name, by))

    return (
        Route("/doctor", look, methods=["GET"], middleware=looking("probe")),
        Route("/doctor/fix", mend, methods=["POST"], middleware=guard("owner")),
        Route("/doctor/undo", take_back, methods=["POST"], middleware=guard("owner")),
    )
