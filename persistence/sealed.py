"""Finished segments that a snapshot already has in its state: proven by one hash, and only indexed.

    header ─ records … ─ footer {count, last_seq, chain, sha256 of all bytes before it}  ─▶  next segment's base_sha

What is asked of such a segment is where each stream's records lie. Reading them later proves each by its own CRC-32.
Anything unusual (a byte changed, a gap, a line that looks different) makes it a case for `inspect`, record by record.
"""

import json
import os
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from persistence.bodies import Place, Tails
from persistence.codec import HEAD
from persistence.disk import Disk, read
from persistence.events import ChunkSealed
from persistence.frame import PREFIX_BYTES, encode
from persistence.scan import Good, segment_name

FOOTER_BYTES = 512  #: more than any footer

_RECORD = re.compile(rb"([0-9a-f]{8}) [0-9a-f]{8} [0-9a-f]{64} " + HEAD)
_CONTROL = re.compile(rb'([0-9a-f]{8}) [0-9a-f]{8} [0-9a-f]{64} \{"(?:segment|w)":')
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

        None where something is not as this program writes it: then nothing was noted.
        """
        data, at, seq = self._data, 0, self.base - 1
        found: list[tuple[str | None, bool, Place]] = []
        names: dict[bytes, str] = {}
        while at < len(data):
            said = _RECORD.match(data, at)
            if said is None:
                control = _CONTROL.match(data, at)
                if control is None:
                    return None
                at += PREFIX_BYTES + int(control[1], 16) + 1
                continue
            length, number, stream, kind = said.groups()
            seq += 1
            if int(number) != seq:
                return None
            name = names.setdefault(stream, stream.decode()) if stream is not None else None
            size = PREFIX_BYTES + int(length, 16) + 1
            found.append((name, kind == _SEAL, Place(seq, self.base, at, size)))
            at += size
        if seq != self.last or not found:
            return None
        for name, seals, place in found:
            if seals:
                seal(self._good(place))
            else:
                tails.note(name, None, place)
        return self._good(found[-1][2])

    def _good(self, place: Place) -> Good:
        frame = self._data[place.offset : place.offset + place.length]
        return Good(*place, frame[PREFIX_BYTES:-1], frame[18:82].decode(), self.last)


_SEAL = ChunkSealed.kind.encode()


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
