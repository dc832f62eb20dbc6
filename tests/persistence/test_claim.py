"""Claims: whoever claims last writes, everybody before is told, and nobody is overwritten."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from persistence.claim import Claimed, Start, anew
from persistence.errors import Damaged, Fenced, StoreError, StoreUnreachable
from persistence.layout import COLLECTED, HINT, decode_hint, log_key, manifest_key
from persistence.remote import look, together
from persistence.replica import Replica
from persistence.store import Found, Store
from persistence.stores.file import FileStore
from persistence.stores.memory import MemoryStore
from tests.conftest import count
from tests.persistence.writers import Race, Records, Watched, Writer, lost, seen, told

T = TypeVar("T")

DAY_S = 86_400.0


def test_the_first_claim_on_an_empty_store_begins_where_the_local_log_begins() -> None:
    store, start = MemoryStore(), Start(41, "ab" * 32)
    claimed = Writer(store, "one").claim(floor=6, start=start)
    assert (claimed.epoch, claimed.n, claimed.manifest.m) == (7, 1, 1)
    tip = seen(store)
    assert (tip.seq, tip.chain, tip.complete, tip.problems) == (41, "ab" * 32, False, ())
    assert decode_hint(store.objects[HINT]) == (1, 1)


def test_a_claim_goes_above_the_epochs_of_the_store_and_of_the_disk() -> None:
    store = MemoryStore()
    assert [Writer(store, name).claim(floor=floor).epoch for name, floor in (("a", 0), ("b", 9), ("c", 3))] == [
        1,
        10,
        11,
    ]


def test_a_claim_changes_nothing_of_what_the_replica_consists_of() -> None:
    store = MemoryStore()
    first = Writer(store, "one").replica()
    first.publish(archived="abc", released=True)
    claimed = Writer(store, "two").claim()
    assert (claimed.manifest.archived, claimed.manifest.released, claimed.manifest.writer) == ("abc", False, "two")
    assert claimed.manifest.previous == first.manifest.self_sha256


def test_what_the_old_writer_brought_after_the_look_is_part_of_the_past() -> None:
    store = MemoryStore()
    one, two = Writer(store, "one"), Writer(store, "two")
    first = one.replica()
    tip = two.look()
    one.records.say("a", "b")
    first.flush()
    claimed = two.claim(tip)
    assert (claimed.tip.seq, told(claimed.tip), claimed.tip.problems) == (2, one.records.span(1, 2), ())
    assert claimed.tip.tail[-1].header.writer == "two"


def test_a_claim_with_an_old_look_goes_above_the_claims_that_came_between() -> None:
    store = MemoryStore()
    two = Writer(store, "two")
    Writer(store, "one").claim()
    tip = two.look()
    for name in "abc":
        Writer(store, name).claim()
    assert two.claim(tip).epoch == 5


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("key", [manifest_key(1), log_key(1)])
def test_a_claim_whose_answer_is_lost_once_is_made(key: str, when: str) -> None:
    store = Watched(MemoryStore(), **{when: lost(key)})
    assert Writer(store, "one").claim().epoch == 1
    assert seen(store.store).problems == ()


@pytest.mark.parametrize("done", [False, True], ids=["not-done", "done"])
@pytest.mark.parametrize("key", [manifest_key(1), log_key(1)])
def test_a_claim_without_an_answer_holds_nothing_and_the_next_goes_above_it(key: str, done: bool) -> None:
    inner = MemoryStore()
    store = Watched(inner, lost(key, after=1), lost(key)) if done else Watched(inner, each(lost(key), lost(key)))
    one = Writer(store, "one")
    with pytest.raises(StoreUnreachable):
        one.claim()
    replica = one.replica()
    one.records.say("a")
    assert replica.flush() == 1
    assert seen(store.store).problems == ()


def test_a_fence_of_a_younger_claim_ends_the_older() -> None:
    store = MemoryStore()
    younger = Writer(store, "two")
    one = Writer(Watched(store, before=once(log_key(1), younger.claim)), "one")
    with pytest.raises(Fenced):
        one.claim()
    assert seen(store).manifest.writer == "two"


def test_a_claim_that_stood_still_for_a_day_does_not_take_a_number_that_was_collected() -> None:
    store = MemoryStore()
    one, two = Writer(store, "one"), Writer(store, "two")
    Writer(store, "zero").claim()
    tip = one.look()
    live = two.replica()
    two.records.say("a")
    live.flush()
    for _ in range(3):
        live.publish(log_from=live.n + 1, log_previous=live.previous, log_seq=live.confirmed, log_chain=live.chain)
    collect(store, keep=live.manifest.m)
    one.clock.advance(DAY_S)
    claimed = one.claim(tip)
    assert (claimed.epoch, claimed.manifest.m, claimed.tip.seq) == (live.epoch + 1, live.manifest.m + 1, 1)
    two.records.say("b")
    with pytest.raises(Fenced):
        live.flush()


def test_a_claim_that_stands_still_before_its_fence_does_not_believe_it() -> None:
    store = MemoryStore()
    one, two = Writer(store, "one"), Writer(store, "two")

    def pause() -> None:
        live = two.replica()
        live.publish(log_from=live.n + 1, log_previous=live.previous)
        collect(store, keep=live.manifest.m)
        one.clock.advance(DAY_S)

    Writer(store, "zero").claim()
    one.store = Watched(store, before=once(log_key(2), pause))
    claimed = one.claim()
    assert (claimed.epoch, seen(store).manifest.nonce) == (4, claimed.manifest.nonce)


def test_nobody_begins_again_where_the_listing_shows_nothing() -> None:
    store = MemoryStore()
    Writer(store, "one").claim()
    Writer(store, "two").claim()
    collect(store, keep=2)
    blind = Blind(store)
    store.delete(HINT)
    with pytest.raises(StoreUnreachable):
        look(blind, clock=Writer(store, "x").clock)


def test_a_log_without_a_manifest_is_not_an_empty_store() -> None:
    store = MemoryStore()
    Writer(store, "one").claim()
    store.delete(manifest_key(1))
    store.delete(HINT)
    with pytest.raises(Damaged):
        Writer(store, "two").claim()


def test_a_log_that_leads_elsewhere_begins_anew_and_keeps_the_old() -> None:
    store = MemoryStore()
    one = Writer(store, "one")
    first = one.replica()
    one.records.say("a", "b")
    first.flush()
    start = Start(70, "cd" * 32)
    two = Writer(store, "two", Records(start))
    second = two.replica(anew(store, two.claim(), start, entropy=lambda size: b"n" * size))
    two.records.say("c")
    assert second.flush() == 71
    tip = seen(store)
    assert (tip.seq, told(tip), tip.problems, tip.complete) == (71, two.records.span(71, 71), (), False)
    assert log_key(2) in store.objects


def test_a_log_cannot_begin_anew_for_who_was_overtaken() -> None:
    store = MemoryStore()
    claimed = Writer(store, "one").claim()
    Writer(store, "two").claim()
    with pytest.raises(Fenced):
        anew(store, claimed, Start(), entropy=lambda size: b"n" * size)


def test_a_standby_that_looked_before_takes_over_with_four_requests() -> None:
    store = Watched(MemoryStore())
    one, two = Writer(store, "one"), Writer(store, "two")
    first = one.replica()
    one.records.say("a")
    first.flush()
    tip = two.look()
    store.calls.clear()
    tip = look(store, tip, clock=two.clock)
    assert two.claim(tip).epoch == 2
    assert [call for call, _ in store.calls] == ["get", "get", "create", "create"]


def test_a_claim_by_a_hint_that_lies_behind_finds_out() -> None:
    store = MemoryStore()
    one = Writer(store, "one")
    first = one.replica()
    hint = store.objects[HINT]
    for text in "abc":
        one.records.say(text)
        first.flush()
        first.publish(archived=text)
    store.objects[HINT] = hint
    claimed = Writer(store, "two").claim()
    assert (claimed.manifest.m, claimed.manifest.archived, claimed.epoch, claimed.tip.seq) == (5, "c", 2, 3)


def test_hint_follows_the_claims_without_a_request_for_each() -> None:
    store = Watched(MemoryStore())
    for name in "abcdefghij":
        Writer(store, name).claim()
    assert store.calls.count(("put", HINT)) == 3


@pytest.mark.parametrize("losses", [0.0, 0.1], ids=["all-answers", "lost-answers"])
def test_of_many_that_claim_at_once_exactly_one_writes(seed: int, losses: float) -> None:
    for number in range(count(50, 2000)):
        store = MemoryStore()
        if number % 2:
            Writer(store, "zero").claim()
        lives: list[Life] = [Life(name) for name in ("one", "two", "three")]
        Race(store, f"{seed} {number} {losses}", losses).run(*(life.run for life in lives))
        tip = seen(store)
        assert tip.problems == (), number
        assert [life.name for life in lives if life.writes(store)] == [tip.manifest.writer], number
        for life in lives:
            assert all(frames in told(tip) for frames in life.acknowledged), number


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_threads_that_claim_in_earnest_have_one_winner_too(kind: str, tmp_path: Path) -> None:
    for number in range(count(10, 200)):
        root = tmp_path / str(number)
        root.mkdir()
        store: Store = MemoryStore() if kind == "memory" else FileStore(root)
        lives = [Life(name) for name in ("one", "two", "three", "four")]
        gate = threading.Barrier(len(lives), timeout=20)

        def begin(life: Life, store: Store = store, gate: threading.Barrier = gate) -> None:
            gate.wait()
            life.run(store)

        together([partial(begin, life) for life in lives], threads=len(lives))
        tip = seen(store)
        assert tip.problems == ()
        assert [life.name for life in lives if life.writes(store)] == [tip.manifest.writer]
        assert all(frames in told(tip) for life in lives for frames in life.acknowledged)


class Life:
    """An instance that claims, writes three records and manifests, and keeps what the store confirmed of them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.acknowledged: list[bytes] = []
        self._replica: Replica | None = None

    def run(self, store: Store) -> None:
        writer = Writer(store, self.name)
        try:
            claimed: Claimed = again(writer.claim)
            writer.records = Records(Start(claimed.tip.seq, claimed.tip.chain))
            self._replica = writer.replica(claimed)
            for text in "abc":
                writer.records.say(f"{self.name} {text}")
                seq = again(self._replica.flush)
                self.acknowledged.append(writer.records.span(seq, seq))
                again(partial(self._replica.publish, archived=text))
        except Fenced:
            return

    def writes(self, store: Store) -> bool:
        """Whether it may still write, when all is over."""
        if self._replica is None:
            return False
        self._replica.store = store
        try:
            self._replica.prove()
        except Fenced:
            return False
        return True


class Blind(Watched):
    """A store whose listing is late."""

    def list(self, prefix: str, after: str = "") -> Iterator[Found]:
        return iter(())


def again(call: Callable[[], T]) -> T:
    """What a call returns when the store at last answers."""
    while True:
        try:
            return call()
        except StoreError:
            continue


def each(*acts: Callable[[str, str], None]) -> Callable[[str, str], None]:
    """Several things to be done before a call."""

    def tell(call: str, key: str) -> None:
        for act in acts:
            act(call, key)

    return tell


def once(key: str, act: Callable[[], object]) -> Callable[[str, str], None]:
    """For `before`: does something before the first create of a key."""
    left = [key]

    def tell(call: str, name: str) -> None:
        if call == "create" and name in left:
            left.clear()
            act()

    return tell


def collect(store: MemoryStore, keep: int) -> None:
    """Deletes what a collection may delete under the newest manifest `keep`."""
    newest = seen(store).manifest
    for m in range(2, keep):
        store.delete(manifest_key(m))
    if keep > 1:
        store.put(manifest_key(1), COLLECTED)
    for n in range(1, newest.log_from):
        store.delete(log_key(n))
