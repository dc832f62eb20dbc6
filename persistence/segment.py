"""A segment of the log made from frames that come from elsewhere: from the store, from another segment.

    frames of an object ─ proven ─▶ Span ─ written ─▶ {first:016d}.wal = header ─ frames ─ footer or watermark

What the log itself writes and what is written here are told apart by nothing: `inspect` proves both.
"""

import json
import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import NamedTuple

from persistence.chunks import seq_of
from persistence.errors import Damaged
from persistence.frame import PREFIX_BYTES, encode, framed
from persistence.layout import NOTHING
from persistence.wal import FORMAT

_RECORD = re.compile(rb'^[0-9a-f]{8} [0-9a-f]{8} ([0-9a-f]{64}) \{"seq":(\d+),', re.MULTILINE)
_HEADER = re.compile(rb'^.{83}\{"segment":\d+,"base_seq":(\d+),"base_sha":"([0-9a-f]{64})"')


class Span(NamedTuple):
    """Frames of the records `first`..`last`. The digests before and after them are in hex; `holes` are lost records."""

    first: int
    last: int
    chain_in: str
    chain_out: str
    body: bytes
    holes: tuple[tuple[int, int], ...] = ()


class Framed(NamedTuple):
    """A record's frame within a body, and the digest after it."""

    seq: int
    offset: int
    length: int
    line: bytes
    digest: bytes


def frames(body: bytes, first: int, chain_in: str, name: str) -> Iterator[Framed]:
    """Every record in the body, each proven to follow the one before. Raises Damaged.

    Where seqs are left out, records were lost before this was written: the digest that follows is then taken as it
    stands, vouched for by whoever vouches for the body.
    """
    digest = bytes.fromhex(chain_in) if chain_in else b""
    at, seq, end = 0, first - 1, len(body)
    try:
        while at < end:
            start = at + PREFIX_BYTES
            line = body[start : start + int(body[at : at + 8], 16)]
            frame, follows = encode(line, digest)
            number = seq_of(line)
            if not body.startswith(frame, at):
                follows = bytes.fromhex(body[at + 18 : at + 82].decode())
                if not (number > seq + 1 or not digest) or not body.startswith(framed(line, follows), at):
                    raise ValueError(f"record {number} does not follow record {seq}")
            if number <= seq:
                raise ValueError(f"record {number} stands behind record {seq}")
            yield Framed(number, at, len(frame), line, follows)
            at, seq, digest = at + len(frame), number, follows
    except ValueError as error:
        raise Damaged(f"{name} is not a run of records: {error}", hint="run finn verify --store") from error


def digests(data: bytes) -> dict[int, str]:
    """The digest after each record, by its seq, as these frames say it; they are proven already."""
    found = {int(one[2]): one[1].decode() for one in _RECORD.finditer(data)}
    header = _HEADER.match(data)
    return {int(header[1]) - 1: header[2].decode(), **found} if header else found


def proven(
    body: bytes, first: int, last: int, chain_in: str, chain_out: str, name: str, known: Mapping[int, str] | None = None
) -> Span:
    """The body as the records `first`..`last` between these digests. Raises Damaged.

    `known` are digests that something else remembers, by seq: a snapshot's.
    """
    holes: list[tuple[int, int]] = []
    seq, chain = first - 1, chain_in
    for one in frames(body, first, chain_in, name):
        if one.seq > seq + 1:
            holes.append((seq + 1, one.seq - 1))
        seq, chain = one.seq, one.digest.hex()
        if known and known.get(seq, chain) != chain:
            raise Damaged(f"{name} holds another record {seq} than was there", hint="run finn verify --store")
    if (seq, chain) != (last, chain_out):
        raise Damaged(f"{name} ends with record {seq}, not as it says with {last}", hint="run finn verify --store")
    return Span(first, last, chain_in, chain_out, body, tuple(holes))


