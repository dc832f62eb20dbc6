"""What a life stands on, as only a look at the machine tells: its disk, its folders, its clock.

    opened ─▶ data directory, wal/ and wal/LOCK are held by a descriptor each
    look   ─▶ is what lies at those paths still the same? how much is left of the disk? did the wall clock jump?

A process goes on writing into a folder that somebody removed or put another in the place of, and nobody ever finds
what it wrote. The descriptors keep the comparison honest also where a file system gives out its numbers anew.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from persistence.clock import Clock
from persistence.lock import LOCK
from scheduler.health import Fact

Stand = Literal["there", "gone", "replaced", "read-only"]

HOUR_S = 3600.0
STEP_S = 30.0  #: between two points of the clock that are kept
RUN_BYTES = 4096
HOLD = os.O_CLOEXEC | os.O_NOFOLLOW | getattr(os, "O_PATH", os.O_RDONLY)


class Premises:
    """The data directory of a life, whose log is open. Waits for the disk: call it off the event loop."""

    def __init__(self, data_dir: Path, clock: Clock, pid: int) -> None:
        """`pid` is this process, as run.json has it once a start has come so far. Raises OSError."""
        wal = data_dir / "wal"
        self._data_dir = data_dir
        self._run = data_dir / "run.json"
        self._pid = pid
        self._announced = False
        self._clock = clock
        self._points: list[tuple[float, float]] = []
        self._held = dict[str, tuple[Path, int]]()
        for name, path in {"dirs:data": data_dir, "dirs:wal": wal, "dirs:lock": wal / LOCK}.items():
            self._held[name] = path, os.open(path.resolve(), HOLD)

    def look(self) -> tuple[Fact, ...]:
        """How all of it is now. Raises OSError where the disk does not say how full it is."""
        found = (*self._dirs(), *self._disk(), Fact("clock:jump", round(self._jump(), 1), "s"))
        now = self._clock.now()
        return tuple(fact._replace(at=now) for fact in found)

    def close(self) -> None:
        """Lets go of the descriptors."""
        while self._held:
            _, (_, handle) = self._held.popitem()
            os.close(handle)

    # ------------------------------------------------------------ folders

    def _dirs(self) -> Iterator[Fact]:
        for name, (path, handle) in tuple(self._held.items()):
            yield _fact(name, path, stand(path, handle))
        note = _note(self._run)
        self._announced |= note.get("pid") == self._pid
        if self._announced:  # before, the start has not come to it yet
            yield _fact("dirs:run", self._run, "gone" if not note else _same(note.get("pid") == self._pid))

    # ------------------------------------------------------------ the disk

    def _disk(self) -> Iterator[Fact]:
        if not self._data_dir.exists():
            return
        there = os.statvfs(self._data_dir)
        whole = (there.f_blocks - there.f_bfree + there.f_bavail) * there.f_frsize  # less what root keeps for itself
        yield Fact("disk:free", there.f_bavail * there.f_frsize, "bytes", of=whole)
        if there.f_files:
            yield Fact("disk:files", there.f_favail)

    # ------------------------------------------------------------ the clock

    def _jump(self) -> float:
        """How many seconds the wall clock gained within the last hour on the one that nobody sets."""
        boot = self._clock.boottime()
        ahead = self._clock.now() - boot
        recent = [point for point in self._points if boot - point[0] <= HOUR_S]
        if not recent or boot - recent[-1][0] >= STEP_S:
            recent.append((boot, ahead))
        self._points = recent
        return ahead - recent[0][1]


def stand(path: Path, handle: int) -> Stand:
    """What became of the path that was opened as `handle`."""
    try:
        there = path.stat()
    except OSError:
        return "gone"
    if not os.path.samestat(there, os.fstat(handle)):
        return "replaced"
    return "there" if os.access(path, os.W_OK) else "read-only"


def _same(ours: bool) -> Stand:
    return "there" if ours else "replaced"


def _fact(name: str, path: Path, found: Stand) -> Fact:
    return Fact(name, found, output="" if found == "there" else f"{path} is {found}: {WHAT[found]}")


def _note(path: Path) -> Mapping[str, object]:
    """What the running gateway says of itself; empty where nothing can be read."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            note = json.loads(file.read(RUN_BYTES))  # a pipe, which nobody may ever write to, holds nothing up
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


#: What that means, before the table says what to do.
WHAT: Mapping[Stand, str] = {
    "gone": "it was removed, or moved away, under the running process",
    "replaced": "another one lies at its place, and the running process does not use it",
    "read-only": "nothing new can be written there",
}
