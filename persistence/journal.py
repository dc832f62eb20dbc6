"""The one door to the log.

    commit(event) ─▶ redact ─▶ WAL (one thread, fdatasync) ─▶ fold ─▶ subscribers, listeners ─▶ the caller

Nobody sees an event before it is durable (at level store: before the store has it as well); what everybody then sees,
they see in the order of the log. Records and moments reach a subscriber through one channel, so a delta said after a
commit never overtakes its record. Bodies are read back with `read`, from sealed chunks and from the log's tail alike.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from persistence import snapshot
from persistence.absent import Absent
from persistence.blobs import Blobs, Kind
from persistence.bodies import Bodies, Place
from persistence.chunks import Chunks
from persistence.codec import BLOB_BYTES, clean, offload
from persistence.errors import NotFound, StorageError
from persistence.events import SYSTEM, By, Event, GapDeclared, LogRecovered, Record
from persistence.fold import Fold, Folded
from persistence.level import Level
from persistence.origin import Origin, Source
from persistence.reigns import REIGNS, Reigns
from persistence.replay import Means, Paths, Replayed, prepare
from persistence.runs import Run, Runs
from persistence.snapshot import Snapshot
from persistence.streams import STREAMS, Stream
from persistence.subscription import Moment, Subscription
from persistence.upkeep import Upkeep
from persistence.wal import Pending, Wal, Written

S = TypeVar("S")

Listener = Callable[[Record], None]


class Journal:
    """The log and the state that follows from it. Made by `open`; used on one event loop."""

    @classmethod
    async def open(
        cls, root: Path, folds: Iterable[Fold[Any]], means: Means, origin: Origin | None = None
    ) -> "Journal":
        """Takes the lock, repairs what a crash left, replays, and is ready for `commit`.

        `origin` is what a recovery came to before; its lock is this journal's from now on. Raises Locked where another
        process holds the directory, StorageError where it cannot be written.
        """
        paths, begin = Paths(root), means.clock.monotonic()
        if origin is not None and origin.replayed is not None:
            lock, replayed = origin.lock, origin.replayed
        else:
            held = origin.lock if origin else None
            lock, replayed = await asyncio.to_thread(prepare, paths, tuple(folds), means, held)
        ms = round((means.clock.monotonic() - begin) * 1000)
        if origin is None:
            origin = Origin("local" if replayed.head.seq else "template", replayed.epoch, lock)
        # In a thread too: the log opens its last segment and makes it durable.
        journal = await asyncio.to_thread(cls, paths, means, origin, replayed, asyncio.get_running_loop())
        try:
            await journal._tell(ms)
        except BaseException:
            await journal.close()
            raise
        return journal

    def __init__(
        self, paths: Paths, means: Means, origin: Origin, replayed: Replayed, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.paths = paths
        self.origin = origin
        self.replayed = replayed
        self.epoch = max(origin.epoch, replayed.epoch)
        self.blobs = Blobs(means.disk, paths.blobs, means.fetching("blob"))
        self.held = replayed.held
        self.confirmed = 0  #: the last seq that the store is known to have
        self._means = means
        self._folded = replayed.folded
        self._tails = replayed.tails
        self._loop = loop
        self._listeners: list[Listener] = []
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._grown = asyncio.Event()
        self._level: Level | None = None  # None at level local, unless it is fenced
        self._seq, self._chain = replayed.head.seq, replayed.head.checksum.hex()  # of the last record folded
        self._id = replayed.last_id
        self._wal = Wal.open(
            means.disk,
            paths.wal,
            head=replayed.head,
            epoch=self.epoch,
            ids=means.ids,
            clock=means.clock,
            deliver=self._deliver,
            observe=means.observe,
        )
        self._chunks = Chunks(Blobs(means.disk, paths.chunks))
        fetch = means.fetching("chunk")
        self._bodies = Bodies(self._wal, self._chunks, self.blobs, paths.quarantine, fetch)
        self._absent = Absent(self._chunks, self.blobs)
        self._runs = Runs(means.disk, paths.wal, lambda: self.durable)
        self._upkeep = Upkeep(
            means,
            paths,
            self._wal,
            replayed,
            self._bodies,
            self._chunks,
            commit=lambda event, stream: self.commit(event, stream=stream),
            freeze=self._freeze,
        )

    # ------------------------------------------------------------ what is

    @property
    def seq(self) -> int:
        """The seq of the last durable record that was folded."""
        return self._seq

    @property
    def durable(self) -> int:
        """The last seq that is safe on the local disk. May be asked in any thread."""
        return self._wal.head.seq

    @property
    def error(self) -> str | None:
        """Why the log takes no records, or None."""
        return self._wal.error

    @property
    def source(self) -> Source:
        """Where this start had its state from: `template` for a first start."""
        return self.origin.source

    @property
    def loss(self) -> str:
        """What this start and the reads since then could not use, as a sentence; empty where nothing was lost."""
        gaps = [f"{gap.first}-{gap.last}" for gap in self.replayed.repaired.gaps]
        lost = f"records {', '.join(gaps)} could not be read and are in quarantine; run finn verify" if gaps else ""
        return "; ".join(
            [*([lost] if lost else []), *self.origin.problems, *self.replayed.problems, *self._bodies.lost]
        )

    @property
    def size(self) -> int:
        """The bytes of the log on disk."""
        return sum(segment.bytes for segment in self._wal.segments())

    @property
    def reigns(self) -> Reigns:
        """The epochs of this log, the present one also before its first record."""
        return self._folded.whole(REIGNS).until(self.epoch, self.seq)

    def whole(self, fold: Fold[S]) -> S:
        """The present state of a fold over the whole log."""
        return self._folded.whole(fold)

    def streams(self, fold: Fold[S]) -> Mapping[str, S]:
        """The present states of a fold, by stream. Look, do not keep: it changes with the next record."""
        return self._folded.streams(fold)

    def state_sha(self) -> str:
        """The hash of the whole folded state."""
        return snapshot.state_sha(self._sections(self._folded))

    def redact(self, text: str) -> str:
        """The text as it would be recorded."""
        return self._means.redactor.text(text)

    # ------------------------------------------------------------ commit

    async def admit(self) -> None:
        """Before what must not be recorded in vain. Raises Fenced where another writer has taken over by now."""
        await self._means.admit()

    async def commit(self, event: Event, *, stream: str | None = None, by: By = SYSTEM) -> Record:
        """Makes an event durable, then part of the state, then visible. Returns its record.

        Raises StorageFull (nothing was recorded), StorageFailed (outcome unknown until the next start), StorageClosed,
        TooLarge, Fenced. No state changes where it raises. At level store it waits for the store as well.
        """
        if self._level is not None:
            self._level.check()
        event, data = clean(event, stream, by, self._means.redactor)
        if len(data) > BLOB_BYTES:
            data = await asyncio.to_thread(offload, data, self.blobs)
        done: asyncio.Future[Record] = self._loop.create_future()
        self._wal.append(Pending(data, (done, event, stream, by)))
        return await done

    def _deliver(self, batch: list[Written], error: StorageError | None, failed: list[Pending]) -> None:
        """Called by the log's thread."""
        self._loop.call_soon_threadsafe(self._land, batch, error, failed)

    def _land(self, batch: list[Written], error: StorageError | None, failed: list[Pending]) -> None:
        self._grown.set()
        if self._level is None:
            self._see(batch)
        else:
            self._level.take(batch)
            self._see(self._level.let_go(self.confirmed))
        for pending in failed:
            done = pending.token[0]
            if not done.done():
                done.set_exception(error or StorageError("the record was not written"))

    def _see(self, batch: list[Written]) -> None:
        """Folds records and shows them: the moment from which they are part of what is."""
        for written in batch:
            done, event, stream, by = written.token
            record = Record(
                written.seq,
                written.id,
                written.time,
                written.epoch,
                written.durable,
                stream,
                by,
                event.kind,
                event.v,
                event,
                written.checksum,
                written.line,
            )
            self._folded.step(record)
            self._tails.follow(record, Place(written.seq, written.segment, written.offset, written.length))
            self._seq, self._chain, self._id = written.seq, written.checksum, written.id
            self._show(record)
            if not done.done():
                done.set_result(record)
        self._upkeep.note(batch)

    def _show(self, record: Record) -> None:
        for subscription in self._subscriptions.get(record.stream or "", ()):
            subscription.put(record)
        for listener in self._listeners:
            listener(record)

    # ------------------------------------------------------------ levels

    @property
    def holding(self) -> bool:
        """Whether a record is seen only once the store has it."""
        return self._level is not None and not self._level.fenced

    @property
    def fenced(self) -> bool:
        """Whether another writer has taken this log over, so that nothing is acknowledged here any more."""
        return self._level is not None and self._level.fenced

    def hold(self) -> None:
        """Level store from now on: records are folded, shown and answered as far as they are confirmed."""
        self._level = self._level or Level()

    def confirm(self, seq: int) -> None:
        """The store has everything up to that seq."""
        self.confirmed = max(self.confirmed, seq)
        if self._level is not None:
            self._see(self._level.let_go(self.confirmed))

    def fence(self, reason: str) -> None:
        """Another writer has this log now: what is not yet seen, and all that is said from now on, raises Fenced.

        Whoever watches sees what was shown so far, and then the end.
        """
        self._level = self._level or Level()
        self._level.fence(reason)
        for subscription in [one for some in self._subscriptions.values() for one in some]:
            subscription.close()

    def reign(self, epoch: int, problems: Iterable[str] = ()) -> None:
        """Records carry this epoch from now on: it was claimed after the start. `problems` become part of `loss`."""
        self.epoch = epoch
        self.origin = replace(self.origin, problems=tuple(dict.fromkeys((*self.origin.problems, *problems))))
        self._wal.reign(epoch)

    # ------------------------------------------------------------ listening and reading

    def listen(self, listener: Listener) -> None:
        """Calls `listener` with every record from now on, after the fold. It must not raise, nor wait."""
        self._listeners.append(listener)

    def announce(self, stream: str, moment: Moment) -> None:
        """Shows something that is not kept to the stream's subscribers, after all that is durable so far."""
        for subscription in self._subscriptions.get(stream, ()):
            subscription.put(moment)

    def subscribe(self, stream: str, after: int | None = None) -> Subscription:
        """A view of the stream: the records after `after` (None: only what comes), then everything live."""

        async def page(first: int, before: int, limit: int) -> tuple[Record, ...]:
            return await self.read(stream, after=first, before=before, limit=limit)

        subscription = Subscription(page, self.seq if after is None else after, self.seq)
        self._subscriptions.setdefault(stream, []).append(subscription)
        return subscription

    def unsubscribe(self, stream: str, subscription: Subscription) -> None:
        """Ends a subscription."""
        subscription.close()
        waiting = self._subscriptions.get(stream, [])
        if subscription in waiting:
            waiting.remove(subscription)
        if not waiting:
            self._subscriptions.pop(stream, None)

    async def read(
        self,
        stream: str,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int = 1000,
        last: bool = False,
    ) -> tuple[Record, ...]:
        """Records of a stream with after < seq < before, in order: the first `limit` of them, or the last.

        Their `checksum` is empty: what is read is verified by its chunk or by the log, not one by one. What cannot be
        read is left out and told by `loss`. Raises StorageError, and StoreError where it is only in the store.
        """
        before = self.seq + 1 if before is None else min(before, self.seq + 1)
        state, tail = self._stream(stream), self._tails.between(stream, after, before)
        return tuple(await asyncio.to_thread(self._bodies.read, stream, state, tail, after, before, limit, last))

    async def record_at(self, stream: str, seq: int) -> Record:
        """The stream's record with that seq. Raises NotFound, StorageError."""
        found = await self.read(stream, after=seq - 1, before=seq + 1)
        if not found:
            raise NotFound(f"record {seq} is not in the log", hint="run finn verify")
        return found[0]

    def _stream(self, stream: str) -> Stream:
        return self._folded.streams(STREAMS).get(stream, STREAMS.initial)

    # ------------------------------------------------------------ for the copies elsewhere

    async def growth(self, after: int) -> int:
        """Waits until there is something durable after that seq. Returns the last durable one."""
        while self.durable <= after:
            self._grown.clear()
            await self._grown.wait()
        return self.durable

    def frames(self, after: int, limit: int) -> Run:
        """The durable records after that seq, as the log has them: at least one, else at most `limit` bytes.

        Waits for the disk; may be called in any thread. Raises NotFound, StorageError.
        """
        return self._runs.after(after, limit)

    def blob(self, sha: str, *, keep: bool = True) -> bytes:
        """A blob's bytes. Waits for the disk; may be called in any thread. Raises NotFound, Damaged, StorageError."""
        return self.blobs.get(sha, keep=keep)

    def chunk(self, sha: str) -> bytes:
        """A chunk's bytes, like `blob`; made again from the log where its file is missing or damaged."""
        for name, stream in tuple(self._folded.streams(STREAMS).items()):
            for ref in stream.chunks:
                if ref.sha256 == sha:
                    return self._bodies.chunk(name, ref)
        return self._chunks.whole(sha)

    def missing(self) -> list[tuple[Kind, str]]:
        """The chunks of this history, and the blobs that its records name, that are not on the local disk.

        Waits for the disk; may be called in any thread. `chunk` and `blob` fetch them. Raises StorageError.
        """
        refs = [ref.sha256 for stream in tuple(self._folded.streams(STREAMS).values()) for ref in stream.chunks]
        bases = [segment.base for segment in self._wal.segments()]
        return self._absent.find(refs, self._wal.between(bases[0], self.durable) if bases else ())

    # ------------------------------------------------------------ sealing and snapshots

    @property
    def trouble(self) -> str:
        """Why the last sealing or snapshot failed; it is tried again."""
        return self._upkeep.trouble

    async def tend(self) -> None:
        """Seals full tails and takes snapshots of what grew, until it is cancelled. `trouble` says what failed."""
        await self._upkeep.serve()

    async def seal(self, stream: str) -> None:
        """Moves the finished part of a stream's tail into a chunk; nothing where there is none."""
        await self._upkeep.seal(stream)

    async def snapshot(self) -> None:
        """Writes the present state. Raises StorageError, OSError or Damaged where the disk refuses."""
        await self._upkeep.snapshot()

    async def renew(self) -> None:
        """The same where the newest is not of now already. Raises what `snapshot` raises."""
        await self._upkeep.renew()

    async def save(self) -> None:
        """The same where anything has changed since the last one, and what nobody needs after it goes."""
        await self._upkeep.save()

    async def prune(self, confirmed_floor: int | None = None) -> int:
        """Drops the segments of the log that nobody needs any more; how many.

        `confirmed_floor` is the first seq that the store's newest manifest needs of its log: all before it is there in
        a snapshot. None where there is no store. Raises Damaged, NotFound, StorageError, OSError; what is in doubt
        stays.
        """
        return await self._upkeep.prune(confirmed_floor)

    def _freeze(self) -> Callable[[], Snapshot]:
        return partial(self._pictured, self._seq, self._chain, self.epoch, self._folded.copy(), self._id)

    def _pictured(self, seq: int, chain: str, epoch: int, folded: Folded, last_id: str) -> Snapshot:
        return Snapshot(seq, chain, epoch, self._sections(folded), self.held, last_id)

    def _sections(self, folded: Folded) -> dict[str, Any]:
        return {**self.replayed.foreign, **folded.dump()}

    # ------------------------------------------------------------ beginning and end

    async def _tell(self, ms: int) -> None:
        """Records where the state came from and what the repair found, so that a loss is part of the history."""
        origin, repaired, last = self.origin, self.replayed.repaired, self.replayed.head.seq
        for gap in repaired.gaps:
            await self.commit(GapDeclared(**gap._asdict()))
        told = origin.source != "local" or origin.problems or origin.discarded
        if told or repaired.torn_bytes or repaired.gaps:
            await self.commit(
                LogRecovered(
                    source=origin.source,
                    last_seq=last,
                    epoch=self.epoch,
                    ms=origin.ms + ms,
                    bytes=origin.bytes,
                    torn_bytes=repaired.torn_bytes,
                    damaged=tuple(gap.first for gap in repaired.gaps),
                    discarded=origin.discarded,
                    problems=tuple(map(self.redact, origin.problems)),
                )
            )

    async def close(self) -> None:
        """Writes a last snapshot and watermark, ends the thread and lets go of the lock."""
        try:
            await self._upkeep.finish()
        finally:
            await asyncio.to_thread(self._wal.close)
            await asyncio.sleep(0)
            if self._level is not None:
                self._level.close()
            self.origin.lock.release()
