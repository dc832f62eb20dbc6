"""The HTTP interface as its callers have it: answers, problems, pages, repeats."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from agent.models.builtin import Builtin
from gateway.app import Finn as GatewayFinn
from gateway.auth import Auth
from gateway.openapi import OPERATIONS
from gateway.settings import read
from persistence.clock import SystemClock, system_entropy
from tests.end_to_end.finn import ECHO, Answer, Finn, finn, slow, until

pytestmark = pytest.mark.slow

ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
REPLIES = (
    {"when": "tools", "calls": [[{"text": "Look."}, {"tool": "read", "args": {"path": "."}}], [{"text": "Done."}]]},
    {"when": "fails", "calls": [[{"error": "rejected", "message": "too odd"}]]},
    {"when": "long", "calls": [[slow("word " * 400)]]},
    {"when": "cut short", "calls": [[{"text": "And so"}, {"stop": "length"}]]},
    ECHO,
)


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finn]:
    with finn(tmp_path_factory.mktemp("api"), REPLIES) as running:
        yield running


# ---------------------------------------------------------------- sessions


def test_a_session_is_created_listed_shown_renamed_deleted_and_restored(it: Finn) -> None:
    created = it.ask("POST", "/api/sessions", {"title": "Tea"})
    assert created.status == 201
    session = created.json["id"]
    assert created.json == {
        "id": session,
        "title": "Tea",
        "created_at": created.json["created_at"],
        "seq": created.json["seq"],
    }
    assert ULID.fullmatch(session)
    assert STAMP.fullmatch(created.json["created_at"])

    path = f"/api/sessions/{session}"
    shown = it.ask("GET", path).json
    assert (shown["title"], shown["messages"], shown["turn"]) == ("Tea", 0, None)
    assert it.ask("GET", "/api/sessions?limit=1").json["sessions"][0]["id"] == session
    assert it.ask("PATCH", path, {"title": "Coffee"}).json["title"] == "Coffee"
    deleted = it.ask("DELETE", path)
    assert (deleted.status, deleted.body) == (204, b"")
    for method, rest in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/messages"), ("POST", "/messages")):
        body = {"POST": {"text": "x"}, "PATCH": {"title": "x"}}.get(method)
        assert it.ask(method, path + rest, body).code == "not_found"
    assert session not in ids(it.ask("GET", "/api/sessions?limit=1000"))
    assert it.ask("POST", f"{path}/restore").json["title"] == "Coffee"
    assert it.ask("GET", path).json["title"] == "Coffee"


def ids(listed: Answer) -> list[str]:
    return [one["id"] for one in listed.json["sessions"]]


def test_the_list_is_newest_first_and_its_pages_are_the_whole(it: Finn) -> None:
    made = [it.new_session(f"{n}") for n in range(7)]
    it.say(made[2], "newest")
    whole = ids(it.ask("GET", "/api/sessions?limit=1000"))
    assert whole[:3] == [made[2], made[6], made[5]]
    pages, query = [], "limit=3"
    while query:
        page = it.ask("GET", f"/api/sessions?{query}")
        assert len(page.json["sessions"]) <= 3
        pages += ids(page)
        query = f"limit=3&after={page.json['next']}" if page.json["next"] else ""
    assert pages == whole


def test_a_session_without_a_title_is_called_after_its_first_prompt(it: Finn) -> None:
    session = it.new_session()
    it.say(session, "How  is\nthe weather?")
    assert it.ask("GET", f"/api/sessions/{session}").json["title"] == "How is the weather?"


# ---------------------------------------------------------------- saying something


def test_a_prompt_is_taken_with_202_and_is_a_message_from_then_on(it: Finn) -> None:
    session = it.new_session()
    taken = it.ask("POST", f"/api/sessions/{session}/messages", {"text": "hello"})
    assert taken.status == 202
    assert set(taken.json) == {"turn", "seq"}
    first = it.messages(session)[0]
    assert (first["role"], first["text"], first["turn"], first["seq"]) == (
        "user", "hello", taken.json["turn"], taken.json["seq"],
    )  # fmt: skip


def test_waiting_gives_the_end_of_the_turn_whatever_it_is(it: Finn) -> None:
    session = it.new_session()
    good = it.say(session, "use your tools")
    assert (good["reply"], good["stop_reason"]) == ("Done.", "stop")
    assert good["usage"]["totalTokens"] > 0
    bad = it.say(session, "this fails")
    assert (bad["stop_reason"], bad["error"]["code"]) == ("error", "model_error")
    assert "too odd" in bad["error"]["message"]
    short = it.say(session, "cut short")
    assert (short["reply"], short["stop_reason"]) == ("And so", "length")


def test_stop_ends_the_turn_and_says_whether_there_was_one(it: Finn) -> None:
    session = it.new_session()
    assert it.ask("POST", f"/api/sessions/{session}/stop").json == {"stopped": False}
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(it.say, session, "long")
        until(lambda: it.ask("GET", f"/api/sessions/{session}").json["turn"])
        assert it.ask("POST", f"/api/sessions/{session}/stop").json == {"stopped": True}
        assert waiting.result()["stop_reason"] == "abort"
    assert it.ask("GET", f"/api/sessions/{session}").json["turn"] is None


# ---------------------------------------------------------------- repeats


def test_many_callers_with_one_key_at_once_make_one_turn(it: Finn) -> None:
    session = it.new_session()
    path = f"/api/sessions/{session}/messages"
    with ThreadPoolExecutor(20) as threads:
        asked = [threads.submit(it.ask, "POST", path, {"text": "once"}, {"Idempotency-Key": "k"}) for _ in range(20)]
        answers = [one.result() for one in asked]
    assert {answer.status for answer in answers} == {202}
    assert len({answer.body for answer in answers}) == 1
    it.idle(session)
    assert [one["text"] for one in it.messages(session)] == ["once", "You said: once"]


def test_many_callers_with_one_key_and_different_texts_make_one_turn(it: Finn) -> None:
    session = it.new_session()
    path = f"/api/sessions/{session}/messages"
    with ThreadPoolExecutor(10) as threads:
        asked = [threads.submit(it.ask, "POST", path, {"text": f"{n}"}, {"Idempotency-Key": "k"}) for n in range(10)]
        answers = [one.result() for one in asked]
    assert sorted(answer.status for answer in answers) == [202, *[409] * 9]
    assert {answer.code for answer in answers if answer.status == 409} == {"idempotency_mismatch"}
    it.idle(session)
    assert len(it.messages(session)) == 2


def test_a_key_is_remembered_over_a_kill_and_a_repeat_waits_for_the_first_one(tmp_path: Path) -> None:
    with finn(tmp_path, REPLIES) as it:
        session = it.new_session()
        key = {"Idempotency-Key": "my-key"}
        first = it.say(session, "hello", key)
        for _ in range(2):
            it.restart()
            assert it.say(session, "hello", key) == first
            again = it.ask("POST", f"/api/sessions/{session}/messages", {"text": "hello"}, key)
            assert (again.status, again.json) == (202, {"turn": first["turn"], "seq": first["seq"]})
            other = it.ask("POST", f"/api/sessions/{session}/messages", {"text": "other"}, key)
            assert (other.status, other.code) == (409, "idempotency_mismatch")
        assert len(it.sent()) == 1
        assert it.say(it.new_session(), "other", key)["reply"] == "You said: other", "a key belongs to its session"


# ---------------------------------------------------------------- messages and exports


def test_messages_are_a_chain_in_pis_blocks(it: Finn) -> None:
    session = it.new_session()
    it.say(session, "use your tools")
    it.say(session, "thanks")
    told = it.messages(session)
    assert [one["role"] for one in told] == ["user", "assistant", "toolResult", "assistant", "user", "assistant"]
    assert [one["parent"] for one in told] == [None, *[one["id"] for one in told[:-1]]]
    assert [one["seq"] for one in told] == sorted(one["seq"] for one in told)
    call = told[1]["content"][1]
    assert (call["type"], call["name"], call["arguments"]) == ("toolCall", "read", {"path": "."})
    assert told[2]["tool_call_id"] == call["id"]
    for one in told:
        assert STAMP.fullmatch(one["created_at"])
        assert one["text"] == "".join(block["text"] for block in one["content"] if block["type"] == "text")


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_pages_of_messages_are_the_whole_in_both_directions(it: Finn, limit: int) -> None:
    session = it.new_session()
    for n in range(4):
        it.say(session, f"tools {n}")
    whole = it.messages(session)
    path = f"/api/sessions/{session}/messages?limit={limit}"
    forwards, after = [], "0"
    while after is not None:
        page = it.ask("GET", f"{path}&after={after}").json
        assert len(page["messages"]) <= limit
        forwards += page["messages"]
        after = page["next"]
    assert forwards == whole
    backwards: list[Any] = []
    before: str | None = str(whole[-1]["seq"] + 1)
    while before is not None:
        page = it.ask("GET", f"{path}&before={before}").json
        backwards = page["messages"] + backwards
        before = page["prev"]
    assert backwards == whole


def test_messages_and_exports_hold_what_waits(tmp_path: Path) -> None:
    with finn(tmp_path, REPLIES) as it:
        session = it.new_session("Waiting")
        for text in ("long", "second", "third"):
            it.ask("POST", f"/api/sessions/{session}/messages", {"text": text})
        texts = [one["text"] for one in it.messages(session) if one["role"] == "user"]
        assert texts == ["long", "second", "third"]
        markdown = it.ask("GET", f"/api/sessions/{session}/export?format=md")
        assert markdown.headers["content-type"].startswith("text/markdown")
        assert "attachment" in markdown.headers["content-disposition"]
        lines = it.ask("GET", f"/api/sessions/{session}/export?format=jsonl").body.decode().splitlines()
        assert json.loads(lines[0])["type"] == "session"
        for text in texts:
            assert text in markdown.body.decode()
            assert any(text in line for line in lines[1:])
        until(lambda: it.hello(session)["turn"]["text_so_far"])
        it.ask("POST", f"/api/sessions/{session}/stop")
        it.idle(session)
        exported = it.ask("GET", f"/api/sessions/{session}/export?format=jsonl").body
        entries = [json.loads(line) for line in exported.splitlines()]
        known = {entry["id"] for entry in entries[1:]}
        assert {entry["parentId"] for entry in entries[1:]} - {None} <= known


# ---------------------------------------------------------------- problems


def test_every_answer_carries_a_request_id_the_callers_own_if_it_sent_one(it: Finn) -> None:
    for path in ("/", "/livez", "/health", "/api/sessions", "/api/nothing", "/static/app.js"):
        assert it.ask("GET", path, headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
        assert re.fullmatch(r"[0-9a-f]{16}", it.ask("GET", path).headers["x-request-id"])
    hostile = it.ask("GET", "/livez", headers={"X-Request-Id": 'a"b\x7f{}'}).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{16}", hostile)


def test_problems_are_told_in_one_form_and_in_the_contracts_order(it: Finn) -> None:
    def told(method: str, path: str, headers: dict[str, str], *, bearer: bool = False) -> tuple[int, str]:
        answer = it.ask(method, path, b"{" * 2**20 + b"x", headers, bearer=bearer)
        assert answer.json["type"] == "about:blank"
        return answer.status, answer.code

    evil = {"Host": "rebind.evil", "Origin": "http://evil.example"}
    assert told("POST", "/api/nothing", evil) == (421, "misdirected")
    del evil["Host"]
    assert told("POST", "/api/nothing", evil) == (403, "forbidden_origin")
    assert told("POST", "/api/nothing", {}) == (404, "not_found")
    assert told("PUT", "/api/sessions", {}) == (405, "method_not_allowed")
    assert told("POST", "/api/sessions", {}) == (401, "unauthorized")
    assert told("POST", "/api/sessions", {}, bearer=True) == (413, "too_large")


def test_wrong_tokens_are_braked_and_the_right_one_always_passes(tmp_path: Path) -> None:
    with finn(tmp_path, REPLIES) as it:
        wrong = {"Authorization": "Bearer wrong"}
        for _ in range(3):
            assert it.ask("GET", "/api/sessions", bearer=False).status == 401
        answers = [it.ask("GET", "/api/sessions", headers=wrong) for _ in range(30)]
        assert [answer.status for answer in answers] == [401] * 10 + [429] * 20
        assert answers[0].headers["www-authenticate"] == "Bearer"
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert it.ask("POST", "/login", {"token": "wrong"}, bearer=False).status == 429
        assert it.ask("GET", "/api/sessions").status == 200
        assert it.ask("POST", "/login", {"token": it.token}, bearer=False).status == 204


# ---------------------------------------------------------------- coming in


def test_cookies_and_login_links_outlive_a_kill_and_end_with_a_rotation(tmp_path: Path) -> None:
    with finn(tmp_path, REPLIES) as it:
        link = it.login_link.partition("once=")[2]
        given = it.ask("POST", "/login", {"token": it.token}, bearer=False)
        cookie = {"Cookie": given.headers["set-cookie"].partition(";")[0]}
        assert "HttpOnly" in given.headers["set-cookie"]
        it.restart()
        assert it.ask("GET", "/api/sessions", headers=cookie, bearer=False).status == 200
        assert it.ask("POST", "/login", {"once": link}, bearer=False).status == 204
        assert it.ask("POST", "/login", {"once": link}, bearer=False).status == 401
        old = it.bearer
        assert it.command("token", "--rotate").returncode == 0
        assert it.ask("GET", "/api/sessions", headers=cookie, bearer=False).status == 401
        assert it.ask("GET", "/api/sessions", headers=old, bearer=False).status == 401
        assert it.ask("GET", "/api/sessions").status == 200


def test_probes_need_no_token_and_tell_strangers_nothing(it: Finn) -> None:
    assert it.ask("GET", "/livez", bearer=False).body == b"ok"
    assert it.ask("GET", "/readyz", bearer=False).status == 200
    stranger = it.ask("GET", "/health", bearer=False)
    assert stranger.headers["content-type"] == "application/health+json"
    assert set(stranger.json) == {"status", "version", "releaseId", "serviceId", "uptime"}
    known = it.ask("GET", "/health").json["checks"]
    assert {"wal:lastSeq", "epoch", "model:state", "turn:active", "ws:connections", "disk:free"} <= set(known)
    for (check,) in known.values():
        assert check["status"] in ("pass", "warn")
        assert STAMP.fullmatch(check["time"])


def test_openapi_describes_exactly_what_is_answered(it: Finn) -> None:
    paths = it.ask("GET", "/openapi.json", bearer=False).json["paths"]
    assert "/api/sessions/{session}/messages" in paths
    named = {
        "{bead}": it.ask("POST", "/api/beads", {"title": "a bead"}).json["id"],
        "{token}": it.ask("POST", "/api/tokens", {"scope": "probe"}).json["id"],
        "{name}": "health",
    }
    for path, operations in paths.items():
        for method in ("get", "post", "put", "patch", "delete"):
            session = it.new_session()
            if method in operations and path.endswith("/restore"):
                it.ask("DELETE", f"/api/sessions/{session}")
            if path.endswith("/events") and method == "get":
                continue  # it does not end; tests/end_to_end/test_socket.py reads it
            for what, name in named.items():
                path = path.replace(what, name)
            answer = it.ask(method.upper(), path.replace("{session}", session))
            there = answer.status not in (404, 405)
            assert there == (method in operations), (method, path, answer.status)


def test_every_route_but_the_pages_own_is_described(tmp_path: Path) -> None:
    settings = read(flags={"FINN_DATA_DIR": str(tmp_path)}, environ={})
    auth = Auth.open(tmp_path / "auth", clock=SystemClock(), entropy=system_entropy)
    app = GatewayFinn(settings, Builtin(), auth, SystemClock(), system_entropy, 1).app(lambda: None, lambda: None)
    routes = [route for route in app.routes if isinstance(route, Route)]
    served = {(route.path, method) for route in routes for method in (route.methods or set()) - {"HEAD"}}
    assert served - {("/", "GET"), ("/login.css", "GET")} == {(one.path, one.method.upper()) for one in OPERATIONS}


# ---------------------------------------------------------------- the commands


def test_the_commands_talk_to_the_running_finn(tmp_path: Path) -> None:
    with finn(tmp_path, REPLIES) as it:
        said = it.command("chat", "hello there")
        assert (said.returncode, said.stdout.strip()) == (0, "You said: hello there")
        failed = it.command("chat", "this fails")
        assert failed.returncode == 1
        assert "too odd" in failed.stderr
        listed = json.loads(it.command("sessions", "list", "--json").stdout)["sessions"]
        assert [one["title"] for one in listed] == ["this fails", "hello there"]
        session = listed[1]["id"]
        shown = json.loads(it.command("sessions", "show", session, "--json").stdout)["messages"]
        assert [one["text"] for one in shown] == ["hello there", "You said: hello there"]
        assert it.command("sessions", "export", session).stdout.startswith("# hello there")
        assert it.command("status").returncode == 0
        assert json.loads(it.command("status", "--json").stdout)["status"] in ("pass", "warn")
        assert it.command("verify").returncode == 0
        assert "/login?once=" in it.command("token").stdout
        missing = it.command("sessions", "show", "01ARZ3NDEKTSV4RRFFQ69G5FAV")
        assert missing.returncode == 1
        assert missing.stderr.startswith("finn: ")
        it.kill()
        gone = it.command("chat", "anybody?")
        assert gone.returncode == 1
        assert "no finn is running" in gone.stderr
        assert it.command("verify").returncode == 0
