"""Token, cookie, login links and the brake: kept, compared, rotated, used once, and bounded."""

import os
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from starlette.requests import HTTPConnection

from gateway.auth import (
    COOKIE_S,
    LINK_S,
    MAX_ADDRESSES,
    WRONG_LIMIT,
    WRONG_WINDOW_S,
    Auth,
    Brake,
    rotate,
    set_cookie,
)
from gateway.caller import SCOPES, Caller, Scope
from gateway.problem import Refused
from gateway.secret import Secret
from gateway.settings import TOKEN_BITS, token_bits
from gateway.tokens import Tokens
from persistence.clock import FakeClock, system_entropy
from persistence.errors import Damaged, UsageError
from persistence.events import OWNER, By
from tests.conftest import count
from tests.gateway.ring import tokens_in

T = TypeVar("T")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "auth"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def open_auth(folder: Path, clock: FakeClock | None = None, token: Secret | None = None) -> Auth:
    return Auth.open(folder, clock=clock or FakeClock(), entropy=system_entropy, token=token)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def at_once(call: Callable[[], T], times: int) -> list[T]:
    """What `call` gave in so many threads that were let go together."""
    gate = threading.Barrier(times)
    given: list[T] = []

    def run() -> None:
        gate.wait()
        given.append(call())

    threads = [threading.Thread(target=run) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return given


# ---------------------------------------------------------------- the token


def test_the_first_start_makes_a_strong_token_and_keeps_it_to_itself(folder: Path) -> None:
    token = open_auth(folder).token.reveal()
    assert token_bits(token) >= TOKEN_BITS
    assert (folder / "token").read_text() == token
    assert (mode(folder), mode(folder / "token"), os.listdir(folder)) == (0o700, 0o600, ["token"])


def test_the_next_start_finds_the_token(folder: Path) -> None:
    assert open_auth(folder).token == open_auth(folder).token


def test_two_first_starts_agree_on_one_token(folder: Path) -> None:
    for round_ in range(count(20, 300)):
        opened = at_once(partial(open_auth, folder / str(round_)), 4)
        assert len({auth.token.reveal() for auth in opened}) == 1
        assert {auth.generation for auth in opened} == {0}


def test_a_token_of_the_owners_own_rules_and_no_file_is_written(folder: Path) -> None:
    own = Secret("an owner's token of 128 bits, at least")
    assert open_auth(folder, token=own).token == own
    assert not folder.exists()


@pytest.mark.parametrize("content", ["", "short", "x" * 64, "not ascii: é" * 9])
def test_a_file_that_holds_no_token_stops_a_start_and_tells_the_cure(folder: Path, content: str) -> None:
    folder.mkdir(parents=True)
    (folder / "token").write_text(content)
    with pytest.raises(Damaged, match="--rotate"):
        open_auth(folder)
    rotate(folder, entropy=system_entropy)
    assert open_auth(folder).token


@pytest.mark.parametrize("wrong", ["", "x", "é", "\ud800", "\0"])
def test_only_the_token_is_the_token(folder: Path, wrong: str) -> None:
    auth = open_auth(folder)
    token = auth.token.reveal()
    assert auth.accepts_token(token)
    assert not any(auth.accepts_token(each) for each in (wrong, token + wrong * 2 + " ", token[:-1], token.swapcase()))


# ---------------------------------------------------------------- rotation


def test_a_rotation_elsewhere_counts_at_once(folder: Path) -> None:
    running = open_auth(folder)
    old, generation = running.token.reveal(), running.generation
    rotate(folder, entropy=system_entropy)
    assert not running.accepts_token(old)
    assert running.accepts_token((folder / "token").read_text())
    assert (running.generation, mode(folder / "token")) == (generation + 1, 0o600)


def test_a_rotation_voids_cookies_and_links(folder: Path) -> None:
    auth = open_auth(folder)
    cookie, link = auth.new_cookie(), auth.new_link()
    rotate(folder, entropy=system_entropy)
    assert not auth.accepts_cookie(cookie)
    assert not auth.redeem(link)


def test_a_token_of_the_owners_own_is_not_rotated_here(folder: Path) -> None:
    with pytest.raises(UsageError, match="FINN_TOKEN"):
        rotate(folder, entropy=system_entropy, token=Secret("any"))
    assert not folder.exists()


@pytest.mark.parametrize("accident", [lambda path: path.unlink(), lambda path: path.write_text("oops")])
def test_a_file_that_is_spoilt_while_finn_runs_locks_nobody_out(folder: Path, accident: Callable[[Path], None]) -> None:
    auth = open_auth(folder)
    token, cookie = auth.token.reveal(), auth.new_cookie()
    accident(folder / "token")
    assert auth.accepts_token(token)
    assert auth.accepts_cookie(cookie)
    assert auth.generation == 0


# ---------------------------------------------------------------- cookies


def test_a_cookie_is_good_for_thirty_days_and_over_restarts(folder: Path, clock: FakeClock) -> None:
    cookie = open_auth(folder, clock).new_cookie()
    clock.advance(COOKIE_S - 1)
    assert open_auth(folder, clock).accepts_cookie(cookie)
    clock.advance(1)
    assert not open_auth(folder, clock).accepts_cookie(cookie)


def test_a_cookie_that_was_touched_is_none(folder: Path) -> None:
    auth = open_auth(folder)
    version, issued, mac = auth.new_cookie().split(".")
    forged = (f"{version}.{int(issued) + 1}.{mac}", f"{version}.{issued}.{mac[:-1]}0{mac[-1]}", f"v2.{issued}.{mac}")
    assert not any(auth.accepts_cookie(each) for each in (*forged, "", ".", f"{version}.{issued}.{'0' * 64}"))


def test_a_cookie_of_another_finn_is_none(folder: Path) -> None:
    assert not open_auth(folder).accepts_cookie(open_auth(folder / "other").new_cookie())


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites() -> None:
    assert set_cookie("v", secure=True) == (
        "finn_session=v; Path=/; Max-Age=2592000; HttpOnly; SameSite=Strict; Secure"
    )
    assert "Secure" not in set_cookie("v", secure=False)
    assert "Max-Age=0" in set_cookie("", secure=False)


# ---------------------------------------------------------------- login links


def test_a_link_opens_once(folder: Path) -> None:
    auth = open_auth(folder)
    link = auth.new_link()
    assert [auth.redeem(link), auth.redeem(link)] == [True, False]


def test_a_link_of_another_process_opens_also_after_a_restart(folder: Path, clock: FakeClock) -> None:
    link = open_auth(folder, clock).new_link()
    clock.advance(LINK_S - 1)
    assert open_auth(folder, clock).redeem(link)


def test_a_link_ends_after_ten_minutes(folder: Path, clock: FakeClock) -> None:
    auth = open_auth(folder, clock)
    link = auth.new_link()
    clock.advance(LINK_S)
    assert not auth.redeem(link)


def test_of_many_who_use_a_link_at_once_one_gets_in(folder: Path) -> None:
    auth = open_auth(folder)
    for _ in range(count(20, 300)):
        link = auth.new_link()
        assert sorted(at_once(partial(auth.redeem, link), 8)) == [False] * 7 + [True]


def test_a_link_is_kept_so_that_its_file_does_not_open_anything(folder: Path) -> None:
    auth = open_auth(folder)
    link = auth.new_link()
    (kept,) = (folder / "links").iterdir()
    assert link not in f"{kept.name} {kept.read_text()}"
    assert (mode(folder / "links"), mode(kept)) == (0o700, 0o600)


@pytest.mark.parametrize("name", [".finn-4711-0", "a" * 64])
def test_a_file_that_is_no_link_keeps_nobody_from_making_one(folder: Path, name: str) -> None:
    auth = open_auth(folder)
    auth.new_link()
    (folder / "links" / name).touch()
    assert auth.redeem(auth.new_link())


def test_links_that_nobody_used_do_not_pile_up(folder: Path, clock: FakeClock) -> None:
    auth = open_auth(folder, clock)
    auth.new_link()
    clock.advance(LINK_S)
    auth.new_link()
    assert len(os.listdir(folder / "links")) == 1


@pytest.mark.parametrize("code", ["", "..", "../token", "/etc/passwd", "\0", "é", "x" * 5000])
def test_a_code_that_is_none_opens_nothing_and_touches_nothing(folder: Path, code: str) -> None:
    auth = open_auth(folder)
    assert not auth.redeem(code)
    assert os.listdir(folder) == ["token"]


def test_the_login_url_is_the_public_one(folder: Path) -> None:
    assert open_auth(folder).login_url("https://finn.example").startswith("https://finn.example/login?once=")


# ---------------------------------------------------------------- who is asking


def connection(*headers: tuple[str, str], address: str = "203.0.113.7") -> HTTPConnection:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    return HTTPConnection({"type": "http", "headers": raw, "client": (address, 1)})


def code_of(auth: Auth, asking: HTTPConnection) -> str:
    with pytest.raises(Refused) as caught:
        auth.identify(asking)
    return caught.value.code


def test_the_token_and_the_cookie_each_show_the_owner(folder: Path) -> None:
    auth = open_auth(folder)
    by_token = connection(("Authorization", f"bearer {auth.token.reveal()}"))
    by_cookie = connection(("Cookie", f"theme=dark; finn_session={auth.new_cookie()}"))
    assert auth.identify(by_token) == Caller("owner", "token")
    assert auth.identify(by_cookie) == Caller("owner", "cookie", until=FakeClock().now() + COOKIE_S)


def test_another_scheme_is_a_proxys_business(folder: Path) -> None:
    auth = open_auth(folder)
    both = connection(("Authorization", "Basic bWU6cHc="), ("Cookie", f"finn_session={auth.new_cookie()}"))
    assert auth.identify(both).by == "cookie"


def test_what_is_missing_is_refused_however_often_and_never_counted(folder: Path) -> None:
    auth = open_auth(folder)
    missing = connection(("Cookie", "finn_session=v1.1.ff"))
    assert {code_of(auth, missing) for _ in range(3 * WRONG_LIMIT)} == {"unauthorized"}


def test_wrong_tokens_are_held_up_and_the_right_one_never(folder: Path) -> None:
    auth = open_auth(folder)
    codes = [code_of(auth, connection(("Authorization", f"Bearer {i}"))) for i in range(1000)]
    assert codes == ["unauthorized"] * WRONG_LIMIT + ["rate_limited"] * (1000 - WRONG_LIMIT)
    assert auth.identify(connection(("Authorization", f"Bearer {auth.token.reveal()}"))).scope == "owner"


@pytest.mark.parametrize(
    ("has", "opens"),
    [("probe", {"probe"}), ("read", {"probe", "read"}), ("chat", {"probe", "read", "chat"}), ("owner", set(SCOPES))],
)
def test_scopes_hold_one_another(has: Scope, opens: set[Scope]) -> None:
    assert {need for need in SCOPES if Caller(has, "token").may(need)} == opens


# ---------------------------------------------------------------- scoped tokens


@asynccontextmanager
async def auth_with_tokens(folder: Path, clock: FakeClock) -> AsyncIterator[tuple[Auth, Tokens]]:
    auth = open_auth(folder, clock)
    async with tokens_in(folder.parent / "log", clock) as tokens:
        auth.learn(lambda: tokens)
        yield auth, tokens


def bearing(text: str) -> HTTPConnection:
    return connection(("Authorization", f"Bearer {text}"))


def with_cookie(value: str) -> HTTPConnection:
    return connection(("Cookie", f"finn_session={value}"))


async def test_a_scoped_token_shows_its_scope_its_id_and_its_end(folder: Path, clock: FakeClock) -> None:
    async with auth_with_tokens(folder, clock) as (auth, tokens):
        for scope in SCOPES:
            made = await tokens.create(scope, "", 60.0, OWNER)
            caller = auth.identify(bearing(made.text.reveal()))
            assert caller == Caller(scope, "token", made.token.id, until=clock.now() + 60)
            assert caller.who == By(actor=f"token:{made.token.id}", trust="user")
        assert auth.identify(bearing(auth.token.reveal())).who == OWNER


async def test_what_is_revoked_or_over_is_a_wrong_token_and_counts(folder: Path, clock: FakeClock) -> None:
    async with auth_with_tokens(folder, clock) as (auth, tokens):
        gone, over, good = [await tokens.create("chat", "", seconds, OWNER) for seconds in (None, 60.0, None)]
        await tokens.revoke(gone.token.id, OWNER)
        clock.advance(60)
        codes = [code_of(auth, bearing(one.text.reveal())) for one in (gone, over) * 6]
        assert codes == ["unauthorized"] * WRONG_LIMIT + ["rate_limited"] * 2
        assert auth.identify(bearing(good.text.reveal())).scope == "chat", "a valid one always passes"


async def test_a_scope_that_a_caller_claims_is_not_read(folder: Path, clock: FakeClock) -> None:
    async with auth_with_tokens(folder, clock) as (auth, tokens):
        made = await tokens.create("probe", "", None, OWNER)
        text = made.text.reveal()
        claims = (("X-Scope", "owner"), ("X-Finn-Scope", "owner"), ("Cookie", f"finn_session={auth.new_cookie()}"))
        assert auth.identify(connection(("Authorization", f"Bearer {text}"), *claims)).scope == "probe"


async def test_while_the_log_is_not_open_a_scoped_token_is_neither_right_nor_wrong(
    folder: Path, clock: FakeClock
) -> None:
    async with auth_with_tokens(folder, clock) as (auth, tokens):
        made = await tokens.create("probe", "", None, OWNER)
        auth.learn(lambda: None)
        asking = bearing(made.text.reveal())
        assert {code_of(auth, asking) for _ in range(3 * WRONG_LIMIT)} == {"starting"}
        assert {auth.may_see_checks(asking) for _ in range(3 * WRONG_LIMIT)} == {False}
        assert auth.may_see_checks(bearing(auth.token.reveal())), "the owner's own needs no log"
        assert auth.may_see_checks(with_cookie(auth.new_cookie()))
        assert not auth.may_see_checks(with_cookie(auth.new_cookie(made.token.id)))
        assert code_of(auth, bearing("something else")) == "unauthorized"


async def test_who_may_see_checks(folder: Path, clock: FakeClock) -> None:
    async with auth_with_tokens(folder, clock) as (auth, tokens):
        for scope in SCOPES:
            assert auth.may_see_checks(bearing((await tokens.create(scope, "", None, OWNER)).text.reveal()))
        assert not auth.may_see_checks(connection())
        with pytest.raises(Refused, match="not valid"):
            auth.may_see_checks(bearing(f"finn_{'A' * 43}"))


async def test_the_cookie_of_a_scoped_token_is_that_token_and_ends_with_it(folder: Path, clock: FakeClock) -> None:
    async with auth_with_tokens(folder, clock) as (auth, tokens):
        revoked, short = await tokens.create("chat", "", None, OWNER), await tokens.create("read", "", 60.0, OWNER)
        cookies = {made: auth.new_cookie(made.token.id) for made in (revoked, short)}
        began = clock.now()
        assert auth.by_cookie(cookies[revoked]) == Caller("chat", "cookie", revoked.token.id, 0, began + COOKIE_S)
        assert auth.by_cookie(cookies[short]) == Caller("read", "cookie", short.token.id, 0, began + 60)
        await tokens.revoke(revoked.token.id, OWNER)
        clock.advance(60)
        assert [auth.by_cookie(cookie) for cookie in cookies.values()] == [None, None]


async def test_a_cookie_cannot_be_made_into_that_of_another(folder: Path, clock: FakeClock) -> None:
    async with auth_with_tokens(folder, clock) as (auth, tokens):
        small, great = await tokens.create("read", "", None, OWNER), await tokens.create("owner", "", None, OWNER)
        cookie = auth.new_cookie(small.token.id)
        version, issued, name, signature = cookie.split(".")
        forged = (
            cookie.replace(name, great.token.id),
            f"v1.{issued}.{signature}",
            f"v1.{issued}.{name}.{signature}",
            f"{version}.{issued}..{signature}",
            f"{version}.{issued}.{signature}",
            auth.new_cookie().replace("v1.", "v2."),
        )
        assert [auth.by_cookie(one) for one in forged] == [None] * len(forged)


async def test_a_caller_stands_until_what_it_showed_opens_nothing(folder: Path, clock: FakeClock) -> None:
    async with auth_with_tokens(folder, clock) as (auth, tokens):
        made = await tokens.create("chat", "", None, OWNER)
        short = await tokens.create("chat", "", 60.0, OWNER)
        callers = {
            "owner": auth.identify(bearing(auth.token.reveal())),
            "owner's cookie": auth.identify(with_cookie(auth.new_cookie())),
            "token": auth.identify(bearing(made.text.reveal())),
            "token's cookie": auth.identify(with_cookie(auth.new_cookie(made.token.id))),
            "short": auth.identify(bearing(short.text.reveal())),
        }

        def standing() -> set[str]:
            generation = auth.generation
            assert all(auth.stands(one) == auth.stands(one, generation) for one in callers.values())
            return {name for name, caller in callers.items() if auth.stands(caller)}

        assert standing() == set(callers)
        clock.advance(60)
        assert standing() == set(callers) - {"short"}
        rotate(folder, entropy=system_entropy)
        assert standing() == {"token"}, "it is the owner's key that signs every cookie"
        await tokens.revoke(made.token.id, OWNER)
        assert standing() == set()


# ---------------------------------------------------------------- the brake


def use_up(brake: Brake, address: str) -> None:
    assert [brake.wrong(address) for _ in range(WRONG_LIMIT)] == [None] * WRONG_LIMIT


def test_after_ten_the_wait_is_told_and_after_it_tries_are_free_again(clock: FakeClock) -> None:
    brake = Brake(clock)
    use_up(brake, "203.0.113.7")
    clock.advance(20)
    assert brake.wrong("203.0.113.7") == WRONG_WINDOW_S - 20
    clock.advance(WRONG_WINDOW_S - 20)
    use_up(brake, "203.0.113.7")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("203.0.113.7", "::ffff:203.0.113.7", True),
        ("203.0.113.7", "::ffff:cb00:7107", True),
        ("2001:db8:1:2::1", "2001:DB8:1:2:ffff::9", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("203.0.113.7", "203.0.113.8", False),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
    ],
)
def test_one_caller_has_one_count_in_whatever_form(clock: FakeClock, one: str, other: str, same: bool) -> None:
    brake = Brake(clock)
    use_up(brake, one)
    assert (brake.wrong(other) is not None) is same


def test_the_memory_for_wrong_tokens_is_bounded_and_forgets_the_oldest(clock: FakeClock) -> None:
    brake = Brake(clock)
    use_up(brake, "203.0.113.7")
    for i in range(MAX_ADDRESSES):
        brake.wrong(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}")
    assert len(brake._wrong) == MAX_ADDRESSES
    assert brake.wrong("203.0.113.7") is None


# ---------------------------------------------------------------- memory


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_process_can_hide_its_memory() -> None:
    shows = "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    program = f"import ctypes; from gateway.serve import hide_memory; hide_memory(); {shows}"
    shown = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "0"
