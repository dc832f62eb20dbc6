"""What errors look like over HTTP, and what a body may be."""

import json
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from gateway.body import MAX_BODY, parse_json, validate
from gateway.problem import CODES, Refused, answer, describe, retry_after
from persistence.errors import Busy, Draining, FinnError, ModelOverloaded, NotFound, StorageFull
from persistence.values import DEPTH
from tests.gateway.serving import request, serving

CONTRACT = {
    "unauthorized": 401,
    "forbidden_scope": 403,
    "forbidden_origin": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "idempotency_mismatch": 409,
    "illegal_transition": 409,
    "too_large": 413,
    "unsupported_media_type": 415,
    "misdirected": 421,
    "invalid_json": 400,
    "invalid_body": 400,
    "empty_prompt": 400,
    "rate_limited": 429,
    "busy": 429,
    "model_error": 502,
    "starting": 503,
    "draining": 503,
    "fenced": 503,
    "store_unavailable": 503,
    "storage_full": 503,
}


def tree(of: type[FinnError]) -> list[type[FinnError]]:
    return [each for child in of.__subclasses__() for each in (child, *tree(child))]


def test_every_code_of_the_contract_has_its_status() -> None:
    assert {code: CODES[code].status for code in CONTRACT} == CONTRACT


def test_come_back_later_always_says_when() -> None:
    later = {code for code, (status, _) in CODES.items() if status in (429, 503)}
    assert {code for code, (_, retry_s) in CODES.items() if retry_s} == later


def test_every_error_that_a_request_may_meet_has_a_meaning_in_http() -> None:
    # These end a start, or are told to a tool's caller, by a command or in a finding.
    elsewhere = {"usage", "locked", "bind", "damaged", "path", "unreachable", "smoke"}
    assert {each.code for each in tree(FinnError) if each is not Refused} - elsewhere - {"internal"} <= set(CODES)


def test_a_problem_says_what_happened_and_what_to_do() -> None:
    assert describe(NotFound("there is no session X", hint="list them"), "r-1") == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "code": "not_found",
        "detail": "there is no session X",
        "hint": "list them",
        "request_id": "r-1",
    }


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (Refused("rate_limited", "slow down", retry_after=12.2), "13"),
        (Refused("rate_limited", "slow down", retry_after=0.01), "1"),
        (ModelOverloaded("later", retry_after=30), "30"),
        (ModelOverloaded("later"), None),
        (Busy("full"), "2"),
        (Draining("stopping"), "5"),
        (StorageFull("full"), "60"),
        (NotFound("no"), None),
    ],
)
def test_retry_after_is_the_errors_own_wish_or_the_tables(error: FinnError, seconds: str | None) -> None:
    assert retry_after(error) == seconds


def test_unauthorized_names_the_scheme() -> None:
    assert answer(Refused("unauthorized", "no")).headers["www-authenticate"] == "Bearer"


# ---------------------------------------------------------------- JSON


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * depth + "1" + closing * depth).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{'a': 1}",
        b'{"a": 1} x',
        b"\xff\xfe{\x00}\x00",
        b'"\xc3\x28"',
        b"\xef\xbb\xbf{}",
        b"NaN",
        b"[Infinity]",
        b"9" * 5000,
        b'"\\ud800"',
        b'{"\\uDFFF": 1}',
        b'"a\x01b"',
        nested(DEPTH + 1),
        nested(DEPTH + 1, '{"a":', "}"),
        nested(100_000),
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
    ids=lambda data: repr(data[:16]),
)
def test_what_is_not_json_that_we_take_is_refused(data: bytes) -> None:
    with pytest.raises(Refused) as caught:
        parse_json(data)
    assert caught.value.code == "invalid_json"


def test_json_of_every_kind_is_taken() -> None:
    value = {"a": [1, -2.5, True, None, "é \U0001f600 \\ud800"], "": {}}
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(b'"\\ud83d\\ude00"') == "\U0001f600"
    assert parse_json(b'{"a": 1, "a": 2}') == {"a": 2}
    assert parse_json(nested(DEPTH)) is not None


def test_a_wide_value_is_not_a_deep_one() -> None:
    assert len(parse_json(b"[" + b"[]," * 1000 + b"[]]")) == 1001


# ---------------------------------------------------------------- models


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str
    size: int = 0


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({}, "text"),
        ({"text": 1}, "text"),
        ({"text": "a", "size": "canary"}, "size"),
        ({"text": "a", "canary": 1}, "canary"),
        ([], "body"),
        ("canary", "body"),
        (None, "body"),
    ],
)
def test_a_body_that_does_not_fit_is_refused_by_its_field(value: object, field: str) -> None:
    with pytest.raises(Refused) as caught:
        validate(Thing, value)
    assert (caught.value.code, caught.value.message.split(":")[0]) == ("invalid_body", field)
    assert "canary" not in caught.value.message.removeprefix(field)


# ---------------------------------------------------------------- over the wire


async def test_what_the_router_refuses_is_a_problem_too(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        unknown = await site.ask("GET /nowhere")
        method = await site.ask("PUT /things")
        assert (unknown.status, unknown.code) == (404, "not_found")
        assert (method.status, method.code, method.headers["allow"]) == (405, "method_not_allowed", "GET, HEAD, POST")


async def test_a_fault_of_ours_tells_its_request_id_and_nothing_else(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        answered = await site.ask("GET /fail", "X-Request-Id: r-1")
        assert (answered.status, answered.code, answered.problem["request_id"]) == (500, "internal", "r-1")
        assert b"secret reason" not in answered.body and b"RuntimeError" not in answered.body


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        (["Content-Type: text/plain"], b'{"token": "x"}', "unsupported_media_type"),
        ([], b'{"token": "x"}', "unsupported_media_type"),
        (["Content-Type: application/json"], b"\xff", "invalid_json"),
        (["Content-Type: application/json"], b"[" * 100_000, "invalid_json"),
        (["Content-Type: Application/JSON; charset=utf-8"], b'{"tokken": "x"}', "invalid_body"),
        ([], b"", "invalid_body"),
    ],
    ids=["text", "untyped", "not UTF-8", "100,000 brackets", "unknown field", "nothing"],
)
async def test_a_bad_body_is_told_by_its_code(tmp_path: Path, headers: list[str], body: bytes, code: str) -> None:
    async with serving(tmp_path) as site:
        assert (await site.ask("POST /login", *headers, body=body)).code == code


async def test_a_body_may_be_one_mebibyte_and_not_a_byte_more(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        fits = await site.ask_with_token("POST /echo", body=b'"' + b"a" * (MAX_BODY - 2) + b'"')
        larger = await site.ask_with_token("POST /echo", body=b'"' + b"a" * (MAX_BODY - 1) + b'"')
        assert (fits.status, larger.status, larger.code) == (200, 413, "too_large")


async def test_a_body_without_a_length_is_measured_as_it_comes(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        head = request("POST /echo", f"Host: {site.host}", site.bearer(), "Transfer-Encoding: chunked")
        pieces = b"".join(b"10000\r\n" + b"1" * 65536 + b"\r\n" for _ in range(17))
        assert (await site.send(head + pieces + b"0\r\n\r\n")).code == "too_large"


async def test_a_body_that_nobody_reads_is_measured_all_the_same(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        answered = await site.ask_with_token("POST /things", f"Content-Length: {MAX_BODY + 1}")
        assert (answered.code, site.asked) == ("too_large", [])
