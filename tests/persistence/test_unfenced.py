"""A store that takes no conditions: a prefix for each writer, the best of them gone on from."""

import random

from persistence.claim import Start
from persistence.clock import FakeClock
from persistence.collection import AGE_S
from persistence.compaction import compact
from persistence.replica import Replica
from persistence.stores.memory import MemoryStore
from persistence.unfenced import KEPT, clear, own, survey, writers
from tests.persistence.library import Library, restorable
from tests.persistence.writers import Watched, Writer


class Careless(MemoryStore):
    """Takes the condition, ignores it and says yes."""

    def create(self, key: str, data: bytes) -> None:
        self.put(key, data)


def begun(store: MemoryStore, name: str, library: Library, clock: FakeClock, epoch: int = 0) -> Replica:
    """A writer in its own prefix, with all that the local log has, and a snapshot."""
    writer = Writer(own(store, name), name, library)
    writer.clock = clock
    taken = library.snapshot()
    start = Start(taken.floor - 1, library.chain(taken.floor - 1))
    replica = writer.replica(writer.claim(floor=epoch, start=start))
    replica.flush()
    compact(replica, taken)
    return replica


def lived(seed: int = 1) -> Library:
    library = Library(random.Random(seed))
    for _ in range(9):
        library.talk()
    library.seal()
    library.talk()
    return library


def test_every_writer_has_a_whole_replica_of_its_own_and_overwrites_nothing() -> None:
    store, library, clock = Careless(), lived(), FakeClock()
    begun(store, "one", library, clock)
    before = dict(store.objects)
    library.talk()
    begun(store, "two", library, clock, epoch=1)
    assert before.items() <= store.objects.items()
    assert [restorable(own(store, name), library) for name in ("one", "two")] == [11, 12]


def test_a_start_goes_on_from_the_highest_epoch_and_then_from_the_longest_log() -> None:
    store, library, clock = Careless(), lived(), FakeClock()
    begun(store, "older", library, clock, epoch=1)
    begun(store, "first", library, clock, epoch=5)
    library.talk()
    begun(store, "longer", library, clock, epoch=5)
    library.talk()
    begun(store, "lower", library, clock, epoch=2)
    assert [one.writer for one in survey(store, clock=clock).candidates] == ["longer", "first", "lower", "older"]


def test_a_replica_that_is_damaged_or_not_yet_complete_is_not_gone_on_from() -> None:
    store, library, clock = Careless(), lived(), FakeClock()
    begun(store, "good", library, clock)
    Writer(own(store, "begun"), "begun", library).claim(floor=7, start=Start(5, library.chain(5)))
    store.put("unfenced/bad/manifest/000000000001.json", b"nothing of it")
    found = survey(store, clock=clock)
    assert found.best is not None
    assert found.best.writer == "good"
    assert "bad" in found.problems[0]


def test_the_writers_are_found_with_one_listing_each() -> None:
    store, library, clock = Careless(), lived(), FakeClock()
    for name in ("a", "b-1", "c"):
        begun(store, name, library, clock)
    store.put("unfenced/stray", b"")
    watched = Watched(store)
    assert list(writers(watched)) == ["a", "b-1", "c"]
    assert len(watched.calls) <= 5


def test_nothing_there_is_nothing_to_go_on_from() -> None:
    assert survey(Careless(), clock=FakeClock()).best is None


def test_old_replicas_go_a_day_after_the_last_word_and_the_newest_three_stay() -> None:
    clock = FakeClock()
    store, library = Careless(clock), lived()
    for epoch, name in enumerate("abcde"):
        begun(store, name, library, clock, epoch)
    assert clear(store, "e", clock=clock) == 0
    clock.advance(AGE_S + 1)
    begun(store, "f", library, clock, epoch=9)
    store.put("unfenced/a/log/0000000000000099.wal", b"written by one that lives")
    assert clear(store, "f", clock=clock) > 0
    assert list(writers(store)) == ["a", "d", "e", "f"]
    clock.advance(AGE_S + 1)
    begun(store, "g", library, clock, epoch=10)
    clear(store, "g", clock=clock)
    assert list(writers(store)) == ["e", "f", "g"]
    assert len(survey(store, clock=clock).candidates) == KEPT


def test_nothing_goes_before_the_own_replica_is_complete() -> None:
    clock = FakeClock()
    store, library = Careless(clock), lived()
    for epoch, name in enumerate("abcde"):
        begun(store, name, library, clock, epoch)
    clock.advance(AGE_S + 1)
    Writer(own(store, "f"), "f", library).claim(floor=9, start=Start(5, library.chain(5)))
    before = dict(store.objects)
    assert clear(store, "f", clock=clock) == 0
    assert store.objects == before
