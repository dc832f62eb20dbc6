"""The doctor looks at the log: each way in which it can be broken, seen as just that, and mended where it can be."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from persistence.events import GapDeclared, OrphansImported
from persistence.frame import encode
from persistence.recovery import verify
from scheduler.checks.wal import CHECKS
from scheduler.repair import mended
from scheduler.site import Running
from tests.scheduler import wounds
from tests.scheduler.ward import new_ward
from tests.scheduler.wounds import DISK

TOLD = OrphansImported(name="told", count=1)


def intact(root: Path) -> bool:
    return verify(DISK, root / "wal").ok


def test_wal_begun() -> None:
    ward = new_ward()
    for path in (ward.root / "wal").glob("*.wal"):
        path.unlink()
    assert "snapshots" in ward.broken("wal.begun", "fail").detail


def test_wal_chain() -> None:
    ward = new_ward()
    one = wounds.outside_sessions(ward.root)
    before = wounds.place(one, ward.root).read_bytes()
    wounds.flipped(wounds.place(one, ward.root), one.offset + one.length - 30, 0x10)
    finding = ward.broken("wal.chain", "fail")
    assert finding.data["first_bad_seq"] == one.seq
    ward.cured("wal.chain")
    assert wounds.place(one, ward.root).read_bytes() == before


def test_a_record_of_which_more_is_changed_is_left_to_the_next_start() -> None:
    ward = new_ward()
    one = wounds.outside_sessions(ward.root)
    wounds.garbled(ward.root, one)
    finding = ward.broken("wal.chain", "fail")
    assert finding.fixability == "notfixable"
    assert "start `finn serve`" in finding.remediation


def test_any_single_changed_byte_of_a_record_is_found_again(seed: int) -> None:
    dice = random.Random(seed)
    ward = new_ward()
    for one in dice.sample(wounds.records(ward.root)[1:-1], 12):
        path = wounds.place(one, ward.root)
        before = path.read_bytes()
        at = one.offset + dice.randrange(83, one.length - 1)
        wounds.flipped(path, at, dice.randrange(1, 256))
        lost = ward.site().log.report.lost
        assert [damage.first for damage in lost] == [one.seq], (at, one.seq)
        assert mended(DISK, ward.root / "wal", lost[0]) == before[one.offset : one.offset + one.length]
        path.write_bytes(before)


def test_wal_missing() -> None:
    ward = new_ward()
    one = wounds.outside_sessions(ward.root)
    path = wounds.place(one, ward.root)
    data = path.read_bytes()
    path.write_bytes(data[: one.offset] + data[one.offset + one.length :])
    assert ward.broken("wal.missing", "fail").data["gaps"] == [[one.seq, one.seq]]


@pytest.mark.parametrize("offset", [3, 8, 12, 30, 82, -1])
def test_wal_frames(offset: int) -> None:
    ward = new_ward()
    one = wounds.records(ward.root)[10]
    path = wounds.place(one, ward.root)
    before = path.read_bytes()
    wounds.flipped(path, one.offset + (offset if offset >= 0 else one.length - 1), 0x02)
    ward.broken("wal.frames", "warn")
    ward.cured("wal.frames")
    assert path.read_bytes() == before


def test_wal_torn_tail() -> None:
    ward = new_ward()
    path = wounds.last_segment(ward.root)
    whole = path.read_bytes()
    path.write_bytes(whole + encode(b'{"seq":52,"id":"01ZZ"', bytes(32))[0][:60])
    assert ward.broken("wal.torn_tail").data["bytes"] == 60
    ward.cured("wal.torn_tail")
    assert path.read_bytes() == whole


def test_a_record_that_is_being_written_is_no_torn_tail() -> None:
    ward = new_ward()
    with wounds.last_segment(ward.root).open("ab") as file:
        file.write(b"00000051 7a3f09c1")
    look = next(check for check in CHECKS if check.id == "wal.torn_tail").look
    assert look(replace(ward.site(), running=Running(1, "", 1, answers=True))).severity == "pass"


def test_wal_gaps() -> None:
    ward = new_ward()
    one = wounds.outside_sessions(ward.root)
    wounds.garbled(ward.root, one)
    gap = GapDeclared(first=one.seq, last=one.seq, resume=None, quarantine="")
    wounds.appended(ward.root, (gap, None))
    finding = ward.broken("wal.gaps", "info")
    assert finding.data["gaps"] == [[one.seq, one.seq]]
    assert intact(ward.root)


def test_wal_order() -> None:
    ward = new_ward()
    wounds.appended(ward.root, (TOLD, None), epoch=0)
    assert ward.broken("wal.order", "fail").data["seqs"] == [len(wounds.records(ward.root))]


def test_a_clock_that_went_back_is_told_and_is_no_fault() -> None:
    ward = new_ward()
    wounds.appended(ward.root, (TOLD, None), back_ms=60_000_000)
    assert "went back 1 times" in ward.broken("wal.order", "info").detail


def test_wal_unknown() -> None:
    ward = new_ward()
    told = b'"stream":null,"by":{"actor":"system","trust":"system"},"type":"dream_dreamt","v":7,"data":{"of":"sheep"}}'
    wounds.raw(ward.root, told, told)
    finding = ward.broken("wal.unknown", "info")
    assert finding.data["kinds"] == ["dream_dreamt v7"]
    assert finding.detail.startswith("2 records")


def test_wal_format() -> None:
    ward = new_ward()
    wounds.reheaded(ward.root, segment=2)
    ward.broken("wal.format", "fail")
    assert intact(ward.root)


def test_wal_foreign() -> None:
    ward = new_ward()
    (ward.root / "wal" / "0000000000000001.wal.bak").write_bytes(b"a copy")
    (ward.root / "wal" / "old").mkdir(mode=0o700)
    (ward.root / "wal" / "old" / "notes").write_text("mine")
    assert ward.broken("wal.foreign").data["found"] == ["0000000000000001.wal.bak", "old"]
    ward.cured("wal.foreign")
    kept = {path.name.split("-")[1] for path in (ward.root / "quarantine").glob("wal-*") if path.suffix != ".json"}
    assert kept == {"0000000000000001.wal.bak", "old"}


def test_a_folder_with_the_name_of_a_segment_is_moved_away() -> None:
    ward = new_ward()
    path = wounds.last_segment(ward.root).with_name("0000000000000900.wal")
    path.mkdir(mode=0o700)
    found = ward.examine()
    assert found["wal.foreign"].data["found"] == [path.name]
    assert [one.id for one in found.values() if one.detail.startswith("this could not be looked at:")] == ["wal.begun"]
    ward.fix()
    assert {one.severity for one in ward.examine().values() if one.category == "wal"} == {"pass"}


def test_a_link_to_a_segment_is_told_and_left_alone() -> None:
    ward = new_ward()
    path = wounds.last_segment(ward.root)
    elsewhere = path.rename(ward.root.parent / "elsewhere.wal")
    path.symlink_to(elsewhere)
    finding = ward.examine()["wal.foreign"]
    assert (finding.severity, finding.fixability) == ("fail", "notfixable")
    ward.fix()
    assert path.is_symlink()
    elsewhere.unlink()


def test_wal_modes() -> None:
    ward = new_ward()
    path = wounds.last_segment(ward.root)
    path.chmod(0o644)
    ward.broken("wal.modes")
    ward.cured("wal.modes")
    assert path.stat().st_mode & 0o777 == 0o600


def test_wal_lock() -> None:
    ward = new_ward()
    (ward.root / "wal" / "LOCK").unlink()
    (ward.root / "wal" / "LOCK").mkdir()
    ward.broken("wal.lock", "fail")
    ward.cured("wal.lock")
    assert not (ward.root / "wal" / "LOCK").exists()


def test_a_lock_whose_file_somebody_deleted_is_told(tmp_path: Path) -> None:
    ward = new_ward()
    (tmp_path / "7" / "fd").mkdir(parents=True)
    (tmp_path / "7" / "fd" / "3").symlink_to(f"{(ward.root / 'wal' / 'LOCK').resolve()} (deleted)")
    look = next(check for check in CHECKS if check.id == "wal.lock").look
    site = replace(ward.site(), running=Running(7, "", 1, answers=True), proc=tmp_path)
    assert look(site).severity == "fail"
    assert look(replace(site, running=Running(8, "", 1, answers=True))).severity == "pass"
