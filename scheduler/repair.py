"""One changed byte of a record, found again by its checksums.

A CRC-32 is linear: what a change does to it depends on where and what it was, and not on the rest. So for each place
and each difference it is known at once whether the CRC would be as it says; the chain's SHA-256 then proves the one
that is right. Two changed bytes, or a changed length, are beyond this.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

from persistence.disk import Disk, read_range
from persistence.frame import PREFIX_BYTES, Bad, encode, parse
from persistence.scan import Control, Damage, segment_name, walk

LINE_BYTES = 1 << 20  #: of a record that is tried

_TABLE = [crc32(bytes([value])) ^ crc32(b"\0") for value in range(256)]  #: what a difference in the last byte does


def mended(disk: Disk, wal_dir: Path, damage: Damage) -> bytes | None:
    """The bytes of a record as they were written, where one of them was changed; else None. Raises OSError."""
    if damage.first != damage.last or not PREFIX_BYTES < damage.length <= LINE_BYTES:
        return None
    before = _digest_before(disk, wal_dir, damage)
    handle = disk.open(wal_dir / segment_name(damage.segment), os.O_RDONLY)
    try:
        data = read_range(disk, handle, damage.offset, damage.length)
    finally:
        disk.close(handle)
    found = parse(data, 0, ())
    if before is None or not isinstance(found, Bad) or not found.whole:
        return None
    return next((frame for frame in _candidates(data, before) if frame[:PREFIX_BYTES] == data[:PREFIX_BYTES]), None)


def _digest_before(disk: Disk, wal_dir: Path, damage: Damage) -> bytes | None:
    """What the record builds on; None where the line before it cannot be read either."""
    before = None
    for found in walk(disk, wal_dir, [damage.segment]):
        if isinstance(found, Damage) or found.offset > damage.offset:
            break
        before = found.chain if isinstance(found, Control) else bytes.fromhex(found.checksum)
    return before


def _candidates(data: bytes, before: bytes) -> Iterator[bytes]:
    """The frames with one byte of the JSON changed whose CRC is the one that is stated."""
    line = data[PREFIX_BYTES:-1]
    try:
        wrong = int(data[9:17], 16) ^ crc32(line)
    except ValueError:
        return
    for place, difference in _places(wrong, len(line)):
        yield encode(line[:place] + bytes([line[place] ^ difference]) + line[place + 1 :], before)[0]


def _places(wrong: int, length: int) -> Iterator[tuple[int, int]]:
    """Where which difference of a byte makes this difference of the CRC: from the last byte back to the first."""
    effects = {effect: value for value, effect in enumerate(_TABLE) if value}
    for place in range(length - 1, -1, -1):
        if wrong in effects:
            yield place, effects[wrong]
        # one byte further to the front: a zero byte more behind the difference
        wrong = _back(wrong)


def _back(crc: int) -> int:
    """The difference whose effect, a zero byte later, is `crc`."""
    top = crc >> 24
    index = _TOP[top]
    return (((crc ^ _STEP[index]) << 8) & 0xFFFFFFFF) | index


def _step(index: int) -> int:
    for _ in range(8):
        index = (index >> 1) ^ 0xEDB88320 if index & 1 else index >> 1
    return index


_STEP = [_step(index) for index in range(256)]
_TOP = {value >> 24: index for index, value in enumerate(_STEP)}
