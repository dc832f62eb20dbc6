"""What goes from the store: never anything that a kept manifest or a log object after it needs."""

import random
from contextlib import suppress
from dataclasses import replace

import pytest

from persistence import collection, compaction
from persistence.clock import FakeClock
from persistence.collection import AGE_S, boundary, collect, named, old
from persistence.compaction import compact
from persistence.errors import Fenced, StoreError, StoreUnreachable
from persistence.layout import COLLECTED, HINT, KEPT, blob_key, chunk_key, decode_hint, log_key, manifest_key
from persistence.replica import Replica
from persistence.store import Found
from persistence.stores.memory import MemoryStore
from tests.conftest import count
from tests.persistence.faulty_store import FaultyStore
from tests.persistence.library import Library, Ship, restorable
from tests.persistence.writers import Watched, Writer, seen

DAY_S = 24 * 3600.0


class House:
    """A writer with a store whose clock is his, and days that pass."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore(self.clock)
        self.watched = Watched(self.store)
        self.library = Library(random.Random(1))
        self.mentions: dict[str, frozenset[str]] = {}
        self.replica = self.claimed("one")

    def claimed(self, name: str) -> Replica:
        writer = Writer(self.watched, name, self.library)
        writer.clock = self.clock
        return writer.replica()

    def day(self, manifests: int = KEPT) -> None:
        """A day of talk, put together so many times; then another, in which nothing happens."""
        for _ in range(manifests):
            for _ in range(3):
                self.library.talk()
                self.replica.flush()
            self.library.seal()
            self.replica.flush()
            compact(self.replica, self.library.snapshot())
        self.clock.advance(DAY_S + 60)
        self.library.talk()
        self.replica.flush()

    def collect(self) -> tuple[str, ...]:
        return collect(self.replica, self.mentions, clock=self.clock, entropy=random.Random(1).randbytes)

    def keys(self, prefix: str) -> set[str]:
        return {key for key in self.store.objects if key.startswith(prefix)}


# ---------------------------------------------------------------- decisions


def test_nothing_is_old_before_a_day_has_passed() -> None:
    assert [old(Found("k", 1, 0.0), AGE_S), old(Found("k", 1, 0.0), AGE_S + 1)] == [False, True]


def test_the_boundary_is_where_the_oldest_manifest_begins_that_will_still_be_kept() -> None:
    house = House()
    house.day(KEPT + 3)
    kept = collection.manifests(house.store, house.replica.manifest)
    assert len(kept) == KEPT
    assert boundary(kept) == kept[-2].log_from < kept[0].log_from


# ---------------------------------------------------------------- what goes and what stays


def test_the_last_eight_manifests_stay_with_all_that_they_name() -> None:
    house = House()
    house.day(20)
    assert house.collect() == ()
    newest = seen(house.store).manifest
    numbers = sorted(key for key in house.keys("manifest/") if key.endswith(".json"))
    assert numbers[1:] == [manifest_key(m) for m in range(newest.m - KEPT + 1, newest.m + 1)]
    kept = collection.manifests(house.store, newest)
    assert house.keys("seg/") | house.keys("snap/") == named(kept)
    assert min(house.keys("log/")) == log_key(newest.gc_boundary)
    assert restorable(house.store, house.library) == house.library.durable


def test_the_first_manifest_is_marked_and_not_deleted_so_that_nobody_begins_again() -> None:
    house = House()
    house.day(20)
    house.collect()
    assert house.store.objects[manifest_key(1)] == COLLECTED
    house.day(1)
    before = len(house.watched.calls)
    house.collect()
    assert ("put", manifest_key(1)) not in house.watched.calls[before:]


def test_the_boundary_stands_in_a_manifest_before_anything_goes() -> None:
    house = House()
    house.day(20)
    house.watched.calls.clear()
    house.collect()
    calls = [call for call, _ in house.watched.calls]
    assert calls.index("create") < calls.index("delete")
    assert seen(house.store).manifest.gc_boundary > 1


def test_nothing_goes_before_the_hint_to_the_newest_manifest_lies_there() -> None:
    house = House()
    house.day(20)
    before = house.keys("")

    def away(call: str, key: str) -> None:
        if key == HINT:
            raise StoreUnreachable("away")

    house.watched.before = away
    with pytest.raises(StoreUnreachable):
        house.collect()
    assert before <= house.keys("")


def test_nothing_younger_than_a_day_goes_whatever_the_clock_of_this_machine_says() -> None:
    house = House()
    house.day(20)
    ahead = FakeClock(house.clock.now() + 400 * DAY_S)
    modified = {key: found.modified for found in house.store.list("") for key in [found.key]}
    house.clock.time -= DAY_S  # the store's time of everything that is written now
    collect(house.replica, {}, clock=ahead, entropy=random.Random(1).randbytes)
    assert {key for key, at in modified.items() if at > 0} <= house.store.objects.keys()


def test_a_file_that_is_overwritten_goes_in_the_end_and_one_that_a_message_names_stays() -> None:
    house = House()
    house.library.write("NOTES.md", b"first")
    first = house.library.files["NOTES.md"]
    house.library.write("NOTES.md", b"second")
    house.day(20)
    house.collect()
    house.day(20)
    house.collect()
    texts = {blob_key(sha) for sha in house.library.blobs} - {blob_key(first)}
    assert house.keys("blob/") == texts
    assert restorable(house.store, house.library) == house.library.durable


def test_a_blob_that_is_named_again_while_it_is_collected_stays() -> None:
    house = House()
    house.library.write("NOTES.md", b"first")
    first = blob_key(house.library.files["NOTES.md"])
    house.library.write("NOTES.md", b"second")
    house.day(20)

    def revert(call: str, key: str) -> None:
        if (call, key) == ("list", "blob/"):
            house.library.write("NOTES.md", b"first")

    def breathe() -> None:
        house.replica.flush()

    house.watched.after = revert
    collect(house.replica, {}, clock=house.clock, entropy=random.Random(1).randbytes, breathe=breathe)
    assert house.library.files["NOTES.md"] in first
    assert first in house.store.objects
    assert restorable(house.store, house.library) == house.library.durable


def test_a_chunk_that_no_manifest_came_to_name_goes() -> None:
    house = House()
    stray = chunk_key("ab" * 32)
    house.store.put(stray, b"sent by a compaction that was cut short")
    house.day()
    house.collect()
    assert stray not in house.store.objects
    assert house.keys("chunk/") == {chunk_key(sha) for sha in house.library.chunks}


def test_a_manifest_that_was_sent_a_day_ago_and_is_only_answered_now_keeps_what_it_names() -> None:
    house = House()
    house.day()
    left = [StoreUnreachable("no answer")] * 2

    def fail(call: str, key: str) -> None:
        if left and call == "create" and key.startswith("manifest/"):
            raise left.pop()

    house.watched.before = fail
    with pytest.raises(StoreUnreachable):
        compact(house.replica, house.library.snapshot())
    house.clock.advance(DAY_S + 60)
    house.replica.manifest = replace(house.replica.manifest, gc_boundary=house.replica.n)  # nothing to be published
    house.collect()
    assert restorable(house.store, house.library) == house.library.durable


def test_where_a_kept_object_cannot_be_read_no_body_goes_and_it_is_told() -> None:
    house = House()
    stray = blob_key("ab" * 32)
    house.store.put(stray, b"garbage")
    house.day()
    snap = seen(house.store).manifest.snap
    assert snap is not None
    house.store.objects[snap.key] = b"damaged"
    problems = house.collect()
    assert "no chunk or blob was collected" in problems[0]
    assert stray in house.store.objects


def test_a_chunk_is_read_once_for_what_it_names() -> None:
    house = House()
    house.store.put(blob_key("ab" * 32), b"garbage")
    house.day()
    house.collect()
    house.store.put(blob_key("cd" * 32), b"garbage")
    house.day(1)
    known = set(house.mentions)
    for sha in known:
        del house.library.chunks[sha]
    house.watched.calls.clear()
    house.collect()
    assert len(house.mentions) == len(known) + 1
    assert not [key for _, key in house.watched.calls if key.startswith("chunk/") and key[-1] != "/"]


def test_orphans_are_left_alone_with_the_blobs_that_they_name() -> None:
    house = House()
    house.store.put(blob_key("ab" * 32), b"said by another")
    house.store.put("orphans/2-x/0000000000000001.wal", f'{{"blobs":"{"ab" * 32}"}}'.encode())
    house.day()
    house.collect()
    assert house.keys("orphans/")
    assert blob_key("ab" * 32) in house.store.objects


def test_a_fenced_writer_deletes_nothing() -> None:
    house = House()
    house.day(20)
    before = house.keys("")
    house.claimed("two")
    with pytest.raises(Fenced):
        house.collect()
    assert before <= house.keys("")


def test_one_that_is_fenced_while_it_collects_stops() -> None:
    house = House()
    house.day(20)

    def overtake(call: str, key: str) -> None:
        if call == "delete" and not house.keys("manifest/") & {"manifest/x"}:
            house.store.put("manifest/x", b"")
            house.watched.after = lambda call, key: None
            house.claimed("two")
            house.clock.advance(collection.PROVEN_S + 1)

    house.watched.after = overtake
    with pytest.raises(Fenced):
        house.collect()
    assert restorable(house.store, house.library) > 0


# ---------------------------------------------------------------- a writer that was stopped


@pytest.mark.parametrize("does", ["flush", "compact", "release"])
def test_a_writer_whose_next_name_was_collected_gets_no_false_success(does: str) -> None:
    house = House()
    stalled = house.replica
    confirmed = stalled.confirmed
    house.replica = house.claimed("two")
    house.day(30)
    house.collect()
    assert log_key(stalled.n + 1) not in house.store.objects
    hint = house.store.objects["manifest/HINT"]
    with pytest.raises(Fenced):
        {"flush": stalled.flush, "compact": lambda: compact(stalled, None), "release": stalled.release}[does]()
    assert stalled.confirmed == confirmed
    assert decode_hint(house.store.objects["manifest/HINT"]) == decode_hint(hint)
    assert seen(house.store).manifest.writer == "two"


# ---------------------------------------------------------------- with all that can go wrong


@pytest.mark.parametrize("case", range(count(25, 2000)))
def test_nothing_that_is_needed_ever_goes(case: int, seed: int) -> None:
    """Days of flushes, compactions, takeovers and collections, of which each call to the store may fail either way."""
    voyage(random.Random(f"{seed} {case}"))


def test_on_those_voyages_much_goes() -> None:
    assert sum(voyage(random.Random(f"days {case}")) for case in range(8)) > 20  # always these: how much is chance


def voyage(rng: random.Random) -> int:
    """Proves after each step that all is there. Returns how many objects were collected."""
    clock, library, collected = FakeClock(), Library(rng), 0
    inner = MemoryStore(clock)
    store = FaultyStore(inner, rng, rate=0.05)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "SEG_BYTES", 4000)
        ship = Ship(store, library, clock)
        for _ in range(12):
            for _ in range(8):
                ship.sail(rng)
            clock.advance(rng.choice((3600.0, DAY_S)))
            before = set(inner.objects)
            with suppress(StoreError):
                ship.collect(rng)
            collected += len(before - inner.objects.keys())
            restorable(inner, library)
        store.calm()
        ship.arrive()
        clock.advance(DAY_S)
        ship.collect(rng)
        assert restorable(inner, library) == library.durable
    return collected
