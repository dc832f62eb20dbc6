"""A call that hangs holds up nobody but the calls behind it."""

import asyncio
import subprocess
import sys
import threading

import pytest

from gateway.threads import Thread


async def test_what_a_call_returns_or_raises_comes_back() -> None:
    thread = Thread("finn-test")
    assert await thread.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await thread.run(divmod, 7, 0)
    thread.end()


async def test_calls_are_made_in_their_order_and_by_one_thread() -> None:
    thread, made = Thread("finn-test"), list[tuple[int, int]]()

    def make(n: int) -> None:
        made.append((n, threading.get_ident()))

    await asyncio.gather(*(thread.run(make, n) for n in range(20)))
    assert [n for n, _ in made] == list(range(20))
    assert len({ident for _, ident in made}) == 1
    thread.end()


async def test_there_is_no_thread_before_the_first_call() -> None:
    before = threading.active_count()
    Thread("finn-test")
    assert threading.active_count() == before


async def test_who_stops_waiting_leaves_the_call_to_itself() -> None:
    thread, gate, ended = Thread("finn-test"), threading.Event(), threading.Event()

    def hangs() -> None:
        gate.wait()
        ended.set()

    waiting = asyncio.create_task(thread.run(hangs))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    assert await thread.run(ended.is_set)
    thread.end()


async def test_calls_that_nobody_waits_for_any_more_are_not_made() -> None:
    thread, gate, made = Thread("finn-test"), threading.Event(), list[str]()
    hanging = asyncio.create_task(thread.run(gate.wait))
    attempts = [asyncio.create_task(thread.run(made.append, "given up")) for _ in range(3)]
    await asyncio.sleep(0)
    for attempt in (hanging, *attempts):
        attempt.cancel()
    await asyncio.wait([hanging, *attempts])
    last = asyncio.create_task(thread.run(made.append, "wanted"))
    await asyncio.sleep(0)
    gate.set()
    await last
    assert made == ["wanted"]
    thread.end()


def test_a_call_that_hangs_does_not_hold_up_the_end_of_the_process() -> None:
    program = """
import asyncio, threading
from gateway.threads import Thread
async def main():
    hanging = asyncio.create_task(Thread("finn-test").run(threading.Event().wait))
    await asyncio.sleep(0)
    hanging.cancel()
asyncio.run(main())
print("ended")
"""
    child = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=20, check=True
    )
    assert child.stdout == "ended\n"
