"""What finn asks outside: public addresses only, however they are written, and never more than it can bear (T7)."""

import gzip
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_address
from itertools import chain, repeat
from pathlib import Path

import pytest

from agent.outbound import Answer, Limits, Outbound, addresses_of, place_of
from agent.public import Address, is_public, literal
from persistence.clock import FakeClock, SystemClock
from persistence.errors import OutboundError, OutboundFailed, OutboundRefused
from tests.canary import Authority, Canary, Request, answer

HERE, PRIVATE = "127.0.0.1", "127.0.0.2"  # in these tests the first is public and the second is not
BOTH = ("http", "https")

NAMES = {
    "localtest.me": [HERE],
    "127.0.0.1.nip.io": [HERE],
    "rebound.example": ["::ffff:127.0.0.1"],
    "half.example": ["8.8.8.8", HERE],
    "other-half.example": [HERE, "8.8.8.8"],
    "six.example": ["2001:4860:4860::8888", "::1"],
    "nat64.example": ["64:ff9b::7f00:1"],
    "sixtofour.example": ["2002:7f00:1::"],
    "teredo.example": ["2001:0:7f00:1::"],
    "metadata.example": ["169.254.169.254"],
    "metadata6.example": ["fd00:ec2::254"],
}

TO_LOOPBACK = (
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "127.000.000.001",
    "0177.0.0.1",
    "0177.0.0.01",
    "017700000001",
    "00000177.1",
    "2130706433",
    "0x7f000001",
    "0X7F000001",
    "0x7F.1",
    "0x7f.0x0.0x0.0x1",
    "0x7f.0.1",
    "0177.0x0.1",
    "127.255.255.254",
    "0",
    "0.0.0.0",
    "0x0",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000::0001]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::FFFF:7F00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::127.0.0.1]",
    "[2002:7f00:1::1]",
    "[2001:0:7f00:1::1]",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "[fec0::1]",
    "[ff02::1]",
    "169.254.169.254",
    "0xa9fea9fe",
    "2852039166",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "localhost",
    "localhost.",
    "LOCALHOST",
    "LocalHost",
    *NAMES,
)
NO_HOST = (
    "http://a@127.0.0.1:{port}/",
    "http://a:b@127.0.0.1:{port}/",
    "http://8.8.8.8@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}@8.8.8.8/",
    "http://8.8.8.8\\@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@8.8.8.8/",
    "http://8.8.8.8:80@127.0.0.1:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://１２７.０.０.１:{port}/",
    "http://١٢٧.0.0.1:{port}/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/",
    "http://127。0。0。1:{port}/",
    "http://%31%32%37.0.0.1:{port}/",
    "http://127.0.0.1%2f@8.8.8.8:{port}/",
    "http://127.0.0.1%00.example:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://[::1%lo]:{port}/",
    "http://[::ffff:127.0.0.1:{port}/",
    "http://127.0.0.1:{port}:80/",
    "http://127.0.0.1:0x50/",
    "http://127.0.0.1:0/",
    "http://127.0.0.1:99999/",
    "http:/127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "http://\t127.0.0.1:{port}/",
    "http://127.0.0.1:{port}/\r\nX: y",
    "http://127.0.0.1:{port}/ HTTP/1.1",
    " http://127.0.0.1:{port}/",
    "http://",
    "",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/_x",
    "ftp://127.0.0.1:{port}/",
    "dict://127.0.0.1:{port}/",
    "unix:///run/docker.sock",
    "jar:http://127.0.0.1:{port}/",
    "data:text/plain,x",
)


def resolver(host: str, port: int) -> Sequence[str]:
    """What this machine reads numbers as, and the names of these tests; never a question to a server."""
    if host in NAMES:
        return NAMES[host]
    if host.lower().strip(".") == "localhost":
        return addresses_of(host, port)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return [str(entry[4][0]) for entry in found]


