import os
import subprocess
import sys
from pathlib import Path

import pytest

from persistence.errors import Locked
from persistence.lock import LOCK, hold

HOLDER = """
import sys
from pathlib import Path
from persistence.lock import hold
lock = hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def holder(wal_dir: Path) -> subprocess.Popen[str]:
    """A process that holds the lock until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(wal_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.slow
def test_a_second_process_is_refused_and_told_who_holds_the_log_until_that_one_is_killed(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        with pytest.raises(Locked) as caught:
            hold(tmp_path)
        assert f"process {first.pid} since 2" in caught.value.message
        assert str(tmp_path) in caught.value.message
        assert caught.value.hint
        first.kill()
        first.wait()
        hold(tmp_path).release()


def test_a_lock_file_that_names_our_own_pid_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(f'{{"pid": {os.getpid()}}}\n')
    hold(tmp_path).release()
    hold(tmp_path).release()


@pytest.mark.parametrize("note", ["", "not json", '{"pid": null}', "[]", "x" * 9000])
def test_whatever_stands_in_the_lock_file_the_refusal_is_a_sentence(tmp_path: Path, note: str) -> None:
    lock = hold(tmp_path)
    (tmp_path / LOCK).write_text(note)
    with pytest.raises(Locked, match="another process since"):
        hold(tmp_path)
    lock.release()


def test_a_child_that_outlives_us_does_not_keep_the_lock(tmp_path: Path) -> None:
    lock = hold(tmp_path)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as child:
        lock.release()
        hold(tmp_path).release()
        child.kill()


def test_a_refused_process_leaves_the_holder_s_note_alone(tmp_path: Path) -> None:
    lock = hold(tmp_path)
    before = (tmp_path / LOCK).read_bytes()
    with pytest.raises(Locked):
        hold(tmp_path)
    assert (tmp_path / LOCK).read_bytes() == before
    lock.release()
