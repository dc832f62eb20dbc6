"""The reader of the beads' file: whatever the bytes are, it ends, raises nothing, and loses no line that is sound."""

import random

import pytest

from persistence.issues import LINE_BYTES, read, written
from tests.conftest import count
from tests.persistence.beads import REAL, bead

FILE = "".join(f"{line}\n" for line in sorted(REAL)).encode()
WHOLE = read(FILE)


def test_a_mark_and_the_line_ends_of_windows_are_let_pass() -> None:
    found = read(b"\xef\xbb\xbf" + FILE.replace(b"\n", b"\r\n\r\n"))
    assert (found.beads, found.faults) == (WHOLE.beads, ())


def test_of_two_lines_with_one_id_the_last_one_counts_and_that_is_told() -> None:
    first, last = bead("bd-1", title="first"), bead("bd-1", title="last")
    found = read(f"{first.line}\n{last.line}\n".encode())
    assert found.beads == {"bd-1": last}
    assert found.faults == ("line 2 has the id bd-1 once more; the last one counts",)


@pytest.mark.parametrize("mark", ["<<<<<<< HEAD", "=======", ">>>>>>> theirs"])
def test_a_merge_that_was_not_finished_is_no_file(mark: str) -> None:
    found = read(FILE + f"{mark}\n".encode())
    assert (found.conflict, found.beads) == (True, {})


def test_lines_of_bd_that_are_no_beads_are_kept_behind_the_beads() -> None:
    memory, schema = '{"_type":"memory","key":"x"}', '{"_schema":"beads","v":1}'
    found = read(f"{memory}\n{REAL[0]}\n{schema}\n".encode())
    assert (found.others, found.faults) == ((memory, schema), ())
    assert written(found.beads.values(), found.others).decode() == f"{REAL[0]}\n{memory}\n{schema}\n"


def test_an_issue_that_says_it_is_one_is_a_bead() -> None:
    line = REAL[0][:-1] + ',"_type":"issue"}'
    assert read(line.encode()).beads["bd-104i"].line == line


def test_a_line_beyond_all_measure_is_passed_over() -> None:
    data = FILE + b'{"id":"bd-1","title":"' + b"x" * (LINE_BYTES + 1) + b'"}\n' + REAL[0].encode()
    found = read(data)
    assert found.beads == WHOLE.beads
    assert f"line {len(REAL) + 1} is longer than {LINE_BYTES} bytes" in found.faults


def test_what_is_ephemeral_is_in_no_file() -> None:
    assert written([bead("bd-1", ephemeral=True)]) == b""


def test_whatever_is_done_to_the_bytes_the_lines_that_were_not_touched_are_read(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(count(2000, 100_000)):
        data, touched = hurt(rng, FILE)
        found = read(data)
        assert read(written(found.beads.values(), found.others)).faults == (), data
        if not found.conflict:
            for number, name in enumerate(sorted(WHOLE.beads)):
                assert number in touched or name in found.beads, data


def hurt(rng: random.Random, data: bytes) -> tuple[bytes, set[int]]:
    """The bytes with something done to them, and the lines it was done to."""
    at = rng.randrange(len(data))
    line = data[:at].count(b"\n")
    match rng.randrange(6):
        case 0:
            return data[:at], set(range(line, len(REAL)))
        case 1:
            return data[:at] + rng.randbytes(1) + data[at + 1 :], {line, line + 1}
        case 2:
            return data[:at] + b"\0" * rng.randint(1, 5) + data[at:], {line}
        case 3:
            end = min(len(data), at + rng.randint(1, 300))
            return data[:at] + data[end:], set(range(line, data[:end].count(b"\n") + 1))
        case 4:
            return data[:at] + rng.choice(PIECES) + data[at:], {line, line + 1}
        case _:
            return data[:at] + data[rng.randrange(len(data)) :][:200] + data[at:], {line, line + 1}


PIECES = (b"\n", b'"', b"\\", b"{", b"[" * 50, b"\xff", b"\xed\xa0\x80", b"1e999", b"NaN", b"\r", b",", b"\xef\xbb\xbf")
