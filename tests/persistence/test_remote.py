"""What a look finds: the truth as far as it can be read, and a sentence for everything that cannot."""

import threading
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import pytest

from persistence.clock import FakeClock
from persistence.errors import Damaged, Newer, NotFound, StoreUnreachable
from persistence.layout import (
    HINT,
    bytes_of,
    decode_object,
    encode_hint,
    encode_object,
    log_key,
    manifest_key,
)
from persistence.remote import Tip, look, together
from persistence.snapshot import canonical
from persistence.stores.memory import MemoryStore
from tests.conftest import count
from tests.persistence.writers import Records, Watched, Writer, seen, told

DAY_S = 86_400.0


class Lived(MemoryStore):
    """A store after two reigns: manifests 1-3, records 1-2 in log objects 2-3, a fence, records 3-5 in 5-7."""

    def __init__(self) -> None:
        super().__init__()
        self.records = Records()
        for name, texts in (("one", "ab"), ("two", "cde")):
            self.replica = Writer(self, name, self.records).replica()
            for text in texts:
                self.records.say(text)
                self.replica.flush()
        self.replica.publish(archived="c0ffee")

    def same(self, tip: Tip) -> bool:
        """Whether that is what it holds, with nothing wrong."""
        found = (tip.manifest, tip.seq, tip.chain, tip.n, tip.epoch, told(tip), tip.problems)
        return found == (self.replica.manifest, 5, self.records.chain(5), 7, 2, self.records.span(1, 5), ())


def test_an_empty_store_has_no_tip() -> None:
    assert look(MemoryStore(), clock=FakeClock()) is None


@pytest.mark.parametrize("threads", [1, 8])
def test_a_look_finds_the_newest_manifest_and_every_object_after_it(threads: int) -> None:
    store = Lived()
    tip = look(store, clock=FakeClock(), threads=threads)
    assert tip and store.same(tip)


@pytest.mark.parametrize(
    "hint", [None, b"", b"{", encode_hint(9, 9), encode_hint(1, 1), encode_hint(2, 1 << 50), b'{"m":3}'], ids=repr
)
def test_a_hint_is_advice_and_may_say_anything(hint: bytes | None) -> None:
    store = Lived()
    store.objects.pop(HINT)
    if hint is not None:
        store.objects[HINT] = hint
    assert store.same(seen(store))


def test_a_look_that_goes_on_from_another_asks_for_what_is_new_alone() -> None:
    store = Lived()
    tip = seen(store)
    watched = Watched(store)
    again = look(watched, tip, clock=FakeClock())
    assert again and store.same(again)
    assert watched.calls == [("get", manifest_key(4)), ("get", log_key(8))]


def test_a_look_that_goes_on_sees_what_was_compacted_meanwhile() -> None:
    store = Lived()
    tip = seen(store)
    live = store.replica
    store.records.say("f")
    live.flush()
    live.publish(log_from=live.n + 1, log_previous=live.previous, log_seq=live.confirmed, log_chain=live.chain)
    store.records.say("g")
    live.flush()
    later = look(store, tip, clock=FakeClock())
    assert later == replace(seen(store), hinted=tip.hinted)
    assert later and (later.seq, told(later), later.problems) == (7, store.records.span(7, 7), ())


def test_a_look_that_goes_on_after_a_day_begins_again() -> None:
    store, clock = Lived(), FakeClock()
    tip = look(store, clock=clock)
    live = store.replica
    for _ in range(3):
        live.publish(log_from=live.n + 1, log_previous=live.previous, log_seq=live.confirmed, log_chain=live.chain)
    store.delete(manifest_key(4))  # collected meanwhile
    clock.advance(DAY_S)
    later = look(store, tip, clock=clock)
    assert later and later.manifest == live.manifest


