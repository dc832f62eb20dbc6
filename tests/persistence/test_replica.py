"""The replica from outside: what is said here is in the store, once, in order, and under one writer."""

import pytest

from persistence.errors import Fenced
from persistence.stores.memory import MemoryStore
from tests.persistence.writers import Records, Watched, Writer, lost, seen, told


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
