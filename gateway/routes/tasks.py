"""Tasks over HTTP: how each stands, and a run by hand."""

from collections.abc import Callable, Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.doors import GuardFor
from persistence.clock import Clock, iso
from persistence.values import Json
from scheduler.scheduler import Run, Scheduler


def task_routes(scheduler: Callable[[], Scheduler], clock: Clock, guard: GuardFor) -> Sequence[BaseRoute]:
    """GET /api/tasks, POST /api/tasks/{name}/run. `scheduler` gives that of this life."""

    async def show(_: Request) -> Response:
        return JSONResponse({"tasks": [shown(run, clock) for run in scheduler().runs]})

    async def run(request: Request) -> Response:
        return JSONResponse(shown(await scheduler().run_now(request.path_params["name"]), clock))

    return (
        Route("/api/tasks", show, methods=["GET"], middleware=guard("read")),
        Route("/api/tasks/{name}/run", run, methods=["POST"], middleware=guard("owner")),
    )


def shown(run: Run, clock: Clock) -> Json:
    """A task as people and programs are told of it. `next_run` is when it comes again if nobody asks for it before."""
    now = clock.monotonic()
    return {
        "name": run.task.name,
        "every_s": run.task.every_s,
        "state": run.breaker.state(now),
        "failures": run.breaker.failures,
        "running": run.running,
        "last_run": None if run.last_run is None else iso(run.last_run),
        "last_error": run.last_error or None,
        "next_run": iso(clock.now() + run.wait_s(now)),
    }
