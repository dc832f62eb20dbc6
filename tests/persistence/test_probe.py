"""A store that does not keep the promise is found out, by the answer it gives and by the bytes it keeps."""

import itertools
import random
import threading
from collections.abc import Callable

import pytest

from persistence.clock import FakeClock
from persistence.errors import Exists, StoreError, StoreRefused, StoreUnreachable
from persistence.probe import PAUSE_S, RACERS, TRIES, probe
from persistence.store import Store
from persistence.stores import open_store
from persistence.stores.memory import MemoryStore
from tests.persistence.faulty_store import DOUBTS, REFUSALS, FaultyStore
from tests.s3_server import S3Server


class Ignoring(MemoryStore):
    """Answers 200 to a violated condition."""

    def create(self, key: str, data: bytes) -> None:
        self.put(key, data)


class Lying(MemoryStore):
    """Answers 412 and writes all the same."""

    def create(self, key: str, data: bytes) -> None:
        there = key in self.objects
        self.put(key, data)
        if there:
            raise Exists("there is one")


class Knowing(MemoryStore):
    """Answers 501 to the condition."""

    def create(self, key: str, data: bytes) -> None:
        raise StoreRefused("NotImplemented")


class Racing(MemoryStore):
    """Looks, and writes when all the others have looked too."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Barrier(RACERS)

    def create(self, key: str, data: bytes) -> None:
        if not key.endswith("race"):
            super().create(key, data)
            return
        there = key in self.objects
        self.gate.wait()
        if there:
            raise Exists("there is one")
        self.put(key, data)


class Limited(MemoryStore):
    """Answers 429 to the second write of a second to one name, as R2 does."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.clock = clock
        self.last: dict[str, float] = {}

    def create(self, key: str, data: bytes) -> None:
        before = self.last.setdefault(key, self.clock.now())
        if before != self.clock.now() or key not in self.objects:
            super().create(key, data)
        else:
            raise StoreUnreachable("429")


class Undeletable(MemoryStore):
    """Gives the key no right to delete."""

    def delete(self, key: str) -> None:
        raise StoreRefused("AccessDenied")


class ReadOnly(MemoryStore):
    """Gives the key no right to write."""

    def put(self, key: str, data: bytes) -> None:
        raise StoreRefused("AccessDenied")


def entropy(count: int) -> bytes:
    return random.Random(1).randbytes(count)


def test_a_store_that_keeps_the_promise_passes_and_keeps_nothing_else() -> None:
    store = MemoryStore()
    assert (probe(store, entropy), store.objects) == (True, {})


@pytest.mark.parametrize("kind", [Ignoring, Lying, Knowing, Racing])
def test_a_store_that_does_not_keep_it_is_found_out(kind: Callable[[], MemoryStore]) -> None:
    store = kind()
    assert (probe(store, entropy), store.objects) == (False, {})


def test_a_key_without_the_right_to_delete_passes() -> None:
    assert probe(Undeletable(), entropy)


def test_a_store_that_takes_no_write_at_all_is_no_answer() -> None:
    with pytest.raises(StoreRefused):
        probe(ReadOnly(), entropy)


def test_a_store_that_is_away_is_no_answer() -> None:
    store = FaultyStore(MemoryStore(), random.Random(1))
    store.down = True
    with pytest.raises(StoreUnreachable):
        probe(store, entropy)


def test_a_store_that_takes_one_write_a_second_to_one_name_passes() -> None:
    clock = FakeClock()
    store = Limited(clock)
    assert (probe(store, entropy, clock.advance), store.objects) == (True, {})


def test_a_store_that_goes_away_before_the_second_create_is_no_answer() -> None:
    waited: list[float] = []
    with pytest.raises(StoreUnreachable):
        probe(Limited(FakeClock()), entropy, waited.append)
    assert waited == [PAUSE_S] * (TRIES - 1)


def test_faults_never_make_a_good_store_fail_the_probe(seed: int) -> None:
    """Each try ends in the truth or in an error; "no conditions" would send the agent to an unfenced prefix."""
    rng = random.Random(seed)
    outcomes: set[bool | None] = set()
    for _ in range(200):
        try:
            outcomes.add(probe(FaultyStore(MemoryStore(), rng, rate=0.08), rng.randbytes, lambda _: None))
        except StoreError:
            outcomes.add(None)
    assert outcomes == {True, None}


@pytest.mark.parametrize("conditional", [True, False])
def test_a_real_server_that_ignores_conditions_is_told_from_one_that_does_not(conditional: bool) -> None:
    with S3Server(conditional=conditional) as server:
        store = open_store(f"s3://{server.bucket()}/main", server.access())
        assert (probe(store, entropy), list(store.list(""))) == (conditional, [])
        store.close()


# --- the faulty store itself ---


def test_every_fault_comes_and_an_ambiguous_one_has_done_its_write(seed: int) -> None:
    inner = MemoryStore()
    store: FaultyStore = FaultyStore(inner, random.Random(seed), rate=0.5)
    for number in itertools.count():
        before = store.seen.copy()
        key = f"log/{number}"
        try:
            store.create(key, b"x")
        except StoreUnreachable:
            (fault,) = store.seen - before
            assert (key in inner.objects) == (fault in DOUBTS)
        if set(store.seen) >= {*REFUSALS, *DOUBTS}:
            return


def test_a_stale_list_is_what_was_there_before(seed: int) -> None:
    store = FaultyStore(MemoryStore(), random.Random(seed), rate=0.0, stale=1.0)
    for number in range(20):
        store.put(f"log/{number:02d}", b"x")
    listed = [found.key for found in store.list("log/")]
    assert listed == [f"log/{number:02d}" for number in range(len(listed))]
    assert 12 <= len(listed) < 20


def test_a_stale_list_still_shows_what_was_deleted(seed: int) -> None:
    store = FaultyStore(MemoryStore(), random.Random(seed), rate=0.0, stale=1.0)
    store.put("log/1", b"12345")
    store.delete("log/1")
    shown = {tuple((found.key, found.bytes) for found in store.list("log/")) for _ in range(50)}
    assert shown == {(), (("log/1", 5),)}


def test_a_calm_store_fails_no_more(seed: int) -> None:
    store = FaultyStore(MemoryStore(), random.Random(seed), rate=1.0)
    store.down = True
    store.calm()
    working: Store = store
    working.put("log/1", b"x")
    assert [found.key for found in working.list("")] == ["log/1"]
