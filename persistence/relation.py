"""How the log on this disk stands to the one in the store.

    same        ──●                 both end with the same record
    ahead       ──●┄┄local          the local one goes on where the store's ends
    behind      ──●┄┄store          the store's goes on where the local one ends
    after       ┄┄   ┄┄local        the local one begins after the store's end, and sums up what is before
    beyond      ┄┄   ┄┄store        the store's begins after the local one's end: its snapshot sums up what is between
    diverged    ──●<                they have a past in common, and each went on by itself
    unrelated   ┄┄ ┄┄               no record is known to both

Two logs are the same up to a record when its digest is the same in both: it stands for everything before. Where the
store no longer has the records that far back, its snapshot tells: a session that both know proves one past, for its id
occurs in no other, and of that past is every record whose seq its epoch had reached there. Two that could not claim may
have written under one epoch, so what a session says has to stand in the store's chunks as it does here.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from persistence.ancestry import Kin, Place, kin
from persistence.chunks import seq_of
from persistence.disk import Disk, read, refused
from persistence.errors import Damaged, NotFound
from persistence.frame import PREFIX_BYTES
from persistence.layout import LogObject
from persistence.reigns import REIGNS, Reigns
from persistence.remote import Tip
from persistence.scan import segment_name, segments
from persistence.segment import digests
from persistence.shelf import Piece, opened_snapshot, verified, verified_body
from persistence.store import Store
from persistence.streams import STREAMS
from persistence.wal import Head

Relation = Literal["same", "ahead", "after", "behind", "beyond", "diverged", "unrelated"]

_PLACE = re.compile(rb' \{"seq":(\d+),"id":"[^"]*","ts":\d+,"epoch":(\d+),"d":\d+,"stream":(?:null|"([^"]*)")')


@dataclass(frozen=True, slots=True)
class Stand:
    """The relation, and the last record that both logs have (0: none)."""

    relation: Relation
    common: int


def relate(disk: Disk, wal: Path, head: Head, store: Store, tip: Tip) -> Stand:
    """How a log that was proven and ends with `head` stands to what the store holds. Raises StoreError, StorageError.

    Whether one that is called unrelated comes after, its own state has to tell: `is_after`.

    The usual cases read a segment here or nothing at all; only logs that parted ways are compared record by record.
    """
    chain = head.checksum.hex()
    if (head.seq, chain) == (tip.seq, tip.chain):
        return Stand("same", head.seq)
    if head.seq > tip.seq and digest_at(disk, wal, tip.seq) == tip.chain:
        return Stand("ahead", tip.seq)
    if head.seq < tip.seq and _in_store(store, tip, head.seq) == chain:
        return Stand("behind", head.seq)
    common = _common(disk, wal, store, tip) or _by_reigns(disk, wal, store, tip)
    if common == 0:
        return Stand("unrelated", 0)
    return Stand("beyond" if common == head.seq else "diverged", common)


def is_after(disk: Disk, wal: Path, mine: Place, reigns: Reigns, store: Store, tip: Tip) -> bool:
    """Whether the store's history ends in the past of this log, whose records begin later: git brought it here.

    `mine` and `reigns` are where this one stands. Raises StoreError, StorageError, Damaged.
    """
    begins = min(segments(disk, wal), default=0)
    return begins > tip.seq + 1 and kin(mine, reigns, place(store, tip), None) is Kin.PAST


def place(store: Store, tip: Tip) -> Place:
    """Where the store's history stands, with every session of which it speaks. Raises Damaged, StoreError."""
    snap, epoch, sessions = tip.manifest.snap, 0, set[str]()
    if snap is not None:
        folds = opened_snapshot(verified(store, snap.key, snap.sha256, snap.bytes), snap).folds
        sessions |= set(folds[STREAMS.name]["state"])
        epoch = max((one["epoch"] for one in folds[REIGNS.name]["state"]["reigns"]), default=0)
    for one in _said_by(_body(store, piece) for piece in _backwards(tip)):
        epoch = max(epoch, one.epoch)
        if one.stream:
            sessions.add(one.stream)
    return Place(epoch, tip.seq, tip.chain, sessions)


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


def _in_store(store: Store, tip: Tip, seq: int) -> str | None:
    """The store's digest after a record, None where it does not say."""
    manifest = tip.manifest
    if seq == manifest.log_seq:
        return manifest.log_chain
    if seq == manifest.begins - 1:
        return manifest.segs[0].chain_in
    for piece in _backwards(tip):
        if piece.first <= seq <= piece.last:
            return digests(_body(store, piece)).get(seq)
    return None


