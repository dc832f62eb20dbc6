"""The s3 store before a network that fails: every fault is the right error, in bounded time, and tells no secret.

store ─▶ FaultProxy ─▶ moto
"""

import contextlib
import hashlib
import io
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator

import pytest

from persistence.clock import FakeClock
from persistence.errors import Exists, FinnError, NotFound, StoreError, StoreRefused, StoreUnreachable, UsageError
from persistence.store import Access, Store
from persistence.stores import bucket, open_store, s3
from persistence.stores.bucket import Bucket
from persistence.stores.s3 import S3Store
from tests.fault_proxy import Fault, FaultProxy, Kind
from tests.s3_server import KEY_ID, SECRET, S3Server

BROKEN: tuple[Kind, ...] = ("reset_before", "reset_after", "half", "blackhole")


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as running:
        yield running


@pytest.fixture(scope="module")
def running(server: S3Server) -> Iterator[tuple[FaultProxy, S3Store]]:
    """The proxy and a store before it that is less patient than in life. boto3 needs a while to make a client."""
    with FaultProxy(server.port) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setattr(bucket, "READ_S", 0.3)
        opened = S3Store(Bucket("bucket", "main", server.access(proxy.endpoint)))
        opened._client()
        yield proxy, opened
        opened.close()


@pytest.fixture
def proxy(running: tuple[FaultProxy, S3Store]) -> Iterator[FaultProxy]:
    proxy, _ = running
    yield proxy
    proxy.clear()
    proxy.requests.clear()


@pytest.fixture
def store(server: S3Server, running: tuple[FaultProxy, S3Store], proxy: FaultProxy) -> S3Store:
    """A store in a bucket of its own, which shares the client."""
    opened = S3Store(Bucket(server.bucket(), "main", server.access(proxy.endpoint)))
    opened._connected = running[1]._client()
    return opened


def calls(store: Store) -> dict[str, Callable[[], object]]:
    return {
        "create": lambda: store.create("log/1", b"x"),
        "put": lambda: store.put("manifest/HINT", b"x"),
        "get": lambda: store.get("seg/1"),
        "list": lambda: list(store.list("")),
        "delete": lambda: store.delete("seg/1"),
    }


# --- the network ---


@pytest.mark.parametrize("kind", ["reset_before", "reset_after", "blackhole"])
@pytest.mark.parametrize("name", ["create", "put", "get", "list", "delete"])
def test_no_answer_is_unreachable_whatever_was_asked(store: S3Store, proxy: FaultProxy, name: str, kind: Kind) -> None:
    store.put("seg/1", b"there")
    proxy.add(Fault(kind))
    with pytest.raises(StoreUnreachable):
        calls(store)[name]()
    assert proxy.seen == [kind]


@pytest.mark.parametrize("name", ["get", "list"])
def test_half_an_answer_is_no_answer(store: S3Store, proxy: FaultProxy, name: str) -> None:
    store.put("seg/1", os.urandom(3 << 20))
    proxy.add(Fault("half"))
    with pytest.raises(StoreUnreachable):
        calls(store)[name]()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        *((500, "InternalError"), (502, "BadGateway"), (503, "SlowDown"), (504, "x"), (429, "TooManyRequests")),
        *((409, "ConditionalRequestConflict"), (400, "RequestTimeout"), (400, "BadDigest")),
    ],
)
def test_an_answer_that_says_to_come_back_is_unreachable(
    store: S3Store, proxy: FaultProxy, status: int, code: str
) -> None:
    proxy.add(Fault("status", status=status, code=code, times=None))
    for call in calls(store).values():
        with pytest.raises(StoreUnreachable):
            call()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        *((401, "Unauthorized"), (403, "AccessDenied"), (403, "InvalidAccessKeyId"), (403, "RequestTimeTooSkewed")),
        *((404, "NoSuchBucket"), (404, "SomethingElse"), (501, "NotImplemented"), (400, "InvalidArgument")),
    ],
)
def test_an_answer_that_says_no_is_refused_with_what_to_do(
    store: S3Store, proxy: FaultProxy, status: int, code: str
) -> None:
    proxy.add(Fault("status", status=status, code=code, times=None))
    for call in calls(store).values():
        with pytest.raises(StoreRefused) as caught:
            call()
        assert str(status) in caught.value.message
        assert caught.value.hint


def test_a_create_without_an_answer_was_done_and_the_same_again_says_so(store: S3Store, proxy: FaultProxy) -> None:
    proxy.add(Fault("reset_after", method="PUT"))
    with pytest.raises(StoreUnreachable):
        store.create("log/1", b"mine")
    with pytest.raises(Exists):
        store.create("log/1", b"mine")
    assert store.get("log/1") == b"mine"


def test_a_create_that_never_arrived_succeeds_when_it_is_tried_again(store: S3Store, proxy: FaultProxy) -> None:
    proxy.add(Fault("reset_before", method="PUT"))
    with pytest.raises(StoreUnreachable):
        store.create("log/1", b"mine")
    store.create("log/1", b"mine")
    assert store.get("log/1") == b"mine"


