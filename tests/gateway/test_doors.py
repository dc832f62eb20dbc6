"""What a request passes before it means anything: real sockets, the contract's order, and the attacks on it."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Message
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.address import Network
from gateway.auth import WRONG_LIMIT, rotate
from gateway.body import MAX_BODY
from gateway.doors import CSP, GuardFor, Stay
from gateway.hub import Close
from gateway.logs import logging_to
from gateway.problem import Refused, starting
from persistence.clock import system_entropy
from persistence.errors import Fenced, FinnError
from tests.gateway.serving import UPGRADE, Site, close_code, read_answer, request, serving

FENCED = Fenced("another instance has taken over")
CANARY = "CANARY-0123456789abcdef0123456789abcdef"


@contextmanager
def logged() -> Iterator[list[dict[str, Any]]]:
    stream, lines = io.StringIO(), list[dict[str, Any]]()
    with logging_to(stream, "debug", lambda text: text):
        yield lines
    lines.extend(json.loads(line) for line in stream.getvalue().splitlines())


# ---------------------------------------------------------------- the envelope


async def test_every_answer_carries_the_callers_request_id(tmp_path: Path) -> None:
    mine = "X-Request-Id: mine-1"
    async with serving(tmp_path) as site:
        answers = [
            await site.ask("GET /", mine),
            await site.ask("GET /nowhere", mine),
            await site.ask("GET /things", mine),
            await site.ask("GET /fail", mine),
            await site.ask("GET /", mine, host="evil"),
            await site.upgrade("/ws/1", mine, host="evil"),
            await site.upgrade("/ws/1", mine, site.bearer()),
            await site.send(
                b"GET / HTTP/1.1\r\nX-Request-Id: mine-1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"
            ),
        ]
        assert [answer.headers["x-request-id"] for answer in answers] == ["mine-1"] * len(answers)


@pytest.mark.parametrize("sent", ["", "a b", 'x"y', "x" * 129, "\x1b[2J", "é"])
async def test_a_request_id_that_cannot_be_told_is_replaced(tmp_path: Path, sent: str) -> None:
    async with serving(tmp_path) as site:
        answers = [await site.ask("GET /", f"X-Request-Id: {sent}") for _ in range(2)]
        one, other = (answer.headers["x-request-id"] for answer in answers)
        assert one != other and len(one) == 16


async def test_every_answer_says_which_version_it_speaks_with_who_stands_before_us(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        answers = [
            await site.ask("GET /"),
            await site.ask("GET /nowhere"),
            await site.ask("GET /", host="evil"),
            await site.upgrade("/ws/1", site.bearer()),
            await site.send(b"nonsense\r\n\r\n"),
        ]
        assert [answer.headers["x-finn-proto"] for answer in answers] == ["1"] * len(answers)


async def test_every_answer_carries_the_security_headers(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        for answer in [
            await site.ask("GET /"),
            await site.ask("GET /", host="evil"),
            await site.send(b"nonsense\r\n\r\n"),
        ]:
            assert answer.headers["content-security-policy"] == CSP
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
            assert "server" not in answer.headers


async def test_an_address_in_the_query_reaches_nobody_and_no_log(tmp_path: Path) -> None:
    with logged() as lines:
        async with serving(tmp_path) as site:
            await site.ask(f"GET /?gatewayUrl=ws://127.0.0.1:9&token={CANARY}")
            await site.upgrade(f"/ws/1?token={CANARY}")
    assert {line["path"] for line in lines if line["logger"] == "finn.access"} == {"/", "/ws/1"}
    assert CANARY not in json.dumps(lines)


async def test_neither_token_nor_cookie_nor_link_reaches_the_log(tmp_path: Path) -> None:
    with logged() as lines:
        async with serving(tmp_path, environ={"FINN_TOKEN": CANARY}) as site:
            cookie, link = site.cookie(), site.auth.new_link()
            await site.ask_with_token("GET /things")
            await site.ask("GET /things", "Authorization: Bearer CANARY-wrong")
            await site.ask("GET /things", cookie, "Authorization: Bearer CANARY-wrong")
            await site.ask(f"GET /login?once={link}", f"Referer: http://x/?t={CANARY}")
            await site.post("/login", {"token": CANARY})
            await site.post("/login", {"once": link})
            await site.upgrade("/ws/1", site.bearer())
    everything = json.dumps(lines)
    assert len(lines) >= 7
    assert not any(secret in everything for secret in ("CANARY", link, cookie.partition("=")[2]))


async def test_what_callers_write_stays_inside_its_line(tmp_path: Path) -> None:
    nasty = 'a%1b[2J%0a{"level":"admin"}' + "x" * 15_000
    with logged() as lines:
        async with serving(tmp_path) as site:
            assert (await site.ask(f"GET /{nasty}", f"User-Agent: {nasty}")).status == 404
            assert (await site.ask("GET /", f"User-Agent: a\x1b[2J{nasty}")).status == 400
    (line,) = [line for line in lines if line["logger"] == "finn.access"]
    assert (line["level"], line["status"], len(line["path"])) == ("info", 404, 256)


# ---------------------------------------------------------------- Host: DNS rebinding


async def statuses_of_hosts(site: Site, path: str, *headers: str) -> dict[str, int]:
    hosts = {
        "own": f"Host: {site.host}",
        "localhost": f"Host: LOCALHOST:{site.port}",
        "IPv6": f"Host: [::1]:{site.port}",
        "rebound": "Host: rebind.evil",
        "rebound with port": f"Host: rebind.evil:{site.port}",
        "other port": "Host: 127.0.0.1:1",
        "no port": "Host: 127.0.0.1",
        "user": f"Host: localhost@evil:{site.port}",
        "trailing dot": f"Host: localhost.:{site.port}",
        "suffix": f"Host: {site.host}.evil",
        "two": f"Host: {site.host}\r\nHost: rebind.evil",
        "twice the same": f"Host: {site.host}\r\nHost: {site.host}",
        "empty": "Host: ",
        "none": "X-Other: 1",
    }
    return {name: (await site.send(request(f"GET {path}", host, *headers))).status for name, host in hosts.items()}


GOOD_HOSTS = ("own", "localhost", "IPv6")


async def test_a_page_that_rebinds_its_name_to_us_gets_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        found = await statuses_of_hosts(site, "/things", site.bearer())
        assert found == {name: 200 if name in GOOD_HOSTS else 421 for name in found}
        assert len(site.asked) == len(GOOD_HOSTS)


async def test_nor_does_it_get_a_socket(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        refused = await site.upgrade("/ws/1", site.bearer(), host="rebind.evil")
        assert (refused.status, refused.code, site.asked) == (421, "misdirected", [])


async def test_a_probe_without_a_token_need_not_know_our_name(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        found = await statuses_of_hosts(site, "/livez")
        assert found == {name: 421 if name in ("two", "twice the same") else 200 for name in found}


async def test_a_probe_with_a_token_has_to_know_our_name(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        for credential in (site.bearer(), site.cookie()):
            assert (await site.send(request("GET /health", "Host: 10.1.2.3", credential))).code == "misdirected"


@pytest.mark.parametrize("target", ["http://evil/things", "http://127.0.0.1/things", "evil:80", "*", "things"])
async def test_a_request_target_that_is_no_path_is_refused(tmp_path: Path, target: str) -> None:
    async with serving(tmp_path) as site:
        assert (await site.ask_with_token(f"GET {target}")).status in (400, 421)
        assert site.asked == []


# ---------------------------------------------------------------- Origin: other sites


def origins(site: Site) -> dict[str, str]:
    return {
        "evil": "http://evil.example",
        "null": "null",
        "empty": "",
        "our name as a prefix": f"http://{site.host}.evil.com",
        "our name as a user": f"http://{site.host}@evil.com",
        "a host that begins like ours": "http://127.0.0.1.evil.com",
        "localhost in front": f"http://localhost:{site.port}.evil",
        "other port": f"http://127.0.0.1:{site.port % 65535 + 1}",
        "no port": "http://127.0.0.1",
        "https": f"https://{site.host}",
        "upper case": f"HTTP://LOCALHOST:{site.port}",
        "a path": f"{site.origin}/",
        "two in one": f"{site.origin}, http://evil.example",
        "two": f"{site.origin}\r\nOrigin: http://evil.example",
    }


async def test_no_other_page_opens_a_socket_with_our_cookie_or_a_token(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        for credential in (site.cookie(), site.bearer(), "X-None: 1"):
            for name, origin in origins(site).items():
                refused = await site.upgrade("/ws/1", credential, f"Origin: {origin}")
                assert refused.status == (400 if name == "two" else 403), (name, credential)
        assert site.asked == []


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
async def test_no_other_page_changes_anything(tmp_path: Path, method: str) -> None:
    async with serving(tmp_path) as site:
        for name, origin in origins(site).items():
            refused = await site.ask_with_token(f"{method} /things", f"Origin: {origin}")
            assert (refused.status, refused.code) == (403, "forbidden_origin"), name
        assert site.asked == []


async def test_our_own_page_may(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        for own in (site.origin, f"http://localhost:{site.port}", f"http://[::1]:{site.port}"):
            assert (await site.upgrade("/ws/1", site.cookie(), f"Origin: {own}")).status == 101
            assert (await site.ask("POST /things", site.cookie(), f"Origin: {own}")).status == 200


async def test_an_allowed_page_may(tmp_path: Path) -> None:
    async with serving(tmp_path, environ={"FINN_ALLOWED_ORIGINS": "https://desk.example"}) as site:
        assert (await site.ask_with_token("POST /things", "Origin: https://desk.example")).status == 200
        assert (await site.ask_with_token("POST /things", "Origin: https://desk.example:8443")).status == 403


async def test_a_program_needs_no_origin_and_a_cookie_does(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        assert (await site.upgrade("/ws/1", site.bearer())).status == 101
        refused = await site.upgrade("/ws/1", site.cookie())
        assert (refused.status, refused.code) == (403, "forbidden_origin")
        assert (await site.ask("POST /things", site.cookie())).status == 200


@pytest.mark.parametrize(
    ("where", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)]
)
async def test_a_browser_that_says_where_it_comes_from_is_believed(tmp_path: Path, where: str, status: int) -> None:
    async with serving(tmp_path) as site:
        assert (await site.ask("POST /things", site.cookie(), f"Sec-Fetch-Site: {where}")).status == status


async def test_another_page_may_look_at_what_it_cannot_read(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        answer = await site.ask("GET /", "Origin: http://evil.example")
        assert answer.status == 200
        assert not any(name.startswith("access-control") for name in answer.headers)


# ---------------------------------------------------------------- tokens


async def test_nothing_that_says_it_is_local_is_believed(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        for claim in ("X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1", "X-Real-IP: 127.0.0.1"):
            assert (await site.ask("GET /things", claim)).status == 401
        assert site.asked == []


async def test_a_token_in_the_url_opens_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        assert (await site.ask(f"GET /things?token={site.token}&access_token={site.token}")).status == 401


async def test_a_thousand_wrong_tokens_are_held_up_and_the_right_one_passes(tmp_path: Path) -> None:
    async with serving(tmp_path) as site, site.connection() as (reader, writer):
        found = []
        for i in range(1000):
            writer.write(request("GET /things", f"Host: {site.host}", f"Authorization: Bearer wrong-{i}"))
            found.append(await read_answer(reader))
        assert [answer.status for answer in found] == [401] * WRONG_LIMIT + [429] * (1000 - WRONG_LIMIT)
        assert (found[-1].code, found[-1].headers["retry-after"]) == ("rate_limited", "60")
        assert (await site.ask_with_token("GET /things")).status == 200
        assert (await site.ask("GET /things", site.cookie())).status == 200
        assert (await site.ask("GET /things")).status == 401


@pytest.mark.parametrize("trusted", [ip_network("127.0.0.0/8"), ip_network("127.0.0.1/32")])
async def test_behind_a_trusted_proxy_each_caller_has_a_count(tmp_path: Path, trusted: Network) -> None:
    async with serving(tmp_path, proxies=[trusted]) as site:
        wrong = "Authorization: Bearer wrong"
        spoofed = "X-Forwarded-For: 127.0.0.1, 203.0.113.7"
        for _ in range(WRONG_LIMIT):
            assert (await site.ask("GET /things", wrong, spoofed)).status == 401
        assert (await site.ask("GET /things", wrong, "X-Forwarded-For: ::ffff:203.0.113.7")).status == 429
        assert (await site.ask("GET /things", wrong, "X-Forwarded-For: 203.0.113.8")).status == 401


async def test_nobody_else_may_say_who_is_calling(tmp_path: Path) -> None:
    async with serving(tmp_path, proxies=[ip_network("10.0.0.0/8")]) as site:
        wrong = "Authorization: Bearer wrong"
        found = [(await site.ask("GET /things", wrong, f"X-Forwarded-For: 10.0.0.{i}")).status for i in range(12)]
        assert found == [401] * WRONG_LIMIT + [429, 429]


async def test_after_a_rotation_the_old_token_is_refused_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        old, cookie = site.bearer(), site.cookie()
        rotate(tmp_path / "auth", entropy=system_entropy)
        assert (await site.ask("GET /things", old)).status == 401
        assert (await site.ask("GET /things", cookie)).status == 401
        assert (await site.ask_with_token("GET /things")).status == 200


# ---------------------------------------------------------------- sockets


@pytest.mark.parametrize("credential", ["X-None: 1", "Authorization: Bearer wrong"])
async def test_a_socket_without_a_valid_token_is_accepted_and_closed_4401(tmp_path: Path, credential: str) -> None:
    async with serving(tmp_path) as site:
        for _ in range(WRONG_LIMIT + 2):
            async with site.connection() as (reader, writer):
                writer.write(request("GET /ws/1", f"Host: {site.host}", *UPGRADE, credential))
                assert (await read_answer(reader)).status == 101
                assert await close_code(reader) == 4401
        assert site.asked == []


@pytest.mark.parametrize(("closed", "code", "retry_after"), [(starting(), "starting", "1"), (FENCED, "fenced", "30")])
async def test_a_socket_while_finn_is_closed_is_closed_1012_and_a_request_told_503(
    tmp_path: Path, closed: FinnError, code: str, retry_after: str
) -> None:
    async with serving(tmp_path, closed=lambda: closed) as site, site.connection() as (reader, writer):
        writer.write(request("GET /ws/1", f"Host: {site.host}", *UPGRADE, site.bearer()))
        assert (await read_answer(reader)).status == 101
        assert await close_code(reader) == 1012
        waiting = await site.ask_with_token("GET /things")
        assert (waiting.status, waiting.code, waiting.headers["retry-after"]) == (503, code, retry_after)
        assert [(await site.ask(f"GET {path}")).status for path in ("/", "/livez")] == [200, 200]


async def test_a_socket_anywhere_else_is_told_404(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        for path in ("/ws", "/ws/", "/ws/1/2", "/things", "/"):
            refused = await site.upgrade(path, site.bearer())
            assert (refused.status, refused.code) == (404, "not_found"), path


async def test_refusing_a_socket_is_no_error_in_the_log(tmp_path: Path) -> None:
    with logged() as lines:
        async with serving(tmp_path) as site:
            await site.upgrade("/ws/1", host="evil")
            await site.upgrade("/nowhere", site.bearer())
            await site.upgrade("/ws/1", site.bearer(), "Origin: http://evil.example")
    assert [line for line in lines if line["level"] not in ("debug", "info")] == []


# ---------------------------------------------------------------- the order


async def test_doors_come_in_the_contracts_order(tmp_path: Path) -> None:
    bad = {
        "Host": "Host: evil",
        "Origin": "Origin: http://evil.example",
        "route": "POST /nowhere",
        "token": "Authorization: Bearer wrong",
        "size": f"Content-Length: {MAX_BODY + 1}",
    }
    async with serving(tmp_path) as site:
        good = {"Host": f"Host: {site.host}", "Origin": f"Origin: {site.origin}", "route": "POST /echo"}
        good |= {"token": site.bearer(), "size": "Content-Length: 1"}
        found = []
        for right in range(len(bad) + 1):
            line = {name: (good if i < right else bad)[name] for i, name in enumerate(bad)}
            headers = [line[name] for name in ("Host", "Origin", "token", "size")]
            found.append((await site.send(request(line["route"], *headers) + b"?")).code)
        expected = ["misdirected", "forbidden_origin", "not_found", "unauthorized", "too_large", "invalid_json"]
        assert found == expected


@pytest.mark.parametrize("name", ["..%2Fx", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "x" * 300, "%00", "..%5cx", "%ff%fe"])
async def test_an_odd_path_creates_nothing(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path) as site:
        before = sorted(tmp_path.rglob("*"))
        await site.ask_with_token(f"DELETE /things/{name}")
        await site.upgrade(f"/ws/{name}", site.bearer())
        await site.ask(f"GET /login?once={name}")
        assert sorted(tmp_path.rglob("*")) == before


# ---------------------------------------------------------------- what was let in


class Wire:
    """The two ends that Stay stands between, and whether the caller stands still."""

    def __init__(self, *incoming: Message) -> None:
        self.stands = True
        self.sent: list[Message] = []
        self._incoming = list(incoming)
        self.stay = Stay(lambda: self.stands, self._receive, self._send)

    async def _receive(self) -> Message:
        return self._incoming.pop(0)

    async def _send(self, message: Message) -> None:
        self.sent.append(message)


SAID = {"type": "websocket.receive", "text": "x"}
TOLD = {"type": "websocket.send", "text": "y"}
CLOSED = {"type": "websocket.close", "code": Close.UNAUTHORIZED, "reason": "unauthorized"}


def piece(text: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": text, "more_body": more}


async def test_no_frame_goes_out_to_whom_nothing_is_open_any_more() -> None:
    wire = Wire()
    await wire.stay.send(TOLD)
    wire.stands = False
    await wire.stay.send(TOLD)
    await wire.stay.send(TOLD)
    await wire.stay.send({"type": "websocket.close", "code": 1000})
    assert wire.sent == [TOLD, CLOSED]


async def test_no_frame_comes_in_from_whom_nothing_is_open_any_more() -> None:
    wire = Wire({"type": "websocket.connect"}, SAID, SAID, SAID)
    assert [(await wire.stay.receive())["type"] for _ in range(2)] == ["websocket.connect", "websocket.receive"]
    wire.stands = False
    assert [(await wire.stay.receive())["type"] for _ in range(2)] == ["websocket.disconnect"] * 2
    assert wire.sent == [CLOSED]


async def test_a_request_means_nothing_once_nothing_is_open_before_all_of_it_is_here() -> None:
    first: Message = {"type": "http.request", "body": b"{", "more_body": True}
    last: Message = {"type": "http.request", "body": b"}", "more_body": False}
    wire = Wire(first, last, {"type": "http.disconnect"})
    assert await wire.stay.receive() == first
    wire.stands = False
    with pytest.raises(Refused) as refused:
        await wire.stay.receive()
    assert refused.value.code == "unauthorized"
    assert (await wire.stay.receive())["type"] == "http.disconnect"


async def test_a_stream_ends_before_its_next_piece_and_an_answer_in_one_piece_is_given() -> None:
    stream, answer = Wire(), Wire()
    await stream.stay.send(piece(b"one"))
    stream.stands = answer.stands = False
    for _ in range(2):
        with pytest.raises(ClientDisconnect):
            await stream.stay.send(piece(b"two"))
    assert stream.sent == [piece(b"one"), piece(b"", more=False)]
    await answer.stay.send({"type": "http.response.start", "status": 204})
    await answer.stay.send(piece(b"all", more=False))
    assert [one["type"] for one in answer.sent] == ["http.response.start", "http.response.body"]


async def test_a_rotation_ends_an_open_socket_and_stream_at_the_next_frame(tmp_path: Path) -> None:
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        while True:
            await socket.send_text(await socket.receive_text())

    begun, go_on = asyncio.Event(), asyncio.Event()

    async def pieces() -> AsyncIterator[str]:
        yield "one"
        begun.set()
        await go_on.wait()
        yield "two"

    async def stream(_: Request) -> Response:
        return StreamingResponse(pieces())

    def routes(guard: GuardFor) -> Sequence[BaseRoute]:
        return (
            WebSocketRoute("/talk", talk, middleware=guard("read")),
            Route("/stream", stream, middleware=guard("read")),
        )

    async with serving(tmp_path, guarded=routes) as site, site.connection() as (reader, writer):
        url = f"ws://{site.host}/talk"
        bearer = {"Authorization": f"Bearer {site.token}"}
        async with connect(url, additional_headers=bearer, proxy=None, compression=None) as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"
            writer.write(request("GET /stream", f"Host: {site.host}", site.bearer(), "Connection: close"))
            await begun.wait()
            rotate(tmp_path / "auth", entropy=system_entropy)
            go_on.set()
            assert b"two" not in await reader.read()
            await socket.send("hello?")
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert socket.close_code == Close.UNAUTHORIZED
