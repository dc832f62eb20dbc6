"""How long a streamed token is on its way through finn: written by a model server, read from a WebSocket.

Each token is the moment at which it was written, so nothing has to be matched. The anchor is the same stream read
straight from the model server, one stream after the other.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median, quantiles

from websockets.asyncio.client import ClientConnection, connect

from tests.benchmarks import history
from tests.benchmarks.processes import finn, token
from tests.benchmarks.rounds import Goal, Measured, Round
from tests.benchmarks.turns import MODEL
from tests.model_server import STREAM_HEAD, OpenAI, read_request

TOKENS = 200
PAUSE_S = 0.005
COUNTS = {"input": 10, "output": TOKENS}


def measure(folder: Path, quick: bool) -> Iterator[Measured]:
    data = folder / "data"
    (session,) = history.write(data, (200,))
    taken = asyncio.run(_streams(data, session, 1 if quick else 7))
    middle = [Round(median(direct), median(through)) for direct, through in taken]
    worst = [Round(_late(direct), _late(through)) for direct, through in taken]
    yield Measured("a streamed token on its way, median", "ms", "straight", middle, Goal("ours", most=3))
    yield Measured("the same, 99th percentile", "ms", "straight", worst, Goal("ours"))


def _late(times: list[float]) -> float:
    return quantiles(times, n=100)[98]


async def _streams(data: Path, session: str, count: int) -> list[tuple[list[float], list[float]]]:
    async with speaking() as port:
        with finn(data, {**MODEL, "FINN_MODEL_BASE_URL": f"http://127.0.0.1:{port}/v1"}) as process:
            await asyncio.to_thread(process.answers, "/readyz")
            address = f"ws://127.0.0.1:{process.port}/ws/{session}"
            bearer = {"Authorization": f"Bearer {token(data)}"}
            async with connect(address, additional_headers=bearer, compression=None, max_size=None) as line:
                rounds = [(await _straight(port), await _through(line, number)) for number in range(count + 1)]
    return rounds[1:]


async def _through(line: ClientConnection, number: int) -> list[float]:
    """The milliseconds of each token of one turn."""
    await line.send(json.dumps({"type": "prompt", "text": "Say something long.", "request_id": f"r{number}"}))
    times: list[float] = []
    while (frame := json.loads(await line.recv()))["type"] != "turn_end":
        if frame["type"] == "text_delta":
            times.append(_since(frame["data"]["delta"]))
    return times


async def _straight(port: int) -> list[float]:
    """The same, from the model server itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    times: list[float] = []
    async for line in reader:
        if line.startswith(b"data: {"):
            choices = json.loads(line[6:])["choices"]
            times.extend(_since(one["delta"]["content"]) for one in choices if one["delta"].get("content"))
        elif line == b"data: [DONE]\n":
            break
    writer.close()
    return times


def _since(stamp: str) -> float:
    return (time.perf_counter_ns() - int(stamp)) / 1e6


@asynccontextmanager
async def speaking() -> AsyncIterator[int]:
    """A model server in this loop, whose tokens say when they were written; its port."""
    listening: set[asyncio.StreamWriter] = set()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        listening.add(writer)
        try:
            await _speak(reader, writer)
        finally:
            writer.close()
            listening.discard(writer)

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        while listening:
            await asyncio.sleep(0)


async def _speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await read_request(reader):
        wire = OpenAI("bench")
        writer.write(STREAM_HEAD)
        _write(writer, wire.start(COUNTS))
        for _ in range(TOKENS):
            await asyncio.sleep(PAUSE_S)
            _write(writer, wire.text(f"{time.perf_counter_ns()} "))
        _write(writer, wire.end([], COUNTS))
        writer.write(b"0\r\n\r\n")


def _write(writer: asyncio.StreamWriter, events: Iterator[bytes]) -> None:
    for event in events:
        writer.write(b"%x\r\n%b\r\n" % (len(event), event))
