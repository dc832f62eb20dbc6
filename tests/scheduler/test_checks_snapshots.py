"""The doctor looks at the snapshots: each way in which they can be of no use, seen as just that."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.folds import FOLDS
from persistence.journal import Journal
from persistence.snapshot import Snapshot
from scheduler.checks import snapshots
from tests.scheduler import wounds
from tests.scheduler.ward import Ward, new_ward

LARGE = 7 << 20  #: bytes of a record, so that a few are more than a start should read


def older(ward: Ward, seq: int) -> Path:
    """A snapshot of an earlier record, beside the newest."""
    at = next(one for one in wounds.records(ward.root) if one.seq == seq)
    nothing = Snapshot(0, "", 1, {**ward.site().past.folded.dump(), **_empty()})
    folds: Any = snapshots._folded(ward.site(), nothing, seq)
    return wounds.written(ward.root, Snapshot(seq, at.checksum, 1, folds))


def _empty() -> dict[str, Any]:
    from persistence.fold import Folded
    from persistence.reigns import REIGNS
    from persistence.streams import STREAMS

    return Folded((STREAMS, REIGNS, *FOLDS)).dump()


def test_snapshots_damaged() -> None:
    ward = new_ward()
    path = wounds.written(ward.root, wounds.snapshot(ward.root))
    wounds.flipped(path, 200)
    ward.broken("snapshots.damaged", "warn")
    ward.cured("snapshots.damaged")
    assert list((ward.root / "snapshots").iterdir()) == []


def test_snapshots_usable() -> None:
    ward = new_ward()
    one = wounds.snapshot(ward.root)
    newer = {name: {**section, "v": 99} for name, section in one.folds.items()}
    wounds.written(ward.root, replace(one, folds=newer))
    assert "another release wrote" in ward.broken("snapshots.usable", "info").detail


def test_snapshots_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "LATE", 1)  # so that 14 MB are enough
    ward = new_ward()
    path = wounds.last_segment(ward.root)
    told = b'"stream":null,"by":{"actor":"system","trust":"system"},"type":"orphans_imported","v":1,'
    size = path.stat().st_size
    wounds.raw(ward.root, *[told + b'"data":{"name":"%b","count":1}}' % (b"x" * LARGE)] * 2)
    assert path.stat().st_size - size > 2 * LARGE

    def take() -> None:
        wounds.lived(ward.root, Journal.snapshot)

    ward.changed["acts"] = {"snapshot": take}
    finding = ward.broken("snapshots.there", "warn")
    assert finding.data["records_since"] == 2
    ward.cured("snapshots.there")


def test_a_log_without_its_beginning_and_without_a_snapshot_is_a_failure() -> None:
    ward = new_ward()
    for path in (ward.root / "snapshots").iterdir():
        path.unlink()
    (ward.root / "wal" / "0000000000000001.wal").rename(ward.root / "wal" / "0000000000000002.wal")
    look = next(check for check in snapshots.CHECKS if check.id == "snapshots.there").look
    assert look(ward.site()).severity == "fail"


def test_snapshots_history() -> None:
    ward = new_ward()
    wounds.written(ward.root, replace(wounds.snapshot(ward.root), chain="ab" * 32))
    assert "another history" in ward.broken("snapshots.history", "fail").detail


def test_a_snapshot_of_records_that_the_log_does_not_have_is_told() -> None:
    ward = new_ward()
    one = wounds.snapshot(ward.root)
    wounds.written(ward.root, replace(one, seq=one.seq + 3))
    finding = ward.examine()["snapshots.history"]
    assert finding.severity == "fail"
    assert finding.data["last_seq"] == one.seq


def test_snapshots_state() -> None:
    ward = new_ward()
    one = wounds.snapshot(ward.root)
    older(ward, one.seq - 9)
    assert "9 records folded again" in ward.examine()["snapshots.state"].detail
    session = dict(one.folds["session"]["state"])
    name = next(iter(session))
    session[name] = {**session[name], "title": "something else"}
    path = wounds.written(
        ward.root, replace(one, folds={**one.folds, "session": {**one.folds["session"], "state": session}})
    )
    assert ward.broken("snapshots.state", "fail").data["folds"] == ["session"]
    ward.cured("snapshots.state")
    assert not path.exists()


def test_snapshots_leftovers() -> None:
    ward = new_ward()
    (ward.root / "snapshots" / ".finn-12-3").write_bytes(b"half a snap")
    ward.broken("snapshots.leftovers")
    ward.cured("snapshots.leftovers")


def test_snapshots_foreign() -> None:
    ward = new_ward()
    (ward.root / "snapshots" / "9999999999999999.json.z.old").write_bytes(b"mine")
    ward.broken("snapshots.foreign")
    ward.cured("snapshots.foreign")
