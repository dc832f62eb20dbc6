"""The write-ahead log: records in, durable records out, in one order.

    append ─▶ queue ─▶ one thread: all that waits is a batch ─▶ seq, id, chain ─▶ one write ─▶ one fdatasync ─▶ deliver
                        │ nothing for 50 ms after the last batch: a watermark says that it all was durable
                        └ the segment is full: footer, fdatasync, next segment, fsync of the folder

    no room       the file goes back to its last acknowledged byte, the batch fails with StorageFull, the next one tries
                  and while nothing is asked of it, the log asks the disk again every two seconds
    any other     after a failed write or fdatasync the kernel may hold the lost pages for clean, so that descriptor is
                  never synced again: the file is opened anew, read back from the medium, cut to its last acknowledged
                  byte, and the log goes on in a new segment. If that fails too, nothing is taken until a restart.

Nothing is delivered before it is durable, and nothing that failed is in the file when the next batch begins.
"""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from persistence.clock import Clock, Ids
from persistence.disk import CHUNK_BYTES, FULL, Disk, read_range, refused, write_all
from persistence.errors import (
    Conflict,
    Damaged,
    NotFound,
    StorageClosed,
    StorageError,
    StorageFailed,
    StorageFull,
    TooLarge,
)
from persistence.frame import PREFIX_BYTES, RECORD_BYTES, Frame, encode, parse, vouched
from persistence.measure import Observe, unobserved
from persistence.scan import Control, Damage, Found, Good, scan, segment_name, segments, walk

SEGMENT_BYTES = 10 << 20
BATCH_BYTES = 4 << 20
HASH_BYTES = 256 << 10  #: how much is hashed at once for the footer
QUIET_S = 0.05  #: how long after the last batch the watermark is written
AGAIN_S = 2.0  #: how often a disk that refused is asked again, so that `error` is never older than that
FOOTER_BYTES = 512  #: more than any footer
FORMAT = 1  #: of a segment
RESTART = "the log takes nothing until finn is started again"


class Head(NamedTuple):
    """The end of the log: its last seq, the digest that the next record builds on, and the last seq on disk."""

    seq: int
    checksum: bytes
    durable: int


class Pending(NamedTuple):
    """What is to become a record: its JSON from the sixth field to the closing brace, and a token of the caller's."""

    tail: bytes
    token: Any


class Written(NamedTuple):
    """A durable record. `offset` and `length` are of its frame in the segment, `line` its JSON, `time` milliseconds."""

    token: Any
    seq: int
    id: str
    time: int
    epoch: int
    durable: int
    line: bytes
    checksum: str
    segment: int
    offset: int
    length: int


class Segment(NamedTuple):
    """A file of the log: its first seq, its last (None for the one that grows), its size."""

    base: int
    last: int | None
    bytes: int


Deliver = Callable[[list[Written], StorageError | None, list[Pending]], None]


