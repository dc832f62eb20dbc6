"""What is kept where, over HTTP."""

import asyncio
from collections.abc import Callable, Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.checks import GuardFor
from gateway.copies import Copies, storage
from gateway.rooms import Open
from persistence.files import FILES, Files


def storage_routes(
    rooms: Open, roots: Callable[[], Sequence[Files]], copies: Callable[[], Copies], guard: GuardFor
) -> Sequence[BaseRoute]:
    """/api/storage. `roots` are the files of grimoires and workspace, `copies` is answered from memory."""

    async def show(_: Request) -> Response:
        inventory, now, files = rooms().journal.whole(FILES), copies(), roots()
        return await asyncio.to_thread(lambda: JSONResponse(storage(now, inventory, files)))

    return (Route("/api/storage", show, methods=["GET"], middleware=guard("read")),)
