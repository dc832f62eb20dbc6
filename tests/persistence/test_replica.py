"""The replica from outside: what is said here is in the store, once, in order, and under one writer."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import TypeVar

import pytest

from persistence.claim import Start
from persistence.errors import Damaged, Fenced, StoreError, StoreLost, StoreUnreachable
from persistence.layout import (
    COLLECTED,
    HINT,
    KNOCK,
    blob_key,
    bytes_of,
    decode_object,
    encode_knock,
    encode_object,
    log_key,
    manifest_key,
)
from persistence.replica import Replica
from persistence.runs import Run
from persistence.snapshot import canonical
from persistence.stores.memory import MemoryStore
from tests.persistence.writers import Records, Watched, Writer, lost, seen, told

T = TypeVar("T")

MB = 1 << 20
DAY_S = 86_400.0
MINUTE_S = 60.0


def test_what_is_said_here_is_seen_there() -> None:
    store = MemoryStore()
    one = Writer(store, "one")
    replica = one.replica()
    one.records.say("a", "b")
    assert replica.flush() == 2
    one.records.say("c")
    assert replica.flush() == 3
    tip = seen(store)
    assert (tip.seq, tip.chain, told(tip)) == (3, one.records.chain(3), one.records.span(1, 3))


def test_a_successor_goes_on_where_the_first_stopped_and_the_first_is_fenced() -> None:
    store = MemoryStore()
    one = Writer(store, "one")
    first = one.replica()
    one.records.say("a")
    first.flush()
    two = Writer(store, "two", one.records)
    second = two.replica()
    assert (second.confirmed, second.epoch) == (1, 2)
    one.records.say("b")
    with pytest.raises(Fenced):
        first.flush()
    assert second.flush() == 2
    assert told(seen(store)) == one.records.span(1, 2)


def test_a_takeover_takes_five_requests() -> None:
    store = MemoryStore()
    replica = Writer(store, "one").replica()
    replica.publish(log_from=replica.n + 1, log_previous=replica.previous)
    watched = Watched(store)
    Writer(watched, "two").claim()
    assert [call for call, _ in watched.calls] == ["get", "get", "get", "create", "create"]


@pytest.mark.parametrize("done", [False, True], ids=["not-done", "done"])
def test_an_answer_that_is_lost_changes_nothing(done: bool) -> None:
    inner = MemoryStore()
    fail = lost("log/0000000000000002.wal", "manifest/000000000001.json", "log/0000000000000001.wal")
    store = Watched(inner, after=fail) if done else Watched(inner, before=fail)
    one = Writer(store, "one", Records())
    replica = one.replica()
    one.records.say("a")
    assert replica.flush() == 1
    assert (replica.n, told(seen(inner)), seen(inner).problems) == (2, one.records.span(1, 1), ())


def compacted(replica: Replica) -> None:
    """As a compaction ends, but without the segments: the tail begins after what is there."""
    replica.publish(
        log_from=replica.n + 1, log_previous=replica.previous, log_seq=replica.confirmed, log_chain=replica.chain
    )


def overtaken_for_a_day(store: MemoryStore, one: Writer) -> Writer:
    """Another claims, writes and compacts while `one` stands still; then what is old is collected."""
    two = Writer(store, "two", one.records)
    second = two.replica()
    for text in "xyz":
        two.records.say(text)
        second.flush()
        compacted(second)
    store.put(manifest_key(1), COLLECTED)
    for m in range(2, second.manifest.m):
        store.delete(manifest_key(m))
    for n in range(1, second.n + 1):
        store.delete(log_key(n))
    one.clock.advance(DAY_S)
    return two


def test_nothing_to_say_asks_for_nothing() -> None:
    store = Watched(MemoryStore())
    replica = Writer(store, "one").replica()
    store.calls.clear()
    assert (replica.flush(), store.calls) == (0, [])


def test_a_log_object_holds_four_megabytes_but_for_a_record_that_is_larger() -> None:
    store = MemoryStore()
    one = Writer(store, "one")
    replica = one.replica()
    one.records.say("a" * 3 * MB, "b" * 3 * MB, "c" * 5 * MB, *["d" * (MB // 2)] * 4)
    assert replica.flush() == 7
    assert [(laid.header.first, laid.header.last) for laid in replica.tail] == [(1, 0), (1, 1), (2, 2), (3, 3), (4, 7)]
    assert (replica.tail_objects, replica.tail_bytes) == (5, len(one.records.span(1, 7)))


def test_records_that_name_thousands_of_blobs_go_up_in_parts() -> None:
    store = Watched(MemoryStore())
    one = Writer(store, "one")
    replica = one.replica()
    for number in range(1000):
        data = b"%d" % number
        one.records.blobs[sha256(data).hexdigest()] = data
        one.records.say("a file", blobs=(sha256(data).hexdigest(),))
    store.calls.clear()
    assert replica.flush() == 1000
    waiting, most = 0, 0
    for call, _ in store.calls:
        waiting = waiting + 1 if call == "put" else 0
        most = max(most, waiting)
    assert 0 < most < 200
    assert len([key for call, key in store.calls if call == "put"]) == 1000


def test_blobs_go_up_before_the_record_that_names_them_and_only_once() -> None:
    store = Watched(MemoryStore())
    one = Writer(store, "one")
    replica = one.replica()
    data = b"bytes"
    sha = sha256(data).hexdigest()
    one.records.blobs[sha] = data
    one.records.say("a", "b", blobs=(sha,))
    store.calls.clear()
    replica.flush()
    one.records.say("c", blobs=(sha,))
    replica.flush()
    assert store.calls == [("put", blob_key(sha)), ("create", log_key(2)), ("create", log_key(3))]
    assert store.store.get(blob_key(sha)) == data


def test_a_record_whose_blob_is_not_up_stays_here() -> None:
    sha = sha256(b"").hexdigest()
    inner = MemoryStore()
    one = Writer(Watched(inner, before=lost(blob_key(sha))), "one")
    replica = one.replica()
    one.records.blobs[sha] = b""
    one.records.say("a", blobs=(sha,))
    with pytest.raises(StoreUnreachable):
        replica.flush()
    assert (replica.confirmed, log_key(2) in inner.objects) == (0, False)
    assert replica.flush() == 1


def test_a_blob_that_is_lost_here_does_not_hold_up_the_records() -> None:
    one = Writer(MemoryStore(), "one")
    replica = one.replica()
    one.records.say("a", blobs=("ab" * 32,))
    assert replica.flush() == 1
    assert len(replica.problems) == 1 and "ab" * 32 in replica.problems[0]


def test_a_slot_that_was_sent_gets_no_other_bytes_whatever_is_said_meanwhile() -> None:
    inner = MemoryStore()
    store = Watched(inner)
    one = Writer(store, "one")
    replica = one.replica()
    one.records.say("a")
    store.after = lost(log_key(2))
    store.before = lost(log_key(2), after=1)
    with pytest.raises(StoreUnreachable):
        replica.flush()
    sent = inner.objects[log_key(2)]
    one.records.say("b")
    assert replica.flush() == 2
    assert inner.objects[log_key(2)] == sent
    assert told(seen(inner)) == one.records.span(1, 2)


@pytest.mark.parametrize("done", [False, True], ids=["not-done", "done"])
@pytest.mark.parametrize("times", [1, 2, 3, 5])
def test_every_call_may_fail_and_the_end_is_the_same(done: bool, times: int) -> None:
    nth, failed = 0, True
    while failed:
        nth += 1
        failed = one_run(nth, times, done)
    assert nth > 20


def one_run(nth: int, times: int, done: bool) -> bool:
    """A life and its successor, in which the nth call and those after it fail. Whether there was such a call."""
    made = 0

    def fail(call: str, key: str) -> None:
        nonlocal made
        made += 1
        if nth <= made < nth + times:
            raise StoreUnreachable(f"{call} {key}: no answer")

    inner = MemoryStore()
    store = Watched(inner, after=fail) if done else Watched(inner, before=fail)
    one = Writer(store, "one")
    sha = sha256(b"blob").hexdigest()
    one.records.blobs[sha] = b"blob"
    one.records.say("a", "b", blobs=(sha,))
    first = one.replica(again(one.claim))
    again(first.flush)
    again(lambda: compacted(first))
    one.records.say("c")
    again(first.flush)
    inner.objects[KNOCK] = encode_knock("11")
    again(first.check)
    again(first.check)
    again(first.release)
    two = Writer(store, "two", one.records)
    second = two.replica(again(two.claim))
    two.records.say("d")
    again(second.flush)
    with pytest.raises(Fenced):
        again(first.prove)
    tip = seen(inner)
    assert tip.problems == () and first.problems == second.problems == (), nth
    assert (tip.seq, tip.chain, tip.manifest.writer) == (4, one.records.chain(4), "two"), nth
    assert one.records.span(3, 4) in told(tip), nth
    assert blob_key(sha) in inner.objects
    return made >= nth


# ---------------------------------------------------------------- fenced


ACTS: dict[str, Callable[[Replica], object]] = {
    "flush": lambda replica: replica.flush(),
    "prove": lambda replica: replica.prove(),
    "check": lambda replica: replica.check(),
    "publish": lambda replica: replica.publish(archived="x"),
    "release": lambda replica: replica.release(),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_a_paused_writer_learns_of_its_successor_by_the_first_answer(act: Callable[[Replica], object]) -> None:
    inner = MemoryStore()
    store = Watched(inner)
    one = Writer(store, "one")
    first = one.replica()
    one.records.say("a")
    first.flush()
    Writer(inner, "two", one.records).claim()
    one.records.say("b")
    kept = dict(inner.objects)
    store.calls.clear()
    with pytest.raises(Fenced):
        act(first)
    assert (first.confirmed, inner.objects) == (1, kept)
    calls = len(store.calls)
    for later in ACTS.values():
        with pytest.raises(Fenced):
            later(first)
    assert len(store.calls) == calls, "a fenced writer asks nothing more"


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_a_number_that_was_collected_does_not_count_as_written(act: Callable[[Replica], object]) -> None:
    store = MemoryStore()
    one = Writer(store, "one")
    first = one.replica()
    one.records.say("a")
    first.flush()
    two = overtaken_for_a_day(store, one)
    hint = store.objects[HINT]
    with pytest.raises(Fenced):
        act(first)
    assert (first.confirmed, store.objects[HINT]) == (1, hint)
    assert (seen(store).seq, seen(store).manifest.writer) == (4, "two")
    second = two.replica()
    two.records.say("more")
    assert second.flush() == 5
    assert seen(store).problems == ()


def test_a_number_that_was_sent_before_a_day_and_collected_does_not_count_either() -> None:
    store = Watched(MemoryStore())
    assert isinstance(store.store, MemoryStore)
    one = Writer(store, "one")
    first = one.replica()
    one.records.say("a")
    store.after, store.before = lost(log_key(2)), lost(log_key(2), after=1)
    with pytest.raises(StoreUnreachable):
        first.flush()
    overtaken_for_a_day(store.store, one)
    with pytest.raises(Fenced):
        first.flush()
    assert first.confirmed == 0


def test_a_writer_of_the_same_epoch_in_the_log_is_another_writer() -> None:
    store = MemoryStore()
    one = Writer(store, "one")
    replica = one.replica()
    fence = decode_object(store.objects[log_key(1)], "")
    foreign = replace(fence.header, n=2, writer="two", previous=fence.sha256)
    store.objects[log_key(2)] = bytes_of(encode_object(foreign, b""))
    one.clock.advance(DAY_S)
    with pytest.raises(Fenced):
        replica.trusted()


def test_a_long_silence_without_a_successor_costs_one_look_and_nothing_else() -> None:
    store = Watched(MemoryStore())
    one = Writer(store, "one")
    replica = one.replica()
    one.clock.advance(DAY_S)
    one.records.say("a")
    store.calls.clear()
    assert replica.flush() == 1
    there = [("get", log_key(1)), ("get", manifest_key(1))]
    assert store.calls[:4] == [*there, ("create", log_key(2)), ("get", HINT)]
    store.calls.clear()
    one.records.say("b")
    assert (replica.flush(), store.calls) == (2, [("create", log_key(3))])


# ---------------------------------------------------------------- the minute's check


def test_an_idle_writer_asks_once_a_minute_and_writes_nothing() -> None:
    store = Watched(MemoryStore())
    replica = Writer(store, "one").replica()
    store.calls.clear()
    for _ in range(4):
        replica.check()
    assert store.calls == [("get", log_key(2)), ("get", KNOCK), ("get", log_key(1)), ("get", KNOCK)]


def test_a_knock_is_answered_once() -> None:
    store = MemoryStore()
    replica = Writer(store, "one").replica()
    for asked in ("aa", "bb"):
        store.put(KNOCK, encode_knock(asked))
        for _ in range(6):
            replica.check()
    assert [one.header.answers for one in seen(store).tail] == ["", "aa", "bb"]
    assert seen(store).problems == ()


def test_a_knock_that_says_nothing_is_not_answered() -> None:
    store = MemoryStore()
    replica = Writer(store, "one").replica()
    store.put(KNOCK, b"?" * 100)
    replica.check()
    replica.check()
    assert replica.n == 1


# ---------------------------------------------------------------- manifests


def test_a_manifest_follows_the_one_before_and_cuts_the_tail() -> None:
    store = MemoryStore()
    one = Writer(store, "one")
    replica = one.replica()
    old = replica.manifest
    one.records.say("a")
    replica.flush()
    compacted(replica)
    one.records.say("b")
    replica.flush()
    assert (replica.manifest.m, replica.manifest.previous) == (2, old.self_sha256)
    assert [laid.header.n for laid in replica.tail] == [3]
    tip = seen(store)
    assert (tip.manifest, tip.seq, told(tip)) == (replica.manifest, 2, one.records.span(2, 2))


def test_a_release_is_seen_by_who_comes_next_and_ends_with_it() -> None:
    store = MemoryStore()
    one = Writer(store, "one")
    one.replica().release()
    assert seen(store).manifest.released
    Writer(store, "two").claim()
    assert not seen(store).manifest.released


def test_a_manifest_without_an_answer_is_known_as_soon_as_there_is_one() -> None:
    inner = MemoryStore()
    store = Watched(inner)
    replica = Writer(store, "one").replica()
    store.after, store.before = lost(manifest_key(2)), lost(manifest_key(2), after=1)
    with pytest.raises(StoreUnreachable):
        replica.publish(archived="abc")
    assert replica.manifest.m == 1
    replica.settle()
    assert replica.manifest == seen(inner).manifest
    assert (replica.manifest.m, replica.manifest.archived) == (2, "abc")


def test_a_hint_that_is_not_taken_does_not_hold_up_a_manifest() -> None:
    inner = MemoryStore()
    store = Watched(inner)
    replica = Writer(store, "one").replica()
    store.before = lost(HINT)
    assert replica.publish(archived="abc").m == 2
    assert seen(inner).manifest == replica.manifest


def test_bytes_of_nobody_under_the_own_number_are_stepped_over() -> None:
    store = MemoryStore()
    one = Writer(store, "one")
    replica = one.replica()
    store.objects[log_key(2)] = b"junk"
    store.objects[manifest_key(2)] = b"junk"
    one.records.say("a")
    assert replica.flush() == 1
    assert replica.publish(archived="abc").m == 3
    assert len(replica.problems) == 1
    tip = seen(store)
    assert (tip.manifest, tip.seq, told(tip)) == (replica.manifest, 1, one.records.span(1, 1))


def test_an_object_of_a_lower_epoch_under_the_own_number_is_no_successor() -> None:
    store = MemoryStore()
    Writer(store, "zero").claim()
    one = Writer(store, "one")
    replica = one.replica()
    stale = decode_object(store.objects[log_key(1)], "").header
    store.objects[log_key(3)] = bytes_of(encode_object(replace(stale, n=3), b""))
    one.records.say("a")
    assert replica.flush() == 1
    assert (replica.n, told(seen(store))) == (4, one.records.span(1, 1))


def test_a_log_that_does_not_lead_on_from_the_store_is_not_brought_there() -> None:
    store = MemoryStore()
    one = Writer(store, "one")
    one.records.say("a")
    one.replica().flush()
    other = Writer(store, "two", Records(Start(0, "ab" * 32)))
    other.records.say("x", "y")
    replica = other.replica()
    with pytest.raises(Damaged):
        replica.flush()
    assert told(seen(store)) == one.records.span(1, 1)


def test_what_follows_records_that_are_lost_here_goes_up_and_the_loss_is_named() -> None:
    store = MemoryStore()
    one = Writer(store, "one")
    replica = one.replica()
    one.records.say("a")
    replica.flush()
    one.records = Records(Start(5, "ab" * 32))
    one.records.say("b")
    replica.source = Severed(one.records)
    assert replica.flush() == 6
    tip = seen(store)
    assert (tip.seq, tip.chain, tip.tail[-1].header.chain_in) == (6, one.records.chain(6), "")
    assert tip.problems == (f"records 2-5 are missing before {log_key(3)}",)


class Severed(Records):
    """A log of which nothing tells what came before its first record."""

    def __init__(self, records: Records) -> None:
        super().__init__(records.start)
        self._records = records

    @property
    def durable(self) -> int:
        return self._records.durable

    def frames(self, after: int, limit: int) -> Run:
        return self._records.frames(5, limit)._replace(chain_in="")


LOST: dict[str, Callable[[Replica], object]] = {
    "flush": lambda replica: replica.flush(),
    "check": lambda replica: repeated(replica.check, 12),
    "publish": lambda replica: replica.publish(archived="x"),
}


@pytest.mark.parametrize("act", LOST.values(), ids=LOST)
@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_store_that_was_emptied_or_set_back_under_its_writer_is_seen_and_built_on_no_more(
    act: Callable[[Replica], object], left: int
) -> None:
    store = MemoryStore()
    one = Writer(store, "one")
    before: list[dict[str, bytes]] = [{}, {}, {}]
    Writer(store, "earlier", one.records).claim()
    before[1] = dict(store.objects)
    replica = one.replica()
    one.records.say("a")
    replica.flush()
    before[2] = dict(store.objects)
    one.clock.advance(MINUTE_S)
    one.records.say("b")
    replica.flush()
    one.clock.advance(MINUTE_S)
    store.objects.clear()
    store.objects.update(before[left])
    one.records.say("c")
    with pytest.raises(StoreLost):
        act(replica)
    for later in LOST.values():
        with pytest.raises(StoreLost):
            later(replica)
    assert store.objects == before[left]


def test_what_is_gone_from_under_a_busy_writer_is_missed_within_a_minute() -> None:
    store = MemoryStore()
    one = Writer(store, "one")
    replica = one.replica()
    with pytest.raises(StoreLost):
        for number in range(60):
            one.records.say("a")
            replica.flush()
            one.clock.advance(1.0)
            if number == 5:
                store.objects.clear()


def test_the_own_collection_is_not_taken_for_a_loss() -> None:
    store = MemoryStore()
    one = Writer(store, "one")
    replica = one.replica()
    one.records.say("a")
    replica.flush()
    one.clock.advance(MINUTE_S)
    replica.check()
    replica.publish(log_from=3, log_previous=replica.previous, log_seq=1, log_chain=replica.chain)
    del store.objects[log_key(1)], store.objects[log_key(2)]
    one.clock.advance(MINUTE_S)
    one.records.say("b")
    assert replica.flush() == 2


def test_a_tail_with_a_hole_is_not_complete() -> None:
    store = MemoryStore()
    one = Writer(store, "one")
    replica = one.replica()
    for text in ("a", "b", "c"):
        one.records.say(text)
        replica.flush()
    assert replica.complete
    del store.objects[log_key(3)]
    again = Writer(store, "one", one.records).replica()
    assert (again.confirmed, again.complete) == (3, False)


@pytest.mark.parametrize("key", [manifest_key(2), log_key(2)])
def test_a_successor_of_a_later_release_is_a_successor(key: str) -> None:
    store = MemoryStore()
    one = Writer(store, "one")
    replica = one.replica()
    body = {"self_sha256": "", "v": 2}
    store.objects[key] = canonical({**body, "self_sha256": sha256(canonical(body)).hexdigest()})
    store.objects[key] += b"\nbody" if key == log_key(2) else b""
    one.records.say("a")
    with pytest.raises(Fenced):
        replica.flush() if key == log_key(2) else replica.release()


def repeated(call: Callable[[], object], times: int) -> None:
    for _ in range(times):
        call()


def again(call: Callable[[], T]) -> T:
    """What a call returns when the store at last answers."""
    while True:
        try:
            return call()
        except StoreError:
            continue
