"""The first process of a container, run as PID 1 of a namespace of its own."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="a PID namespace takes root and util-linux"
)

ROOT = Path(__file__).parent.parent.parent
NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc")
PREFACE = """
import os, signal, subprocess, sys, threading
from pathlib import Path
from gateway.first import beside, is_first

def state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None

def orphan():
    "The number of a process whose parent is dead; it ends when its input does."
    source, end = os.pipe()
    told = subprocess.run(
        ["sh", "-c", "setsid sh -c 'read line' <&%d >&- & echo $!" % source], pass_fds=[source], stdout=subprocess.PIPE
    )
    os.close(source)
    return int(told.stdout), end
"""


def started(body: str) -> subprocess.Popen[str]:
    """`run`, as the body defines it, beside PID 1."""
    program = f"{PREFACE}\n{body}\nassert is_first()\nsys.exit(beside(run))"
    command = [*NAMESPACE, sys.executable, "-c", program]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(body: str) -> tuple[int, str]:
    with started(body) as process:
        said, _ = process.communicate(timeout=20)
    return process.returncode, said


def test_the_exit_code_is_that_of_what_it_runs() -> None:
    assert ended("def run(): return 7") == (7, "")


def test_what_is_killed_counts_as_a_shell_counts_it() -> None:
    assert ended("def run(): os.kill(os.getpid(), signal.SIGKILL)") == (137, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_first_process_reaches_finn_once(number: signal.Signals) -> None:
    body = f"""
def run():
    signal.pthread_sigmask(signal.SIG_BLOCK, [{int(number)}])
    os.kill(1, {int(number)})
    print(signal.sigwait([{int(number)}]) == {int(number)}, signal.sigtimedwait([{int(number)}], 0.05), flush=True)
    return 0
"""
    assert ended(body) == (0, "True None\n")


def test_finn_is_in_another_session_so_that_the_terminal_does_not_signal_it_as_well() -> None:
    body = "def run():\n    print(os.getsid(0) == os.getpid(), os.getppid())\n    return 0"
    assert ended(body) == (0, "True 1\n")


def test_an_orphan_that_ends_leaves_the_table_of_processes() -> None:
    body = """
def run():
    found = [orphan() for _ in range(20)]
    print(all(state(pid)[1] == "1" for pid, _ in found))
    for _, end in found:
        os.close(end)
    while any(state(pid) for pid, _ in found):
        os.sched_yield()
    return 0
"""
    assert ended(body) == (0, "True\n")


def test_no_exit_code_is_taken_from_who_waits_for_it() -> None:
    body = """
def run():
    codes = []
    for number in range(100):
        _, end = orphan()
        os.close(end)
        codes.append(subprocess.run(["sh", "-c", f"exit {number}"]).returncode)
    print(codes == list(range(100)))
    return 0
"""
    assert ended(body) == (0, "True\n")
