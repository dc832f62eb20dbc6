"""The listening side with raw bytes: what the parser takes, how long it waits, how many it serves, how it stops."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from gateway.connections import DEFAULT_LIMITS, MAX_HEADER_BYTES, MAX_HEADERS, Connections, Limits
from gateway.listener import bind, holder
from gateway.server import both_forms
from persistence.errors import BindError
from tests.conftest import count
from tests.gateway.serving import UPGRADE, Site, close_code, read_answer, request, serving

SOON = replace(DEFAULT_LIMITS, receive_s=0.05)


def is_over(reader: asyncio.StreamReader) -> bool:
    """Whether the server hung up, in whatever way."""
    return reader.at_eof() or reader.exception() is not None


def has_answer(reader: asyncio.StreamReader) -> bool:
    return bool(reader._buffer) or is_over(reader)  # type: ignore[attr-defined]  # a look that does not wait


# ---------------------------------------------------------------- what the parser takes


def smuggling(site: Site) -> dict[str, bytes]:
    post, host = b"POST /things HTTP/1.1\r\n", f"Host: {site.host}\r\n".encode()
    token = f"{site.bearer()}\r\n".encode()
    second = b"GET /things HTTP/1.1\r\n" + host + token + b"\r\n"
    head = post + host + token
    return {
        "length and chunked": head + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + second,
        "chunked and length": head + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + second,
        "two lengths": head + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab" + second,
        "an odd length": head + b"Content-Length: +1\r\n\r\na" + second,
        "an unknown coding": head + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + second,
        "a space before the colon": head + b"Content-Length : 5\r\n\r\nabcde" + second,
        "NUL in a header": head + b"X: a\0b\r\n\r\n" + second,
        "bare line feeds": (head + b"\r\n").replace(b"\r\n", b"\n") + second,
        "a folded header": head + b"X: a\r\n b\r\n\r\n" + second,
        "an odd chunk": head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + second,
        "no HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + second,
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + second,
        "no path": b"GET HTTP/1.1\r\n" + host + b"\r\n" + second,
        "an unknown method": b"HACK / HTTP/1.1\r\n" + host + b"\r\n" + second,
    }


async def test_what_two_parsers_could_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        for name, data in smuggling(site).items():
            async with site.connection() as (reader, writer):
                writer.write(data)
                answer = await read_answer(reader)
                assert (answer.status, answer.code, answer.headers["connection"]) == (400, "bad_request", "close"), name
                assert await reader.read() == b"", name
        assert "GET /things" not in site.asked


async def test_a_trailer_is_no_header(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        head = request("POST /echo", f"Host: {site.host}", "Transfer-Encoding: chunked")
        answer = await site.send(head + b"1\r\n1\r\n0\r\n" + site.bearer().encode() + b"\r\n\r\n")
        assert answer.status == 401


@pytest.mark.parametrize(
    "odd", ["Content-Length: 9", "Cookie: " + "a" * 9000, "Origin: a\r\nOrigin: b", "Sec-WebSocket-Version: 1"]
)
async def test_an_upgrade_that_cannot_be_is_told_and_closed(tmp_path: Path, odd: str) -> None:
    async with serving(tmp_path) as site, site.connection() as (reader, writer):
        writer.write(request("GET /ws/1", f"Host: {site.host}", site.bearer(), *UPGRADE, odd))
        assert (await reader.read()).startswith(b"HTTP/1.1 4")
        assert site.asked == []


async def test_an_upgrade_to_something_else_is_passed_over(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        assert (await site.ask("GET /", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c")).status == 200
        assert (await site.ask("GET /things", "Connection: Upgrade", "Upgrade: h2c")).status == 401


async def test_requests_that_come_together_are_answered_in_order(tmp_path: Path) -> None:
    async with serving(tmp_path) as site, site.connection() as (reader, writer):
        paths = ["/", "/things", "/nowhere", "/"]
        writer.write(b"".join(request(f"GET {path}", f"Host: {site.host}") for path in paths))
        assert [(await read_answer(reader)).status for _ in paths] == [200, 401, 404, 200]


# ---------------------------------------------------------------- how much


@pytest.mark.parametrize(
    "headers",
    [
        [f"X-{i}: 1" for i in range(MAX_HEADERS)],
        [f"X-{i}: 1" for i in range(50_000)],
        ["X: " + "a" * MAX_HEADER_BYTES],
        ["X: " + "a" * 65_536],
        ["X: " + "a" * 2**20],
        [f"X-{i}: {'a' * 1024}" for i in range(40)],
    ],
    ids=["101 headers", "50,000 headers", "32 KiB", "64 KiB", "1 MiB", "many middling ones"],
)
async def test_more_headers_than_anybody_needs_are_told_431(tmp_path: Path, headers: list[str]) -> None:
    async with serving(tmp_path) as site:
        answer = await site.ask("GET /", *headers)
        assert (answer.status, answer.code, site.asked) == (431, "headers_too_large", [])


async def test_a_header_without_an_end_is_cut_off_while_it_comes(tmp_path: Path) -> None:
    async with serving(tmp_path) as site, site.connection() as (reader, writer):
        writer.write(request("GET /", f"Host: {site.host}")[:-2] + b"X: ")
        while not has_answer(reader):
            writer.write(b"a" * 8192)
            await asyncio.sleep(0)
        assert (await read_answer(reader)).status == 431


async def test_a_long_path_counts_as_well(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        assert (await site.ask("GET /" + "a" * MAX_HEADER_BYTES)).status == 431


async def test_as_many_headers_as_are_allowed_pass(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        assert (await site.ask("GET /", *(f"X-{i}: 1" for i in range(MAX_HEADERS - 1)))).status == 200
        assert (await site.ask("GET /", "X: " + "a" * (MAX_HEADER_BYTES - 100))).status == 200


async def test_the_count_begins_anew_with_each_request(tmp_path: Path) -> None:
    async with serving(tmp_path) as site, site.connection() as (reader, writer):
        for _ in range(4):
            writer.write(request("GET /", f"Host: {site.host}", "X: " + "a" * (MAX_HEADER_BYTES // 2)))
            assert (await read_answer(reader)).status == 200


# ---------------------------------------------------------------- how long


@pytest.mark.parametrize(
    "part",
    [
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a",
        b"POST /login HTTP/1.1\r\nHost: HOST\r\nContent-Length: 10\r\n\r\n12345",
        b"POST /login HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123",
    ],
    ids=["a line", "a header", "a body", "a chunk"],
)
async def test_a_request_that_does_not_end_is_told_408_and_closed(tmp_path: Path, part: bytes) -> None:
    async with serving(tmp_path, limits=SOON) as site, site.connection() as (reader, writer):
        writer.write(part.replace(b"HOST", site.host.encode()))
        answer = await read_answer(reader)
        assert (answer.status, answer.code) == (408, "request_timeout")
        assert await reader.read() == b""


async def test_dripping_does_not_buy_time(tmp_path: Path) -> None:
    async with serving(tmp_path, limits=SOON) as site, site.connection() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n")
        while not has_answer(reader):
            writer.write(b"X: a\r\n")
            await asyncio.sleep(0.005)
        assert (await read_answer(reader)).status in (408, 431)


@pytest.mark.parametrize("said", [b"", b"\r\n"])
async def test_a_connection_that_asks_nothing_is_closed_without_a_word(tmp_path: Path, said: bytes) -> None:
    async with serving(tmp_path, limits=SOON) as site, site.connection() as (reader, writer):
        writer.write(said)
        assert await reader.read() == b""


async def test_empty_lines_after_an_answer_do_not_buy_time(tmp_path: Path) -> None:
    async with serving(tmp_path, limits=SOON) as site, site.connection() as (reader, writer):
        writer.write(request("GET /", f"Host: {site.host}"))
        await read_answer(reader)
        while not is_over(reader):
            writer.write(b"\r\n")
            await asyncio.sleep(0.005)


async def test_a_late_body_is_cut_off_although_the_answer_is_out(tmp_path: Path) -> None:
    async with serving(tmp_path, limits=SOON) as site, site.connection() as (reader, writer):
        writer.write(request("POST /echo", f"Host: {site.host}", "Content-Length: 1000000"))
        assert (await read_answer(reader)).status == 401
        while not is_over(reader):
            writer.write(b"1")
            await asyncio.sleep(0.005)


async def test_an_answer_may_take_longer_than_a_request(tmp_path: Path) -> None:
    async def slow(_: Request) -> Response:
        await asyncio.sleep(SOON.receive_s * 3)
        return PlainTextResponse("at last")

    async with serving(tmp_path, limits=SOON, routes=[Route("/slow", slow, methods=["POST"])]) as site:
        assert (await site.ask("POST /slow", body=b"{}")).body == b"at last"


async def test_a_socket_may_be_silent(tmp_path: Path) -> None:
    async with serving(tmp_path, limits=SOON) as site, site.connection() as (reader, writer):
        writer.write(request("GET /ws/1", f"Host: {site.host}", *UPGRADE, site.bearer()))
        assert (await read_answer(reader)).status == 101
        await asyncio.sleep(SOON.receive_s * 3)
        assert await close_code(reader) == 4404


# ---------------------------------------------------------------- how many


async def test_whoever_only_holds_connections_open_locks_nobody_out(tmp_path: Path) -> None:
    limits = replace(DEFAULT_LIMITS, per_address=20)
    async with serving(tmp_path, limits=limits) as site, AsyncExitStack() as held:
        for i in range(60):
            _, writer = await held.enter_async_context(site.connection())
            writer.write((b"", b"GET / HTTP/1.1\r\nX: ", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n1")[i % 3])
        for _ in range(10):
            assert (await site.ask("GET /livez")).status == 200
        assert len(site.server.server_state.connections) <= limits.per_address


async def test_sockets_that_are_in_use_are_not_thrown_out(tmp_path: Path) -> None:
    waiting = asyncio.Event()

    async def wait(_: Request) -> Response:
        await waiting.wait()
        return PlainTextResponse("done")

    limits = replace(DEFAULT_LIMITS, per_address=3)
    async with serving(tmp_path, limits=limits, routes=[Route("/wait", wait)]) as site:
        busy = [asyncio.create_task(site.ask("GET /wait")) for _ in range(3)]
        while len(site.server.server_state.tasks) < 3:
            await asyncio.sleep(0)
        refused = await site.ask("GET /livez")
        assert (refused.status, refused.code) == (429, "busy") and refused.headers["retry-after"]
        waiting.set()
        assert [(await task).body for task in busy] == [b"done"] * 3
        assert (await site.ask("GET /livez")).status == 200


async def test_a_request_that_waits_behind_another_is_in_use_too(tmp_path: Path) -> None:
    turns = [asyncio.Event(), asyncio.Event()]

    async def wait(incoming: Request) -> Response:
        await turns[int(incoming.path_params["turn"])].wait()
        return PlainTextResponse("done")

    limits = replace(DEFAULT_LIMITS, per_address=1)
    async with (
        serving(tmp_path, limits=limits, routes=[Route("/wait/{turn}", wait)]) as site,
        site.connection() as (reader, writer),
    ):
        writer.write(b"".join(request(f"GET /wait/{turn}", f"Host: {site.host}") for turn in range(2)))
        turns[0].set()
        assert (await read_answer(reader)).body == b"done"
        assert (await site.ask("GET /livez")).code == "busy"
        turns[1].set()
        assert (await read_answer(reader)).body == b"done"


async def test_a_websocket_counts_once_and_stays(tmp_path: Path) -> None:
    async def stay(socket: WebSocket) -> None:
        await socket.accept()
        await socket.receive()

    limits = replace(DEFAULT_LIMITS, per_address=6)
    route = WebSocketRoute("/stay", stay)
    async with (
        serving(tmp_path, limits=limits, routes=[route]) as site,
        site.connection() as (reader, writer),
    ):
        writer.write(request("GET /stay", f"Host: {site.host}", site.bearer(), *UPGRADE))
        assert (await read_answer(reader)).status == 101
        for _ in range(12):
            assert (await site.upgrade("/ws/1", site.bearer())).status == 101
            assert (await site.ask("GET /livez")).status == 200
        assert not reader.at_eof()


class Quiet:
    """A guest that notes that it was asked to leave."""

    def __init__(self) -> None:
        self.gone = False

    def give_way(self) -> None:
        self.gone = True


def room(per_address: int, connections: int, proxies: tuple[str, ...] = ()) -> Connections:
    limits = Limits(per_address=per_address, connections=connections)
    return Connections(limits, [ip_network(each) for each in proxies])


def enter(place: Connections, address: str, *, idle: bool = True) -> Quiet | None:
    guest = Quiet()
    if not place.enter(guest, address):
        return None
    if idle:
        place.idle(guest)
    return guest


def test_the_longest_idle_of_the_same_address_gives_way() -> None:
    place = room(per_address=2, connections=9)
    other, first, second = enter(place, "10.0.0.1"), enter(place, "10.0.0.2"), enter(place, "::ffff:10.0.0.2")
    assert enter(place, "10.0.0.2")
    assert other and first and second
    assert (other.gone, first.gone, second.gone) == (False, True, False)


def test_when_all_is_full_the_fullest_address_gives_way() -> None:
    place = room(per_address=3, connections=4)
    one = enter(place, "10.0.0.1")
    many = [enter(place, "10.0.0.2") for _ in range(3)]
    assert enter(place, "10.0.0.3")
    assert one and not one.gone
    assert [guest.gone for guest in many if guest] == [True, False, False]


def test_who_is_busy_stays_and_who_is_new_is_turned_away() -> None:
    place = room(per_address=2, connections=3)
    assert enter(place, "10.0.0.1", idle=False) and enter(place, "10.0.0.1", idle=False)
    assert enter(place, "10.0.0.1") is None
    assert enter(place, "10.0.0.2", idle=False)
    assert enter(place, "10.0.0.3") is None


def test_who_leaves_makes_room_once() -> None:
    place = room(per_address=1, connections=9)
    guest = enter(place, "10.0.0.1", idle=False)
    for _ in range(2):
        place.leave(guest)
    assert enter(place, "10.0.0.1", idle=False)
    assert enter(place, "10.0.0.1") is None


def test_a_trusted_proxy_stands_for_many_people() -> None:
    place = room(per_address=1, connections=3, proxies=("10.0.0.0/8",))
    assert all(enter(place, "10.0.0.1", idle=False) for _ in range(3))
    assert enter(place, "10.0.0.1") is None


def test_nobody_who_left_is_remembered() -> None:
    place = room(per_address=2, connections=9)
    for i in range(count(100, 1000)):
        guest = enter(place, f"10.0.{i % 7}.1")
        place.leave(guest)
    assert (place._addresses, dict(place._held), place._idle) == ({}, {}, {})


def test_a_proxy_is_known_in_both_forms_of_its_address() -> None:
    assert both_forms(ip_network("10.0.0.0/8")) == ("10.0.0.0/8", "::ffff:10.0.0.0/104")
    assert both_forms(ip_network("fd00::/8")) == ("fd00::/8",)


# ---------------------------------------------------------------- how it stops

PROGRAM = """
import asyncio, sys
from contextlib import asynccontextmanager
from starlette.applications import Starlette
from gateway.listener import bind
from gateway.server import Server
from persistence.clock import system_entropy

