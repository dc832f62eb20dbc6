import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.disk import SystemDisk
from persistence.errors import StorageError
from persistence.frame import GENESIS, PREFIX_BYTES, encode
from persistence.recovery import Gap, Report, inspect, repair, verify
from persistence.scan import BLOCK_BYTES, Good, scan, segment_name
from persistence.wal import Head
from tests.conftest import count
from tests.persistence.logs import (
    FaultyDisk,
    Log,
    LookingDisk,
    Part,
    copy,
    flip,
    gap,
    last_file,
    lines,
    parts,
    served,
    tail,
)

DISK = SystemDisk()
SMALL = 900  # bytes of a segment: three records


def look(root: Path) -> Report:
    return inspect(DISK, root / "wal")


def mend(root: Path) -> None:
    repair(DISK, root / "wal", root / "quarantine", look(root))


def built(root: Path, records: int, segment_bytes: int = SMALL) -> Path:
    """A log that was closed properly."""
    log = Log(root, segment_bytes=segment_bytes)
    log.say(*(f"text {n}" for n in range(1, records + 1)))
    log.close()
    return root


def killed(root: Path, target: Path, records: int, segment_bytes: int = SMALL) -> Path:
    """A log whose process was killed right after the last acknowledgement: no watermark."""
    log = Log(root, segment_bytes=segment_bytes)
    log.say(*(f"text {n}" for n in range(1, records + 1)))
    copy(root, target)
    log.close()
    return target


def declare(root: Path) -> None:
    """What the journal does with the losses that recovery reports."""
    log = Log(root)
    log.add(*(gap(one.first, one.last) for one in log.repaired.gaps))
    log.close()


def test_a_log_that_never_began_is_empty_and_in_order(tmp_path: Path) -> None:
    assert look(tmp_path) == Report(Head(0, GENESIS, 0), None, 0, (), (), ())
    assert verify(DISK, tmp_path / "wal").ok
    assert list(tmp_path.iterdir()) == []


def test_a_closed_log_is_wholly_durable_and_proves_itself(tmp_path: Path) -> None:
    built(tmp_path, 10)
    verdict = verify(DISK, tmp_path / "wal")
    assert (verdict.ok, verdict.last_seq, verdict.first_bad_seq, verdict.gaps) == (True, 10, None, ())
    assert look(tmp_path).head.durable == 10


# ---------------------------------------------------------------- cuts


@pytest.mark.parametrize("closed", [True, False])
def test_a_last_record_cut_at_any_byte_costs_only_itself_and_the_log_goes_on(tmp_path: Path, closed: bool) -> None:
    root = built(tmp_path / "a", 4) if closed else killed(tmp_path / "a", tmp_path / "k", 4)
    file = last_file(root)
    last = [found for found in scan(DISK, root / "wal") if isinstance(found, Good)][-1]
    whole = file.read_bytes()
    for size in range(last.offset, last.offset + last.length):
        here = copy(root, tmp_path / str(size))
        last_file(here).write_bytes(whole[:size])
        log = Log(here)
        assert served(here) == [1, 2, 3]
        assert log.repaired.gaps == ()
        assert log.repaired.torn_bytes == size - last.offset
        log.say("five", "six")
        log.close()
        again = Log(here)
        again.close()
        assert served(here) == [1, 2, 3, 4, 5]
        assert lines(here)[-1].endswith(b'"six"}}')
        assert verify(DISK, here / "wal").ok


def test_a_new_segment_whose_header_was_cut_is_begun_again(tmp_path: Path) -> None:
    root = built(tmp_path / "a", 4)
    header = last_file(root).read_bytes().index(b"\n") + 1
    for size in range(header):
        here = copy(root, tmp_path / str(size))
        file = last_file(here)
        file.write_bytes(file.read_bytes()[:size])
        log = Log(here)
        log.say("again")
        log.close()
        assert last_file(here).read_bytes()[PREFIX_BYTES:].startswith(b'{"segment":')
        assert served(here) == [1, 2, 3, 4]
        assert verify(DISK, here / "wal").ok


