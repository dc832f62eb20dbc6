"""The proxy and the server that other tests lean on: each fault is what it says, and only for whom it is meant."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from persistence.errors import Exists, StoreUnreachable
from persistence.store import Store
from persistence.stores import open_store
from tests.fault_proxy import Fault, FaultProxy
from tests.s3_server import S3Server

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as running:
        yield running


@contextlib.contextmanager
def through(server: S3Server, *faults: Fault) -> Iterator[tuple[FaultProxy, Store]]:
    with FaultProxy(server.port) as proxy:
        store = open_store(f"s3://{server.bucket()}/main", server.access(proxy.endpoint))
        proxy.add(*faults)
        yield proxy, store
        store.close()


def outcomes(store: Store, names: str) -> str:
    """A dot for each put that succeeded, an x for each that did not."""
    told = ""
    for name in names:
        try:
            store.put(f"log/{name}", b"x")
            told += "."
        except StoreUnreachable:
            told += "x"
    return told


def test_a_fault_comes_after_so_many_requests_so_many_times(server: S3Server) -> None:
    with through(server, Fault("reset_before", after=2, times=3)) as (_, store):
        assert outcomes(store, "abcdefgh") == "..xxx..."


def test_a_fault_is_for_one_method_and_path(server: S3Server) -> None:
    with through(server, Fault("status", method="PUT", path=r"/log/b$", times=None)) as (_, store):
        assert outcomes(store, "abcb") == ".x.x"
        assert [found.key for found in store.list("log/")] == ["log/a", "log/c"]


def test_faults_follow_one_another(server: S3Server) -> None:
    with through(server, Fault("reset_after", times=1), Fault("status", times=1)) as (proxy, store):
        assert outcomes(store, "abc") == "xx."
        assert proxy.seen == ["reset_after", "status"]


def test_a_flipped_bit_arrives_as_if_nothing_were_wrong(server: S3Server) -> None:
    with through(server, Fault("flip", method="GET")) as (_, store):
        store.put("seg/1", b"abc")
        assert (store.get("seg/1"), store.get("seg/1")) == (b"abb", b"abc")


def test_a_delayed_answer_is_the_right_one(server: S3Server) -> None:
    with through(server, Fault("delay", method="GET", seconds=0.05)) as (proxy, store):
        store.put("seg/1", b"abc")
        assert (store.get("seg/1"), proxy.seen) == (b"abc", ["delay"])


def test_a_server_that_went_away_comes_back_with_what_it_held() -> None:
    with S3Server() as server:
        store = open_store(f"s3://{server.bucket()}/main", server.access())
        store.create("log/1", b"before")
        server.stop()
        with pytest.raises(StoreUnreachable):
            store.get("log/1")
        server.start()
        with pytest.raises(Exists):
            store.create("log/1", b"after")
        assert store.get("log/1") == b"before"
        store.close()


def test_a_server_runs_as_a_process_too() -> None:
    command = [sys.executable, "-m", "tests.s3_server", "--bucket", "given"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        word, port = process.stdout.readline().split()
        store = open_store("s3://given/main", S3Server(port=int(port)).access())
        store.put("seg/1", b"abc")
        assert (word, store.get("seg/1")) == ("PORT", b"abc")
        store.close()
        process.kill()
