import itertools
import threading

from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from persistence.clock import FakeClock, Ids, iso, system_entropy


@given(entropy=st.binary(min_size=10, max_size=10), counts=st.lists(st.integers(1, 2100), min_size=1, max_size=4))
def test_ids_of_one_moment_are_consecutive_ulids_however_they_are_taken(entropy: bytes, counts: list[int]) -> None:
    ids = Ids(FakeClock(), lambda _: entropy)
    taken = [one for count in counts for one in ids.take(count)]
    numbers = [int(ULID.from_str(one)) for one in taken]
    assert len(taken) == sum(counts)
    assert all(after == before + 1 for before, after in itertools.pairwise(numbers))
    assert taken == sorted(taken)


def test_an_id_begins_with_its_moment_and_goes_on_with_what_was_drawn() -> None:
    clock = FakeClock(now=1_795_000_000.25)
    one = ULID.from_str(Ids(clock, lambda count: b"\7" * count).new())
    assert one.milliseconds == 1_795_000_000_250
    assert one.bytes[6:] == b"\7" * 10


@given(steps=st.lists(st.floats(-100.0, 100.0), max_size=30))
def test_ids_increase_whatever_the_clock_does(steps: list[float]) -> None:
    clock = FakeClock()
    ids = Ids(clock, system_entropy)
    taken = []
    for step in steps:
        clock.advance(step)
        taken.append(ids.new())
    assert taken == sorted(set(taken))


def test_no_id_is_given_to_two_threads() -> None:
    ids = Ids(FakeClock(), system_entropy)
    taken: list[list[str]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=lambda own=own: own.extend(ids.new() for _ in range(500))) for own in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one for own in taken for one in own}) == 2000
    assert all(own == sorted(own) for own in taken)


def test_a_time_is_told_in_utc_with_milliseconds() -> None:
    assert iso(1_795_000_000.25) == "2026-11-18T11:06:40.250Z"


def test_ids_come_after_one_that_was_seen_though_the_clock_stands_before_it() -> None:
    clock = FakeClock()
    seen = Ids(clock, system_entropy).new()
    clock.advance(-3600)
    ids = Ids(clock, system_entropy)
    ids.follow(seen)
    assert ids.new() > seen
