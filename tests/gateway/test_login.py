"""Getting in and out with a browser: the link, the page, the cookie, and wrong tokens at this door too."""

import asyncio
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

import pytest

from gateway.auth import LINK_S, WRONG_LIMIT, rotate
from persistence.clock import FakeClock, system_entropy
from persistence.events import OWNER
from tests.gateway.ring import tokens_in
from tests.gateway.serving import Answer, Site, serving

FORM = "Content-Type: application/x-www-form-urlencoded"


class Page(HTMLParser):
    """What a browser would find: forms, fields and anything that would need a script or another host."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.fields: dict[str, str | None] = {}
        self.forms: list[tuple[str | None, str | None]] = []
        self.text = ""
        self.forbidden: list[str] = []
        self.feed(answer.body.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag == "form":
            self.forms.append((named.get("method"), named.get("action")))
        if tag == "input":
            self.fields[str(named["name"])] = named.get("value")
        elsewhere = any("//" in (value or "") for value in named.values())
        if tag in ("script", "style", "img") or elsewhere or any(name[:2] == "on" or name == "style" for name in named):
            self.forbidden.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


async def press(site: Site, *headers: str, **fields: str) -> Answer:
    """What the page's button does, with the Origin that a browser adds."""
    return await site.ask("POST /login", FORM, f"Origin: {site.origin}", *headers, body=urlencode(fields).encode())


def cookie_of(answer: Answer) -> str:
    return f"Cookie: {answer.headers['set-cookie'].partition(';')[0]}"