def here_only(address: Address) -> bool:
    return address == ip_address(HERE)


def always(host: str) -> Callable[[str, int], Sequence[str]]:
    return lambda _, __: [host]


def open_to(*addresses: str, **options: object) -> Outbound:
    """A client for which these addresses of this machine are public."""
    judge = {ip_address(one) for one in addresses or (HERE,)}.__contains__
    return Outbound(SystemClock(), **{"schemes": BOTH, "judge": judge, **options})  # type: ignore[arg-type]


@pytest.fixture
def canary() -> Iterator[Canary]:
    with Canary() as it:
        yield it


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def refused(out: Outbound, url: str) -> OutboundError:
    with pytest.raises(OutboundError) as caught:
        out.send("GET", url)
    return caught.value


# ---------------------------------------------------------------- where it does not go


def test_the_canary_sings_where_somebody_comes(canary: Canary) -> None:
    assert open_to().send("GET", canary.url).body == b"ok"
    assert canary.hits == 1


@pytest.mark.parametrize("host", TO_LOOPBACK)
def test_no_spelling_of_an_address_that_is_not_public_is_asked(canary: Canary, host: str) -> None:
    error = refused(Outbound(SystemClock(), schemes=BOTH, resolve=resolver), f"http://{host}:{canary.port}/secret")
    assert isinstance(error, OutboundRefused)
    assert canary.hits == 0
    assert "secret" not in str(error)


def test_a_name_without_an_address_is_a_failure() -> None:
    error = refused(Outbound(SystemClock(), resolve=lambda _, __: []), "https://nobody.example/secret")
    assert isinstance(error, OutboundFailed)
    assert "secret" not in str(error)


@pytest.mark.parametrize("url", NO_HOST)
def test_what_is_no_plain_url_is_asked_nowhere(canary: Canary, url: str) -> None:
    error = refused(open_to(), url.format(port=canary.port))
    assert isinstance(error, OutboundRefused)
    assert canary.hits == 0


def test_the_resolver_of_the_machine_is_judged_as_well(canary: Canary) -> None:
    assert isinstance(refused(Outbound(SystemClock(), schemes=BOTH), canary.url), OutboundRefused)
    assert canary.hits == 0


def test_a_name_is_resolved_once_and_what_was_judged_is_what_is_asked() -> None:
    answers = chain([[HERE]], repeat([PRIVATE]))
    with Canary() as public, Canary(host=PRIVATE, port=public.port) as private:
        out = open_to(resolve=lambda _, __: next(answers))
        assert out.send("GET", f"http://rebinding.example:{public.port}/").status == 200
        assert (public.hits, private.hits) == (1, 0)
        refused(out, f"http://rebinding.example:{public.port}/")
        assert (public.hits, private.hits) == (1, 0)


def test_a_redirect_is_resolved_and_judged_anew() -> None:
    answers = chain([[HERE]], repeat([PRIVATE]))
    with Canary(lambda _: answer(302, "Location: /again")) as public, Canary(host=PRIVATE, port=public.port) as private:
        refused(open_to(resolve=lambda _, __: next(answers)), f"http://rebinding.example:{public.port}/")
        assert (public.hits, private.hits) == (1, 0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", ["http://127.0.0.2:{port}/", "//127.0.0.2:{port}/", "http://0x7f000002:{port}/", "http://x@127.0.0.2/"]
)
def test_no_redirect_leads_to_where_it_would_not_go_itself(status: int, location: str) -> None:
    with Canary(host=PRIVATE) as private:
        there = f"Location: {location.format(port=private.port)}"
        with Canary(lambda _: answer(status, there)) as public:
            refused(open_to(), public.url)
            assert (public.hits, private.hits) == (1, 0)


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "gopher://127.0.0.1/", "http://[", "\\\\127.0.0.1\\x", "http://ex ample/"]
)
def test_a_redirect_to_what_is_no_plain_url_ends_there(location: str) -> None:
    with Canary(lambda _: answer(302, f"Location: {location}")) as public:
        refused(open_to(), public.url)
        assert public.hits == 1