def test_a_torn_tail_is_in_quarantine_with_a_note_before_it_is_cut_off(tmp_path: Path) -> None:
    root = built(tmp_path, 2)
    with last_file(root).open("ab") as file:
        file.write(b"00000051 7a3f09c1 torn")
    report = look(root)
    assert report.torn is not None
    assert report.torn_bytes == 22
    done = repair(DISK, root / "wal", root / "quarantine", report)
    assert (root / "quarantine" / done.torn).read_bytes() == b"00000051 7a3f09c1 torn"
    assert '"offset"' in (root / "quarantine" / f"{done.torn}.json").read_text()
    assert look(root).torn is None


def test_a_torn_tail_is_no_fault_while_another_process_may_be_writing_it(tmp_path: Path) -> None:
    root = built(tmp_path, 2)
    with last_file(root).open("ab") as file:
        file.write(b"000000")
    verdict = verify(DISK, root / "wal")
    assert (verdict.ok, verdict.last_seq) == (True, 2)


# ---------------------------------------------------------------- flips


def check_flip(root: Path, part: Part, seqs: list[int]) -> None:
    report, verdict = look(root), verify(DISK, root / "wal")
    lost = part.part == "json" and part.seq is not None
    assert served(root) == [seq for seq in seqs if not (lost and seq == part.seq)], part
    assert verdict.ok is False, part
    assert verdict.last_seq == seqs[-1], part
    assert verdict.first_bad_seq == part.seq, part
    assert report.torn is None, part
    assert [(one.first, one.last) for one in report.lost] == ([(part.seq, part.seq)] if lost else []), part
    if part.seq is None:
        assert any(one.control == part.control for one in report.damage), (part, report.damage)


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(count(2, 40)))
def test_any_flipped_byte_is_found_and_costs_at_most_its_record(tmp_path: Path, seed: int, round_: int) -> None:
    root = built(tmp_path, 7)
    dice = random.Random(f"{seed} {round_}")
    seqs = served(root)
    files = {part.segment: (root / "wal" / segment_name(part.segment)).read_bytes() for part in parts(root)}
    for part in parts(root):
        byte = files[part.segment][part.offset]
        mask = dice.choice([1, 32, dice.randrange(1, 256), byte ^ 10 or 1, byte or 1])  # also a line feed, also zero
        flip(root, part, mask)
        check_flip(root, part, seqs)
        flip(root, part, mask)
    assert verify(DISK, root / "wal").ok


def test_a_lost_record_is_declared_once_and_then_explains_itself(tmp_path: Path) -> None:
    root = built(tmp_path / "a", 7)
    for seq in served(root):
        part = [part for part in parts(root) if part.seq == seq and part.part == "json"][40]
        here = copy(root, tmp_path / str(seq))
        flip(here, part, 1)
        assert verify(DISK, here / "wal").first_bad_seq == seq
        declare(here)
        verdict = verify(DISK, here / "wal")
        assert (verdict.ok, verdict.first_bad_seq, verdict.gaps) == (True, None, ((seq, seq),)), verdict
        assert look(here).lost == ()
        assert served(here) == [one for one in range(1, 9) if one != seq]


def test_a_loss_keeps_its_bytes_in_place_and_in_quarantine_and_says_what_follows(tmp_path: Path) -> None:
    root = built(tmp_path, 7)
    second = [found for found in scan(DISK, root / "wal") if isinstance(found, Good)][1]
    flip(root, [part for part in parts(root) if part.seq == 2 and part.part == "json"][40], 1)
    before = {path: path.read_bytes() for path in (root / "wal").iterdir()}
    done = repair(DISK, root / "wal", root / "quarantine", look(root))
    (lost,) = done.gaps
    assert lost == Gap(2, 2, second.checksum, lost.quarantine)
    assert len((root / "quarantine" / lost.quarantine).read_bytes()) == second.length
    assert before == {path: path.read_bytes() for path in (root / "wal").iterdir()}


