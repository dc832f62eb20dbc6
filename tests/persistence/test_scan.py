from pathlib import Path

import pytest

from persistence import scan as module
from persistence.disk import SystemDisk, read_range
from persistence.frame import GENESIS
from persistence.scan import Control, Damage, Found, Good, scan, segments, walk
from tests.persistence.logs import Log, flip, last_file, parts, served

DISK = SystemDisk()


def built(root: Path, *texts: str, segment_bytes: int = 900) -> Path:
    log = Log(root, segment_bytes=segment_bytes)
    log.say(*texts)
    log.close()
    return root / "wal"


def everything(wal: Path) -> list[Found]:
    return list(walk(DISK, wal, segments(DISK, wal)))


def test_a_folder_that_is_not_there_holds_no_log(tmp_path: Path) -> None:
    assert list(scan(DISK, tmp_path / "wal")) == []


def test_records_come_in_order_with_their_place_and_their_checksum(tmp_path: Path) -> None:
    log = Log(tmp_path)
    written = log.say("one", "two", "three")
    log.close()
    assert [found for found in scan(DISK, log.dir) if isinstance(found, Good)] == [
        Good(one.seq, one.segment, one.offset, one.length, one.line, one.checksum, one.durable) for one in written
    ]
    data = last_file(tmp_path).read_bytes()
    assert all(one.line in data[one.offset : one.offset + one.length] for one in written)


def test_a_log_is_header_records_and_marks_that_say_what_is_durable(tmp_path: Path) -> None:
    wal = built(tmp_path, *"abcd")
    found = [one if isinstance(one, Damage) else (type(one).__name__, one.seq) for one in everything(wal)]
    kinds = [one.kind for one in everything(wal) if isinstance(one, Control)]
    assert kinds == ["header", "footer", "header", "watermark"]
    assert found[0] == ("Control", 0)
    assert found[-1] == ("Control", 4)
    assert next(one.chain for one in everything(wal) if isinstance(one, Control)) == GENESIS


def test_a_scan_can_begin_at_any_segment(tmp_path: Path) -> None:
    wal = built(tmp_path, *"abcdefghij")
    whole = list(scan(DISK, wal))
    for base in segments(DISK, wal):
        assert list(scan(DISK, wal, base)) == [one for one in whole if isinstance(one, Good) and one.seq >= base]


def test_other_files_in_the_folder_are_not_the_log(tmp_path: Path) -> None:
    wal = built(tmp_path, "one")
    (wal / "LOCK").write_text("{}")
    (wal / "1.wal").write_text("not a segment")
    (wal / "0000000000000001.wal.bak").write_text("not a segment")
    assert served(tmp_path) == [1]


def test_a_line_longer_than_what_is_read_at_once_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wal = built(tmp_path, "x" * 5000, "short", "y" * 3000, segment_bytes=1 << 20)
    whole = everything(wal)
    for size in (1, 100, 1000, 4096):
        monkeypatch.setattr(module, "CHUNK_BYTES", size)
        assert everything(wal) == whole


def test_a_sound_log_is_never_held_in_memory_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wal = built(tmp_path, *("x" * 500 for _ in range(50)), segment_bytes=1 << 20)
    monkeypatch.setattr(module, "CHUNK_BYTES", 1024)
    held = []

    class Watched(SystemDisk):
        def pread(self, handle: int, count: int, offset: int) -> bytes:
            held.append(count)
            return super().pread(handle, count, offset)

    assert len(list(scan(Watched(), wal))) == 50
    assert max(held) == 1024


def test_a_line_whose_digest_was_damaged_does_not_put_the_next_one_in_doubt(tmp_path: Path) -> None:
    wal = built(tmp_path, *"abcdef")
    sound = list(scan(DISK, wal))
    part = [part for part in parts(tmp_path) if part.seq == 2 and part.part == "frame"][40]
    flip(tmp_path, part, 1)
    found = list(scan(DISK, wal))
    assert [(one.kind, one.first) for one in found if isinstance(one, Damage)] == [("sha", 2)]
    assert [one for one in found if isinstance(one, Good)] == sound


def test_damages_are_named_apart_or_as_one_range_where_they_touch(tmp_path: Path) -> None:
    wal = built(tmp_path, *"abcdef", segment_bytes=1 << 20)
    data = last_file(tmp_path).read_bytes()
    for text in (b'"text":"b"', b'"text":"d"', b'"text":"e"'):
        data = data.replace(text, text.swapcase())
    last_file(tmp_path).write_bytes(data)
    damage = [one for one in scan(DISK, wal) if isinstance(one, Damage)]
    assert [(one.first, one.last) for one in damage] == [(2, 2), (4, 5)]
    assert served(tmp_path) == [1, 3, 6]


def test_a_segment_of_another_log_is_noticed(tmp_path: Path) -> None:
    wal = built(tmp_path / "a", *"abcdef")
    other = built(tmp_path / "b", *"ghijkl")
    last = last_file(tmp_path / "a").name
    (wal / last).write_bytes((other / last).read_bytes())
    damage = [one for one in scan(DISK, wal) if isinstance(one, Damage)]
    assert [(one.kind, one.control) for one in damage] == [("chain", "header")]
    assert "header line" in str(damage[0])


def test_a_control_line_of_a_later_version_is_kept_and_means_nothing(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.say("one")
    log.wal._attempt(lambda: log.wal._control('{"checkpoint":1}'))
    log.say("two")
    log.close()
    assert served(tmp_path) == [1, 2]
    assert not [one for one in scan(DISK, log.dir) if isinstance(one, Damage)]
    assert "unknown" in [one.kind for one in everything(log.dir) if isinstance(one, Control)]


def test_a_segment_that_is_pruned_while_it_is_read_is_not_missed(tmp_path: Path) -> None:
    wal = built(tmp_path, *"abcdefghij")
    bases = segments(DISK, wal)

    class Pruned(SystemDisk):
        def names(self, path: Path) -> list[str]:
            names = super().names(path)
            (path / names[0]).unlink()
            return names

    found = list(scan(Pruned(), wal))
    assert [one.seq for one in found if isinstance(one, Good)] == list(range(bases[1], 11))
    assert not [one for one in found if isinstance(one, Damage)]


def test_reading_past_the_end_gives_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    handle = DISK.open(path, 0)
    assert read_range(DISK, handle, 8, 100) == b"89"
    DISK.close(handle)