async def test_a_person_gets_in_by_the_printed_link(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        path = site.auth.login_url("")
        page = Page(await site.ask(f"GET {path}"))
        assert page.forms == [("post", "login")]
        inside = await press(site, once=page.fields["once"] or "")
        assert (inside.status, inside.headers["location"]) == (303, "./")
        assert (await site.ask("GET /things", cookie_of(inside))).status == 200


async def test_looking_at_the_link_does_not_use_it_up(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        link = site.auth.new_link()
        for _ in range(3):
            answer = await site.ask(f"GET /login?once={link}")
            assert answer.status == 200 and "set-cookie" not in answer.headers
        assert (await site.post("/login", {"once": link})).status == 204


async def test_of_two_who_press_at_once_one_gets_in(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        link = site.auth.new_link()
        both = await asyncio.gather(*(site.post("/login", {"once": link}) for _ in range(2)))
        assert sorted(answer.status for answer in both) == [204, 401]


async def test_pressing_twice_is_no_mistake(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        link = site.auth.new_link()
        first = await press(site, once=link)
        again = await press(site, cookie_of(first), once=link)
        assert (again.status, again.headers["location"]) == (303, "./")


async def test_a_link_that_is_used_up_leads_to_a_page_that_says_how_to_go_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        link = site.auth.new_link()
        await press(site, once=link)
        refused = await press(site, once=link)
        page = Page(refused)
        assert refused.status == 401 and "set-cookie" not in refused.headers
        assert "finn token" in page.text and page.fields == {"token": None}


async def test_an_old_link_opens_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        link = site.auth.new_link()
        assert isinstance(site.clock, FakeClock)
        site.clock.advance(LINK_S)
        assert (await site.post("/login", {"once": link})).code == "unauthorized"


async def test_the_page_needs_no_script_and_no_other_host(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        answer = await site.ask(f"GET /login?once={site.auth.new_link()}")
        assert Page(answer).forbidden == []
        style = await site.ask("GET /login.css")
        assert (style.status, style.headers["content-type"]) == (200, "text/css; charset=utf-8")


async def test_the_page_lets_the_browser_name_the_forms_origin_but_not_the_link(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        answer = await site.ask(f"GET /login?once={site.auth.new_link()}")
        assert (answer.headers["referrer-policy"], answer.headers["cache-control"]) == ("same-origin", "no-store")


@pytest.mark.parametrize("once", ['"><script>alert(1)</script>', "%22%3E%3Cimg%3E", "x", ""])
async def test_what_is_no_link_is_not_repeated(tmp_path: Path, once: str) -> None:
    async with serving(tmp_path) as site:
        page = Page(await site.ask(f"GET /login?once={once.replace(' ', '')}"))
        assert (page.forbidden, page.fields) == ([], {"token": None})


async def test_a_program_gets_a_cookie_for_its_token(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        answer = await site.post("/login", {"token": site.token})
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["set-cookie"].endswith("; Path=/; Max-Age=2592000; HttpOnly; SameSite=Strict")
        assert (await site.ask("GET /things", cookie_of(answer))).status == 200


async def test_behind_https_the_cookie_is_secure(tmp_path: Path) -> None:
    async with serving(tmp_path, environ={"FINN_PUBLIC_URL": "https://finn.example"}) as site:
        assert (await site.post("/login", {"token": site.token})).headers["set-cookie"].endswith("; Secure")


async def test_a_scoped_token_logs_in_as_itself_and_a_probes_does_not(tmp_path: Path) -> None:
    async with serving(tmp_path) as site, tokens_in(tmp_path / "log", site.clock) as tokens:
        site.auth.learn(lambda: tokens)
        reader, probe = [await tokens.create(scope, "", None, OWNER) for scope in ("read", "probe")]
        inside = await site.post("/login", {"token": reader.text.reveal()})
        cookie = (cookie_of(inside), f"Origin: {site.origin}")
        assert (await site.ask("GET /things", *cookie)).status == 200
        assert (await site.ask("POST /things", *cookie)).code == "forbidden_scope"
        assert reader.text.reveal() not in str(inside)
        refused = await site.post("/login", {"token": probe.text.reveal()})
        assert refused.code == "forbidden_scope" and "set-cookie" not in refused.headers
        await tokens.revoke(reader.token.id, OWNER)
        assert (await site.ask("GET /things", *cookie)).code == "unauthorized"
        assert (await site.post("/login", {"token": reader.text.reveal()})).code == "unauthorized"


async def test_a_token_typed_into_the_page_opens_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        assert (await press(site, token=site.token)).status == 303


@pytest.mark.parametrize("body", [{}, {"token": "x", "once": "y"}, {"token": None}, {"token": 1}, {"user": "me"}, []])
async def test_a_login_is_one_of_the_two(tmp_path: Path, body: object) -> None:
    async with serving(tmp_path) as site:
        assert (await site.post("/login", body)).code == "invalid_body"


async def test_wrong_tokens_and_links_are_held_up_here_too_and_the_right_one_is_not(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        found = [(await site.post("/login", {("token", "once")[i % 2]: "wrong"})).status for i in range(12)]
        assert found == [401] * WRONG_LIMIT + [429, 429]
        assert (await site.ask("GET /things", "Authorization: Bearer wrong")).status == 429
        page = await press(site, token="wrong")
        assert (page.status, page.headers["retry-after"]) == (429, "60")
        assert (await site.post("/login", {"token": site.token})).status == 204
        assert (await site.post("/login", {"once": site.auth.new_link()})).status == 204


async def test_another_site_logs_nobody_in_or_out(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        evil = "Origin: http://evil.example"
        body = urlencode({"token": site.token}).encode()
        assert (await site.ask("POST /login", FORM, evil, body=body)).code == "forbidden_origin"
        assert (await site.ask("POST /login", FORM, "Origin: null", body=body)).code == "forbidden_origin"
        assert (await site.ask("POST /logout", evil, site.cookie())).code == "forbidden_origin"


async def test_logging_out_ends_the_cookie(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        answer = await site.ask("POST /logout", site.cookie(), f"Origin: {site.origin}")
        assert (answer.status, answer.headers["set-cookie"]) == (
            204,
            "finn_session=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict",
        )


async def test_a_link_from_before_a_rotation_opens_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as site:
        link = site.auth.new_link()
        rotate(tmp_path / "auth", entropy=system_entropy)
        assert (await site.post("/login", {"once": link})).code == "unauthorized"


@pytest.mark.parametrize("body", [b"\xff", b"token=%ff", b"&".join(b"a=%d" % i for i in range(100))])
async def test_a_form_that_is_none_is_refused(tmp_path: Path, body: bytes) -> None:
    async with serving(tmp_path) as site:
        assert (await site.ask("POST /login", FORM, body=body)).code == "bad_request"
