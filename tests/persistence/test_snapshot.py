import json
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from persistence.disk import SystemDisk
from persistence.errors import Damaged, StorageError
from persistence.snapshot import Held, Snapshot, decode, listed, path_of, state_sha, write
from tests.persistence.logs import FaultyDisk

SNAPSHOT = Snapshot(
    7, "ab" * 32, 2, {"b": {"v": 1, "state": {"ü": 1}}, "a": {"v": 2, "state": [1]}}, (Held(3, "s", '{"seq":3}'),)
)


def test_a_snapshot_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = write(SystemDisk(), tmp_path, SNAPSHOT)
    assert path == path_of(tmp_path, 7)
    assert path.name == "0000000000000007.json.z"
    assert decode(path.read_bytes(), path.name) == SNAPSHOT
    assert json.loads(zlib.decompress(path.read_bytes()))["state_sha"] == state_sha(SNAPSHOT.folds)


def test_the_same_state_has_the_same_bytes_in_whatever_order_it_was_made() -> None:
    turned = replace(SNAPSHOT, folds=dict(reversed(list(SNAPSHOT.folds.items()))))
    assert list(turned.folds) != list(SNAPSHOT.folds)
    assert turned.encode() == SNAPSHOT.encode()
    assert state_sha({"a": 1}) != state_sha({"a": 2})


def test_the_newest_three_are_kept(tmp_path: Path) -> None:
    for seq in (5, 1, 9, 7, 11):
        write(SystemDisk(), tmp_path, replace(SNAPSHOT, seq=seq))
    assert [path.name[:16].lstrip("0") for path in listed(tmp_path)] == ["11", "9", "7"]


def test_what_only_looks_like_a_snapshot_pushes_none_out(tmp_path: Path) -> None:
    for name in ("a.json.z", "b.json.z", "c.json.z", "99999999999999999.json.z"):
        (tmp_path / name).touch()
    write(SystemDisk(), tmp_path, SNAPSHOT)
    assert [path.name[:16].lstrip("0") for path in listed(tmp_path)] == ["7"]


def test_any_flipped_bit_and_any_cut_is_found() -> None:
    data = SNAPSHOT.encode()
    for at in range(len(data)):
        for bit in range(8):
            broken = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            try:
                assert decode(broken, "x") == SNAPSHOT, (at, bit)  # bits of the format that say nothing
            except Damaged:
                continue
        with pytest.raises(Damaged):
            decode(data[:at], "x")


BODY = json.loads(zlib.decompress(SNAPSHOT.encode()))


@pytest.mark.parametrize(
    "body",
    [[], {}, None, {**BODY, "state_sha": "0"}, {**BODY, "folds": [], "state_sha": state_sha([])}],  # type: ignore[arg-type]
)
def test_what_is_no_snapshot_is_damage(body: object) -> None:
    with pytest.raises(Damaged, match="snapshot x"):
        decode(zlib.compress(json.dumps(body).encode()), "x")


def test_a_snapshot_that_fails_at_any_call_leaves_the_ones_before(tmp_path: Path) -> None:
    for seq in (1, 2, 3):
        write(SystemDisk(), tmp_path, replace(SNAPSHOT, seq=seq))
    nth = 1
    while True:
        try:
            write(FaultyDisk(nth=nth), tmp_path, replace(SNAPSHOT, seq=4))
        except (StorageError, OSError):
            nth += 1
            whole = [decode(path.read_bytes(), path.name).seq for path in listed(tmp_path)]
            assert whole[-3:] == [3, 2, 1] or whole == [4, 3, 2]
            continue
        break
    assert nth > 5
    assert len(listed(tmp_path)) == 3
