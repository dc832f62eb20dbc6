"""A loop that stalls ends its process; one that is slow, or was stopped with it, does not."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LOOK_S = 0.05
LIMIT_S = 20

# A process whose loop is watched. The first argument is what the loop does; each line on stdout is a moment of its.
PROGRAM = f"""
import asyncio, sys, threading
from gateway.logs import logging_to
from persistence.clock import SystemClock
from scheduler import watchdog
watchdog.LOOK_S, watchdog.PATIENCE = {LOOK_S}, 10

def hang():
    threading.Event().wait()

async def turn():
    for _ in range(25):
        await asyncio.sleep({LOOK_S})

async def main(last_lines):
    watching = asyncio.create_task(watchdog.Watchdog(SystemClock(), last_lines).watch())
    await asyncio.sleep(0)
    print("watched", flush=True)
    if "stopped" in sys.argv:
        await asyncio.to_thread(sys.stdin.readline)
    await turn()
    if "hang" in sys.argv:
        hang()
    watching.cancel()
    await asyncio.wait([watching])
    if "after" in sys.argv:
        threading.Event().wait(20 * {LOOK_S})
    print("ended", flush=True)

with logging_to(sys.stderr, "info", str) as last_lines:
    if "deaf" in sys.argv:
        last_lines = threading.Event().wait
        watchdog.LAST_WORDS_S = 0.1
    asyncio.run(main(lambda: (last_lines(), print("written", flush=True))))
"""


@contextmanager
def process(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    child = subprocess.Popen([sys.executable, "-P", "-c", PROGRAM, *arguments], text=True, **pipes)  # type: ignore[call-overload]
    try:
        assert child.stdout.readline() == "watched\n"
        yield child
    finally:
        child.kill()
        child.communicate()


def test_a_loop_that_hangs_ends_the_process_and_says_where_it_hangs() -> None:
    with process("hang") as child:
        said, told = child.communicate(timeout=LIMIT_S)
    line = json.loads(told.splitlines()[-1])
    assert (child.returncode, said) == (1, "written\n")
    assert (line["level"], line["msg"]) == ("critical", "the event loop has stalled, so this process ends")
    assert any(frame.endswith(" hang") for frame in line["trace"]), line


def test_a_process_ends_even_if_it_cannot_say_why() -> None:
    with process("hang", "deaf") as child:
        child.communicate(timeout=LIMIT_S)
    assert child.returncode == 1


def test_a_loop_that_turns_is_left_alone() -> None:
    with process() as child:
        assert child.communicate(timeout=LIMIT_S) == ("ended\n", "")
    assert child.returncode == 0


def test_a_loop_that_is_no_longer_watched_may_take_its_time() -> None:
    with process("after") as child:
        assert child.communicate(timeout=LIMIT_S) == ("ended\n", "")


def test_a_process_that_was_stopped_for_long_goes_on() -> None:
    with process("stopped") as child:
        child.send_signal(signal.SIGSTOP)
        os.waitpid(child.pid, os.WUNTRACED)
        stopped_for_long = subprocess.run([sys.executable, "-c", f"import time; time.sleep({LOOK_S * 20})"], check=True)
        assert stopped_for_long.returncode == 0
        child.send_signal(signal.SIGCONT)
        assert child.communicate("go\n", timeout=LIMIT_S) == ("ended\n", "")
    assert child.returncode == 0
