import itertools
import json
import os
import threading
from hashlib import sha256
from pathlib import Path

import pytest

from persistence.disk import SystemDisk
from persistence.errors import Conflict, Damaged, NotFound, StorageClosed, TooLarge
from persistence.frame import GENESIS, RECORD_BYTES
from persistence.recovery import verify
from persistence.scan import Control, walk
from persistence.wal import Head, Pending, Segment, Written
from tests.persistence.logs import PATIENCE_S, Log, copy, flip, last_file, parts, served, tail

DISK = SystemDisk()


class GatedDisk(SystemDisk):
    """Waits in every fdatasync until it is let on, and writes down what was asked of it."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.waiting = threading.Semaphore(0)
        self.asked: list[str] = []

    def write(self, handle: int, data: bytes | memoryview) -> int:
        self.asked.append("write")
        return super().write(handle, data)

    def fdatasync(self, handle: int) -> None:
        self.waiting.release()
        assert self.gate.acquire(timeout=PATIENCE_S)
        self.asked.append("fdatasync")
        super().fdatasync(handle)

    def sync_folder(self, path: Path) -> None:
        self.asked.append("sync_folder")
        super().sync_folder(path)


class WatchedDisk(SystemDisk):
    """Says when the log writes a watermark."""

    def __init__(self) -> None:
        self.marked = threading.Event()

    def write(self, handle: int, data: bytes | memoryview) -> int:
        taken = super().write(handle, data)
        if b'{"w":' in bytes(data):
            self.marked.set()
        return taken


def test_a_record_is_its_first_five_fields_and_what_was_appended(tmp_path: Path) -> None:
    log = Log(tmp_path)
    first, second = log.say("one", "two")
    log.close()
    assert json.loads(second.line) == {
        "seq": 2,
        "id": second.id,
        "ts": int(log.clock.now() * 1000),
        "epoch": 1,
        "d": 1,
        "stream": None,
        "by": {"actor": "owner", "trust": "user"},
        "type": "note",
        "v": 1,
        "data": {"text": "two"},
    }
    assert first.checksum == sha256(GENESIS + first.line).hexdigest()
    assert second.checksum == sha256(bytes.fromhex(first.checksum) + second.line).hexdigest()
    assert first.id < second.id
    assert (second.time, second.epoch, second.durable) == (int(log.clock.now() * 1000), 1, 1)
    assert log.wal.head == Head(2, bytes.fromhex(second.checksum), 2)


def test_nothing_is_delivered_before_it_is_durable_and_what_waits_meanwhile_is_one_batch(tmp_path: Path) -> None:
    disk = GatedDisk()
    log = Log(tmp_path, disk=disk)
    log.wal.append(Pending(tail("first"), "token"))
    disk.gate.release()  # the new segment's header
    assert disk.waiting.acquire(timeout=PATIENCE_S)
    assert disk.waiting.acquire(timeout=PATIENCE_S)
    assert log._answers.empty()
    for text in "abc":
        log.wal.append(Pending(tail(text), text))
    disk.gate.release()
    assert [one.token for one in log.answer()] == ["token"]
    assert disk.waiting.acquire(timeout=PATIENCE_S)
    assert log._answers.empty()
    disk.gate.release(10)
    batch = log.answer()
    assert [(one.token, one.seq, one.durable) for one in batch] == [("a", 2, 1), ("b", 3, 1), ("c", 4, 1)]
    segment = ["write", "fdatasync", "sync_folder"]  # its header and its name, before anything is acknowledged
    assert disk.asked == ["sync_folder", *segment, "write", "fdatasync", "write", "fdatasync"]
    log.close()


def test_a_full_segment_is_sealed_with_the_hash_of_all_before_the_footer(tmp_path: Path) -> None:
    log = Log(tmp_path, segment_bytes=900)
    log.say(*"abcdefgh")
    log.close()
    segments = log.wal.segments()
    assert len(segments) > 2
    for segment, after in itertools.pairwise(segments):
        assert after.base == (segment.last or 0) + 1
        data = (log.dir / f"{segment.base:016d}.wal").read_bytes()
        assert len(data) == segment.bytes
        body, footer = data[: data.rindex(b"\n", 0, -1) + 1], json.loads(data.splitlines()[-1][83:])
        assert footer["sha256"] == sha256(body).hexdigest()
        assert (footer["last_seq"], footer["count"]) == (segment.last, after.base - segment.base)
    assert segments[-1] == Segment(segments[-1].base, None, last_file(tmp_path).stat().st_size)


def test_a_header_says_what_the_segment_builds_on_and_who_writes_it(tmp_path: Path) -> None:
    log = Log(tmp_path, segment_bytes=900)
    written = log.say(*"abcdefgh")
    log.close()
    base = log.wal.segments()[1].base
    header = json.loads((log.dir / f"{base:016d}.wal").read_bytes().splitlines()[0][83:])
    assert header == {
        "segment": 1,
        "base_seq": base,
        "base_sha": written[base - 2].checksum,
        "epoch": 1,
        "writer": header["writer"],
        "created": int(log.clock.now() * 1000),
    }
    assert len(header["writer"]) == 26


def test_a_log_goes_on_in_its_last_segment_after_it_was_closed_or_killed(tmp_path: Path) -> None:
    log = Log(tmp_path / "a")
    log.say("one", "two")
    root = copy(tmp_path / "a", tmp_path / "b")
    log.close()
    for here in (tmp_path / "a", root):
        again = Log(here)
        again.say("three")
        again.close()
        assert served(here) == [1, 2, 3]
        assert len(again.wal.segments()) == 1
        assert verify(DISK, here / "wal").ok


def test_a_log_that_was_killed_between_two_segments_begins_the_next(tmp_path: Path) -> None:
    log = Log(tmp_path, segment_bytes=900)
    log.say(*"abcd")
    log.close()
    last_file(tmp_path).unlink()  # sealed, and the next not yet begun
    again = Log(tmp_path, segment_bytes=900)
    again.say("x")
    again.close()
    assert (tmp_path / "wal" / f"{1:016d}.wal").read_bytes().count(b'{"sealed":') == 1
    assert served(tmp_path) == list(range(1, again.wal.head.seq + 1))
    assert len(again.wal.segments()) == 2
    assert verify(DISK, tmp_path / "wal").ok


def test_a_quiet_log_says_that_all_of_it_is_durable(tmp_path: Path) -> None:
    disk = WatchedDisk()
    log = Log(tmp_path / "a", disk=disk, quiet_s=0.001)
    log.say("one")
    assert disk.marked.wait(PATIENCE_S)
    root = copy(tmp_path / "a", tmp_path / "killed")
    controls = [found for found in walk(DISK, root / "wal", [1]) if isinstance(found, Control)]
    assert (controls[-1].kind, controls[-1].seq) == ("watermark", 1)
    log.close()


def test_an_idle_log_that_says_so_already_writes_nothing(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.say("one")
    log.close()
    before = last_file(tmp_path).read_bytes()
    again = Log(tmp_path, quiet_s=0.0)
    again.close()
    assert last_file(tmp_path).read_bytes() == before


def test_opening_and_closing_an_empty_log_leaves_no_segment(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.close()
    assert list(log.dir.iterdir()) == []
    assert log.wal.segments() == []
    assert log.wal.error is None


def test_a_recovered_tail_is_made_durable_before_the_log_is_open(tmp_path: Path) -> None:
    log = Log(tmp_path / "a")
    log.say("one")
    root = copy(tmp_path / "a", tmp_path / "b")
    log.close()
    disk = GatedDisk()
    disk.gate.release(10)
    again = Log(root, disk=disk)
    assert disk.asked == ["sync_folder", "fdatasync"]
    again.close()


def test_a_record_is_read_back_from_any_thread(tmp_path: Path) -> None:
    log = Log(tmp_path, segment_bytes=900)
    written = log.say(*"abcdef")
    assert [log.wal.read(one.segment, one.offset, one.length) for one in written] == [one.line for one in written]
    log.close()
    assert log.wal.read(written[0].segment, written[0].offset, written[0].length) == written[0].line


@pytest.mark.parametrize("at", [0, 8, 10, 40, -1])
def test_a_record_whose_frame_is_damaged_is_read_all_the_same(tmp_path: Path, at: int) -> None:
    log = Log(tmp_path)
    written = log.say(*"abcd")
    flip(tmp_path, [part for part in parts(tmp_path) if part.seq == 2][at], 1)
    assert log.wal.read(written[1].segment, written[1].offset, written[1].length) == written[1].line
    log.close()


def test_a_damaged_record_is_never_read(tmp_path: Path) -> None:
    log = Log(tmp_path)
    written = log.say(*"abcd")
    flip(tmp_path, [part for part in parts(tmp_path) if part.seq == 2][120], 1)
    with pytest.raises(Damaged):
        log.wal.read(written[1].segment, written[1].offset, written[1].length)
    log.close()


def test_finished_segments_can_be_dropped_and_the_growing_one_not(tmp_path: Path) -> None:
    log = Log(tmp_path, segment_bytes=900)
    written = log.say(*"abcdef")
    first, *_, last = log.wal.segments()
    log.wal.drop(first.base)
    assert first not in log.wal.segments()
    with pytest.raises(NotFound):
        log.wal.read(written[0].segment, written[0].offset, written[0].length)
    with pytest.raises(NotFound):
        log.wal.drop(first.base)
    with pytest.raises(Conflict):
        log.wal.drop(last.base)
    log.close()
    assert verify(DISK, log.dir).ok


def test_what_is_queued_when_the_log_closes_is_written_and_nothing_is_taken_afterwards(tmp_path: Path) -> None:
    disk = GatedDisk()
    log = Log(tmp_path, disk=disk)
    for text in "abc":
        log.wal.append(Pending(tail(text), text))
    closer = threading.Thread(target=log.close)
    closer.start()
    disk.gate.release(100)
    closer.join(PATIENCE_S)
    answers: list[Written] = []
    while len(answers) < 3:
        answers += log.answer()
    assert [one.token for one in answers] == ["a", "b", "c"]
    with pytest.raises(StorageClosed):
        log.wal.append(Pending(tail("late"), None))
    log.close()
    assert served(tmp_path) == [1, 2, 3]


def test_a_record_beyond_the_limit_is_refused_at_the_door(tmp_path: Path) -> None:
    log = Log(tmp_path)
    with pytest.raises(TooLarge):
        log.wal.append(Pending(b"x" * (RECORD_BYTES + 1), None))
    log.say("on")
    log.close()
    assert served(tmp_path) == [1]


def test_many_threads_append_and_every_record_is_there_once_in_the_order_of_its_seq(tmp_path: Path) -> None:
    log = Log(tmp_path, segment_bytes=20_000)

    def talk(name: int) -> None:
        for n in range(100):
            log.wal.append(Pending(tail(f"{name} {n}"), (name, n)))

    threads = [threading.Thread(target=talk, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    written: list[Written] = []
    while len(written) < 400:
        written += log.answer()
    log.close()
    assert [one.seq for one in written] == list(range(1, 401))
    assert [one.id for one in written] == sorted(one.id for one in written)
    for name in range(4):
        assert [one.token[1] for one in written if one.token[0] == name] == list(range(100))
    assert served(tmp_path) == list(range(1, 401))


def test_only_the_owner_may_read_a_segment(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.say("private")
    log.close()
    assert os.stat(last_file(tmp_path)).st_mode & 0o777 == 0o600
