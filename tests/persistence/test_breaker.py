"""What keeps failing is left alone for a while, and tried again."""

from hypothesis import given
from hypothesis import strategies as st

from persistence.breaker import Breaker

CLOSED = Breaker(threshold=3, cooldown_s=10)


def failed(breaker: Breaker, *times: float) -> Breaker:
    for now in times:
        breaker = breaker.failure(now)
    return breaker


def test_it_opens_with_the_last_failure_of_a_row() -> None:
    assert failed(CLOSED, 1, 2).state(2) == "closed"
    assert failed(CLOSED, 1, 2, 3).state(3) == "open"


def test_a_success_ends_the_row() -> None:
    assert failed(failed(CLOSED, 1, 2).success(), 3, 4).state(4) == "closed"


def test_it_lets_one_attempt_through_after_the_cooldown() -> None:
    opened = failed(CLOSED, 1, 2, 3)
    assert (opened.state(12.9), opened.wait_s(11)) == ("open", 2)
    assert (opened.state(13), opened.wait_s(13)) == ("half_open", 0)


def test_a_failed_attempt_opens_it_again_at_once() -> None:
    assert failed(CLOSED, 1, 2, 3, 13).state(22.9) == "open"


def test_a_successful_attempt_closes_it() -> None:
    assert failed(CLOSED, 1, 2, 3).success() == CLOSED


def test_who_asks_by_hand_need_not_wait() -> None:
    opened = failed(CLOSED, 1, 2, 3)
    assert opened.probe(4).state(4) == "half_open"
    assert CLOSED.probe(4) == CLOSED


@given(st.lists(st.booleans()), st.floats(0, 1e9))
def test_it_is_open_exactly_where_it_is_to_be_left_alone(outcomes: list[bool], now: float) -> None:
    breaker = CLOSED
    for moment, worked in enumerate(outcomes):
        breaker = breaker.success() if worked else breaker.failure(moment)
    assert (breaker.state(now) == "open") is (breaker.wait_s(now) > 0)
    assert breaker.failures == len(outcomes) - next((i for i in range(len(outcomes), 0, -1) if outcomes[i - 1]), 0)