@pytest.mark.slow
def test_a_flip_in_the_last_batch_before_any_watermark_is_never_dropped_in_silence(tmp_path: Path, seed: int) -> None:
    root = killed(tmp_path / "a", tmp_path / "k", 5)
    dice = random.Random(seed)
    for part in [one for one in parts(root) if one.seq == 5]:
        here = copy(root, tmp_path / str(part.offset))
        mask = dice.randrange(1, 256)
        flip(here, part, mask)
        log = Log(here)
        log.say("on")
        log.close()
        lost = part.part == "json"
        assert [(one.first, one.last) for one in log.repaired.gaps] == ([(5, 5)] if lost else []), part
        assert served(here) == ([1, 2, 3, 4, 6] if lost else [1, 2, 3, 4, 5, 6]), part  # seq 5 is not given again
        assert verify(DISK, here / "wal").first_bad_seq == 5
        if lost:
            assert (here / "quarantine" / log.repaired.gaps[0].quarantine).exists()


@pytest.mark.parametrize("seq", [1, 2, 3, 4, 5, 6])  # the first, the middle and the last of a segment
def test_a_record_taken_out_of_the_log_is_missed_and_nothing_else_is(tmp_path: Path, seq: int) -> None:
    root = built(tmp_path, 7)
    gone = [found for found in scan(DISK, root / "wal") if isinstance(found, Good)][seq - 1]
    file = root / "wal" / f"{gone.segment:016d}.wal"
    data = file.read_bytes()
    file.write_bytes(data[: gone.offset] + data[gone.offset + gone.length :])
    assert [(one.kind, one.first, one.last) for one in look(root).damage] == [("missing", seq, seq)]
    assert served(root) == [one for one in range(1, 8) if one != seq]
    declare(root)
    verdict = verify(DISK, root / "wal")
    assert (verdict.ok, verdict.gaps) == (True, ((seq, seq),)), verdict


def test_a_gap_that_is_declared_for_some_of_the_lost_records_does_not_explain_the_others(tmp_path: Path) -> None:
    log = Log(tmp_path)
    _, second, third, *_ = log.say(*"abcde")
    log.add(gap(3, 3))
    log.close()
    data = last_file(tmp_path).read_bytes()
    last_file(tmp_path).write_bytes(data[: second.offset] + data[third.offset + third.length :])
    verdict = verify(DISK, tmp_path / "wal")
    assert (verdict.ok, verdict.first_bad_seq) == (False, 2)
    assert [(one.first, one.last) for one in look(tmp_path).lost] == [(2, 3)]
    log = Log(tmp_path)
    log.add(gap(2, 2))
    log.close()
    assert verify(DISK, tmp_path / "wal").ok


def test_a_line_feed_inside_the_last_record_makes_no_two_of_it(tmp_path: Path) -> None:
    root = killed(tmp_path / "a", tmp_path / "k", 5)
    last_file(root).write_bytes(last_file(root).read_bytes().replace(b'"text 5"', b'"text\n5"'))
    assert [(one.first, one.last) for one in look(root).lost] == [(5, 5)]
    assert look(root).head.seq == 5


def test_a_record_that_was_put_in_twice_is_served_once_and_reported(tmp_path: Path) -> None:
    root = built(tmp_path, 7)
    third = [found for found in scan(DISK, root / "wal") if isinstance(found, Good)][2]
    file = root / "wal" / f"{third.segment:016d}.wal"
    data = file.read_bytes()
    end = third.offset + third.length
    file.write_bytes(data[:end] + data[third.offset : end] + data[end:])
    assert served(root) == [1, 2, 3, 4, 5, 6, 7]
    assert verify(DISK, root / "wal").first_bad_seq == 3


def test_a_segment_that_is_gone_is_missed(tmp_path: Path) -> None:
    root = built(tmp_path, 10)
    first = sorted((root / "wal").glob("*.wal"))[1]
    first.unlink()
    (missing,) = look(root).lost
    assert missing.first == int(first.stem)
    assert missing.kind == "missing"


