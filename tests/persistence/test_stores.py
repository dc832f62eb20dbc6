"""One promise, held by every store: what `create`, `put`, `get`, `list` and `delete` do, alone and eight at once."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from persistence.errors import Exists, NotFound, StoreRefused, UsageError
from persistence.store import Access, Below, Store, Unconditional
from persistence.stores import STORES, open_store
from persistence.stores.bucket import Bucket, connect
from persistence.stores.memory import MemoryStore
from persistence.stores.s3 import S3Store
from tests.s3_server import S3Server

BAD_KEYS = (
    *("", "/", "/log", "log/", "log//1", "../log", "log/../../x", "log/..", ".", "..", ".hidden", "log/.finn-1"),
    *("log\0", "log\n", "log 1", "log\\1", "ümlaut", "x" * 201, "a/" * 300 + "a", "log/1\n", "~", "a:b", "%2e%2e"),
)


def _file(tmp_path: Path) -> str:
    root = tmp_path / "objects"
    root.mkdir()
    return f"file://{root}"


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture(scope="module")
def s3_client(s3_server: S3Server) -> Any:
    """boto3's client, which takes a while to make: shared by the stores of all tests."""
    return connect(s3_server.access())


@pytest.fixture(params=[*(scheme for scheme, _ in STORES), "below"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Every store of the registry, empty; `below` is a part of one that holds other things besides."""
    opened: Store
    if request.param == "file":
        opened = open_store(_file(tmp_path))
    elif request.param == "below":
        whole = MemoryStore()
        whole.put("agents/mainly", b"a neighbour whose name begins the same")
        whole.put("zzz", b"another")
        opened = Below(whole, "agents/main")
    elif request.param == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        opened = S3Store(Bucket(server.bucket(), "agents/main", server.access()), page=50)
        opened._connected = request.getfixturevalue("s3_client")
    else:
        opened = open_store("memory://")
    yield opened
    opened.close()


def keys(store: Store, prefix: str = "", after: str = "") -> list[str]:
    return [found.key for found in store.list(prefix, after)]


def test_an_object_is_read_as_it_was_created(store: Store) -> None:
    store.create("log/0000000000000001.wal", b"one\0\xff")
    assert store.get("log/0000000000000001.wal") == b"one\0\xff"


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.create("log/1", b"")
    assert (store.get("log/1"), store.get("log/1", 0, 10)) == (b"", b"")


def test_a_name_is_created_once(store: Store) -> None:
    store.create("log/1", b"first")
    with pytest.raises(Exists):
        store.create("log/1", b"second")
    assert store.get("log/1") == b"first"


def test_the_same_bytes_do_not_make_a_second_create_succeed(store: Store) -> None:
    store.create("log/1", b"first")
    with pytest.raises(Exists):
        store.create("log/1", b"first")


def test_a_deleted_name_can_be_created_again(store: Store) -> None:
    store.create("log/1", b"first")
    store.delete("log/1")
    store.create("log/1", b"second")
    assert store.get("log/1") == b"second"


def test_put_replaces_what_was_there(store: Store) -> None:
    store.put("manifest/HINT", b"a longer first one")
    store.put("manifest/HINT", b"second")
    assert store.get("manifest/HINT") == b"second"


def test_create_does_not_replace_what_was_put(store: Store) -> None:
    store.put("knock", b"put")
    with pytest.raises(Exists):
        store.create("knock", b"created")


@pytest.mark.parametrize(
    ("first", "count", "expected"),
    [(0, None, b"0123456789"), (3, None, b"3456789"), (3, 4, b"3456"), (8, 10, b"89"), (10, None, b""), (99, 5, b"")],
)
def test_a_range_ends_where_the_object_does(store: Store, first: int, count: int | None, expected: bytes) -> None:
    store.put("seg/1", b"0123456789")
    assert store.get("seg/1", first, count) == expected


@pytest.mark.parametrize("first", [0, 5])
def test_an_absent_object_is_not_found(store: Store, first: int) -> None:
    store.put("log/1", b"x")
    with pytest.raises(NotFound):
        store.get("log/2", first)


def test_the_folder_of_an_object_is_no_object(store: Store) -> None:
    store.put("log/1", b"x")
    with pytest.raises(NotFound):
        store.get("log")


def test_deleting_what_is_not_there_is_done_already(store: Store) -> None:
    store.put("log/1", b"x")
    store.delete("log/2")
    store.delete("seg/1")
    assert keys(store) == ["log/1"]


def test_a_listing_is_in_order_of_the_whole_keys(store: Store) -> None:
    names = ["a-b", "a.b", "a/b", "a0", "a/b-c", "a/b/c", "B", "log/2", "log/10", "a_b"]
    names.remove("a/b")  # a file store cannot hold an object that is also the folder of another
    for name in names:
        store.put(name, name.encode())
    assert keys(store) == sorted(names)


def test_a_listing_shows_only_what_begins_with_the_prefix(store: Store) -> None:
    for name in ("log/0001", "log/0002", "log/0012", "logbook/1", "seg/1"):
        store.put(name, b"x")
    assert [keys(store, p) for p in ("log/", "log", "log/000", "log/0002", "none/", "s")] == [
        ["log/0001", "log/0002", "log/0012"],
        ["log/0001", "log/0002", "log/0012", "logbook/1"],
        ["log/0001", "log/0002"],
        ["log/0002"],
        [],
        ["seg/1"],
    ]


@pytest.mark.parametrize(
    ("after", "expected"),
    [("log/1", ["log/2", "seg/1"]), ("log/15", ["log/2", "seg/1"]), ("log", ["log/1", "log/2", "seg/1"]), ("t", [])],
)
def test_a_listing_goes_on_after_a_key(store: Store, after: str, expected: list[str]) -> None:
    for name in ("log/1", "log/2", "seg/1"):
        store.put(name, b"x")
    assert keys(store, "", after) == expected


def test_a_listing_is_complete_beyond_a_page(store: Store) -> None:
    names = [f"chunk/{number:04d}" for number in range(151)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put(name, b"x"), names))
    assert keys(store, "chunk/") == names


def test_a_listing_tells_sizes_and_times(store: Store) -> None:
    store.put("log/1", b"12345")
    (found,) = store.list("log/")
    assert (found.key, found.bytes) == ("log/1", 5)
    assert found.modified > 1_600_000_000


def test_of_eight_creates_at_once_one_succeeds(store: Store) -> None:
    def race(number: int) -> list[int]:
        gate = threading.Barrier(8)

        def attempt(writer: int) -> int | None:
            gate.wait()
            try:
                store.create(f"log/{number}", f"writer {writer}".encode())
            except Exists:
                return None
            return writer

        with ThreadPoolExecutor(8) as pool:
            return [writer for writer in pool.map(attempt, range(8)) if writer is not None]

    for number in range(20):
        winners = race(number)
        assert len(winners) == 1
        assert store.get(f"log/{number}") == f"writer {winners[0]}".encode()


def test_a_reader_sees_the_old_bytes_or_the_new_and_never_a_mixture(store: Store) -> None:
    bodies = (b"a" * 300_000, b"b" * 200_000)
    store.put("manifest/HINT", bodies[0])
    done = threading.Event()

    def read() -> list[bytes]:
        seen = []
        while not done.is_set():
            seen.append(store.get("manifest/HINT"))
        return [data for data in seen if data not in bodies]

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        for number in range(40):
            store.put("manifest/HINT", bodies[number % 2])
        done.set()
    assert reading.result() == []


def test_a_large_object_comes_back_whole(store: Store) -> None:
    data = os.urandom(1 << 20) * 11
    store.create("seg/1", data)
    assert store.get("seg/1") == data


def refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except StoreRefused:
        return True
    return False


def test_a_key_that_is_no_name_is_refused_by_every_call(store: Store) -> None:
    calls: dict[str, Callable[[str], object]] = {
        "create": lambda key: store.create(key, b"x"),
        "put": lambda key: store.put(key, b"x"),
        "get": store.get,
        "delete": store.delete,
    }
    served = [(name, key) for name, call in calls.items() for key in BAD_KEYS if not refused(partial(call, key))]
    assert (served, keys(store)) == ([], [])


def test_a_prefix_that_leads_nowhere_is_refused(store: Store) -> None:
    prefixes = ("/", "..", "../", "log/../", "a//", "\0", "log\n", "x" * 600)
    assert [prefix for prefix in prefixes if not refused(partial(keys, store, prefix))] == []


# --- the parts of a store ---


def test_a_part_shows_nothing_of_what_lies_beside_it() -> None:
    whole = MemoryStore()
    part = Below(whole, "unfenced/01J")
    part.create("log/1", b"x")
    assert (keys(whole), keys(part), part.url) == (["unfenced/01J/log/1"], ["log/1"], "memory://unfenced/01J")


def test_a_part_for_one_writer_creates_once_where_conditions_are_ignored() -> None:
    class Ignoring(MemoryStore):
        def create(self, key: str, data: bytes) -> None:
            self.put(key, data)

    part = Unconditional(Ignoring(), "unfenced/01J")
    part.create("log/1", b"first")
    with pytest.raises(Exists):
        part.create("log/1", b"second")
    assert part.get("log/1") == b"first"


def test_the_keys_of_an_access_are_not_shown() -> None:
    shown = repr(Access("https://s3.example", "auto", "CANARY-id", "CANARY-secret", "CANARY-token"))
    assert "CANARY" not in shown
    assert "https://s3.example" in shown


@pytest.mark.parametrize(
    "url",
    ["", "nothing", "gopher://CANARY", "file://", "file://relative", "file:///", "file:///a/../b", "memory://x", "://"],
)
def test_a_url_that_names_no_store_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(url)
    assert "CANARY" not in str(caught.value)
