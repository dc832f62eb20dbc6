from dataclasses import dataclass

import pytest

from persistence.events import EVENTS, OWNER, Event, Record, SessionCreated, SessionRenamed, Unknown, UserMessage
from persistence.fold import Fold, Folded, changed
from tests.persistence.journals import prompt


@dataclass(frozen=True, slots=True)
class Seqs:
    seen: tuple[int, ...] = ()


def note(seqs: Seqs, record: Record) -> Seqs:
    return Seqs((*seqs.seen, record.seq))


TITLES = Fold("titles", 1, Seqs, Seqs(), note, True, (SessionCreated, SessionRenamed))
PROMPTS = Fold("prompts", 1, Seqs, Seqs(), note, False, (UserMessage,))
ALL = Fold("all", 1, Seqs, Seqs(), note, False, (*EVENTS, Unknown))


def record(seq: int, event: Event, stream: str | None = "s") -> Record:
    return Record(seq, "id", 0, 1, 0, stream, OWNER, event.kind, event.v, event, "", b"")


def folded(*records: Record) -> Folded:
    state = Folded((TITLES, PROMPTS, ALL))
    for one in records:
        state.step(one)
    return state


THREE = (
    record(1, SessionCreated(title="")),
    record(2, prompt("hi")),
    record(3, SessionRenamed(title="b"), stream="other"),
)


def test_a_fold_sees_the_events_it_names_and_no_others() -> None:
    state = folded(*THREE, record(4, SessionCreated(title=""), stream=None))
    assert state.streams(TITLES) == {"s": Seqs((1,)), "other": Seqs((3,))}
    assert state.whole(PROMPTS) == Seqs((2,))
    assert state.whole(ALL) == Seqs((1, 2, 3, 4))


def test_a_copy_stays_as_it_was() -> None:
    state = folded(*THREE)
    before = state.copy()
    state.step(record(4, SessionRenamed(title="c")))
    assert before.dump() == folded(*THREE).dump()
    assert before.dump() != state.dump()


def test_what_was_dumped_loads_into_the_same_state() -> None:
    state, again = folded(*THREE), folded()
    again.load(state.dump())
    assert again.streams(TITLES) == state.streams(TITLES)
    assert again.dump() == state.dump()


def test_late_folding_reaches_only_the_states_that_did_not_see_the_record_when_it_was_unknown() -> None:
    state = folded(record(1, Unknown(data={})))
    state.catch_up(record(1, SessionCreated(title="")))
    assert state.streams(TITLES) == {"s": Seqs((1,))}
    assert state.whole(ALL) == Seqs((1,))


@pytest.mark.parametrize(
    "change",
    [
        lambda sections: sections.pop("titles"),
        lambda sections: sections["titles"].update(v=2),
        lambda sections: sections["titles"].update(state={"s": {"seen": "none"}}),
        lambda sections: sections["titles"].update(seq=3),
    ],
    ids=["no section", "another version", "another shape", "carried on by programs that could not fold it"],
)
def test_a_state_that_cannot_be_taken_over_is_refused(change: object) -> None:
    sections = folded(*THREE).dump()
    assert callable(change)
    change(sections)
    with pytest.raises((KeyError, ValueError)):
        folded().load(sections)


@dataclass(frozen=True)
class Count:
    name: str = ""
    seen: int = 0


def test_a_changed_state_equals_one_made_anew_and_the_old_one_stays() -> None:
    old = Count("a", 1)
    assert changed(old, {"seen": 2}) == Count("a", 2)
    assert old == Count("a", 1)
