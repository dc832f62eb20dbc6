"""Finished segments that a snapshot already has in its state: proven by one hash, and only indexed.

    header ─ records … ─ footer {count, last_seq, chain, sha256 of all bytes before it}  ─▶  next segment's base_sha

What is asked of such a segment is where each stream's records lie. Reading them later proves each by its own CRC-32.
Anything unusual (a byte changed, a gap, a line that looks different) makes it a case for `inspect`, record by record.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

from persistence.bodies import Place, Tails
from persistence.chunks import seq_of
from persistence.codec import HEAD, place_of
from persistence.disk import Disk, read
from persistence.events import ChunkSealed
from persistence.frame import PREFIX_BYTES, encode
from persistence.scan import Good, segment_name

FOOTER_BYTES = 512  #: more than any footer

_RECORD = re.compile(HEAD)
_BASE = re.compile(rb'"base_sha":"([0-9a-f]{64})"')


class Sealed:
    """A finished segment that proved itself. `chain` is the digest after its last record, in hex."""

    def __init__(self, base: int, last: int, chain: str, data: bytes) -> None:
        self.base = base
        self.last = last
        self.chain = chain
        self._data = data

    def index(self, tails: Tails, seal: Callable[[Good], None]) -> Good | None:
        """Notes every record in `tails`; those that seal a chunk go to `seal`. Returns the last record.

        None where its records are not one after the other: then nothing was noted.
        """
        try:
            found = list(self._records())
        except ValueError:  # it was damaged before it was finished: the hash proves that it still is
            return None
        if [place.seq for _, _, place in found] != list(range(self.base, self.last + 1)) or not found:
            return None
        for stream, kind, place in found:
            if kind == ChunkSealed.kind:
                seal(self._good(place))
            else:
                tails.note(stream, None, place)
        return self._good(found[-1][2])

    def _records(self) -> Iterator[tuple[str | None, str, Place]]:
        """Stream, type and place of every record. This is the hot loop: nothing is copied that need not be."""
        data, at = self._data, 0
        names: dict[bytes | None, str | None] = {None: None}
        while at < len(data):
            size = PREFIX_BYTES + int(data[at : at + 8], 16) + 1
            said = _RECORD.match(data, at + PREFIX_BYTES)
            if said is not None:
                number, name, kind = said.groups()
                if name not in names:
                    names[name] = name.decode()
                yield names[name], kind.decode(), Place(int(number), self.base, at, size)
            elif data.startswith(b'{"seq":', at + PREFIX_BYTES):
                line = data[at + PREFIX_BYTES : at + size - 1]
                yield *place_of(line), Place(seq_of(line), self.base, at, size)
            at += size

    def _good(self, place: Place) -> Good:
        frame = self._data[place.offset : place.offset + place.length]
        return Good(*place, frame[PREFIX_BYTES:-1], frame[18:82].decode(), self.last)


def proven(disk: Disk, wal_dir: Path, base: int, after: int) -> Sealed | None:
    """The segment, if its footer proves it and the next one, at `after`, goes on from it. Raises OSError."""
    data = read(disk, wal_dir / segment_name(base))
    start = data.rfind(b"\n", 0, len(data) - 1) + 1
    line = data[start + PREFIX_BYTES : -1]
    if not line.startswith(b'{"sealed":'):
        return None
    try:
        footer = json.loads(line)
        whole = encode(line, bytes.fromhex(footer["chain"]))[0]
    except (ValueError, KeyError, TypeError):
        return None
    if whole != data[start:]:
        return None
    if footer["sha256"] != sha256(memoryview(data)[:start]).hexdigest() or footer["last_seq"] != after - 1:
        return None
    if _begins_on(disk, wal_dir, after) != footer["chain"]:
        return None
    return Sealed(base, footer["last_seq"], footer["chain"], data[:start])


def _begins_on(disk: Disk, wal_dir: Path, base: int) -> str | None:
    """The digest that a segment's header says it builds on."""
    handle = disk.open(wal_dir / segment_name(base), os.O_RDONLY)
    try:
        head = disk.pread(handle, FOOTER_BYTES, 0)
    finally:
        disk.close(handle)
    found = _BASE.search(head, 0, head.find(b"\n"))
    return found[1].decode() if found else None
