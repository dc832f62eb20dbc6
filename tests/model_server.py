"""A model provider on loopback that says what a script tells it to: Chat Completions and Messages, streamed.

    POST /v1/chat/completions   OpenAI's wire       POST /v1/messages   Anthropic's wire

    [ [STEP, ...], ... ]        one list of steps for each request, in order; the last one serves all further requests
    STEP  {"text": TEXT, "chunk": N, "delay": S}       {"thinking": TEXT, "signature": TEXT}     {"redacted": TEXT}
          {"tool": NAME, "args": {...} | TEXT, "id": ID}      several in a row are parallel; TEXT is sent as it is
          {"usage": {"input": N, "output": N, "read": N, "written": N}}         {"sleep": S}
          {"finish": REASON}   in the wire's own words; without it what follows from the steps
          {"refusal": TEXT}    the provider's filter stops it        {"comment": N}   N lines of keep-alive
          {"status": CODE, "message": TEXT, "type": TEXT, "code": TEXT, "headers": {...}}   an error, not a stream
          {"fault": TEXT, "type": TEXT}   an error event within the stream
          {"raw": TEXT}        bytes of the stream as they are: a malformed event
          {"cut": true}        ends the stream cleanly before the answer is complete
          {"drop": true}       closes the connection within the stream      {"reset": true}   breaks it
          {"stall": true}      says nothing more until the client leaves

In a test: `async with ModelServer(script) as server: server.url("openai")`, then `server.requests`. As a process:
`python -m tests.model_server --port 0 --script FILE [--log FILE]` prints `PORT` and serves until it is killed; the log
gets a line of JSON for each request.
"""

import argparse
import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from persistence.events import Json

Step = dict[str, Any]
Script = list[list[Step]]

PATHS = {"/v1/chat/completions": "openai", "/v1/messages": "anthropic"}
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CREATED = 1_795_000_000