def test_nothing_is_repeated_behind_the_callers_back(store: S3Store, proxy: FaultProxy) -> None:
    proxy.add(Fault("status", status=500, code="InternalError", times=None))
    for call in calls(store).values():
        with pytest.raises(StoreUnreachable):
            call()
    assert [request.method for request in proxy.requests] == ["PUT", "PUT", "GET", "GET", "DELETE"]


def test_a_store_that_comes_back_is_used_again(server: S3Server, store: S3Store, proxy: FaultProxy) -> None:
    store.put("seg/1", b"before")
    proxy.away = True
    proxy.cut()
    for call in calls(store).values():
        with pytest.raises(StoreUnreachable):
            call()
    proxy.clear()
    assert store.get("seg/1") == b"before"


def test_a_server_that_is_not_there_is_unreachable(server: S3Server) -> None:
    with S3Server() as gone:
        access = gone.access()
    store = open_store("s3://bucket/main", access)
    for call in calls(store).values():
        with pytest.raises(StoreUnreachable):
            call()
    store.close()


def test_a_connection_that_was_closed_meanwhile_costs_no_error(store: S3Store, proxy: FaultProxy) -> None:
    """Servers close what is idle; the next call must not be the one that finds out."""
    store.put("seg/1", b"x")
    proxy.cut()
    assert store.get("seg/1") == b"x"


def test_a_body_that_comes_too_slowly_is_given_up(store: S3Store, proxy: FaultProxy) -> None:
    clock = FakeClock()
    slow = S3Store(store._bucket, clock=clock)
    slow.put("seg/1", b"x" * 100)
    answer = slow._client().get_object(Bucket=store._bucket.name, Key="main/seg/1")
    stream = answer["Body"]

    class Dripping(io.RawIOBase):
        """Each byte takes a second of the store's clock."""

        def read(self, size: int = -1) -> bytes:
            clock.advance(1.0)
            return bytes(stream.read(1))

    with pytest.raises(StoreUnreachable):
        slow._body({"ContentLength": 100, "Body": Dripping()}, "seg/1")
    stream.close()
    slow.close()


def test_a_body_that_goes_too_slowly_is_given_up(store: S3Store) -> None:
    class Late(FakeClock):
        """Each look at it is five seconds later."""

        def monotonic(self) -> float:
            self.advance(5.0)
            return self.time

    slow = S3Store(store._bucket, clock=Late())
    with pytest.raises(StoreUnreachable):
        slow.put("seg/1", b"x" * (s3.SMALL_BYTES + 1))
    slow.close()


def test_an_object_larger_than_any_of_ours_is_not_read(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("seg/1", b"x" * 2000)
    monkeypatch.setattr(s3, "OBJECT_MAX", 1999)
    with pytest.raises(StoreRefused):
        store.get("seg/1")
    assert store.get("seg/1", 0, 1999) == b"x" * 1999


def test_bytes_that_the_store_did_not_keep_as_sent_are_noticed() -> None:
    digest = hashlib.md5(b"x").hexdigest()
    other = hashlib.md5(b"y").hexdigest()
    assert s3._kept_other_bytes({"ETag": f'"{other}"'}, digest)
    same: tuple[dict[str, str], ...] = (
        {"ETag": f'"{digest}"'},
        {"ETag": f'"{other}-2"'},  # in parts: no MD5
        {"ETag": f'"{other}"', "ServerSideEncryption": "aws:kms"},
        {},
    )
    assert [s3._kept_other_bytes(answer, digest) for answer in same] == [False] * 4


def test_what_others_keep_in_the_bucket_is_not_listed(server: S3Server, store: S3Store) -> None:
    whole = S3Store(Bucket(store._bucket.name, "", server.access()), page=2)
    for key in ("mainly/1", "zzz"):
        whole.put(key, b"x")
    client = whole._client()
    for key in ("main/", "main/.hidden", "main/a b", "main//x", "main/../x", "main/log/ü"):
        client.put_object(Bucket=store._bucket.name, Key=key, Body=b"x")
    store.put("log/1", b"x")
    assert [found.key for found in store.list("")] == ["log/1"]
    whole.close()


def test_every_request_asks_for_the_newest_and_sends_no_checksum_that_r2_refuses(
    server: S3Server,
) -> None:
    sent: list[dict[str, str]] = []
    store = S3Store(Bucket(server.bucket(), "main", server.access()))
    store._client().meta.events.register("before-send.s3", lambda request, **_: sent.append(dict(request.headers)))
    for call in calls(store).values():
        with contextlib.suppress(NotFound):
            call()
    store.put("seg/2", b"x" * (s3.SMALL_BYTES + 1))
    store.close()
    names = [{name.lower() for name in headers} for headers in sent]
    assert len(names) == 6
    assert all("x-tigris-consistent" in each for each in names)
    unwanted = {"expect", "x-amz-trailer", "x-amz-sdk-checksum-algorithm", "x-amz-checksum-crc32", "content-encoding"}
    assert not set().union(*names) & unwanted


# --- what opens it, and what it tells ---


@pytest.mark.parametrize(
    ("url", "access"),
    [
        ("s3://", Access()),
        ("s3:///prefix", Access()),
        ("s3://CANARY:CANARY@bucket/prefix", Access()),
        ("s3://bucket/../CANARY", Access()),
        ("s3://bucket/CANARY//b", Access()),
        ("s3://bucket/prefix?CANARY", Access()),
        ("s3://bucket", Access(endpoint="https://CANARY:CANARY@host")),
        ("s3://bucket", Access(endpoint="ftp://CANARY")),
        ("s3://bucket", Access(endpoint="https://host:CANARY")),
        ("s3://bucket", Access(endpoint="https://host/?key=CANARY")),
        ("s3://bucket", Access(key_id="CANARY")),
        ("s3://bucket", Access(secret="CANARY")),
    ],
)
def test_a_wrong_url_or_access_is_a_wrong_setting_and_is_not_repeated(url: str, access: Access) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(url, access)
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("url", "shown"),
    [("s3://bucket", "s3://bucket"), ("s3://bucket/", "s3://bucket"), ("s3://bucket/a/b/", "s3://bucket/a/b")],
)
def test_a_store_shows_where_it_is(url: str, shown: str) -> None:
    assert open_store(url, Access(key_id="CANARY", secret="CANARY")).url == shown