def test_a_damaged_newest_manifest_gives_way_to_the_one_before() -> None:
    store = Lived()
    store.objects[manifest_key(3)] = b"?" + store.objects[manifest_key(3)][1:]
    tip = seen(store)
    assert (tip.manifest.m, tip.m, told(tip)) == (2, 3, store.records.span(1, 5))
    assert any(manifest_key(3) in problem for problem in tip.problems)


def test_a_claim_over_a_damaged_newest_manifest_takes_the_number_after_it() -> None:
    store = Lived()
    store.objects[manifest_key(3)] = b"?"
    claimed = Writer(store, "three").claim()
    assert (claimed.manifest.m, claimed.epoch, claimed.tip.seq) == (4, 3, 5)


def test_only_damaged_manifests_are_not_an_empty_store() -> None:
    store = Lived()
    for m in (1, 2, 3):
        store.objects[manifest_key(m)] = b"?"
    with pytest.raises(Damaged):
        seen(store)


def test_a_manifest_of_a_lower_epoch_never_becomes_the_newest() -> None:
    store = Lived()
    stale = Lived()
    stale.objects.clear()
    late = Writer(stale, "late").replica()
    late.publish()
    late.publish()
    late.publish()
    store.objects[manifest_key(4)] = stale.objects[manifest_key(4)]
    tip = seen(store)
    assert (tip.manifest, tip.m, len(tip.problems)) == (store.replica.manifest, 4, 1)


def test_what_is_damaged_on_the_way_is_read_once_more() -> None:
    for key in (manifest_key(3), log_key(6)):
        store = Lived()
        assert store.same(seen(Bent(store, key, times=1)))


def test_an_epoch_that_only_the_log_still_tells_is_not_taken_twice() -> None:
    store = MemoryStore()
    for name in ("one", "two"):
        Writer(store, name).claim()
    store.objects[manifest_key(2)] = b"?"
    assert Writer(store, "three").claim().epoch == 3


def test_a_manifest_over_the_same_log_costs_one_request_and_no_second_reading() -> None:
    store = Lived()
    tip = seen(store)
    store.replica.publish(archived="later")
    watched = Watched(store)
    again = look(watched, tip, clock=FakeClock())
    assert again and store.same(again)
    assert watched.calls == [("get", manifest_key(4)), ("get", manifest_key(5)), ("get", log_key(8))]


def test_records_that_were_there_before_are_not_taken_again() -> None:
    store = Lived()
    header = replace(decode_object(store.objects[log_key(7)], "").header, n=8, first=5, last=6)
    store.objects[log_key(8)] = bytes_of(encode_object(header, b"again"))
    tip = seen(store)
    assert (tip.seq, told(tip)) == (5, store.records.span(1, 5))
    assert tip.problems == (f"{log_key(8)}: its records 5-6 do not follow record 5",)


def test_an_object_that_comes_while_the_one_behind_it_is_read_is_not_missing() -> None:
    store = Lived()
    hidden = [log_key(5), log_key(6)]

    def late(call: str, key: str) -> None:
        if key in hidden:
            hidden.remove(key)
            raise NotFound(key)

    assert store.same(seen(Watched(store, before=late)))


@pytest.mark.parametrize("harm", ["damaged", "removed"])
def test_the_records_of_a_lost_log_object_are_named(harm: str) -> None:
    store = Lived()
    if harm == "damaged":
        store.objects[log_key(6)] = store.objects[log_key(6)][:-1] + b"?"
    else:
        del store.objects[log_key(6)]
    tip = look(store, clock=FakeClock())
    assert tip and (tip.seq, tip.n) == (5, 7)
    assert told(tip) == store.records.span(1, 3) + store.records.span(5, 5)
    assert len(tip.problems) == 2 and log_key(6) in tip.problems[0]
    assert tip.problems[1] == f"records 4-4 are missing before {log_key(7)}"


