"""What is kept where, over HTTP."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.copies import Copies, storage
from gateway.doors import GuardFor
from gateway.rooms import Open
from persistence.beads import BEADS, Board
from persistence.files import FILES, Inventory, Kept

BEAD_FILE = "state/.beads/issues.jsonl"


def storage_routes(rooms: Open, copies: Callable[[], Copies], guard: GuardFor) -> Sequence[BaseRoute]:
    """/api/storage. `copies` is answered from memory."""

    async def show(_: Request) -> Response:
        inventory, now, files = rooms().journal.whole(FILES), copies(), rooms().files
        board = rooms().journal.whole(BEADS)

        def made() -> Response:
            return JSONResponse(storage(now, Inventory({**inventory.files, **_bead_file(board)}), files))

        return await asyncio.to_thread(made)

    return (Route("/api/storage", show, methods=["GET"], middleware=guard("read")),)


def _bead_file(board: Board) -> Mapping[str, Kept]:
    """The file of the beads as a file among the others, once there is a bead."""
    data = board.text
    return {BEAD_FILE: Kept(sha256(data).hexdigest(), len(data), False, board.seq)} if data else {}
