"""The page and its files, from the package."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC = Path(str(files("gateway") / "static"))
SEEN_AGAIN = "no-cache"  #: kept by the browser, asked for again by its ETag: a new release is a new page at once


class Static(StaticFiles):
    """Static files that a browser keeps but checks."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = SEEN_AGAIN
        return response


def page_routes() -> Sequence[BaseRoute]:
    """/ and /static. They hold no data and are for everybody."""

    async def index(_: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": SEEN_AGAIN})

    return (
        Route("/", index, methods=["GET"]),
        Mount("/static", Static(directory=STATIC)),
    )
