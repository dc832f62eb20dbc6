"""What ends a process whose event loop has stalled, so that the platform starts another.

    the loop, each second ─▶ beats ─┐
    a thread, each second ─▶ looks ─┴▶ `PATIENCE` looks and no beat between them ─▶ says where it hangs ─▶ exit 1

Looks are counted, not seconds: a machine that slept and a process that was stopped did not look either, and are not
taken for a stall. What holds the interpreter itself, so that no thread runs at all, is not noticed.
"""

import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable

from persistence.clock import Clock

LOOK_S = 1.0
PATIENCE = 30  #: looks without a beat
LAST_WORDS_S = 5.0  #: to say why; where the loop hangs in saying something itself, nobody else can either
FRAMES = 20  #: of the stack that are said, the innermost
EXIT = 1

log = logging.getLogger("finn.watchdog")


class Watchdog:
    """Watches the loop that `watch` runs in. What the process has acknowledged is in the log on its disk.

    `last_lines` returns when what was logged is written; `end` ends the process at once.
    """

    def __init__(self, clock: Clock, last_lines: Callable[[], None], end: Callable[[int], object] = os._exit) -> None:
        self._clock = clock
        self._last_lines = last_lines
        self._end = end
        self._missed = 0  # looks since the last beat
        self._leave = threading.Event()

    async def watch(self) -> None:
        """Beats until it is cancelled, while a thread looks."""
        loop = threading.get_ident()
        threading.Thread(target=self._look, args=(loop,), name="finn-watchdog", daemon=True).start()
        try:
            while True:
                self._missed = 0
                await self._clock.sleep(LOOK_S)
        finally:
            self._leave.set()

    def _look(self, loop: int) -> None:
        while not self._leave.wait(LOOK_S):
            self._missed += 1
            if self._missed > PATIENCE:
                saying = threading.Thread(target=self._say, args=(loop,), name="finn-last-words", daemon=True)
                saying.start()
                saying.join(LAST_WORDS_S)
                self._end(EXIT)
                return

    def _say(self, loop: int) -> None:
        stack = traceback.extract_stack(sys._current_frames()[loop])[-FRAMES:]
        trace = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in stack]
        log.critical("the event loop has stalled, so this process ends", extra={"trace": trace})
        self._last_lines()
