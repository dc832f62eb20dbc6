"""The anchor of a start: one route on Starlette and uvicorn, with the settings that finn uses."""

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def health(_: Request) -> JSONResponse:
    return JSONResponse({"status": "pass"})


uvicorn.run(
    Starlette(routes=[Route("/health", health)]),
    port=int(sys.argv[1]),
    http="httptools",
    ws="websockets-sansio",
    ws_per_message_deflate=False,
    log_config=None,
    access_log=False,
)