class Wal:
    """The log of one process, which holds its lock. `append`, `read`, `segments` and `drop` may be called anywhere."""

    @classmethod
    def open(
        cls,
        disk: Disk,
        wal_dir: Path,
        *,
        head: Head,
        epoch: int,
        ids: Ids,
        clock: Clock,
        deliver: Deliver,
        segment_bytes: int = SEGMENT_BYTES,
        quiet_s: float = QUIET_S,
        again_s: float = AGAIN_S,
        observe: Observe = unobserved,
    ) -> "Wal":
        """The log after `head`, as recovery left it; everything in it is durable when this returns.

        `deliver(written, error, failed)` is called on the log's own thread, once for each batch. Where the disk
        refuses, the log opens nevertheless, `error` says why, and every append fails.
        """
        wal = cls(disk, wal_dir, head, epoch, ids, clock, deliver, segment_bytes, quiet_s, again_s, observe)
        failed = wal._attempt(wal._adopt)
        if failed and wal._handle is None:  # what was recovered may not be durable, so nothing may be built on it
            wal._broken = StorageFailed(failed.message, hint=RESTART)
            wal.error = str(wal._broken)
        wal._thread.start()
        return wal

    def __init__(
        self,
        disk: Disk,
        wal_dir: Path,
        head: Head,
        epoch: int,
        ids: Ids,
        clock: Clock,
        deliver: Deliver,
        segment_bytes: int,
        quiet_s: float,
        again_s: float,
        observe: Observe,
    ) -> None:
        self.head = head
        self.error: str | None = None
        self._disk = disk
        self._dir = wal_dir
        self._epoch = epoch
        self._ids = ids
        self._clock = clock
        self._deliver = deliver
        self._segment_bytes = segment_bytes
        self._quiet_s = quiet_s
        self._again_s = again_s
        self._observe = observe
        self._writer = ids.new()
        self._queue: SimpleQueue[Pending | None] = SimpleQueue()
        self._gate = threading.Lock()  # between the last append and close
        self._closed = False
        self._broken: StorageFailed | None = None
        self._segments: list[Segment] = []
        self._handle: int | None = None  # of the last segment, while it takes records
        self._end = 0  # its size
        self._synced = 0  # how much of that is durable
        self._sha = sha256()  # of its first `_hashed` bytes, for the footer
        self._hashed = 0
        self._marked = head.durable  # the last seq that is said in the log to be durable
        self._thread = threading.Thread(target=self._run, name="wal", daemon=True)

    # ------------------------------------------------------------ for everybody

    def append(self, item: Pending) -> None:
        """Queues what will be delivered. Raises StorageClosed, or TooLarge; never waits."""
        if len(item.tail) > RECORD_BYTES:
            raise TooLarge(f"a record of {len(item.tail)} bytes", hint=f"the log takes {RECORD_BYTES} at most")
        with self._gate:
            if self._closed:
                raise StorageClosed(f"the log in {self._dir} is closed")
            self._queue.put(item)

    def read(self, segment: int, offset: int, length: int) -> bytes:
        """The JSON of the record whose frame lies there. Raises NotFound, Damaged or StorageError."""
        path = self._dir / segment_name(segment)
        try:
            handle = self._disk.open(path, os.O_RDONLY)
            try:
                data = read_range(self._disk, handle, offset, length)
            finally:
                self._disk.close(handle)
        except FileNotFoundError as error:
            raise NotFound(f"{path} is no longer part of the log") from error
        except OSError as error:
            raise refused(error, path) from error
        line = vouched(data)
        return self._searched(segment, offset) if line is None else line

    def between(self, first: int, last: int) -> Iterator[bytes]:
        """The JSON of the records first..last that the log still has, by reading it through. Raises StorageError."""
        base = max((one.base for one in self.segments() if one.base <= first), default=None)
        try:
            for found in scan(self._disk, self._dir, base):
                if isinstance(found, Good) and found.seq > last:
                    return
                if isinstance(found, Good) and found.seq >= first:
                    yield found.line
        except OSError as error:
            raise refused(error, self._dir) from error

    def segments(self) -> list[Segment]:
        """The files of the log, in order."""
        with self._gate:
            return [one if one.last is not None else one._replace(bytes=self._end) for one in self._segments]

    def reign(self, epoch: int) -> None:
        """Records that are written from now on carry this epoch."""
        self._epoch = epoch

    def drop(self, base: int) -> None:
        """Removes a finished segment, durably. Raises NotFound, Conflict for the last one, or StorageError."""
        path = self._dir / segment_name(base)
        found = next((segment for segment in self._segments if segment.base == base), None)
        if found is None:
            raise NotFound(f"{path} is not part of the log")
        if found.last is None:
            raise Conflict(f"{path} still takes records")
        try:
            self._disk.unlink(path)
            self._disk.sync_folder(self._dir)
        except OSError as error:
            raise refused(error, path) from error
        with self._gate:
            self._segments = [segment for segment in self._segments if segment.base != base]

    def close(self) -> None:
        """Writes what is queued and a last watermark, and ends the thread. A second call does nothing."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _searched(self, segment: int, offset: int) -> bytes:
        """The slow way to a line whose own CRC does not vouch for it: by the chain that leads to it."""
        for found in scan(self._disk, self._dir, segment):
            if isinstance(found, Good) and (found.segment, found.offset) == (segment, offset):
                return found.line
        raise Damaged(f"{segment_name(segment)} cannot be read at byte {offset}", hint="run finn verify")

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        try:
            more = True
            while more:
                batch, more = self._next_batch()
                if batch:
                    self._commit(batch)
                elif self._marked < self.head.seq:
                    self._attempt(self._watermark)
                elif self.error and more:
                    self._attempt(self._try_again)
            self._attempt(self._finish)
        finally:
            self._closed = True
            self._release()

    def _next_batch(self) -> tuple[list[Pending], bool]:
        """All that waits, at most BATCH_BYTES; nothing after a quiet time; and whether the log stays open."""
        queue = self._queue
        try:
            item = queue.get(timeout=self._patience_s())
        except Empty:
            return [], True
        batch: list[Pending] = []
        size = 0
        while item is not None:
            batch.append(item)
            size += len(item.tail)
            if size > BATCH_BYTES or queue.empty():
                return batch, True
            item = queue.get()
        return batch, False

    def _patience_s(self) -> float | None:
        """How long there may be nothing to do before something is to be done all the same."""
        if self._broken:
            return None
        if self._marked < self.head.seq:
            return self._quiet_s
        return self._again_s if self.error else None

    def _commit(self, batch: list[Pending]) -> None:
        written: list[Written] = []
        error = self._attempt(lambda: written.extend(self._write(batch)))
        if error is None:
            self._deliver(written, None, [])
        else:
            self._deliver([], error, batch)
            self._observe("wal_failures", 1)
        if self._handle is not None and self._end - self._hashed > HASH_BYTES:
            self._attempt(self._hash)  # now, while those who waited are busy

    def _attempt(self, step: Callable[[], None]) -> StorageError | None:
        """Takes a step, and the way back to the last acknowledged byte where the disk refuses it."""
        error: StorageError | None = self._broken
        if error is None:
            try:
                step()
            except StorageFull as full:
                error = full
            except OSError as failure:
                error = self._mend(failure)
        self.error = str(error) if error else None
        return error

    def _write(self, batch: list[Pending]) -> list[Written]:
        """Makes a batch durable. Raises StorageFull or OSError, and then nothing of it counts."""
        self._roll()
        frames, written, digest = self._encode(batch)
        data = b"".join(frames)
        self._put(data)
        self._sync()
        seq = written[-1].seq
        self.head = Head(seq, digest, seq)
        self._observe("wal_records", len(written))
        self._observe("wal_bytes", len(data))
        return written

    def _encode(self, batch: list[Pending]) -> tuple[list[bytes], list[Written], bytes]:
        """Gives a batch its seqs, ids and digests. This is the hot loop: one tuple and one frame for each record."""
        seq, digest, durable = self.head
        epoch, segment, offset = self._epoch, self._segments[-1].base, self._end
        time = int(self._clock.now() * 1000)
        same = b'","ts":%d,"epoch":%d,"d":%d,' % (time, epoch, durable)
        frames, written = [], []
        for (tail, token), name in zip(batch, self._ids.take(len(batch)), strict=True):
            seq += 1
            line = b'{"seq":%d,"id":"%b%b%b' % (seq, name.encode(), same, tail)
            frame, digest = encode(line, digest)
            size = len(frame)
            frames.append(frame)
            written.append(Written(token, seq, name, time, epoch, durable, line, digest.hex(), segment, offset, size))
            offset += size
        return frames, written, digest

    # ------------------------------------------------------------ segments

    def _adopt(self) -> None:
        """Takes over the files of the log, opens the last if it can still grow, and makes it durable."""
        bases = segments(self._disk, self._dir)
        finished = [Segment(base, after - 1, self._size(base)) for base, after in pairwise(bases)]
        self._segments = [*finished, *(Segment(base, None, 0) for base in bases[-1:])]
        self._disk.sync_folder(self._dir)
        if not bases:
            return
        self._handle = self._disk.open(self._path(), os.O_RDWR | os.O_APPEND)
        self._end = self._synced = self._disk.size(self._handle)
        self._sync()
        if _is_sealed(self._disk, self._handle, self._end):
            self._release()

    def _roll(self) -> None:
        """There is a segment that takes records, with its header, and room in it."""
        if self._handle is not None and self._end >= self._segment_bytes and self._segments[-1].base <= self.head.seq:
            self._seal()
        if self._handle is None:
            self._create()
        elif self._end == 0:  # recovery cut a header that was torn
            self._begin()

    def _create(self) -> None:
        """A new last segment, durable with its name. Leaves nothing behind where the disk refuses."""
        base = self.head.seq + 1
        handle = self._disk.open(self._dir / segment_name(base), os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL)
        with self._gate:
            before, size = self._segments, self._end
            finished = [one if one.last is not None else Segment(one.base, base - 1, size) for one in before]
            self._segments = [*finished, Segment(base, None, 0)]
            self._handle, self._end, self._synced = handle, 0, 0
            self._sha, self._hashed = sha256(), 0
        try:
            self._begin()
            self._disk.sync_folder(self._dir)
        except (OSError, StorageFull):
            self._release()
            self._disk.unlink(self._path())
            with self._gate:
                self._segments = finished
            raise

    def _begin(self) -> None:
        base, chain = self._segments[-1].base, self.head.checksum.hex()
        self._control(
            f'{{"segment":{FORMAT},"base_seq":{base},"base_sha":"{chain}","epoch":{self._epoch},'
            f'"writer":"{self._writer}","created":{int(self._clock.now() * 1000)}}}'
        )
        self._sync()

    def _seal(self) -> None:
        base, last, chain = self._segments[-1].base, self.head.seq, self.head.checksum.hex()
        self._hash()
        self._control(
            f'{{"sealed":{int(self._clock.now() * 1000)},"count":{last - base + 1},"last_seq":{last},'
            f'"chain":"{chain}","sha256":"{self._sha.hexdigest()}"}}'
        )
        self._sync()
        self._marked = last
        self._release()

    def _watermark(self) -> None:
        """What it speaks of is durable already, so the line itself need not be."""
        self._marked = self.head.seq
        if self._handle is not None:
            self._control(f'{{"w":{self.head.seq},"chain":"{self.head.checksum.hex()}"}}')

    def _try_again(self) -> None:
        """Whether the disk takes a line again; one more watermark says nothing new. Raises StorageFull or OSError."""
        self._roll()
        self._watermark()
        self._sync()

    def _finish(self) -> None:
        if self._marked < self.head.seq:
            self._watermark()
        if self._handle is not None:
            self._sync()

    # ------------------------------------------------------------ the file

    def _path(self) -> Path:
        return self._dir / segment_name(self._segments[-1].base)

    def _size(self, base: int) -> int:
        handle = self._disk.open(self._dir / segment_name(base), os.O_RDONLY)
        try:
            return self._disk.size(handle)
        finally:
            self._disk.close(handle)

    def _hash(self) -> None:
        """Takes what was appended since into the hash of the segment."""
        assert self._handle is not None
        while self._hashed < self._end:
            data = read_range(self._disk, self._handle, self._hashed, min(CHUNK_BYTES, self._end - self._hashed))
            if not data:
                raise OSError(errno.EIO, "the segment is shorter than what was written")
            self._sha.update(data)
            self._hashed += len(data)

    def _control(self, line: str) -> None:
        self._put(encode(line.encode(), self.head.checksum)[0])

    def _put(self, data: bytes) -> None:
        """All of it behind what is there, or none of it and StorageFull. After an OSError the file is in doubt."""
        assert self._handle is not None
        try:
            write_all(self._disk, self._handle, data)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._disk.ftruncate(self._handle, self._end)
            self._sync()
            raise refused(error, self._path()) from error
        self._end += len(data)

    def _sync(self) -> None:
        assert self._handle is not None
        began = self._clock.monotonic()
        self._disk.fdatasync(self._handle)
        self._synced = self._end
        self._observe("wal_sync_seconds", self._clock.monotonic() - began)

    def _release(self) -> None:
        """Closes the file. An error tells nothing about bytes that were synced, and the descriptor is gone anyway."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with suppress(OSError):
                self._disk.close(handle)

    # ------------------------------------------------------------ after a failure

    def _mend(self, failure: OSError) -> StorageError:
        """The way back after an error that leaves the file in doubt; without one nothing is taken until a restart."""
        path = self._path() if self._segments else self._dir
        failed = refused(failure, path)
        if self._handle is None:
            return failed  # between two segments: nothing is in doubt
        self._release()
        try:
            self._cut()
            self._create()
        except StorageFull as full:
            return full
        except OSError as second:
            reason = f"{failed.message}; then, on the way back: {second.strerror or second}"
            self._broken = StorageFailed(reason, hint=RESTART)
            return self._broken
        return failed

    def _cut(self) -> None:
        """The last segment holds its acknowledged bytes and no more, on the medium; without any it goes."""
        if self._segments[-1].base > self.head.seq:
            self._disk.unlink(self._path())
            self._segments = self._segments[:-1]
            return
        handle = self._disk.open(self._path(), os.O_RDWR | os.O_APPEND)
        try:
            self._disk.ftruncate(handle, self._synced)
            self._disk.fdatasync(handle)
            self._disk.forget(handle)
        finally:
            self._disk.close(handle)
        self._end = self._synced
        chains = [_chain(found) for found in walk(self._disk, self._dir, [self._segments[-1].base])]
        if chains[-1:] != [self.head.checksum.hex()]:
            raise OSError(errno.EIO, "records that were acknowledged cannot be read back")


def _chain(found: Found) -> str | None:
    """How the chain stands behind what was found."""
    if isinstance(found, Damage):
        return None
    return found.chain.hex() if isinstance(found, Control) else found.checksum


def _is_sealed(disk: Disk, handle: int, size: int) -> bool:
    """Whether the last line of a segment is a footer."""
    tail = read_range(disk, handle, max(0, size - FOOTER_BYTES), FOOTER_BYTES)
    start = tail.rfind(b"\n", 0, max(0, len(tail) - 1)) + 1
    return tail.startswith(b'{"sealed":', start + PREFIX_BYTES) and isinstance(parse(tail, start, ()), Frame)