def _by_reigns(disk: Disk, wal: Path, store: Store, tip: Tip) -> int:
    """The last local record that lies in the past which the store's snapshot sums up; 0 where it is another past."""
    snap = tip.manifest.snap
    if snap is None:
        return 0
    snapshot = opened_snapshot(verified(store, snap.key, snap.sha256, snap.bytes), snap)
    texts = _texts(disk, wal)
    local = list(_said_by(texts))
    there = snapshot.folds.get(STREAMS.name, {}).get("state", {})
    shared = {one.stream for one in local} & set(there)
    if not shared:
        return 0
    firsts = {one["epoch"]: one["first_seq"] for one in snapshot.folds[REIGNS.name]["state"]["reigns"]}
    for one in _said_by(_body(store, piece) for piece in reversed(list(_backwards(tip)))):
        if one.seq > snap.seq:
            firsts.setdefault(one.epoch, one.seq)

    def reached(epoch: int) -> int:
        return min((first - 1 for other, first in firsts.items() if other > epoch), default=tip.seq)

    common = max((one.seq for one in local if one.epoch in firsts and one.seq <= reached(one.epoch)), default=0)
    read_there = _read_there(store, [ref for name in shared for ref in there[name]["chunks"]], texts, common)
    said_here = max((one.seq for one in local if one.stream and one.seq <= common), default=0)
    return common if said_here <= read_there else read_there


def _read_there(store: Store, refs: Iterable[Mapping[str, Any]], texts: Iterable[bytes], last: int) -> int:
    """The last of the local records up to `last` that stands in one of these chunks; 0 where none does."""
    lines = (line[PREFIX_BYTES:] for text in texts for line in text.split(b"\n"))
    local = {seq_of(line): line for line in lines if line.startswith(b'{"seq":')}
    found = 0
    for ref in sorted(refs, key=lambda ref: -ref["last"]):
        if found < ref["last"] and ref["first"] <= last:
            try:
                there = verified_body(store, "chunk", ref["sha256"]).splitlines()
            except (NotFound, Damaged):
                continue  # less is common then, and what comes in as an orphan is compared once more
            found = max([found, *(seq_of(line) for line in there if local.get(seq_of(line)) == line)])
    return min(found, last)


class _Said(NamedTuple):
    seq: int
    epoch: int
    stream: str | None


def _said_by(texts: Iterable[bytes]) -> Iterator[_Said]:
    for text in texts:
        for one in _PLACE.finditer(text):
            yield _Said(int(one[1]), int(one[2]), one[3].decode() if one[3] else None)


def _texts(disk: Disk, wal: Path) -> list[bytes]:
    """The local segments, in order. Raises StorageError."""
    try:
        return [read(disk, wal / segment_name(base)) for base in segments(disk, wal)]
    except OSError as error:
        raise refused(error, wal) from error


def _common(disk: Disk, wal: Path, store: Store, tip: Tip) -> int:
    """The last record that both have, searched for from the end; 0 where there is none."""
    local: dict[int, str] = {}
    for text in _texts(disk, wal):
        local |= digests(text)
    for piece in _backwards(tip):
        there = {piece.first - 1: piece.chain_in, **digests(_body(store, piece))}
        shared = [seq for seq, digest in there.items() if seq and local.get(seq) == digest]
        if shared:
            return max(shared)
    manifest, snap = tip.manifest, tip.manifest.snap
    known = {manifest.log_seq: manifest.log_chain, **({snap.seq: snap.chain} if snap else {})}
    return max((seq for seq, digest in known.items() if seq and local.get(seq) == digest), default=0)


def _backwards(tip: Tip) -> Iterator[Piece]:
    """What the store has of the log, newest first."""
    for one in reversed(tip.tail):
        yield Piece(one.header.first, one.header.last, one.header.chain_in, one)
    for seg in reversed(tip.manifest.segs):
        yield Piece(seg.first, seg.last, seg.chain_in, seg)


def _body(store: Store, piece: Piece) -> bytes:
    """Its frames. Raises Damaged, StoreError."""
    one = piece.of
    return one.body if isinstance(one, LogObject) else verified(store, one.key, one.sha256, one.bytes)
