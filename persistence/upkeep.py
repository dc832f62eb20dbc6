"""What the log needs from time to time, so that a start reads little of it and the disk keeps little of it.

    a tail is full, or begins far back ─▶ sealed: its finished part becomes a chunk
    much was said, or long ago         ─▶ a snapshot ─▶ pruned: segments that nobody needs any more go

Nothing here is needed for a record to be durable: what fails is told by `trouble`, and is tried again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from persistence import snapshot
from persistence.bodies import Bodies
from persistence.chunks import SEAL_BYTES, Chunks, sealable
from persistence.errors import FinnError
from persistence.events import ChunkSealed, Event, Record
from persistence.pruning import prune
from persistence.replay import Means, Paths, Replayed
from persistence.snapshot import Snapshot
from persistence.streams import STREAMS
from persistence.wal import Wal, Written

SNAPSHOT_RECORDS = 10_000
SNAPSHOT_BYTES = 10 * 1024 * 1024
SNAPSHOT_SECONDS = 300.0
SEAL_SEGMENTS = 2  #: a tail that begins further back than this is sealed, so that the log's floor moves on

log = logging.getLogger("finn.journal")


class Upkeep:
    """Sealing, snapshots and pruning of one journal, on its event loop.

    `commit` makes the record of a seal. `freeze` holds the present state fast; what it returns makes a snapshot of
    that in a thread, while the journal goes on.
    """

    def __init__(
        self,
        means: Means,
        paths: Paths,
        wal: Wal,
        replayed: Replayed,
        bodies: Bodies,
        chunks: Chunks,
        *,
        commit: Callable[[Event, str], Awaitable[Record]],
        freeze: Callable[[], Callable[[], Snapshot]],
    ) -> None:
        self.trouble = ""  #: why the last sealing or snapshot failed
        self._disk, self._clock = means.disk, means.clock
        self._snapshots = paths.snapshots
        self._wal = wal
        self._folded, self._tails = replayed.folded, replayed.tails
        self._bodies, self._chunks = bodies, chunks
        self._commit, self._freeze = commit, freeze
        self._due = asyncio.Event()
        self._full: set[str] = set()
        self._sealing = asyncio.Lock()  # two at once would put the same records into two chunks
        self._writing: asyncio.Future[Path] | None = None  # it goes on when whoever wanted it is cut off
        self._saved = False  #: whether this process has written a snapshot
        self._dirty_records = 0
        self._dirty_bytes = 0
        self._snapshot_at = means.clock.monotonic()
        self._kept_elsewhere: int | None = 0 if means.replicated else None  # as `prune` was told last

    # ------------------------------------------------------------ when

    def note(self, batch: Sequence[Written]) -> None:
        """These records were folded."""
        self._dirty_records += len(batch)
        self._dirty_bytes += sum(len(written.line) for written in batch)
        states = self._folded.streams(STREAMS)
        streams = {written.token[2] for written in batch} - {None}
        self._full.update(stream for stream in streams if states[stream].tail_bytes >= SEAL_BYTES)
        if self._full or self._snapshot_due():
            self._due.set()

    async def serve(self) -> None:
        """Does what falls due, until it is cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            await self._attempt(self.once)

    async def once(self) -> None:
        """Does what is due now."""
        await self._seal_due()
        if self._snapshot_due():
            await self.snapshot()
            await self.prune(self._kept_elsewhere)

    async def save(self) -> None:
        """A snapshot where there are records that none has, and what nobody needs after it goes.

        For whoever comes by every SNAPSHOT_SECONDS. Raises what `snapshot` and `prune` raise.
        """
        if self._dirty_records:
            await self.snapshot()
            await self.prune(self._kept_elsewhere)
            self.trouble = ""

    async def finish(self) -> None:
        """The last snapshot, where the log still takes records and has some that no snapshot has."""
        if self._dirty_records and self._wal.error is None:
            await self._attempt(self.snapshot)

    async def _attempt(self, step: Callable[[], Awaitable[None]]) -> None:
        """Takes a step that the log can do without for a while: what it saves is in the log as well."""
        try:
            await step()
            self.trouble = ""
        except (FinnError, OSError) as error:
            self.trouble = str(error)
            log.error("the log is not sealed or has no new snapshot: %s", error)

    def _snapshot_due(self) -> bool:
        waited = self._clock.monotonic() - self._snapshot_at
        return self._dirty_records > 0 and (
            self._dirty_records >= SNAPSHOT_RECORDS or self._dirty_bytes >= SNAPSHOT_BYTES or waited >= SNAPSHOT_SECONDS
        )

    # ------------------------------------------------------------ sealing

    async def _seal_due(self) -> None:
        bases = [segment.base for segment in self._wal.segments()]
        far = self._tails.older_than(bases[-SEAL_SEGMENTS - 1]) if len(bases) > SEAL_SEGMENTS else []
        for stream in dict.fromkeys((*self._full, *far)):
            await self.seal(stream)
            self._full.discard(stream)

    async def seal(self, stream: str) -> None:
        """Moves the finished part of a stream's tail into a chunk; nothing where there is none."""
        async with self._sealing:
            await self._seal(stream)

    async def _seal(self, stream: str) -> None:
        state = self._folded.streams(STREAMS).get(stream, STREAMS.initial)
        places = self._tails.between(stream, 0, self._wal.head.seq + 1)
        lines = await asyncio.to_thread(self._bodies.tail, places)
        if not lines:
            return
        # Before a chunk there is a tail only where the record of its seal was lost; nothing more will come to it.
        end = next((chunk.first for chunk in state.chunks if chunk.first > lines[0].seq), None)
        run = [line for line in lines if end is None or line.seq < end]
        kept = sealable(run) or (tuple(run) if end is not None else ())
        if not kept:
            return
        sha, size = await asyncio.to_thread(self._chunks.write, [line.line for line in kept])
        rest = [line for line in lines if line.seq > kept[-1].seq]
        sealed = ChunkSealed(
            first=lines[0].seq,
            last=kept[-1].seq,
            count=len(kept),
            bytes=size,
            sha256=sha,
            # All but the rest: records of the tail that were lost from the log go out of the count with the others.
            tail_count=state.tail_count - len(rest),
            tail_bytes=state.tail_bytes - sum(len(line.line) for line in rest),
        )
        await self._commit(sealed, stream)

    # ------------------------------------------------------------ snapshots and pruning

    async def snapshot(self) -> None:
        """Writes the present state, after the snapshot that is being written, if one is.

        Raises StorageError, OSError or Damaged where the disk refuses.
        """
        while self._writing is not None and not self._writing.done():
            await asyncio.wait([self._writing])  # on a disk that hangs one thread waits, not one for each attempt
        self._dirty_records = self._dirty_bytes = 0
        self._snapshot_at = self._clock.monotonic()
        frozen = self._freeze()
        writing = asyncio.to_thread(lambda: snapshot.write(self._disk, self._snapshots, frozen()))
        self._writing = asyncio.ensure_future(writing)
        self._writing.add_done_callback(_told)
        try:
            await asyncio.shield(self._writing)
            self._saved = True
        except BaseException:
            self._dirty_records += 1  # there is something to save still, but not again with every record
            raise

    async def renew(self) -> None:
        """As `snapshot`, where the newest is not of now already, is being written yet, or is of another process."""
        written = self._saved and self._writing is not None and self._writing.done()
        if self._dirty_records or not written:
            await self.snapshot()

    async def prune(self, confirmed_floor: int | None = None) -> int:
        """Drops the segments of the log that nobody needs any more; how many. See Journal.prune."""
        self._kept_elsewhere = confirmed_floor
        streams = dict(self._folded.streams(STREAMS))
        return await asyncio.to_thread(prune, self._wal, self._snapshots, streams, self._bodies, confirmed_floor)


def _told(written: "asyncio.Future[Path]") -> None:
    """Its error is told to whoever waits for it; that nobody does any more is no reason for a warning."""
    if not written.cancelled():
        written.exception()