@pytest.mark.parametrize(
    ("endpoint", "region", "expected"),
    [
        ("", "", (None, "auto")),
        ("", "eu-west-1", ("eu-west-1", "auto")),
        ("http://127.0.0.1:9000", "", ("us-east-1", "auto")),
        ("https://fly.storage.tigris.dev", "", ("auto", "virtual")),
        ("https://t3.storage.dev", "", ("auto", "virtual")),
        ("https://abc.r2.cloudflarestorage.com", "", ("auto", "path")),
        ("https://abc.r2.cloudflarestorage.com", "eu", ("eu", "path")),
    ],
)
def test_each_provider_is_addressed_in_its_own_way(
    endpoint: str, region: str, expected: tuple[str | None, str]
) -> None:
    assert bucket.peculiar(Access(endpoint, region)) == expected


def test_no_fault_tells_the_keys(
    server: S3Server, proxy: FaultProxy, store: S3Store, caplog: pytest.LogCaptureFixture
) -> None:
    """T6: not in an error, its hint or its traceback, not in a log at DEBUG, not in a repr."""
    token = "CANARY-session-token"
    access = Access(proxy.endpoint, "us-east-1", KEY_ID, SECRET, token)
    told = [repr(access)]
    kinds: tuple[tuple[Kind, str], ...] = (("status", KEY_ID), ("status", "SignatureDoesNotMatch"))
    kinds += tuple((kind, "") for kind in BROKEN)
    with caplog.at_level(logging.DEBUG):
        opened = S3Store(Bucket(store._bucket.name, "main", access))
        told += [repr(opened), repr(opened._bucket), opened.url]
        opened.put("seg/1", b"x" * 1000)
        for kind, code in kinds:
            proxy.add(Fault(kind, times=5, status=403, code=code))
            for call in calls(opened).values():
                try:
                    call()
                except FinnError as error:
                    told += [str(error), repr(error), *traceback.format_exception(error)]
            proxy.clear()
        opened.close()
    told += [f"{record.getMessage()} {record.exc_text}" for record in caplog.records]
    whole = "\n".join(told)
    assert [secret for secret in (KEY_ID, SECRET, token, "Signature=") if secret in whole] == []


def test_a_key_of_its_own_is_not_mixed_with_that_of_the_environment(
    server: S3Server, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOTHER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
    opened = S3Store(Bucket(store._bucket.name, "main", server.access()))
    sent: list[str] = []
    opened._client().meta.events.register(
        "before-send.s3", lambda request, **_: sent.append(str(request.headers["Authorization"]))
    )
    opened.put("seg/1", b"x")
    opened.close()
    assert [KEY_ID in each for each in sent] == [True]


def test_boto3_is_loaded_with_the_first_call_and_not_before() -> None:
    code = (
        "import sys; from persistence.stores import open_store; from persistence.store import Access\n"
        "open_store('s3://bucket/main', Access('http://127.0.0.1:1', 'r', 'k', 's'))\n"
        "sys.exit(any(name in sys.modules for name in ('boto3', 'botocore', 'urllib3')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0


def test_a_missing_bucket_is_refused_by_every_call(server: S3Server) -> None:
    store = open_store("s3://no-such-bucket/main", server.access())
    for call in calls(store).values():
        with pytest.raises(StoreError) as caught:
            call()
        assert isinstance(caught.value, StoreRefused)
    store.close()
