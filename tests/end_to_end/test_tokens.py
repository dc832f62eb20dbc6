"""Scoped tokens from outside: what each opens on every route, and that it ends when it is taken back."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from socket import create_connection
from typing import Any

import pytest
from starlette.routing import Mount, Route, WebSocketRoute
from websockets.exceptions import InvalidStatus

from agent.models.builtin import Builtin
from gateway.app import Finn as GatewayFinn
from gateway.auth import Auth
from gateway.caller import SCOPES
from gateway.settings import read
from persistence.clock import SystemClock, system_entropy
from tests.end_to_end.finn import ECHO, PATIENCE_S, Answer, Finn, Headers, Line, finn, slow
from tests.end_to_end.machines import Directory, lose, saved
from tests.persistence.journals import logged

pytestmark = pytest.mark.slow

NOBODY = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
LONG = {"when": "long", "calls": [[slow("word " * 4000)]]}

#: Every route: the scope that opens it, and the status for whom it is open and who asks for what is not there.
ROUTES: Mapping[tuple[str, str], tuple[str | None, int]] = {
    ("GET", "/"): (None, 200),
    ("GET", "/livez"): (None, 200),
    ("GET", "/readyz"): (None, 200),
    ("GET", "/health"): (None, 200),
    ("GET", "/openapi.json"): (None, 200),
    ("GET", "/login"): (None, 200),
    ("GET", "/login.css"): (None, 200),
    ("POST", "/login"): (None, 400),
    ("POST", "/logout"): (None, 204),
    ("GET", "/metrics"): ("probe", 200),
    ("GET", "/doctor"): ("probe", 200),
    ("POST", "/doctor/fix"): ("owner", 400),
    ("POST", "/doctor/undo"): ("owner", 400),
    ("GET", "/api/sessions"): ("read", 200),
    ("POST", "/api/sessions"): ("chat", 400),
    ("GET", "/api/sessions/{session}"): ("read", 404),
    ("PATCH", "/api/sessions/{session}"): ("chat", 404),
    ("DELETE", "/api/sessions/{session}"): ("owner", 404),
    ("POST", "/api/sessions/{session}/restore"): ("owner", 404),
    ("GET", "/api/sessions/{session}/messages"): ("read", 404),
    ("POST", "/api/sessions/{session}/messages"): ("chat", 404),
    ("POST", "/api/sessions/{session}/stop"): ("chat", 404),
    ("GET", "/api/sessions/{session}/events"): ("read", 404),
    ("GET", "/api/sessions/{session}/export"): ("read", 404),
    ("GET", "/api/beads"): ("read", 200),
    ("POST", "/api/beads"): ("chat", 400),
    ("GET", "/api/beads/ready"): ("read", 200),
    ("GET", "/api/beads/{bead}"): ("read", 404),
    ("PATCH", "/api/beads/{bead}"): ("chat", 400),
    ("GET", "/api/tasks"): ("read", 200),
    ("POST", "/api/tasks/{name}/run"): ("owner", 404),
    ("GET", "/api/storage"): ("read", 200),
    ("GET", "/api/tokens"): ("owner", 200),
    ("POST", "/api/tokens"): ("owner", 400),
    ("DELETE", "/api/tokens/{token}"): ("owner", 404),
}
OTHERS = {"/ws/{session}", "/{path:path}", "/static"}  #: the socket, what is no socket, the page's files
QUERY = {"/doctor": "?only=beads"}
OPENS = {"none": (), "probe": ("probe",), "read": SCOPES[:2], "chat": SCOPES[:3], "owner": SCOPES}


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finn]:
    with finn(tmp_path_factory.mktemp("tokens"), [LONG, ECHO]) as running:
        yield running


def new_token(it: Finn, scope: str, **more: str) -> Any:
    made = it.ask("POST", "/api/tokens", {"scope": scope, **more})
    assert made.status == 201, made
    return made.json


def bearer(made: Any) -> Headers:
    return {"Authorization": f"Bearer {made['token']}"}


# ---------------------------------------------------------------- what each opens


def test_every_route_has_its_row_here(tmp_path: Path) -> None:
    settings = read(flags={"FINN_DATA_DIR": str(tmp_path)}, environ={})
    auth = Auth.open(tmp_path / "auth", clock=SystemClock(), entropy=system_entropy)
    app = GatewayFinn(settings, Builtin(), auth, SystemClock(), system_entropy, 1).app(lambda: None, lambda: None)
    routes = [route for route in app.routes if isinstance(route, Route)]
    others = [route for route in app.routes if not isinstance(route, Route)]
    assert {(method, one.path) for one in routes for method in (one.methods or set()) - {"HEAD"}} == set(ROUTES)
    assert {one.path for one in others if isinstance(one, WebSocketRoute | Mount)} == OTHERS
    assert len(others) == len(OTHERS)


def test_every_scope_opens_what_its_row_says_and_nothing_else(it: Finn) -> None:
    shown: dict[str, Headers] = {scope: bearer(new_token(it, scope)) for scope in SCOPES} | {"none": {}}
    found, expected = {}, {}
    for (method, path), (need, status) in ROUTES.items():
        for scope, headers in shown.items():
            body = b"[]" if method in ("POST", "PATCH") else None
            answer = it.ask(method, there(path), body, headers, bearer=False)
            row = (method, path, scope)
            found[row] = (answer.status, code(answer))
            is_open = need is None or need in OPENS[scope]
            refused = (401, "unauthorized") if scope == "none" else (403, "forbidden_scope")
            expected[row] = (status, code(answer)) if is_open else refused
    assert found == expected


def there(path: str) -> str:
    """A path where nothing is."""
    named = path.replace("{session}", NOBODY).replace("{token}", NOBODY)
    return named.replace("{bead}", "bd-none").replace("{name}", "none") + QUERY.get(path, "")


def code(answer: Answer) -> str:
    return answer.code if answer.status >= 400 else ""


def test_a_token_with_a_scope_sees_the_checks_of_health_and_a_wrong_one_is_told(it: Finn) -> None:
    for scope in SCOPES:
        assert it.ask("GET", "/health", headers=bearer(new_token(it, scope))).json["checks"]
    assert "checks" not in it.ask("GET", "/health", bearer=False).json
    assert it.ask("GET", "/health", headers={"Authorization": f"Bearer finn_{'A' * 43}"}).code == "unauthorized"


def test_while_finn_starts_a_token_that_cannot_be_known_yet_is_told_less(tmp_path: Path) -> None:
    """The application before its log is open: what a scoped token may is in the log, the owner's own needs none."""
    settings = read(flags={"FINN_DATA_DIR": str(tmp_path)}, environ={})
    auth = Auth.open(tmp_path / "auth", clock=SystemClock(), entropy=system_entropy)
    app = GatewayFinn(settings, Builtin(), auth, SystemClock(), system_entropy, 1).app(lambda: None, lambda: None)

    async def ask(path: str, text: str) -> tuple[int, Any]:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"host", b"127.0.0.1:1"), (b"authorization", f"Bearer {text}".encode())]
        scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}
        await app({**scope, "headers": headers, "client": ("127.0.0.1", 9), "http_version": "1.1"}, receive, send)
        return sent[0]["status"], json.loads(b"".join(one.get("body", b"") for one in sent))

    unknown, owner = f"finn_{'A' * 43}", auth.token.reveal()
    for _ in range(20):
        status, health = asyncio.run(ask("/health", unknown))
        assert (status, "checks" in health) == (200, False)
        assert asyncio.run(ask("/api/sessions", unknown))[1]["code"] == "starting"
    assert "checks" in asyncio.run(ask("/health", owner))[1]
    assert asyncio.run(ask("/health", "wrong"))[1]["code"] == "unauthorized"


