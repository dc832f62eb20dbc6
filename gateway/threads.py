"""Threads for calls that may hang: a store that does not answer, a git that waits for ever.

    await thread.run(call) ─▶ queue ─▶ one daemon thread, call after call ─▶ its result, on the loop

asyncio's own threads are waited for when the process ends, so one hung call would hold up a drain; these are not. A
thread is made with its first call. Whoever stops waiting for a call (a time-out, a cancellation) does not end it: the
calls behind it wait until it has returned, and those that nobody waits for any more by then are not made at all, so
that attempts at something that hangs do not pile up behind it.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

Call = Callable[[], None]


class Thread:
    """One thread that makes calls in their order."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function returns or raises, in the thread."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def call() -> None:
            if future.cancelled():
                return
            try:
                result = function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - whatever it is, whoever waits gets it
                _tell(loop, future, None, error)
            else:
                _tell(loop, future, result, None)

        self._calls.put(call)
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._thread.start()
        return await future

    def end(self) -> None:
        """Ends the thread once it has made the calls it has, and waits for none."""
        self._calls.put(None)
        self._thread = None

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def _tell(
    loop: asyncio.AbstractEventLoop, future: "asyncio.Future[Any]", result: Any, error: BaseException | None
) -> None:
    def land() -> None:
        if future.done():
            return  # nobody waits any more
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    with suppress(RuntimeError):  # the loop has ended, and whoever waited with it
        loop.call_soon_threadsafe(land)
