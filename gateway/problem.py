"""What an error looks like over HTTP: `application/problem+json` (RFC 9457).

    FinnError.code ─▶ CODES ─▶ status, Retry-After ─▶ {"type","title","status","code","detail","hint","request_id"?}

The lower floors know codes, this file alone knows what a code means in HTTP. A code that is not in CODES is a fault of
ours: 500, and the caller learns only the request id under which the log tells the rest.
"""

import json
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ExceptionHandler

from gateway.logs import REQUEST_ID
from persistence.errors import FinnError
from persistence.values import Json

MEDIA_TYPE = "application/problem+json"


class Code(NamedTuple):
    """What a code means in HTTP; `retry_s` is when to come back, where the error itself does not say."""

    status: int
    retry_s: int | None = None


INTERNAL = Code(500)
CODES: Mapping[str, Code] = MappingProxyType(
    {
        "bad_request": Code(400),
        "invalid_json": Code(400),
        "invalid_body": Code(400),
        "invalid_dependency": Code(400),
        "empty_prompt": Code(400),
        "unauthorized": Code(401),
        "forbidden_scope": Code(403),
        "forbidden_origin": Code(403),
        "not_found": Code(404),
        "method_not_allowed": Code(405),
        "request_timeout": Code(408),
        "conflict": Code(409),
        "idempotency_mismatch": Code(409),
        "illegal_transition": Code(409),
        "too_large": Code(413),
        "unsupported_media_type": Code(415),
        "misdirected": Code(421),
        "rate_limited": Code(429, 60),
        "busy": Code(429, 2),
        "headers_too_large": Code(431),
        "internal": INTERNAL,
        "model_error": Code(502),
        "starting": Code(503, 1),
        "draining": Code(503, 5),
        "fenced": Code(503, 30),
        "store_unavailable": Code(503, 10),
        "storage_full": Code(503, 60),
        "storage_failed": Code(503, 60),
    }
)
CODE_OF_STATUS = MappingProxyType(
    {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_media_type"}
)


class Refused(FinnError):
    """A request that is turned away before it means anything to the agent."""

    def __init__(self, code: str, message: str, *, hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.retry_after = retry_after


# ---------------------------------------------------------------- answers


def describe(error: FinnError, request_id: str | None = None) -> dict[str, Json]:
    """The problem object of an error, for HTTP and for `--json`."""
    status = CODES.get(error.code, INTERNAL).status
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": error.code,
        "detail": error.message,
        "hint": error.hint,
        **({"request_id": request_id} if request_id else {}),
    }


def retry_after(error: FinnError) -> str | None:
    """The Retry-After header in whole seconds: the error's own wish, else the table's."""
    own: float | None = getattr(error, "retry_after", None)
    seconds = CODES.get(error.code, INTERNAL).retry_s if own is None else own
    return None if seconds is None else str(max(1, math.ceil(seconds)))


def answer(error: FinnError) -> Response:
    """The response that tells of an error; also the refusal of an upgrade, if the socket was not accepted yet."""
    problem = describe(error, REQUEST_ID.get())
    headers = {"Cache-Control": "no-store"}
    if wait := retry_after(error):
        headers["Retry-After"] = wait
    if problem["status"] == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(json.dumps(problem), status_code=problem["status"], headers=headers, media_type=MEDIA_TYPE)


def internal() -> FinnError:
    """What is told of a fault of ours: where to look, and nothing of what it was."""
    return Refused("internal", "finn made a mistake while it answered", hint="the log tells more under this request id")


def starting() -> Refused:
    """What everybody is told who comes before finn is ready."""
    return Refused("starting", "finn is starting", hint="try again in a second")


def silent() -> Refused:
    """What everybody is told while this disk is empty and no copy of the log has answered."""
    return Refused(
        "store_unavailable",
        "finn does not know its past yet: this disk is empty, and no copy of the log answers",
        hint="it asks every few seconds and goes on by itself; the log says more",
    )


def standing_by() -> Refused:
    """What everybody is told while another instance has the agent."""
    return Refused(
        "fenced",
        "another instance of this agent has taken over",
        hint="ask that one; this one waits, and takes over when that one has stopped",
    )


async def answer_error(_: Request, error: Exception) -> Response:
    """For Starlette's table: an error of the tree. One that has no meaning in HTTP goes on up, to be logged."""
    assert isinstance(error, FinnError)
    if error.code not in CODES:
        raise error
    return answer(error)


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """For Starlette's table: what the router and the static files raise."""
    assert isinstance(error, HTTPException)
    response = answer(Refused(CODE_OF_STATUS[error.status_code], f"{error.detail}: {request.scope['path'][:256]}"))
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        response.headers["Allow"] = ", ".join(allowed_methods(request))
    return response


def allowed_methods(request: Request) -> Sequence[str]:
    """Every method that some route takes at this path; Starlette itself names those of the first route only."""
    routes = [route for route in request.scope["router"].routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in routes for method in getattr(route, "methods", None) or ()})


EXCEPTION_HANDLERS: Mapping[type[Exception], ExceptionHandler] = MappingProxyType(
    {FinnError: answer_error, HTTPException: answer_http_exception}
)
