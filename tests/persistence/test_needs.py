"""What stored bytes need besides themselves."""

from typing import Any

import pytest

from persistence import needs
from persistence.errors import Damaged
from persistence.snapshot import Snapshot
from persistence.streams import STREAMS

SHA = "ab" * 32
STREAM = {"tail_first": 5, "chunks": [{"sha256": SHA}]}


def snapshot(folds: Any) -> Snapshot:
    return Snapshot(7, "cd" * 32, 1, folds)


def test_the_log_begins_at_the_oldest_tail_and_the_chunks_are_those_of_every_stream() -> None:
    taken = snapshot({STREAMS.name: {"state": {"a": STREAM, "b": {"tail_first": None, "chunks": []}}}})
    assert needs.floor(taken) == 5
    assert needs.chunks(taken) == (SHA,)


def test_a_snapshot_without_streams_needs_the_log_behind_it_and_nothing_else() -> None:
    assert (needs.floor(snapshot({})), needs.chunks(snapshot({}))) == (8, ())


@pytest.mark.parametrize(
    "folds",
    [
        [],
        {STREAMS.name: []},
        {STREAMS.name: {"state": []}},
        {STREAMS.name: {"state": {"a": []}}},
        {STREAMS.name: {"state": {"a": {}}}},
        {STREAMS.name: {"state": {"a": {"tail_first": "5", "chunks": [5]}}}},
    ],
)
def test_what_is_no_state_is_damage(folds: object) -> None:
    with pytest.raises(Damaged, match="record 7 has no state"):
        needs.floor(snapshot(folds))
    with pytest.raises(Damaged, match="record 7 has no state"):
        needs.chunks(snapshot(folds))
