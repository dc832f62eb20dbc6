"""Getting in and out with a browser.

    finn token ─▶ GET /login?once=CODE ─▶ a page with one button ─▶ POST /login ─▶ cookie, 303 to the page

The link alone opens nothing: what fetches links to preview them presses no button. The page works without a script. It
is the one answer with another Referrer-Policy, since under `no-referrer` a browser calls the origin of a form `null`.
"""

import asyncio
import html
import re
from collections.abc import Sequence
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from string import Template

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.auth import COOKIE, Auth, set_cookie
from gateway.body import media_type, read_form, read_model
from gateway.doors import GuardFor
from gateway.problem import CODES, Refused, retry_after

FORM = "application/x-www-form-urlencoded"
CODE = re.compile(r"[A-Za-z0-9_-]{16,128}")
REFERRER_POLICY = "same-origin"
FIRST = "Press the button to open finn in this browser. The link works once."
PAGE = "./"  #: seen from /login, also where finn stands under a path of somebody else's
WITHOUT_LINK = "Paste your token, or run “finn token” for a login link."


class Login(BaseModel):
    """The body of POST /login: one of the two."""

    model_config = ConfigDict(extra="forbid")

    token: str | None = None
    once: str | None = None


def login_routes(auth: Auth, guard: GuardFor, *, secure: bool) -> Sequence[BaseRoute]:
    """GET and POST /login, POST /logout, and the style of the page."""

    async def show(request: Request) -> Response:
        once = request.query_params.get("once", "")
        return page(once, FIRST) if CODE.fullmatch(once) else page("", WITHOUT_LINK)

    async def log_in(request: Request) -> Response:
        if media_type(request) == FORM:
            return await _log_in_by_form(request, auth, secure=secure)
        cookie = await _cookie(request, auth, await read_model(request, Login))
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=_session(cookie, secure=secure))

    async def log_out(_: Request) -> Response:
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=_session("", secure=secure))

    async def style(_: Request) -> Response:
        return Response(_asset("login.css"), media_type="text/css")

    return (
        Route("/login", show, methods=["GET"], middleware=guard(None)),
        Route("/login", log_in, methods=["POST"], middleware=guard(None)),
        Route("/login.css", style, methods=["GET"], middleware=guard(None)),
        Route("/logout", log_out, methods=["POST"], middleware=guard(None)),
    )


async def _log_in_by_form(request: Request, auth: Auth, *, secure: bool) -> Response:
    """For the page. A button pressed twice sends a link that is used up, by somebody who is in already."""
    form = await read_form(request)
    try:
        cookie = await _cookie(request, auth, Login(token=form.get("token"), once=form.get("once")))
    except Refused as refused:
        if auth.accepts_cookie(request.cookies.get(COOKIE, "")):
            return RedirectResponse(PAGE, HTTPStatus.SEE_OTHER)
        wait = retry_after(refused)
        headers = {"Retry-After": wait} if wait else {}
        return page("", f"That did not work: {refused}.", status=CODES[refused.code].status, headers=headers)
    return RedirectResponse(PAGE, HTTPStatus.SEE_OTHER, headers=_session(cookie, secure=secure))


async def _cookie(request: Request, auth: Auth, login: Login) -> str:
    """The cookie of whoever logs in: the owner's, or a scoped token's own, which opens what that one opens.

    Raises Refused: `invalid_body` for neither or both, `forbidden_scope` for a probe's token, which opens nothing in a
    browser, else as for any wrong token.
    """
    if (login.token is None) == (login.once is None):
        raise Refused("invalid_body", "a login has either token or once", hint='send {"token": "…"}')
    if login.token is not None:
        caller = auth.by_token(login.token)
        if caller is not None:
            caller.require("read")
            return auth.new_cookie(caller.token)
    elif await asyncio.to_thread(auth.redeem, login.once or ""):
        return auth.new_cookie()
    raise auth.wrong(request)


def _session(cookie: str, *, secure: bool) -> dict[str, str]:
    return {"Set-Cookie": set_cookie(cookie, secure=secure)}


def page(once: str, text: str, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """The page: with a link's code one button, without it a field for the token."""
    field = (
        f'<input type="hidden" name="once" value="{html.escape(once)}">'
        if once
        else '<label>Token <input type="password" name="token" required autocomplete="current-password"></label>'
    )
    content = Template(_asset("login.html")).substitute(text=html.escape(text), field=field)
    return HTMLResponse(content, status, {"Referrer-Policy": REFERRER_POLICY, **(headers or {})})


@cache
def _asset(name: str) -> str:
    return files("gateway.routes").joinpath(name).read_text(encoding="utf-8")