def test_a_segment_that_was_pruned_is_not_missed(tmp_path: Path) -> None:
    root = built(tmp_path, 10)
    sorted((root / "wal").glob("*.wal"))[0].unlink()
    verdict = verify(DISK, root / "wal")
    assert (verdict.ok, verdict.last_seq) == (True, 10)


def test_a_log_that_ends_before_what_a_snapshot_knows_has_lost_records(tmp_path: Path) -> None:
    root = built(tmp_path, 7)
    last_file(root).unlink()
    left = served(root)[-1]
    report = inspect(DISK, root / "wal", known=Head(7, GENESIS, 7))
    assert [(one.kind, one.first, one.last) for one in report.lost] == [("missing", left + 1, 7)]
    assert report.head.seq == 7


def test_words_that_only_look_like_a_declared_gap_declare_nothing(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.add(b'"type":"note","v":1,"data":{"type":"gap_declared","first":1,"last":9,"data":{"first":1,"last":9}}}')
    log.close()
    assert look(tmp_path).declared == ()


# ---------------------------------------------------------------- power cuts


def test_good_lines_behind_a_hole_that_was_never_synced_are_part_of_the_torn_tail(tmp_path: Path) -> None:
    root = killed(tmp_path / "a", tmp_path / "k", 3, segment_bytes=1 << 20)
    batch, _ = unsynced(look(root).head, 8, 400)
    file = last_file(root)
    data = file.read_bytes()
    start = -(-len(data) // BLOCK_BYTES) * BLOCK_BYTES
    whole = data + b"".join(batch)
    file.write_bytes(whole[:start] + bytes(BLOCK_BYTES) + whole[start + BLOCK_BYTES :])
    report = look(root)
    assert report.torn is not None
    assert report.lost == ()
    mend(root)
    assert served(root)[:3] == [1, 2, 3]
    assert served(root) == list(range(1, look(root).head.seq + 1))
    assert verify(DISK, root / "wal").ok


@pytest.mark.parametrize("closed", [True, False])
def test_the_same_hole_in_what_was_durable_is_a_loss(tmp_path: Path, closed: bool) -> None:
    log = Log(tmp_path / "a")
    log.say(*("x" * 1200 for _ in range(4)))
    killed_here = copy(tmp_path / "a", tmp_path / "k")
    log.close()
    root = tmp_path / "a" if closed else killed_here  # then only the fourth record says that the second was durable
    file = last_file(root)
    data = file.read_bytes()
    file.write_bytes(data[:2048] + bytes(BLOCK_BYTES) + data[2048 + BLOCK_BYTES :])
    report = look(root)
    assert report.torn is None
    assert [(one.first, one.last) for one in report.lost] == [(2, 2)]
    assert served(root) == [1, 3, 4]


def unsynced(head: Head, records: int, size: int) -> tuple[list[bytes], list[bytes]]:
    """The frames and lines of a batch that was written but not synced."""
    frames, written, digest = [], [], head.checksum
    for seq in range(head.seq + 1, head.seq + 1 + records):
        place = b'{"seq":%d,"id":"%026d","ts":1,"epoch":1,"d":%d,' % (seq, seq, head.seq)
        written.append(place + tail("y" * size))
        frame, digest = encode(written[-1], digest)
        frames.append(frame)
    return frames, written


@given(data=st.data(), records=st.integers(1, 6), size=st.integers(1, 900))
def test_after_a_power_cut_the_log_is_what_was_durable_and_a_beginning_of_the_rest(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, records: int, size: int
) -> None:
    base = tmp_path_factory.mktemp("power")
    root = killed(base / "a", base / "k", data.draw(st.integers(1, 4)), segment_bytes=1 << 20)
    durable = lines(root)
    frames, batch = unsynced(look(root).head, records, size)
    file = last_file(root)
    synced = len(file.read_bytes())
    whole = bytearray(file.read_bytes() + b"".join(frames))
    for block in range(synced // BLOCK_BYTES, len(whole) // BLOCK_BYTES + 1):
        if data.draw(st.booleans()):  # this block never reached the medium
            start, end = max(synced, block * BLOCK_BYTES), min(len(whole), (block + 1) * BLOCK_BYTES)
            whole[start:end] = bytes(end - start)
    file.write_bytes(whole[: data.draw(st.integers(synced, len(whole)))])
    report = look(root)
    assert report.lost == ()
    mend(root)
    now = lines(root)
    assert now[: len(durable)] == durable
    assert now[len(durable) :] == batch[: len(now) - len(durable)]
    assert verify(DISK, root / "wal").ok


@given(data=st.data())
def test_whatever_is_appended_and_cut_the_recovered_log_is_a_beginning_of_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("cuts")
    written: list[bytes] = []
    for _ in range(data.draw(st.integers(1, 4))):
        log = Log(root, segment_bytes=data.draw(st.sampled_from([300, 1500, 10 << 20])))
        sizes = data.draw(st.lists(st.integers(0, 700), max_size=6))
        written += [one.line for one in log.say(*("z" * size for size in sizes))]
        if data.draw(st.booleans()):
            log.close()
            image = root
        else:
            image = copy(root, tmp_path_factory.mktemp("crash") / "image")
            log.close()
        if data.draw(st.booleans()) and written:
            file = last_file(image)
            file.write_bytes(file.read_bytes()[: data.draw(st.integers(0, file.stat().st_size))])
        root = image
        mend(root)
        now = lines(root)
        assert now == written[: len(now)]
        assert verify(DISK, root / "wal").ok
        assert look(root).lost == ()
        written = now


# ---------------------------------------------------------------- repair itself


def broken(root: Path) -> Path:
    """A log with a loss in a sealed segment, a flaw, and a torn tail."""
    built(root, 10)
    flip(root, [part for part in parts(root) if part.seq == 2 and part.part == "json"][40], 4)
    with last_file(root).open("ab") as file:
        file.write(b"0000")
    return root


def test_repair_fails_at_any_call_and_the_next_one_comes_to_the_same_end(tmp_path: Path) -> None:
    root = broken(tmp_path / "a")
    straight = copy(root, tmp_path / "straight")
    expected = repair(DISK, straight / "wal", straight / "quarantine", look(straight))
    disk = FaultyDisk()
    failures = 0
    while failures == disk.nth:
        disk = FaultyDisk(nth=disk.nth + 1)
        here = copy(root, tmp_path / str(disk.nth))
        try:
            repair(disk, here / "wal", here / "quarantine", look(here))
        except StorageError:
            failures += 1
        again = look(here)
        done = repair(DISK, here / "wal", here / "quarantine", again)
        assert (done.head, done.gaps) == (expected.head, expected.gaps)
        assert {path.name: path.read_bytes() for path in (here / "wal").iterdir()} == {
            path.name: path.read_bytes() for path in (straight / "wal").iterdir()
        }
        assert {path.name for path in (straight / "quarantine").iterdir()} <= {
            path.name for path in (here / "quarantine").iterdir()
        }
    assert failures > 10


def test_a_second_repair_finds_nothing_to_cut(tmp_path: Path) -> None:
    root = broken(tmp_path)
    mend(root)
    after = {path: path.read_bytes() for path in (root / "wal").iterdir()}
    report = look(root)
    assert (report.torn, report.torn_bytes) == (None, 0)
    mend(root)
    assert after == {path: path.read_bytes() for path in (root / "wal").iterdir()}


def test_looking_changes_nothing_and_opens_nothing_for_writing(tmp_path: Path) -> None:
    root = broken(tmp_path / "a")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    disk = LookingDisk()
    inspect(disk, root / "wal")
    verify(disk, root / "wal")
    list(scan(disk, root / "wal"))
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    verify(disk, tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
