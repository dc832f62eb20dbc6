"""The bytes of one line of the log.

    0        9        18                                82 83
    00000051 7a3f09c1 6f1c…64 hex digits of SHA-256…e2a9 {"seq":7,"id":"01K…","ts":…,"epoch":1,"d":6,…}\\n
    └ length └ CRC-32 └ SHA-256 of previous digest + JSON └ JSON, without a line feed inside

Length and CRC are of the JSON alone. The digest chains every record to all before it, from 32 zero bytes at seq 1. A
control line (header, watermark, footer of a segment) has the same frame; its digest builds on the current one but the
next record does not build on it.

A frame is right when its JSON, encoded again, gives the same bytes: `encode` is the only definition of the format. When
it is not, `parse` looks at what still vouches for the JSON. Either proof does (CRC-32, or SHA-256 over a known digest),
so a line of which only length, CRC, digest, a space or the line feed was damaged can still be used.
"""

import re
from binascii import hexlify
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple
from zlib import crc32

GENESIS = bytes(32)  #: what the first record builds on
PREFIX_BYTES = 83
RECORD_BYTES = 8 << 20  #: the largest JSON of a line; larger things are blobs

_SHAPE = re.compile(rb"([0-9a-f]{8}) ([0-9a-f]{8}) ([0-9a-f]{64}) ")
_LENGTH = re.compile(rb"[0-9a-f]{8}")
_DIGEST = re.compile(rb"[0-9a-f]{64}")
_FIELDS = (  # name, from, to: the parts of a frame around the JSON
    ("length", 0, 8),
    ("space", 8, 9),
    ("crc", 9, 17),
    ("space", 17, 18),
    ("sha", 18, 82),
    ("space", 82, 83),
)


class Frame(NamedTuple):
    """A line that can be used. `flaws` names the parts around the JSON that are not what they should be.

    `anchor` is the digest that it builds on (None where none of those offered fits), `stated` the digest it claims and
    `digest` the one that the next line should build on.
    """

    end: int
    line: bytes
    flaws: tuple[str, ...]
    anchor: bytes | None
    stated: bytes | None
    digest: bytes


class Bad(NamedTuple):
    """Bytes up to `end` that are no line. `whole` says that they end where the length says a line ends."""

    end: int
    whole: bool
    stated: bytes | None


def encode(line: bytes, previous: bytes) -> tuple[bytes, bytes]:
    """The frame of a line that builds on `previous`, and its digest."""
    digest = sha256(previous + line).digest()
    return b"%08x %08x %b %b\n" % (len(line), crc32(line), hexlify(digest), line), digest


def framed(line: bytes, digest: bytes) -> bytes:
    """The frame of a line whose digest is known."""
    return b"%08x %08x %b %b\n" % (len(line), crc32(line), hexlify(digest), line)


def vouched(frame: bytes) -> bytes | None:
    """The JSON in a whole frame, if its CRC vouches for it: all that reading one record again needs to know."""
    line = frame[PREFIX_BYTES:-1]
    return line if frame[9:17] == b"%08x" % crc32(line) else None


def parse(buffer: bytes, offset: int, anchors: Sequence[bytes]) -> Frame | Bad:
    """What stands at `offset` of a buffer that holds the rest of its file, given the digests it may build on."""
    return _usable(buffer, offset, anchors) or _bad(buffer, offset)


def _usable(buffer: bytes, offset: int, anchors: Sequence[bytes]) -> Frame | None:
    for end in (_stated_end(buffer, offset), _found_end(buffer, offset)):
        if end is not None and (frame := _vouched(buffer, offset, end, anchors)):
            return frame
    return None


def _stated_end(buffer: bytes, offset: int) -> int | None:
    """The end according to the length field."""
    if not _LENGTH.match(buffer, offset, offset + 8):
        return None
    end = offset + PREFIX_BYTES + int(buffer[offset : offset + 8], 16) + 1
    return end if end <= len(buffer) else None


def _found_end(buffer: bytes, offset: int) -> int | None:
    """The end according to the next line feed."""
    found = buffer.find(b"\n", offset + PREFIX_BYTES)
    return found + 1 if found >= 0 else None


def _vouched(buffer: bytes, offset: int, end: int, anchors: Sequence[bytes]) -> Frame | None:
    """The line between offset and end, if one of its proofs holds."""
    actual = buffer[offset:end]
    line = actual[PREFIX_BYTES:-1]
    stated = bytes.fromhex(actual[18:82].decode()) if _DIGEST.fullmatch(actual, 18, 82) else None
    anchor = next((known for known in anchors if encode(line, known)[1] == stated), None)
    if anchor is None and actual[9:17] != b"%08x" % crc32(line):
        return None
    expected, digest = encode(line, anchors[0] if anchor is None and anchors else anchor or GENESIS)
    flaws = dict.fromkeys(name for name, start, stop in _FIELDS if actual[start:stop] != expected[start:stop])
    if not anchors:  # nothing is known that the digest could be held against
        flaws.pop("sha", None)
        digest = stated or digest
    if actual[-1:] != b"\n":
        flaws["newline"] = None
    return Frame(end, line, tuple(flaws), anchor, stated, digest)


def _bad(buffer: bytes, offset: int) -> Bad:
    shape = _SHAPE.match(buffer, offset)
    stated = bytes.fromhex(shape[3].decode()) if shape else None
    end = _stated_end(buffer, offset)
    if end is not None and buffer[end - 1 : end] == b"\n":
        return Bad(end, True, stated)
    return Bad(_next_line(buffer, offset + 1), False, stated)


def _next_line(buffer: bytes, offset: int) -> int:
    """Where the next line begins whose CRC is right; the end of the buffer if there is none."""
    for shape in _SHAPE.finditer(buffer, offset):
        if _usable(buffer, shape.start(), ()):
            return shape.start()
    return len(buffer)
