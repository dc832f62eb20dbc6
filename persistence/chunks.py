"""Sealed message bodies: a run of one stream's records as JSON lines, named by its hash, never rewritten.

    chunks/ab/cdef…   record line ⏎ record line ⏎ …      (the record's bytes without the frame)

A body is served from one place: from the log until its chunk is sealed, from the chunk afterwards. Checkpoints that a
finished message replaced are left out, and a chunk never ends inside an unfinished message.
"""

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from persistence.blobs import Blobs

SEAL_BYTES = 256 * 1024  #: a tail of this size is sealed
CACHED_CHUNKS = 16  #: parsed chunks kept in memory


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """Where the records `first`..`last` of a stream are."""

    sha256: str
    first: int
    last: int
    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Line:
    """A record's bytes and the little that sealing needs to know of it."""

    seq: int
    type: str
    turn: str | None
    line: bytes


def sealable(lines: Sequence[Line]) -> tuple[Line, ...]:
    """The longest head of a tail that may be sealed: whole messages, without the checkpoints they replaced."""
    kept: list[Line] = []
    open_at: int | None = None
    for line in lines:
        if line.type == "message_checkpointed":
            open_at = len(kept) if open_at is None else open_at
        elif open_at is not None and line.type in ("assistant_message", "call_failed", "turn_ended"):
            kept[open_at:] = [one for one in kept[open_at:] if one.type != "message_checkpointed"]
            open_at = None
        kept.append(line)
    return tuple(kept if open_at is None else kept[:open_at])


def _text(lines: Iterable[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def seq_of(line: bytes) -> int:
    """The seq of a record's line, which begins `{"seq":N,`."""
    return int(line[7 : line.index(b",", 7)])


class Chunks:
    """The chunks on disk, with the last used ones in memory. Raises Damaged or NotFound where one cannot be read."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._cache: OrderedDict[str, tuple[list[int], list[bytes]]] = OrderedDict()
        self._lock = threading.Lock()  # several threads read at once

    def write(self, lines: Iterable[bytes]) -> tuple[str, int]:
        """Writes a chunk durably and reads it back. Returns its hash and its size in bytes."""
        data = _text(lines)
        sha = self._blobs.put(data)
        self._blobs.get(sha)
        return sha, len(data)

    def remake(self, ref: ChunkRef, lines: Sequence[bytes]) -> bool:
        """Writes a chunk again where it is missing or damaged; whether these are its lines. Raises StorageError."""
        same = sha256(_text(lines)).hexdigest() == ref.sha256
        if same:
            self.write(lines)
        return same

    def keep(self, data: bytes) -> None:
        """Writes a chunk as it came from elsewhere, proven already. Raises StorageError."""
        self._blobs.put(data)

    def has(self, sha: str) -> bool:
        """Whether there is such a file; what is in it only reading proves."""
        return self._blobs.has(sha)

    def set_aside(self, ref: ChunkRef, quarantine: Path, reason: str) -> None:
        """Moves the file of a chunk that nothing can mend out of the way, with a note why. Raises StorageError."""
        self._blobs.set_aside(ref.sha256, quarantine, f"chunk-{ref.first}-{ref.last}", reason)

    def whole(self, sha: str) -> bytes:
        """The whole of a chunk, proven."""
        return self._blobs.get(sha)

    def read(self, ref: ChunkRef, after: int, before: int) -> list[bytes]:
        """The lines of the chunk with after < seq < before, in order."""
        seqs, lines = self._load(ref.sha256)
        return lines[bisect_left(seqs, after + 1) : bisect_left(seqs, before)]

    def _load(self, sha: str) -> tuple[list[int], list[bytes]]:
        with self._lock:
            if sha in self._cache:
                self._cache.move_to_end(sha)
                return self._cache[sha]
        lines = self._blobs.get(sha).splitlines()
        loaded = ([seq_of(line) for line in lines], lines)
        with self._lock:
            self._cache[sha] = loaded
            while len(self._cache) > CACHED_CHUNKS:
                self._cache.popitem(last=False)
        return loaded
