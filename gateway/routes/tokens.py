"""Scoped tokens over HTTP, for the owner.

GET /api/tokens              what there is, without the texts
POST /api/tokens             makes one; its text is in this answer and nowhere else
DELETE /api/tokens/{token}   takes one back
"""

from collections.abc import Sequence
from typing import Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.body import read_model
from gateway.caller import caller_of
from gateway.doors import GuardFor
from gateway.rooms import Open, recorded
from gateway.tokens import Token, lasting
from persistence.clock import Clock, iso
from persistence.events import Json, Value


class New(Value):
    scope: Literal["probe", "read", "chat", "owner"]
    name: str = ""
    expires: str | None = None


def token_routes(rooms: Open, clock: Clock, guard: GuardFor) -> Sequence[BaseRoute]:
    """Every route below /api/tokens."""

    async def listed(_: Request) -> Response:
        return JSONResponse({"tokens": [view(token, clock.now()) for token in rooms().tokens.all()]})

    async def create(request: Request) -> Response:
        new = await read_model(request, New)
        making = rooms().tokens.create(new.scope, new.name, lasting(new.expires), caller_of(request).who)
        made = await recorded(rooms(), clock, making)
        return JSONResponse({**view(made.token, clock.now()), "token": made.text.reveal()}, 201)

    async def revoke(request: Request) -> Response:
        revoking = rooms().tokens.revoke(request.path_params["token"], caller_of(request).who)
        await recorded(rooms(), clock, revoking)
        return Response(status_code=204)

    base = "/api/tokens"
    return (
        Route(base, listed, methods=["GET"], middleware=guard("owner")),
        Route(base, create, methods=["POST"], middleware=guard("owner")),
        Route(f"{base}/{{token}}", revoke, methods=["DELETE"], middleware=guard("owner")),
    )


def view(token: Token, now: float) -> dict[str, Json]:
    """A token as people see it: neither its text, which nobody has, nor its hash."""
    return {
        "id": token.id,
        "name": token.name,
        "scope": token.scope,
        "created_at": iso(token.created / 1000),
        "expires_at": None if token.expires is None else iso(token.expires / 1000),
        "revoked_at": None if token.revoked is None else iso(token.revoked / 1000),
        "state": token.state(now),
    }
