"""How the log on this disk stands to the one in the store.

    same        ──●                 both end with the same record
    ahead       ──●┄┄local          the local one goes on where the store's ends
    behind      ──●┄┄store          the store's goes on where the local one ends
    beyond      ┄┄   ┄┄store        the store's begins after the local one's end: its snapshot sums up what is between
    diverged    ──●<                they have a past in common, and each went on by itself
    unrelated   ┄┄ ┄┄               no record is known to both

Two logs are the same up to a record when its digest is the same in both: it stands for everything before.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from persistence.disk import Disk, read, refused
from persistence.layout import LogObject, Seg
from persistence.remote import Tip
from persistence.restoration import verified
from persistence.scan import segment_name, segments
from persistence.store import Store
from persistence.wal import Head

Relation = Literal["same", "ahead", "behind", "beyond", "diverged", "unrelated"]

_RECORD = re.compile(rb'^[0-9a-f]{8} [0-9a-f]{8} ([0-9a-f]{64}) \{"seq":(\d+),', re.MULTILINE)
_HEADER = re.compile(rb'^.{83}\{"segment":\d+,"base_seq":(\d+),"base_sha":"([0-9a-f]{64})"')

Digests = dict[int, str]  #: by seq, after that record


@dataclass(frozen=True, slots=True)
class Stand:
    """The relation, and the last record that both logs have (0: none)."""

    relation: Relation
    common: int


def relate(disk: Disk, wal: Path, head: Head, store: Store, tip: Tip) -> Stand:
    """How a log that was proven and ends with `head` stands to what the store holds. Raises StoreError, StorageError.

    The usual cases read a segment here or nothing at all; only logs that parted ways are compared record by record.
    """
    chain = head.checksum.hex()
    if (head.seq, chain) == (tip.seq, tip.chain):
        return Stand("same", head.seq)
    if head.seq > tip.seq and digest_at(disk, wal, tip.seq) == tip.chain:
        return Stand("ahead", tip.seq)
    if head.seq < tip.seq and _in_store(store, tip, head.seq) == chain:
        return Stand("behind", head.seq)
    if head.seq < tip.manifest.begins - 1:
        return Stand("beyond", 0)
    common = _common(disk, wal, store, tip)
    return Stand("diverged", common) if common else Stand("unrelated", 0)


def digest_at(disk: Disk, wal: Path, seq: int) -> str | None:
    """The digest after a record that the local log has, or that its first segment builds on. Raises StorageError."""
    try:
        bases = segments(disk, wal)
        base = max((one for one in bases if one <= seq), default=None)
        found = digests(read(disk, wal / segment_name(base))).get(seq) if base else None
        if found is None and seq + 1 in bases:
            found = digests(read(disk, wal / segment_name(seq + 1))).get(seq)
    except OSError as error:
        raise refused(error, wal) from error
    return found


def digests(data: bytes) -> Digests:
    """What the frames in these bytes say of themselves; the bytes are proven already."""
    found = {int(one[2]): one[1].decode() for one in _RECORD.finditer(data)}
    header = _HEADER.match(data)
    return {int(header[1]) - 1: header[2].decode(), **found} if header else found


def _in_store(store: Store, tip: Tip, seq: int) -> str | None:
    """The store's digest after a record, None where it does not say."""
    manifest = tip.manifest
    if seq == manifest.log_seq:
        return manifest.log_chain
    if seq == manifest.begins - 1:
        return manifest.segs[0].chain_in
    for span in _backwards(tip):
        if span.first <= seq <= span.last:
            return span.digests(store).get(seq)
    return None


def _common(disk: Disk, wal: Path, store: Store, tip: Tip) -> int:
    """The last record that both have, searched for from the end; 0 where there is none."""
    try:
        local: Digests = {}
        for base in segments(disk, wal):
            local |= digests(read(disk, wal / segment_name(base)))
    except OSError as error:
        raise refused(error, wal) from error
    for span in _backwards(tip):
        shared = [seq for seq, digest in span.digests(store).items() if seq and local.get(seq) == digest]
        if shared:
            return max(shared)
    return 0


class _Run(NamedTuple):
    """Records `first`..`last` in the store, in an object that was read, or in one that can be."""

    first: int
    last: int
    chain_in: str
    of: LogObject | Seg

    def digests(self, store: Store) -> Digests:
        one = self.of
        body = one.body if isinstance(one, LogObject) else verified(store, one.key, one.sha256, one.bytes)
        return {self.first - 1: self.chain_in, **digests(body)}


def _backwards(tip: Tip) -> Iterator[_Run]:
    """What the store has of the log, newest first."""
    for one in reversed(tip.tail):
        yield _Run(one.header.first, one.header.last, one.header.chain_in, one)
    for seg in reversed(tip.manifest.segs):
        yield _Run(seg.first, seg.last, seg.chain_in, seg)