async def test_a_socket_is_read_with_read_and_written_with_chat(it: Finn) -> None:
    session = it.new_session()
    with pytest.raises(InvalidStatus) as refused:
        async with it.connect(f"/ws/{session}", bearer(new_token(it, "probe"))):
            pass
    assert refused.value.response.status_code == 403
    reader, writer = bearer(new_token(it, "read")), bearer(new_token(it, "chat"))
    async with it.connect(f"/ws/{session}", reader) as quiet, it.connect(f"/ws/{session}", writer) as loud:
        reading, writing = Line(quiet), Line(loud)
        for line in (reading, writing):
            assert (await line.next())["type"] == "hello"
        for kind in ("prompt", "steer", "follow_up", "abort"):
            text = {} if kind == "abort" else {"text": "let me"}
            await reading.send({"type": kind, **text, "request_id": kind})
            told = (await reading.until("error"))["data"]
            assert (told["code"], told["recoverable"], told["request_id"]) == ("forbidden_scope", True, kind)
        await reading.send({"type": "ping"})
        await reading.until("pong")
        await writing.turn("hello")
        await reading.until("turn_end")
    assert [one["text"] for one in it.messages(session)] == ["hello", "You said: hello"]


# ---------------------------------------------------------------- who did it


def test_every_record_says_who_caused_it(tmp_path: Path) -> None:
    with finn(tmp_path, [ECHO]) as it:
        chat, owner = new_token(it, "chat"), new_token(it, "owner")
        session = it.ask("POST", "/api/sessions", {"title": "t"}, bearer(chat)).json["id"]
        path = f"/api/sessions/{session}"
        it.ask("PATCH", path, {"title": "u"}, bearer(chat))
        it.ask("POST", f"{path}/messages?wait=true", {"text": "hi"}, {**bearer(chat), "X-Actor": "owner"})
        asyncio.run(say_by_socket(it, session, bearer(chat)))
        it.ask("POST", "/api/beads", {"title": "b", "created_by": "owner"}, bearer(chat))
        it.ask("DELETE", path, None, bearer(owner))
        it.ask("POST", f"{path}/restore", None, bearer(owner))
        it.ask("DELETE", f"/api/tokens/{chat['id']}", None, bearer(owner))
        it.ask("PATCH", path, {"title": "v"})
        export = it.ask("GET", f"{path}/export?format=jsonl").body
        it.stop()
    told = [(one.type, one.by.actor, one.by.trust) for one in logged(it.data) if one.by.trust == "user"]
    by_chat, by_owner = f"token:{chat['id']}", f"token:{owner['id']}"
    assert told == [
        ("token_created", "owner", "user"),
        ("token_created", "owner", "user"),
        ("session_created", by_chat, "user"),
        ("session_renamed", by_chat, "user"),
        ("user_message", by_chat, "user"),
        ("user_message", by_chat, "user"),
        ("beads_changed", by_chat, "user"),
        ("session_deleted", by_owner, "user"),
        ("session_restored", by_owner, "user"),
        ("token_revoked", by_owner, "user"),
        ("session_renamed", "owner", "user"),
    ]
    assert b'"role": "user"' in export and b"token:" not in export, "a Pi session knows no actors"


