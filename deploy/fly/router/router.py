"""Many agents on Fly: each is an app of its own, and this says which app shall have a request.

    alice.agents.example.org ─▶ Fly's proxy ─▶ router: `fly-replay: app=finn-alice` ─▶ Fly's proxy ─▶ finn-alice

The proxy asks here once and sends the request on by itself, WebSockets too. So an upgrade is answered like everything
else, with a plain response: a router that accepted the socket would hold it. Names are looked up and never made of what
a stranger typed, since a replay starts a machine that is paid for. Nothing is cached (`fly-replay-cache` goes by path,
and two agents share every path). Who may come in is decided by the agent, not here.
"""

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Send = Callable[[dict[str, Any]], Awaitable[None]]
Answer = tuple[int, list[tuple[bytes, bytes]]]

PROBE = "/livez"


def chosen(host: str, path: str, domain: str, agents: frozenset[str]) -> Answer:
    """Status and headers for a request to `host`."""
    name, _, rest = host.lower().partition(":")[0].partition(".")
    if rest == domain and name in agents:
        return 200, [(b"fly-replay", f"app=finn-{name}".encode())]
    return (200 if path == PROBE else 404), []


def router(settings: Mapping[str, str]) -> Any:
    """The app. Raises KeyError where AGENTS or DOMAIN is not set."""
    agents, domain = frozenset(settings["AGENTS"].split()), settings["DOMAIN"].lower()

    async def app(scope: dict[str, Any], receive: Any, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        status, headers = chosen(host, scope["path"], domain, agents)
        kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
        await send({"type": f"{kind}.start", "status": status, "headers": headers})
        await send({"type": f"{kind}.body", "body": b""})

    return app


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(router(os.environ), host="0.0.0.0", port=8080, lifespan="off", access_log=False)  # noqa: S104 - Fly's proxy is outside
