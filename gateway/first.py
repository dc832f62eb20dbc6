"""The first process of a container: it hands signals on to finn, which is its child, and reaps what nobody waits for.

    PID 1 ── fork ─▶ finn, in a session of its own ── bash, git ─▶ their children
      ├─ a signal ─▶ finn gets it                                       │ orphaned
      └─ a child has ended ─▶ reaped ◀──────────────────────────────────┘
           └─ it was finn ─▶ its exit code is ours, and the kernel ends the rest

The kernel makes PID 1 the parent of every orphan, and a dead one stays in the table of processes until somebody waits
for it. finn does not do that itself: whoever waits for any child takes the exit codes that bash and git wait for.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress

FIRST = 1
HANDED_ON = frozenset(
    {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
)  #: blocked and waited for; of these the kernel would give PID 1 none that it does not ask for
AWAITED = HANDED_ON | {signal.SIGCHLD}


def is_first() -> bool:
    """Whether the orphans here are ours."""
    return os.getpid() == FIRST


def beside(run: Callable[[], int]) -> int:
    """`run` in a child process, and its exit code. To be called while there is one thread and no open socket."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
    child = os.fork()
    if child:
        return _watch(child)
    os.setsid()  # else Ctrl-C would reach finn from the terminal and from us, and two signals are an impatient one
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return run()


def _watch(child: int) -> int:
    while True:
        number = signal.sigwait(AWAITED)
        if number != signal.SIGCHLD:
            os.kill(child, number)  # it is there: nobody else could have reaped it
            continue
        for pid, status in _ended():
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return 128 - code if code < 0 else code


def _ended() -> Iterator[tuple[int, int]]:
    """Every child that has ended; one signal may stand for many."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            yield ended