def vouched(
    body: bytes, first: int, last: int, chain_in: str, chain_out: str, name: str, known: Mapping[int, str]
) -> Span:
    """As `proven`, for bytes that something vouches for with a hash of them all. Raises Damaged.

    What they are made of is looked at, and the digests at both ends: hashing each record once more would prove what the
    one hash has proven. Where anything is unusual (records left out, for one) each is proven all the same.
    """
    stated = {last: chain_out, **{seq: chain for seq, chain in known.items() if first <= seq <= last}}
    usual = chain_in and _in_order(body, first, last)
    if not usual or not all(_states(body, seq, chain) for seq, chain in stated.items()):
        return proven(body, first, last, chain_in, chain_out, name, known)
    next(frames(body, first, chain_in, name))
    return Span(first, last, chain_in, chain_out, body)


def _in_order(body: bytes, first: int, last: int) -> bool:
    """Whether the body is made of just these records, one after the other."""
    at, end = 0, len(body)
    try:
        for seq in range(first, last + 1):
            if not body.startswith(b' {"seq":%d,' % seq, at + PREFIX_BYTES - 1):
                return False
            at += PREFIX_BYTES + int(body[at : at + 8], 16) + 1
            if body[at - 1 : at] != b"\n":
                return False
    except ValueError:
        return False
    return at == end


def _states(body: bytes, seq: int, chain: str) -> bool:
    """Whether a record of the body says that this is the digest after it. A text cannot: its quotes are escaped."""
    return b'%b {"seq":%d,' % (chain.encode(), seq) in body


def after(span: Span, seq: int, name: str) -> Span:
    """The records of the span behind `seq`; it may be all of them, or none."""
    if seq < span.first:
        return span
    at, chain = len(span.body), span.chain_in
    for one in frames(span.body, span.first, span.chain_in, name):
        if one.seq > seq:
            at = one.offset
            break
        chain = one.digest.hex()
    holes = tuple((max(begin, seq + 1), end) for begin, end in span.holes if end > seq)
    return Span(seq + 1, max(span.last, seq), chain, span.chain_out, span.body[at:], holes)


def until(span: Span, seq: int, name: str) -> Span:
    """The records of the span up to `seq`; it may be all of them, or none."""
    if seq >= span.last:
        return span
    at, chain, last = 0, span.chain_in, span.first - 1
    for one in frames(span.body, span.first, span.chain_in, name):
        if one.seq > seq:
            break
        at, chain, last = one.offset + one.length, one.digest.hex(), one.seq
    return Span(
        span.first, last, span.chain_in, chain, span.body[:at], tuple(hole for hole in span.holes if hole[1] < last)
    )


def sealed(span: Span, *, epoch: int, writer: str, ms: int) -> bytes:
    """A finished segment: header, frames, footer."""
    data = _header(span, epoch, writer, ms) + span.body
    footer = {
        "sealed": ms,
        "count": span.last - span.first + 1,
        "last_seq": span.last,
        "chain": span.chain_out,
        "sha256": sha256(data).hexdigest(),
    }
    return data + _control(footer, span.chain_out)


def growing(span: Span, *, epoch: int, writer: str, ms: int) -> bytes:
    """A segment that takes records: header, frames, and a watermark that says they are durable."""
    data = _header(span, epoch, writer, ms) + span.body
    return data + (_control({"w": span.last, "chain": span.chain_out}, span.chain_out) if span.body else b"")


def _header(span: Span, epoch: int, writer: str, ms: int) -> bytes:
    header = {
        "segment": FORMAT,
        "base_seq": span.first,
        "base_sha": span.chain_in or NOTHING,
        "epoch": epoch,
        "writer": writer,
        "created": ms,
    }
    return _control(header, span.chain_in or NOTHING)


def _control(line: Mapping[str, object], chain: str) -> bytes:
    return encode(json.dumps(line, separators=(",", ":")).encode(), bytes.fromhex(chain))[0]
