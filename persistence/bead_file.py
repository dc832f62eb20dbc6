"""`.beads/issues.jsonl`: written from the log, and read where somebody else wrote it.

    state/.beads/issues.jsonl       what people, git and br see; as a whole or not at all, never torn
    state/.beads/finn.base.jsonl   what was written last: the base of the three-way merge

Half a second after a change the file is written anew, at once in a stop. Before that, and every two seconds, it is
looked at: other bytes than those that were written last are somebody's work, and are merged into the log first. The
file goes first and the base second: after a crash between the two both sides look changed alike, which is no change.

What cannot be used goes to quarantine, whole and with a note. A file that is empty or gone deletes no bead.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from persistence import quarantine
from persistence.bead import Bead
from persistence.beads import Beads, Board
from persistence.clock import Clock
from persistence.disk import Disk, refused, replace
from persistence.disk import read as read_whole
from persistence.errors import Fenced, FinnError
from persistence.events import OWNER, BeadsChanged, Record
from persistence.issues import Issues, read, written
from persistence.merge import merge

DEBOUNCE_S = 0.5
LOOK_S = 2.0
FILE_BYTES = 256 << 20  #: a larger one is not read
FOLDER = ".beads"
NAME = "issues.jsonl"
BASE = "finn.base.jsonl"

Stamp = tuple[int, int, int]

log = logging.getLogger("finn.beads")


@dataclass(frozen=True, slots=True)
class Found:
    """The file as it is on disk, with its stamp from before it was read. None: there is none."""

    stamp: Stamp | None
    data: bytes | None


class BeadFile:
    """The file of the beads.

    `trouble` says why it cannot be read or written now, `left_out` what somebody last wrote into it that is no bead.
    """

    def __init__(
        self,
        beads: Beads,
        disk: Disk,
        folder: Path,
        aside: Path,
        clock: Clock,
        decorate: Callable[[Bead], Bead] = lambda bead: bead,
    ) -> None:
        """`folder` holds the file, `aside` is where quarantine is; `decorate` gives a bead as the file shows it."""
        self.trouble = self.left_out = ""
        self.path = folder / NAME
        self._beads = beads
        self._disk = disk
        self._folder = folder
        self._aside = aside
        self._clock = clock
        self._decorate = decorate
        self._due = asyncio.Event()
        self._one = asyncio.Lock()
        self._seen: Stamp | None = None
        self._shown: Board | None = None  # the board that the file shows
        self._looked = False

    def follow(self, record: Record) -> None:
        """Called with every record."""
        if isinstance(record.event, BeadsChanged):
            self._due.set()

    async def serve(self) -> None:
        """Keeps file and log together until it is cancelled. Raises Fenced."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            while True:
                await self._due.wait()
                await self._clock.sleep(DEBOUNCE_S)
                self._due.clear()
                await self.attempt()

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep(LOOK_S)
            await self.attempt()

    async def attempt(self) -> None:
        """`look`, with what failed as `trouble`; it is tried again. Raises Fenced."""
        try:
            await self.look()
        except Fenced:
            raise
        except (FinnError, OSError) as error:
            if self.trouble != str(error):
                log.error("the file of the beads cannot be kept: %s", error)
            self.trouble = str(error)

    async def look(self) -> None:
        """Takes in what was changed in the file, then writes what changed here. Raises FinnError, OSError."""
        async with self._one:
            stamp = await asyncio.to_thread(self._stamp)
            if self._looked and stamp == self._seen and self._shown is self._beads.board:
                self.trouble = ""
                return
            found = await asyncio.to_thread(self._find)
            if not self._looked or found.stamp != self._seen:
                await self._take_in(found)
            board = self._beads.board
            self._seen = await asyncio.to_thread(self._write, board, found)
            self._shown, self._looked, self.trouble = board, True, ""

    # ------------------------------------------------------------ from the file to the log

    async def _take_in(self, found: Found) -> None:
        if not found.data:
            return  # gone or emptied: what was in it is in the log
        base, theirs = await asyncio.to_thread(self._versions, found.data)
        self.left_out = await asyncio.to_thread(self._told, theirs, found.data) if theirs.faults else ""
        if theirs.conflict:
            return
        deleting = not theirs.faults
        now, others = self._beads.now, theirs.others

        def decide(board: Board) -> list[Bead]:
            return merge(base.beads, board.beads, theirs.beads, now, deleting=deleting)

        await self._beads.change("merged", decide, OWNER, others)

    def _versions(self, data: bytes) -> tuple[Issues, Issues]:
        return read(self._base() or b""), read(data)

    def _told(self, theirs: Issues, data: bytes) -> str:
        """A sentence on what cannot be used, once the bytes are safe."""
        name = f"issues-{sha256(data).hexdigest()[:16]}.jsonl"
        quarantine.keep(
            self._disk, self._aside, name, data, why="; ".join(theirs.faults[:20]), **{"from": str(self.path)}
        )
        more = f" and {len(theirs.faults) - 1} more" if len(theirs.faults) > 1 else ""
        what = f"{self.path.name}: {theirs.faults[0]}{more}; the file as it was is quarantine/{name}"
        log.warning("%s", what)
        return what

    # ------------------------------------------------------------ from the log to the file

    def _write(self, board: Board, found: Found) -> Stamp | None:
        """The stamp of the file that shows the board. Raises StorageError, OSError."""
        data = written(map(self._decorate, board.beads.values()), board.others)
        if not data and found.data is None:
            return None
        if data != found.data:
            if self._stamp() != found.stamp:
                return found.stamp  # somebody writes right now: the next look takes that in first
            self._disk.mkdir(self._folder)
            replace(self._disk, self.path, data)
        stamp = self._stamp()
        if data != self._base():
            self._disk.mkdir(self._folder)
            replace(self._disk, self._folder / BASE, data)
        return stamp

    def _find(self) -> Found:
        stamp = self._stamp()
        if stamp is None:
            return Found(None, None)
        if stamp[1] > FILE_BYTES or not self.path.is_file() or self.path.is_symlink():
            why = f"it is no plain file of at most {FILE_BYTES} bytes"
            name = f"issues-{stamp[0]}-{stamp[2]}"
            quarantine.move(self._disk, self.path, self._aside, name, why=why)
            return Found(None, None)
        try:
            return Found(stamp, read_whole(self._disk, self.path))
        except FileNotFoundError:
            return Found(None, None)
        except OSError as error:
            raise refused(error, self.path) from error

    def _base(self) -> bytes | None:
        try:
            return read_whole(self._disk, self._folder / BASE)
        except OSError:
            return None  # without it nothing is taken for deleted

    def _stamp(self) -> Stamp | None:
        try:
            there = self.path.lstat()
        except OSError:
            return None
        return there.st_mtime_ns, there.st_size, there.st_ino
