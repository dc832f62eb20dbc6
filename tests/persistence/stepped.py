"""The program without threads and without waiting: one step after the other, the same ones whenever it is run.

    asyncio.to_thread, threads of look and cascade     done at once, by whoever asks
    the log's thread                                   a callback of the loop: all that was queued by then is a batch
    the power                                          goes off before or after the n-th effect on disk or store
    a machine's clock                                  the world's, with a wall time that may be set back

Nothing of the product is replaced but the threads that it starts.
"""

import asyncio
import selectors
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest.mock import patch

from persistence.wal import Pending, Wal
from tests.persistence.simulated_disk import SimulatedDisk

T = TypeVar("T")

SEGMENT_BYTES = 1500  #: of the log, so that a world of a few dozen records has several
BLOB_BYTES = 700  #: a string over that leaves its record


class PowerCut(BaseException):
    """The machine is off. No part of the program may take this for an error and go on."""


class Fuse:
    """Counts what changes something; burns at the effect that it was set to."""

    def __init__(self) -> None:
        self.burnt = False
        self.effects = 0
        self._left: int | None = None
        self._after = False

    def set(self, nth: int, *, after: bool) -> None:
        """The power goes off with the n-th effect from now on, `after` it was done or before."""
        self._left, self._after = nth, after

    def around(self, effect: Callable[[], T]) -> T:
        """The effect, if there is power for it."""
        self.check()
        self.effects += 1
        if self._left is not None:
            self._left -= 1
            self.burnt = self._left <= 0
            if self.burnt and not self._after:
                raise PowerCut
        result = effect()
        self.check()
        return result

    def check(self) -> None:
        """Raises PowerCut where there is none."""
        if self.burnt:
            raise PowerCut

    def mend(self) -> None:
        """Power again, and none of it counted."""
        self.burnt, self._left = False, None


class FusedDisk(SimulatedDisk):
    """A simulated disk on a fuse."""

    def __init__(self, root: Path, fuse: Fuse) -> None:
        super().__init__(root)
        self._fuse = fuse

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        self._fuse.check()
        return super().open(path, flags, mode)

    def write(self, handle: int, data: bytes | memoryview) -> int:
        return self._fuse.around(lambda: super(FusedDisk, self).write(handle, data))

    def fdatasync(self, handle: int) -> None:
        self._fuse.around(lambda: super(FusedDisk, self).fdatasync(handle))

    def ftruncate(self, handle: int, size: int) -> None:
        self._fuse.around(lambda: super(FusedDisk, self).ftruncate(handle, size))

    def sync_folder(self, path: Path) -> None:
        self._fuse.around(lambda: super(FusedDisk, self).sync_folder(path))

    def rename(self, old: Path, new: Path) -> None:
        self._fuse.around(lambda: super(FusedDisk, self).rename(old, new))

    def unlink(self, path: Path) -> None:
        self._fuse.around(lambda: super(FusedDisk, self).unlink(path))

    def let_go(self) -> None:
        """Closes what a killed process had open."""
        for handle in list(self._handles):
            self.close(handle)


class Times:
    """The world's time, and the wall clock of one machine in it."""

    def __init__(self, world: "Times | None" = None, now: float = 1_795_000_000.0) -> None:
        self._world = world
        self._own = now if world is None else 0.0

    def now(self) -> float:
        """The time on the wall of this machine."""
        return self._own + (self._world.now() if self._world else 0.0)

    def monotonic(self) -> float:
        """The world's time."""
        return self._world.monotonic() if self._world else self._own

    boottime = monotonic

    async def sleep(self, seconds: float) -> None:
        """Never returns: who waits for time to pass is not waited for."""
        await asyncio.get_running_loop().create_future()

    def advance(self, seconds: float) -> None:
        """Time passes; of one machine: its wall clock is set, forward or back."""
        self._own += seconds


class _Nothing(selectors.SelectSelector):
    """Waits for no file: nothing here comes from outside."""

    def select(self, timeout: float | None = None) -> list[Any]:
        return []


class Loop(asyncio.SelectorEventLoop):
    """An event loop that runs until nothing is left to do, and does at once what is meant for a thread."""

    def __init__(self) -> None:
        super().__init__(_Nothing())
        self.errors: list[dict[str, Any]] = []
        self.set_exception_handler(self._note)

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> "asyncio.Future[T]":  # type: ignore[override]
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            future.set_exception(error)
        return future

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        """The outcome of a step that needs nothing from outside."""
        task = self.create_task(step)
        self.settle()
        if not task.done():
            task.cancel()
            self.settle()
            raise AssertionError(f"{step} waits for something that nobody does")
        return task.result()

    def settle(self) -> None:
        """Runs what is ready until nothing is."""
        asyncio._set_running_loop(self)
        try:
            while self._ready:  # type: ignore[attr-defined]
                self._run_once()  # type: ignore[attr-defined]
        finally:
            asyncio._set_running_loop(None)
        errors = [each for each in self.errors if "handle" in each]
        self.errors.clear()
        for each in errors:
            raise each["exception"]

    def _write_to_self(self) -> None:
        """Nobody waits in `select`."""

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.errors.append(context)


class SteppedWal(Wal):
    """The log, whose thread is a callback of the loop."""

    _due = False

    def append(self, item: Pending) -> None:
        super().append(item)
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def pause(self) -> None:
        """The quiet time passes."""
        if self._marked < self.head.seq and not self._broken:
            self._attempt(self._watermark)

    def _turn(self) -> None:
        self._due = False
        if self._queue.empty():
            return
        batch, _ = self._next_batch()
        try:
            self._commit(batch)
        except PowerCut as cut:
            for pending in batch:
                pending.token[0].set_exception(cut)


class _Thread:
    """A thread that is done when it starts; the log's ends when it is joined."""

    def __init__(self, target: Callable[[], None], name: str = "", daemon: bool = False) -> None:
        self._target = target
        self._late = name == "wal"

    def start(self) -> None:
        if not self._late:
            self._target()

    def join(self) -> None:
        if self._late:
            self._late = False
            self._target()


@contextmanager
def stepped(segment_bytes: int = SEGMENT_BYTES, blob_bytes: int = BLOB_BYTES) -> Iterator[Loop]:
    """The program is deterministic in here, and its files are small."""
    threads = SimpleNamespace(Thread=_Thread, Lock=threading.Lock)
    small = {"segment_bytes": segment_bytes}
    loop = Loop()
    with (
        patch("persistence.wal.threading", threads),
        patch("persistence.remote.threading", threads),
        patch("persistence.cascade.threading", threads),
        patch("persistence.journal.Wal", SteppedWal),
        patch.dict(Wal.open.__func__.__kwdefaults__, small),  # type: ignore[attr-defined]
        patch("persistence.journal.BLOB_BYTES", blob_bytes),
        patch("persistence.codec.BLOB_BYTES", blob_bytes),
        patch("persistence.compaction.SEG_BYTES", 2 * segment_bytes),
    ):
        try:
            yield loop
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.settle()
            loop.close()