async def say_by_socket(it: Finn, session: str, headers: Headers) -> None:
    async with it.connect(f"/ws/{session}", headers) as socket:
        await Line(socket).turn("by socket")


# ---------------------------------------------------------------- taken back


async def test_a_revocation_is_felt_at_the_next_frame_in_both_directions(it: Finn) -> None:
    session, made = it.new_session(), new_token(it, "chat")
    async with it.open(session) as owner, it.connect(f"/ws/{session}", bearer(made)) as socket:
        line = Line(socket)
        await line.say("a long one")
        await line.until("text_delta")
        assert it.ask("DELETE", f"/api/tokens/{made['id']}").status == 204
        await socket.send(json.dumps({"type": "prompt", "text": "and this", "request_id": "late"}))
        assert await line.closed() == 4401
        assert not line.of("turn_end")
        await owner.send({"type": "ping"})
        await owner.until("pong")
        it.ask("POST", f"/api/sessions/{session}/stop")
        await owner.until("turn_end")
    assert "and this" not in [one["text"] for one in it.messages(session)]
    async with it.connect(f"/ws/{session}", bearer(made)) as again:
        assert await Line(again).closed() == 4401


def test_who_had_begun_to_ask_when_the_token_was_taken_back_gets_nothing(it: Finn) -> None:
    """Or a stolen token would make itself a new one after it was revoked."""
    thief, body = new_token(it, "owner"), json.dumps({"scope": "owner"}).encode()
    head = f"POST /api/tokens HTTP/1.1\r\nHost: 127.0.0.1:{it.port}\r\nContent-Type: application/json\r\n"
    head += f"Authorization: Bearer {thief['token']}\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    with create_connection(("127.0.0.1", it.port), timeout=PATIENCE_S) as connection:
        connection.sendall(head.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")  # it was let in, and its body is waited for
        assert it.ask("DELETE", f"/api/tokens/{thief['id']}").status == 204
        there = it.ask("GET", "/api/tokens").json
        connection.sendall(body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
    assert len(it.ask("GET", "/api/tokens").json["tokens"]) == len(there["tokens"])


async def test_one_who_only_listens_is_shown_out_as_well(it: Finn) -> None:
    session, made = it.new_session(), new_token(it, "read")
    with closing(HTTPConnection("127.0.0.1", it.port, timeout=PATIENCE_S)) as stream:
        stream.request("GET", f"/api/sessions/{session}/events", headers=dict(bearer(made)))
        answer = stream.getresponse()
        assert answer.status == 200
        assert answer.readline() == b"event: hello\n"
        async with it.connect(f"/ws/{session}", bearer(made)) as socket:
            line = Line(socket)
            await line.until("hello")
            it.ask("DELETE", f"/api/tokens/{made['id']}")
            assert await line.closed() == 4401
        rest = await asyncio.to_thread(answer.read)
    assert rest.count(b"event:") == 0


def test_a_browser_session_of_a_token_ends_with_it(it: Finn) -> None:
    made = new_token(it, "chat")
    login = it.ask("POST", "/login", {"token": made["token"]}, bearer=False)
    assert login.status == 204
    cookie = {"Cookie": login.headers["set-cookie"].partition(";")[0], "Origin": it.url}
    assert it.ask("POST", "/api/sessions", {}, cookie, bearer=False).status == 201
    assert it.ask("GET", "/api/tokens", None, cookie, bearer=False).code == "forbidden_scope"
    it.ask("DELETE", f"/api/tokens/{made['id']}")
    assert it.ask("GET", "/api/sessions", None, cookie, bearer=False).code == "unauthorized"


def test_what_is_not_a_token_is_told_in_the_contracts_codes(it: Finn) -> None:
    for body in ({}, {"scope": "admin"}, {"scope": "read", "expires": 5}, {"scope": "read", "expires": "soon"},
                 {"scope": "read", "name": "x" * 65}, {"scope": "read", "name": "a\nb"}, {"scope": "read", "id": "1"},
                 {"scope": "read", "expires": "0s"}):  # fmt: skip
        assert it.ask("POST", "/api/tokens", body).code == "invalid_body", body
    for name in (NOBODY, "..%2F..%2Fauth", "a" * 300, "%00"):
        assert it.ask("DELETE", f"/api/tokens/{name}").code == "not_found", name


def test_tokens_and_revocations_outlive_the_machine(tmp_path: Path) -> None:
    with finn(tmp_path, [ECHO], **Directory(tmp_path / "store").settings) as it:
        kept, gone = new_token(it, "read"), new_token(it, "read")
        it.ask("DELETE", f"/api/tokens/{gone['id']}")
        saved(it)
        lose(it)
        it.start()
        assert it.ask("GET", "/api/sessions", headers=bearer(kept)).status == 200
        assert it.ask("GET", "/api/sessions", headers=bearer(gone)).code == "unauthorized"


# ---------------------------------------------------------------- the commands


def test_tokens_are_made_listed_and_revoked_whether_finn_runs_or_not(tmp_path: Path) -> None:
    with finn(tmp_path, [ECHO]) as it:
        text = it.command("token", "create", "--scope", "read", "--name", "made up").stdout.strip()
        headers = {"Authorization": f"Bearer {text}"}
        assert it.ask("GET", "/api/sessions", headers=headers).status == 200
        it.stop()
        down = json.loads(it.command("token", "create", "--scope", "probe", "--expires", "90d", "--json").stdout)
        listed = json.loads(it.command("token", "list", "--json").stdout)["tokens"]
        assert [(one["name"], one["scope"], one["state"]) for one in listed] == [
            ("made up", "read", "good"),
            ("", "probe", "good"),
        ]
        assert {name for one in listed for name in one} == {
            "id", "name", "scope", "created_at", "expires_at", "revoked_at", "state",
        }  # fmt: skip
        assert listed[1]["expires_at"] == down["expires_at"] is not None
        it.start()
        assert it.ask("GET", "/metrics", headers=bearer(down)).status == 200
        assert it.ask("GET", "/api/sessions", headers=headers).status == 200, "it outlives a restart"
        assert it.command("token", "revoke", listed[0]["id"]).returncode == 0
        assert it.ask("GET", "/api/sessions", headers=headers).code == "unauthorized"
        it.stop()
        assert it.command("token", "revoke", down["id"]).returncode == 0
        again = it.command("token", "revoke", NOBODY)
        assert (again.returncode, again.stderr) == (
            1,
            f"finn: there is no token {NOBODY!r} (`finn token list` shows their ids)\n",
        )
        assert it.command("token", "list").stdout.count("revoked") == 2
        it.start()
        assert it.ask("GET", "/metrics", headers=bearer(down)).code == "unauthorized"
        link = it.command("token").stdout.strip()
        assert link.startswith(f"{it.url}/login?once="), "finn token is what it was"


def test_a_directory_without_a_log_has_no_tokens_and_none_is_made_by_looking(tmp_path: Path) -> None:
    it = Finn(tmp_path, {})
    listed = it.command("token", "list", "--json")
    assert (listed.returncode, json.loads(listed.stdout)) == (0, {"tokens": []})
    assert it.command("token", "revoke", NOBODY).returncode == 1
    assert not it.data.exists()


# ---------------------------------------------------------------- the canary


def test_the_text_of_a_token_is_in_no_file_no_log_and_no_arguments(tmp_path: Path) -> None:
    with finn(tmp_path, [ECHO]) as it:
        texts = [new_token(it, "owner")["token"], it.command("token", "create", "--scope", "chat").stdout.strip()]
        session = it.new_session(f"about {texts[0]}")
        for text in texts:
            headers = {"Authorization": f"Bearer {text}"}
            it.ask("POST", f"/api/sessions/{session}/messages?wait=true", {"text": f"my token is {text}"}, headers)
            it.ask("POST", "/api/beads", {"title": text, "description": f"<{text}>"}, headers)
            it.ask("POST", "/api/tokens", {"scope": "read", "name": text})
            it.ask("POST", "/login", {"token": text}, bearer=False)
            it.ask("GET", f"/{text}?token={text}", headers={"User-Agent": text, "X-Request-Id": text, "Referer": text})
        shown = it.ask("GET", f"/api/sessions/{session}/messages").body
        arguments = Path(f"/proc/{it.pid}/cmdline").read_bytes()
        export = it.ask("GET", f"/api/sessions/{session}/export?format=md").body
        it.stop()
        secrets = [text.removeprefix("finn_").encode() for text in texts]
        heard = json.dumps([one for request in it.sent() for one in request["messages"]]).encode()
        places = {"messages": shown, "arguments": arguments, "export": export, "log": it.log.encode(), "model": heard}
        places |= {str(path): path.read_bytes() for path in it.data.rglob("*") if path.is_file()}
        assert b"my token is [REDACTED:token]" in shown
        assert [name for name, data in places.items() if any(secret in data for secret in secrets)] == []
