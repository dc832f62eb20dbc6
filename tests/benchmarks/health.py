"""/health at a thousand requests a second: what a probe waits for, and what it costs.

    1,000 a second     sent at their times whether or not the ones before have been answered, over kept connections
    one by one         the median, less the same of the smallest server, is what finn itself adds

The data directory has a store, a session and a thousand beads, so that there is something to judge. The anchor is a
bare route on the same libraries, asked in turn within the same minute.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

from tests.benchmarks.processes import Http, Process, bare, finn, token
from tests.benchmarks.rounds import Goal, Measured, Round

RATE = 1000
CONNECTIONS, MOST = 32, 200  #: to begin with, and where all of them wait; an address may have 256
BEADS = 1000


def measure(folder: Path, quick: bool) -> Iterator[Measured]:
    data, store = folder / "data", folder / "store"
    store.mkdir()
    count, seconds, asked = (1, 0.5, 50) if quick else (9, 3.0, 2000)
    with bare(folder) as smallest, finn(data, {"FINN_STORE_URL": f"file://{store}"}) as process:
        smallest.answers("/health")
        process.takes_prompts(data)
        bearer = token(data)
        _fill(process, bearer, BEADS // (20 if quick else 1))
        plain = [_round(smallest, process, "", seconds) for _ in range(count)]
        whole = [_round(smallest, process, bearer, seconds) for _ in range(count)]
        added = [Round(None, 1000 * (_one_by_one(process, asked) - _one_by_one(smallest, asked))) for _ in range(count)]
    goal = Goal("ours", most=5)
    yield Measured("/health at 1,000 a second, 99th percentile", "ms", "bare Starlette", plain, goal)
    yield Measured("the same with its checks", "ms", "bare Starlette", whole, goal)
    yield Measured("what finn adds to a bare route, one by one", "ms", "", added, Goal("ours", most=1))


def _fill(process: Process, bearer: str, beads: int) -> None:
    http = Http(process.port, bearer)
    http.post("/api/sessions", b"{}")
    for n in range(beads):
        http.post("/api/beads", b'{"title":"bead %d"}' % n)


def _round(smallest: Process, process: Process, bearer: str, seconds: float) -> Round:
    anchor = asyncio.run(_load(smallest.port, "", seconds))
    return Round(_late(anchor), _late(asyncio.run(_load(process.port, bearer, seconds))))


def _late(times: list[float]) -> float:
    return quantiles(times, n=100)[98] * 1000


def _one_by_one(process: Process, asked: int) -> float:
    http, times = Http(process.port), list[float]()
    for _ in range(asked):
        began = time.perf_counter()
        http.get("/health")
        times.append(time.perf_counter() - began)
    return median(times)


# ---------------------------------------------------------------- the load


class _Caller(asyncio.Protocol):
    """One kept connection: a request, its answer, the next request."""

    def __init__(self, request: bytes, free: "deque[_Caller]", times: list[float]) -> None:
        self._request = request
        self._free = free
        self._times = times
        self._began = 0.0
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._free.append(self)

    def ask(self, began: float) -> None:
        self._began = began
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, found, body = self._answer.partition(b"\r\n\r\n")
        if found and len(body) >= int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            assert head.startswith(b"HTTP/1.1 200"), head
            self._times.append(time.perf_counter() - self._began)
            self._answer = b""
            self._free.append(self)


async def _load(port: int, bearer: str, seconds: float) -> list[float]:
    """How long each answer took, in seconds."""
    loop, free, times = asyncio.get_running_loop(), deque[_Caller](), list[float]()
    authorization = f"Authorization: Bearer {bearer}\r\n" if bearer else ""
    request = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{authorization}\r\n".encode()
    callers: list[_Caller] = []

    async def connect() -> None:
        _, caller = await loop.create_connection(lambda: _Caller(request, free, times), "127.0.0.1", port)
        callers.append(caller)

    for _ in range(CONNECTIONS):
        await connect()
    began, sent = time.perf_counter(), 0
    while sent < RATE * seconds:
        while sent < (time.perf_counter() - began) * RATE:
            now = time.perf_counter()
            if not free and len(callers) < MOST:
                await connect()
            while not free:
                await asyncio.sleep(0)  # the time until one is free is part of what is waited for
            free.pop().ask(now)
            sent += 1
        await asyncio.sleep(0.5 / RATE)
    while len(times) < sent:
        await asyncio.sleep(0.01)
    for caller in callers:
        caller.transport.close()
    return times