class Cut(Exception):
    """The script ends the stream here."""


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ModelServer:
    """The server. `requests` holds what was asked, `left` counts the streams that the client closed early."""

    def __init__(self, script: Script, *, log: Path | None = None) -> None:
        self.script = script
        self.requests: list[Asked] = []
        self.left = 0
        self.port = 0
        self._log = log
        self._writers: set[asyncio.StreamWriter] = set()

    def url(self, wire: str) -> str:
        """The base URL as the vendor's SDK reads it."""
        return f"http://127.0.0.1:{self.port}" + ("/v1" if wire == "openai" else "")

    async def __aenter__(self) -> Self:
        await self.start(0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        while self._writers:
            await asyncio.sleep(0)
        await self._server.wait_closed()

    async def start(self, port: int) -> None:
        """Listens on loopback."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def serve(self) -> None:
        """Serves until it is cancelled."""
        await self._server.serve_forever()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left += 1
        finally:
            self._writers.discard(writer)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; whether the connection may serve another."""
        asked = await read_request(reader)
        if asked is None:
            return False
        self.requests.append(asked)
        if self._log:
            with self._log.open("ab", buffering=0) as file:
                file.write(json.dumps({"path": asked.path, "body": asked.json}).encode() + b"\n")
        steps = self.script[min(len(self.requests), len(self.script)) - 1]
        wire = PATHS.get(asked.path)
        status = next((step for step in steps if "status" in step), None)
        if wire is None or status:
            writer.write(error_response(wire or "openai", status or {"status": 404, "message": "no such path"}))
            await writer.drain()
            return True
        return await Stream(wire, asked.json.get("model", "model"), reader, writer).play(steps)


async def read_request(reader: asyncio.StreamReader) -> Asked | None:
    """The next request of a connection, or None where there is none."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(head[0].split(" ")[1], headers, body)


def error_response(wire: str, step: Step) -> bytes:
    """An HTTP error in the wire's own form."""
    error = {"type": step.get("type", "error"), "message": step.get("message", "an error"), "code": step.get("code")}
    body = json.dumps({"type": "error", "error": error} if wire == "anthropic" else {"error": error}).encode()
    extra = "".join(f"{name}: {value}\r\n" for name, value in step.get("headers", {}).items())
    head = f"HTTP/1.1 {step['status']} Error\r\ncontent-type: application/json\r\n{extra}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class Stream:
    """One streamed answer."""

    def __init__(self, wire: str, model: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._wire: OpenAI | Anthropic = OpenAI(model) if wire == "openai" else Anthropic(model)
        self._reader = reader
        self._writer = writer

    async def play(self, steps: list[Step]) -> bool:
        """Plays the steps; whether the connection may serve another request."""
        self._writer.write(STREAM_HEAD)
        usage = next((step["usage"] for step in steps if "usage" in step), {"input": 10, "output": 5})
        try:
            await self._events(self._wire.start(usage))
            for step in steps:
                await self._step(step)
            await self._events(self._wire.end(steps, usage))
        except Cut as cut:
            if cut.args != ("clean",):
                return False
        await self._send(b"", last=True)
        return True

    async def _step(self, step: Step) -> None:
        if "sleep" in step:
            await asyncio.sleep(step["sleep"])
        elif "comment" in step:
            for _ in range(step["comment"]):
                await self._send(b": keep-alive\n\n")
        elif "raw" in step:
            await self._send(step["raw"].encode())
        elif "cut" in step:
            raise Cut("clean")
        elif "drop" in step:
            raise Cut("drop")
        elif "reset" in step:
            reset(self._writer)
            raise Cut("reset")
        elif "stall" in step:
            await self._reader.read()
            raise ConnectionResetError
        elif "text" in step:
            await self._text(step)
        else:
            await self._events(self._wire.step(step))

    async def _text(self, step: Step) -> None:
        text, size = step["text"], step.get("chunk") or len(step["text"]) or 1
        for start in range(0, len(text), size):
            if step.get("delay"):
                await asyncio.sleep(step["delay"])
            await self._events(self._wire.text(text[start : start + size]))

    async def _events(self, events: Iterator[bytes]) -> None:
        for event in events:
            await self._send(event)

    async def _send(self, data: bytes, *, last: bool = False) -> None:
        if self._writer.is_closing():
            raise ConnectionResetError
        chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        self._writer.write(chunk + (b"0\r\n\r\n" if last else b""))
        await self._writer.drain()


def reset(writer: asyncio.StreamWriter) -> None:
    """Breaks the connection with a RST, as a crash of the other side does."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class OpenAI:
    """Events of a Chat Completions stream."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._tools = 0

    def start(self, usage: dict[str, int]) -> Iterator[bytes]:
        yield self._chunk({"role": "assistant", "content": ""})

    def text(self, text: str) -> Iterator[bytes]:
        yield self._chunk({"content": text})

    def step(self, step: Step) -> Iterator[bytes]:
        if "thinking" in step:
            yield self._chunk({"reasoning_content": step["thinking"]})
        elif "refusal" in step:
            yield self._chunk({"refusal": step["refusal"]})
        elif "fault" in step:
            yield sse({"error": {"message": step["fault"], "type": step.get("type"), "code": step.get("type")}})
        elif "tool" in step:
            index, self._tools = self._tools, self._tools + 1
            call = {"index": index, "id": step.get("id", f"call_{index}"), "type": "function"}
            yield self._chunk({"tool_calls": [{**call, "function": {"name": step["tool"], "arguments": ""}}]})
            for piece in halves(arguments(step)):
                yield self._chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})

    def end(self, steps: list[Step], usage: dict[str, int]) -> Iterator[bytes]:
        finish = {"refusal": "stop", "tool": "tool_calls"}
        yield self._chunk({}, ended(steps, finish) or "stop")
        whole = usage.get("input", 0) + usage.get("read", 0)
        counts = {
            "prompt_tokens": whole,
            "completion_tokens": usage.get("output", 0),
            "total_tokens": whole + usage.get("output", 0),
            "prompt_tokens_details": {"cached_tokens": usage.get("read", 0)},
        }
        yield sse({**self._head(), "choices": [], "usage": counts})
        yield b"data: [DONE]\n\n"

    def _head(self) -> dict[str, Json]:
        return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": CREATED, "model": self._model}

    def _chunk(self, delta: dict[str, Json], finish: str | None = None) -> bytes:
        return sse({**self._head(), "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


class Anthropic:
    """Events of a Messages stream."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._index = -1
        self._open = ""
        self._tools = 0

    def start(self, usage: dict[str, int]) -> Iterator[bytes]:
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": self._model, "content": []}
        counts = {
            "input_tokens": usage.get("input", 0),
            "output_tokens": 1,
            "cache_read_input_tokens": usage.get("read", 0),
            "cache_creation_input_tokens": usage.get("written", 0),
        }
        yield self._event("message_start", message={**message, "stop_reason": None, "usage": counts})
        yield self._event("ping")

    def text(self, text: str) -> Iterator[bytes]:
        if self._open != "text":
            yield from self._begin("text", {"type": "text", "text": ""})
        yield self._delta({"type": "text_delta", "text": text})

    def step(self, step: Step) -> Iterator[bytes]:
        if "thinking" in step:
            yield from self._begin("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            yield self._delta({"type": "thinking_delta", "thinking": step["thinking"]})
            if "signature" in step:
                yield self._delta({"type": "signature_delta", "signature": step["signature"]})
        elif "redacted" in step:
            yield from self._begin("redacted", {"type": "redacted_thinking", "data": step["redacted"]})
        elif "fault" in step:
            yield self._event("error", error={"type": step.get("type", "api_error"), "message": step["fault"]})
        elif "tool" in step:
            index, self._tools = self._tools, self._tools + 1
            call = {"type": "tool_use", "id": step.get("id", f"toolu_{index}"), "name": step["tool"], "input": {}}
            yield from self._begin("tool", call)
            for piece in halves(arguments(step)):
                yield self._delta({"type": "input_json_delta", "partial_json": piece})

    def end(self, steps: list[Step], usage: dict[str, int]) -> Iterator[bytes]:
        yield from self._stop()
        finish = ended(steps, {"refusal": "refusal", "tool": "tool_use"}) or "end_turn"
        delta = {"stop_reason": finish, "stop_sequence": None}
        yield self._event("message_delta", delta=delta, usage={"output_tokens": usage.get("output", 0)})
        yield self._event("message_stop")

    def _begin(self, kind: str, block: dict[str, Json]) -> Iterator[bytes]:
        yield from self._stop()
        self._index, self._open = self._index + 1, kind
        yield self._event("content_block_start", index=self._index, content_block=block)

    def _stop(self) -> Iterator[bytes]:
        if self._open:
            yield self._event("content_block_stop", index=self._index)
            self._open = ""

    def _delta(self, delta: dict[str, Json]) -> bytes:
        return self._event("content_block_delta", index=self._index, delta=delta)

    def _event(self, kind: str, **fields: Json) -> bytes:
        return f"event: {kind}\n".encode() + sse({"type": kind, **fields})


def sse(data: Json) -> bytes:
    """The `data` line of an event."""
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def arguments(step: Step) -> str:
    """The arguments of a call as the text that is streamed."""
    args = step.get("args", {})
    return args if isinstance(args, str) else json.dumps(args)


def halves(text: str) -> Iterator[str]:
    """`text` in two pieces: what is streamed never comes whole."""
    middle = len(text) // 2
    yield from (piece for piece in (text[:middle], text[middle:]) if piece)


def ended(steps: list[Step], words: dict[str, str]) -> str | None:
    """Why the answer ends, in the wire's words: as the script says, or as it follows from the steps."""
    named = next((step["finish"] for step in steps if "finish" in step), None)
    return named or next((word for kind, word in words.items() if any(kind in step for step in steps)), None)


async def main() -> None:
    """Serves a script from a file until it is killed."""
    parser = argparse.ArgumentParser(description="A scripted model provider on loopback.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", type=Path, required=True)
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    server = ModelServer(json.loads(options.script.read_text("utf-8")), log=options.log)
    await server.start(options.port)
    print(server.port, flush=True)  # noqa: T201 - whoever started the process reads it
    await server.serve()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