def test_a_damaged_last_log_object_is_stepped_over_by_the_next_claim() -> None:
    store = Lived()
    store.objects[log_key(7)] = b"?"
    three = Writer(store, "three")
    claimed = three.claim()
    assert (claimed.n, claimed.tip.seq, len(claimed.tip.problems)) == (8, 4, 1)
    three.records = store.records
    assert three.replica(claimed).flush() == 5
    assert told(seen(store)) == store.records.span(1, 5)


def test_objects_that_were_put_in_each_others_place_are_seen() -> None:
    store = Lived()
    objects = store.objects
    objects[log_key(5)], objects[log_key(6)] = objects[log_key(6)], objects[log_key(5)]
    tip = seen(store)
    assert told(tip) == store.records.span(1, 2) + store.records.span(5, 5)
    assert len(tip.problems) == 3


def test_a_log_object_of_a_lower_epoch_after_the_fence_is_not_taken() -> None:
    store = Lived()
    old = decode_object(store.objects[log_key(3)], "")
    header = replace(old.header, n=8, first=6, last=6, chain_in=store.records.chain(5), chain_out="ab" * 32)
    store.objects[log_key(8)] = bytes_of(encode_object(header, b"stale"))
    tip = seen(store)
    assert (tip.seq, tip.n, told(tip)) == (5, 8, store.records.span(1, 5))
    assert tip.problems == (f"{log_key(8)} is of epoch 1, though 2 had begun",)


@pytest.mark.parametrize("mask", [0x01, 0x80])
def test_no_flipped_byte_goes_unseen_and_none_changes_what_is_read(seed: int, mask: int) -> None:
    whole, step = Lived(), count(7, 1)
    for key in (manifest_key(3), log_key(1), log_key(3), log_key(4), log_key(7), HINT):
        for at in range(seed % step, len(whole.objects[key]), step):
            store = MemoryStore()
            store.objects = {**whole.objects, key: flipped(whole.objects[key], at, mask)}
            tip = seen(store)
            assert told(tip) in told(seen(whole)) or key == log_key(3)
            assert whole.same(tip) if key == HINT else tip.problems, (key, at)


def test_what_a_later_release_wrote_stops_the_look() -> None:
    def later(one: bytes) -> bytes:
        body = {"self_sha256": "", "v": 2}
        return canonical({**body, "self_sha256": sha256(canonical(body)).hexdigest()}) + one

    for key, rest in ((manifest_key(4), b""), (log_key(8), b"\nin another form")):
        store = Lived()
        store.objects[key] = later(rest)
        with pytest.raises(Newer):
            seen(store)


def test_a_store_that_gives_no_answer_is_not_an_empty_one() -> None:
    for key in (HINT, manifest_key(3), manifest_key(4), log_key(4), log_key(8)):
        store = Lived()

        def refuse(call: str, name: str, key: str = key) -> None:
            if name == key:
                raise StoreUnreachable("no answer")

        with pytest.raises(StoreUnreachable):
            look(Watched(store, before=refuse), clock=FakeClock())


def test_calls_together_keep_their_order_and_their_first_error() -> None:
    gate = threading.Barrier(3, timeout=20)

    def call(number: int) -> int:
        gate.wait()  # passes only if three are made at once
        return number

    assert together([lambda n=n: call(n) for n in range(6)], threads=3) == [*range(6)]  # type: ignore[misc]

    def fail(number: int) -> Callable[[], int]:
        def act() -> int:
            raise ValueError(number)

        return act

    with pytest.raises(ValueError, match="1"):
        together([lambda: 0, fail(1), fail(2)], threads=3)


class Bent(Watched):
    """A store that gives damaged bytes under one key, so many times."""

    def __init__(self, store: MemoryStore, key: str, times: int) -> None:
        super().__init__(store)
        self._key = key
        self._times = times

    def get(self, key: str, first: int = 0, count: int | None = None) -> bytes:
        data = super().get(key, first, count)
        if key == self._key and self._times:
            self._times -= 1
            return flipped(data, len(data) // 2, 1)
        return data


def flipped(data: bytes, at: int, mask: int) -> bytes:
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]
