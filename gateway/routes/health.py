"""Probes: is the process alive, does it take work, is it well."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.auth import Auth
from gateway.settings import Settings
from persistence.clock import Clock
from persistence.errors import FinnError
from persistence.values import Json
from scheduler.health import Source, Status, judge, status

VERSION = version("finn")
State = Literal["starting", "silent", "serving", "fenced", "draining"]  #: silent: no source of the log has answered yet
MEDIA_TYPE = "application/health+json"


def release_of(settings: Settings) -> dict[str, str]:
    """What runs here, as every answer of /health says it."""
    return {"version": VERSION, "releaseId": settings.release or VERSION, "serviceId": settings.agent_id}


def health_routes(
    unready: Callable[[], FinnError | None],
    sources: Callable[[], Sequence[Source]],
    auth: Auth,
    clock: Clock,
    release: dict[str, str],
) -> Sequence[BaseRoute]:
    """/livez, /readyz and /health.

    `unready` says why work is not taken, if it is not; `release` names version, releaseId and serviceId.
    """
    began = clock.monotonic()

    async def live(_: Request) -> Response:
        return PlainTextResponse("ok")

    async def ready(_: Request) -> Response:
        reason = unready()
        if reason is not None:
            raise reason
        return PlainTextResponse("ok")

    async def health(request: Request) -> Response:
        uptime = {"uptime": round(clock.monotonic() - began, 3)}
        if auth.may_see_checks(request):
            report = judge(sources(), clock.now())
            return _said(report.status, {**release, **uptime, "checks": report.checks})
        return _said(status(sources()), {**release, **uptime})

    return (
        Route("/livez", live, methods=["GET"]),
        Route("/readyz", ready, methods=["GET"]),
        Route("/health", health, methods=["GET"]),
    )


def _said(status: Status, more: Mapping[str, Json]) -> Response:
    return JSONResponse({"status": status, **more}, 503 if status == "fail" else 200, media_type=MEDIA_TYPE)