# ---------------------------------------------------------------- redirects


def test_a_redirect_is_followed_within_its_scheme(canary: Canary) -> None:
    with Canary(lambda _: answer(302, f"Location: {canary.url}/there?x=1")) as first:
        assert open_to().send("GET", first.url).status == 200
    assert [one.target for one in canary.requests] == ["/there?x=1"]


def test_a_loop_of_redirects_ends() -> None:
    with Canary(lambda _: answer(302, "Location: /")) as looping:
        refused(open_to(limits=Limits(redirects=2)), looping.url)
        assert looping.hits == 3


def test_a_redirect_never_leaves_what_is_encrypted(canary: Canary, authority: Authority) -> None:
    with Canary(lambda _: answer(302, f"Location: {canary.url}"), authority=authority) as first:
        refused(open_to(trust=authority.trusted), first.url)
        assert (first.hits, canary.hits) == (1, 0)


def test_what_is_told_is_told_again_or_refused_and_never_lost(canary: Canary) -> None:
    with Canary(lambda _: answer(307, f"Location: {canary.url}")) as first:
        open_to().send("POST", first.url, body=b"trouble")
    assert [(one.method, one.body) for one in canary.requests] == [("POST", b"trouble")]
    with Canary(lambda _: answer(302, f"Location: {canary.url}")) as second, pytest.raises(OutboundRefused):
        open_to().send("POST", second.url, body=b"trouble")
    assert canary.hits == 1


def test_what_authorizes_here_is_not_carried_to_another_host(canary: Canary) -> None:
    said = {"Authorization": "Bearer x", "Cookie": "a=b", "X-Api-Key": "y", "Content-Type": "text/plain"}
    with Canary(lambda _: answer(307, f"Location: {canary.url}")) as first:
        open_to().send("POST", first.url, said, b"trouble")
        assert {name.lower() for name in said} <= set(first.requests[0].headers)
    assert not {"authorization", "cookie", "x-api-key"} & set(canary.requests[0].headers)
    assert canary.requests[0].headers["content-type"] == "text/plain"