def say(what): print(what, flush=True)

@asynccontextmanager
async def lifespan(app):
    if "start" in sys.argv: raise RuntimeError("no start")
    say(f"port {listener.getsockname()[1]}")
    yield
    say("closed")
    if "end" in sys.argv: raise RuntimeError("no end")

async def drain():
    say("draining")
    if "drain" in sys.argv: raise RuntimeError("no drain")
    if "hang" in sys.argv: await asyncio.Event().wait()

listener = bind("127.0.0.1", 0)
budget_s = 0.05 if "brief" in sys.argv else 60
app = Starlette(lifespan=lifespan)
sys.exit(Server(app, listener, entropy=system_entropy, drain=drain, budget_s=budget_s).run_to_the_end())
"""


@pytest.fixture
def program(request: pytest.FixtureRequest) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-P", "-c", PROGRAM, *request.param.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        yield child
        child.kill()


def line(child: "subprocess.Popen[str]") -> str:
    assert child.stdout
    return child.stdout.readline().strip()


def rest(child: "subprocess.Popen[str]") -> list[str]:
    assert child.stdout
    return child.stdout.read().split()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("program", [""], indirect=True)
def test_a_signal_drains_first_and_exits_0(program: "subprocess.Popen[str]", number: int) -> None:
    assert line(program).startswith("port ")
    os.kill(program.pid, number)
    assert (rest(program), program.wait()) == (["draining", "closed"], 0)


@pytest.mark.parametrize("program", ["hang"], indirect=True)
def test_a_second_signal_ends_the_waiting_and_still_closes_what_is_open(program: "subprocess.Popen[str]") -> None:
    line(program)
    os.kill(program.pid, signal.SIGTERM)
    assert line(program) == "draining"
    os.kill(program.pid, signal.SIGTERM)
    assert (rest(program), program.wait()) == (["closed"], 0)


@pytest.mark.parametrize("program", ["hang brief"], indirect=True)
def test_a_drain_has_a_budget(program: "subprocess.Popen[str]") -> None:
    line(program)
    os.kill(program.pid, signal.SIGTERM)
    assert (rest(program), program.wait()) == (["draining", "closed"], 0)


@pytest.mark.parametrize(
    ("program", "said"), [("drain", ["draining", "closed"]), ("end", ["draining", "closed"])], indirect=["program"]
)
def test_a_stop_that_fails_is_not_called_clean(program: "subprocess.Popen[str]", said: list[str]) -> None:
    line(program)
    os.kill(program.pid, signal.SIGTERM)
    assert (rest(program), program.wait()) == (said, 1)


@pytest.mark.parametrize("program", ["start"], indirect=True)
def test_a_start_that_fails_exits_1(program: "subprocess.Popen[str]") -> None:
    assert (rest(program), program.wait()) == ([], 1)


@pytest.mark.parametrize("program", [""], indirect=True)
def test_a_connection_that_stays_open_does_not_hold_up_the_end(program: "subprocess.Popen[str]") -> None:
    port = int(line(program).split()[1])
    with socket.create_connection(("127.0.0.1", port)) as held:
        held.sendall(b"GET / HTTP/1.1\r\nX: ")
        os.kill(program.pid, signal.SIGTERM)
        assert (rest(program), program.wait()) == (["draining", "closed"], 0)


async def test_while_it_drains_requests_are_still_answered(tmp_path: Path) -> None:
    draining, over = asyncio.Event(), asyncio.Event()

    async def drain() -> None:
        draining.set()
        await over.wait()

    async with serving(tmp_path, drain=drain) as site:
        site.server.stop()
        await draining.wait()
        assert (await site.ask("GET /livez")).status == 200
        over.set()


# ---------------------------------------------------------------- binding


def test_a_port_in_use_is_told_with_who_is_in_the_way() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BindError) as caught:
            bind("127.0.0.1", port)
    assert f"port {port} of 127.0.0.1 is in use" in str(caught.value)
    assert f"(pid {os.getpid()})" in str(caught.value) and "--port" in caught.value.hint


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_that_is_not_ours_is_told(host: str) -> None:
    with pytest.raises(BindError, match=host):
        bind(host, 0)


def test_a_port_that_was_just_left_can_be_taken_again() -> None:
    with bind("127.0.0.1", 0) as first, socket.create_connection(first.getsockname()):
        peer, _ = first.accept()
        peer.close()
        port = first.getsockname()[1]
    with bind("127.0.0.1", port) as again:
        assert again.getsockname()[1] == port


def test_localhost_is_the_address_that_people_type() -> None:
    with bind("localhost", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_a_child_does_not_inherit_the_port() -> None:
    with bind("127.0.0.1", 0) as listener:
        assert not listener.get_inheritable()


def test_nobody_holds_a_port_that_is_free() -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    assert holder(port) is None
