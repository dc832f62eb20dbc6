"""What computes, and does not wait, in a process of its own while this one goes on.

    apart(act) ─▶ a copy of this process: act() ─▶ its value ──┐
    goes on with something else ─────────────────▶ ask() ◀─────┘     every error is the one that asks

A copy is made only where it is safe and pays: no other thread runs here, and there is a second processor. Else, and
where the copy could not do it, `act` is called when somebody asks. The copy may only read.
"""

import gc
import os
import pickle
import select
import threading
from collections.abc import Callable
from typing import NoReturn, TypeVar

from scheduler.patience import Silent

T = TypeVar("T")

PATIENCE_S = 600.0  #: for a copy; one that takes longer hangs


def hands() -> int:
    """How many processes can do something at the same time."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def apart(act: Callable[[], T], patience_s: float = PATIENCE_S) -> Callable[[], T]:
    """What to ask for the value. It raises what `act` raises, and Silent, once, where the copy died or hangs."""
    if hands() < 2 or threading.active_count() > 1:
        return act
    try:
        reading, writing = os.pipe()
        process = os.fork()
    except OSError:  # no room for another process
        return act
    if process == 0:
        _say(act, writing)
    os.close(writing)

    unheard = [process]

    def ask() -> T:
        told = _heard(unheard.pop(), reading, patience_s) if unheard else None
        return act() if told is None else pickle.loads(told)  # noqa: S301 - said by a copy of this process

    return ask


def _say(act: Callable[[], object], writing: int) -> NoReturn:
    """The life of the copy. Nothing of what this process has open is flushed or closed a second time."""
    gc.disable()
    done = 1
    try:
        with open(writing, "wb") as out:
            out.write(pickle.dumps(act()))
        done = 0
    finally:
        os._exit(done)  # also past an error: who asks calls `act` itself and meets it there


def _heard(process: int, reading: int, patience_s: float) -> bytes | None:
    """All that a copy said, when it has ended; None where it met an error. Raises Silent."""
    parts = [b""]
    while select.select([reading], [], [], patience_s)[0]:
        parts.append(os.read(reading, 1 << 20))
        if not parts[-1]:
            break
    else:
        os.kill(process, 9)
    os.close(reading)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if code < 0:
        raise Silent(
            f"the process that looked at this ended with signal {-code} and said nothing",
            hint="see whether there is memory for it, then look again",
        )
    return b"".join(parts) if code == 0 else None