def test_no_cookie_is_kept_and_no_proxy_asked(canary: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    with Canary() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        canary.answering = lambda _: answer(200, "Set-Cookie: a=b")
        out = open_to()
        for _ in range(2):
            out.send("GET", canary.url)
        assert proxy.hits == 0
    assert [one.headers.get("cookie") for one in canary.requests] == [None, None]


# ---------------------------------------------------------------- encryption


def test_the_certificate_is_for_the_name_and_not_for_the_address(authority: Authority) -> None:
    with Canary(authority=authority, names=["hooks.example"]) as server:
        out = open_to(resolve=always(HERE), trust=authority.trusted)
        assert out.send("GET", f"https://hooks.example:{server.port}/").status == 200
        assert server.names == ["hooks.example"]
        refused(out, f"https://elsewhere.example:{server.port}/")
        assert len(server.requests) == 1


def test_a_certificate_that_nobody_vouches_for_is_not_talked_to(authority: Authority) -> None:
    with Canary(authority=authority) as server:
        error = refused(open_to(), f"{server.url}/secret")
        assert isinstance(error, OutboundFailed)
        assert "secret" not in str(error)
        assert server.requests == []


def test_https_alone_is_the_rule(canary: Canary) -> None:
    refused(Outbound(SystemClock(), judge=here_only), canary.url)
    assert canary.hits == 0


# ---------------------------------------------------------------- what an answer may cost


def endless(_: Request) -> Iterable[bytes]:
    return chain([b"HTTP/1.1 200 X\r\n\r\n"], repeat(b"x" * 4096))


def endless_chunks(_: Request) -> Iterable[bytes]:
    return chain([b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n"], repeat(b"5\r\nhello\r\n"))


def endless_trailers(_: Request) -> Iterable[bytes]:
    return chain([b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"], repeat(b"a: b\r\n"))


def endless_headers(_: Request) -> Iterable[bytes]:
    return chain([b"HTTP/1.1 200 X\r\n"], (f"X-{n}: {'y' * 1000}\r\n".encode() for n in range(1_000_000)))


def endless_line(_: Request) -> Iterable[bytes]:
    return chain([b"HTTP/1.1 200 X\r\nX: "], repeat(b"y" * 4096))


def endless_hints(_: Request) -> Iterable[bytes]:
    return repeat(b"HTTP/1.1 100 Continue\r\n\r\n")


def huge(_: Request) -> Iterable[bytes]:
    return chain([b"HTTP/1.1 200 X\r\nContent-Length: 999999999999\r\n\r\n"], repeat(b"x" * 4096))


def cut(_: Request) -> Iterable[bytes]:
    return [b"HTTP/1.1 200 X\r\nContent-Length: 100\r\n\r\nhalf"]


def cut_chunk(_: Request) -> Iterable[bytes]:
    return [b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe"]


def odd_chunk(_: Request) -> Iterable[bytes]:
    return [b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n"]


def no_http(_: Request) -> Iterable[bytes]:
    return [b"220 smtp.example ready\r\n"]


def nothing(_: Request) -> Iterable[bytes]:
    return []


@pytest.mark.parametrize(
    "answering",
    [
        endless,
        endless_chunks,
        endless_trailers,
        endless_headers,
        endless_line,
        endless_hints,
        huge,
        cut,
        cut_chunk,
        odd_chunk,
        no_http,
        nothing,
    ],
)
def test_an_answer_without_end_or_form_is_a_failure_and_nothing_more(answering: Callable[..., Iterable[bytes]]) -> None:
    with Canary(answering) as server:
        assert isinstance(refused(open_to(limits=Limits(bytes=100_000)), server.url), OutboundFailed)


def echoed(request: Request) -> Iterable[bytes]:
    return [b"220 " + request.target.encode() + b"x" * 50_000 + b"\r\n"]


def echoed_version(request: Request) -> Iterable[bytes]:
    return [b"HTTP/9 " + request.target.encode() + b"\r\n\r\n"]


def echoed_status(request: Request) -> Iterable[bytes]:
    return [b"HTTP/1.1 9x9 " + request.target.encode() + b"\r\n\r\n"]


@pytest.mark.parametrize("answering", [echoed, echoed_version, echoed_status])
def test_what_a_server_says_instead_of_http_is_not_repeated(answering: Callable[..., Iterable[bytes]]) -> None:
    with Canary(answering) as server:
        error = refused(open_to(), f"{server.url}/secret-path")
    assert "secret-path" not in str(error)
    assert len(str(error)) < 200


def test_an_answer_up_to_the_limit_is_taken_whole_and_one_byte_more_is_not() -> None:
    body = b"x" * 1000
    whole = len(b"".join(answer(body=body)))
    with Canary(lambda _: answer(body=body)) as server:
        assert open_to(limits=Limits(bytes=whole)).send("GET", server.url).body == body
        refused(open_to(limits=Limits(bytes=whole - 1)), server.url)


def test_what_is_packed_stays_packed() -> None:
    bomb = gzip.compress(bytes(10_000_000))
    with Canary(lambda _: answer(200, "Content-Encoding: gzip", body=bomb)) as server:
        assert open_to().send("GET", server.url).body == bomb
        assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 X\r\n\r\n", b"HTTP/1.1 200 X\r\nX-Slow: ", b""])
def test_one_byte_after_the_other_does_not_make_the_time_longer(head: bytes) -> None:
    clock = FakeClock()

    def dripping(_: Request) -> Iterator[bytes]:
        yield head
        while True:
            clock.advance(1)
            yield b"x"

    judge: Callable[[Address], bool] = here_only
    with Canary(dripping) as server:
        error = refused(Outbound(clock, schemes=BOTH, judge=judge), server.url)
        assert "10 s" in str(error)


def test_who_says_nothing_is_not_waited_for(authority: Authority) -> None:
    with socket.create_server((HERE, 0)) as silent:
        port = silent.getsockname()[1]
        for scheme in BOTH:
            out = open_to(limits=Limits(seconds=0.2), trust=authority.trusted)
            assert isinstance(refused(out, f"{scheme}://{HERE}:{port}/"), OutboundFailed)


def test_the_next_address_of_a_name_is_tried_where_one_is_not_there(canary: Canary) -> None:
    out = open_to(HERE, PRIVATE, resolve=lambda _, __: [PRIVATE, HERE])
    assert out.send("GET", f"http://two.example:{canary.port}/").status == 200


# ---------------------------------------------------------------- what is said


def test_a_request_is_what_it_was_asked_to_be(canary: Canary) -> None:
    given = open_to().send("POST", f"{canary.url}/hook?a=b#c", {"X-Title": "t"}, b"body")
    sent = canary.requests[0]
    assert (sent.method, sent.target, sent.body) == ("POST", "/hook?a=b", b"body")
    assert sent.headers == {
        "host": f"{HERE}:{canary.port}",
        "user-agent": "finn",
        "accept-encoding": "identity",
        "connection": "close",
        "x-title": "t",
        "content-length": "4",
    }
    assert given == Answer(200, {"content-length": "2"}, b"ok")


@pytest.mark.parametrize("header", [{"X": "a\r\nY: b"}, {"X\r\nY": "a"}, {"X": "a\nb"}, {"X": "ä"}, {"X": "\x00"}])
def test_a_header_is_one_line(canary: Canary, header: dict[str, str]) -> None:
    with pytest.raises(OutboundRefused):
        open_to().send("GET", canary.url, header)
    assert canary.requests == []


@pytest.mark.parametrize(
    ("url", "origin", "target"),
    [
        ("https://Hooks.Example/A/b", "https://hooks.example", "/A/b"),
        ("https://hooks.example:443", "https://hooks.example", "/"),
        ("HTTPS://hooks.example:8443?x=1", "https://hooks.example:8443", "/?x=1"),
        ("http://[2001:4860::1]:80/#top", "http://[2001:4860::1]", "/"),
    ],
)
def test_a_plain_url_is_read_as_it_stands(url: str, origin: str, target: str) -> None:
    place = place_of(url)
    assert (place.origin, place.target) == (origin, target)


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.63.255.255", "203.0.114.7", "2001:4860:4860::8888", "2a00::1"],
)
def test_what_anybody_can_reach_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("carried", ["::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_an_address_that_another_carries_is_judged_itself(carried: str) -> None:
    assert is_public(ip_address(carried))
    assert not is_public(ip_address(carried.replace("8.8.8.8", "10.0.0.1")))


def test_nothing_is_public_that_the_standard_library_knows_to_be_private() -> None:
    for each in range(256):
        for text in (f"{each}.0.0.1", f"192.{each}.0.1", f"172.{each}.0.1", f"100.{each}.0.1", f"{each:x}00::1"):
            address = ip_address(text)
            assert not (is_public(address) and (address.is_private or address.is_multicast or address.is_reserved))


@pytest.mark.parametrize("text", ["127.0.0.1", "[::1]", "127.1", "0x7f000001", "2130706433", "017700000001", "0"])
def test_a_host_that_is_an_address_already_is_known_for_one(text: str) -> None:
    found = literal(text)
    assert found is not None and not is_public(found)


@pytest.mark.parametrize("text", ["hooks.example", "localhost", "1.example", "", "a1"])
def test_a_name_is_no_address(text: str) -> None:
    assert literal(text) is None
