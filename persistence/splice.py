"""Lost records of the local log, put back from the store.

    0000000000000871.wal   header ─ good ─ ▒▒▒▒ ─ good ─ footer
                                             ▲ the same records as the store has them: the same bytes, where the gap is
                                               exactly theirs; else the segment is written anew around what is good

What comes from the store has to follow the good record before it and to lead to the good record behind it, by the
digests of the log itself, so another history can never slip in. The damaged bytes are in quarantine/ already. The
mended files are built aside and moved in together.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from persistence import segment, swap
from persistence.disk import Disk, read, refused
from persistence.errors import Damaged
from persistence.frame import framed
from persistence.layout import NOTHING
from persistence.recovery import inspect
from persistence.remote import Tip
from persistence.replay import Paths
from persistence.restoration import records, written
from persistence.scan import Control, Damage, Good, segment_name, segments, walk
from persistence.segment import Span
from persistence.store import Store
from persistence.wal import Head


class Lost(NamedTuple):
    """Records `first`..`last`, of which the segment `base` has damaged bytes, or none: then they get their own file."""

    base: int
    first: int
    last: int


def heal(store: Store, tip: Tip, paths: Paths, disk: Disk, *, head: Head, ms: int) -> tuple[bool, tuple[str, ...]]:
    """Puts back what the store has of the lost records. Whether anything changed, and what could not be used.

    `head` is the end of the log as far as anything here remembers it. Raises StoreError, StorageError.
    """
    try:
        damage = inspect(disk, paths.wal, known=head).damage
        bases = segments(disk, paths.wal)
        lost = list(_lost(damage))
        into = swap.begin(disk, paths.root) / "wal"
        problems: list[str] = []
        mended = 0
        for base in sorted({one.base for one in lost}):
            fetched = [records(store, tip, one.first, one.last) for one in lost if one.base == base]
            spans = [span for span in fetched if span is not None]
            if not spans:
                continue
            try:
                if base in bases:
                    name, data = base, _mended(disk, paths.wal, base, damage, spans, base == bases[-1], tip, ms)
                else:
                    name, data = spans[0].first, _form(tip, spans[0], ms, growing=False)
            except Damaged as problem:
                problems.append(problem.message)
                continue
            written(disk, into / segment_name(name), data)
            mended += 1
    except OSError as error:
        raise refused(error, paths.wal) from error
    if mended:
        swap.join(disk, paths.root, restored=None)
    return mended > 0, tuple(problems)


def _lost(damage: Iterable[Damage]) -> Iterable[Lost]:
    """What is to be fetched, and where it belongs. At byte 0 whole segments are missing before that one."""
    for one in damage:
        if one.first is not None and one.last is not None:
            own = one.kind == "missing" and one.offset == 0
            yield Lost(one.first if own else one.segment, one.first, one.last)


def _mended(
    disk: Disk,
    wal: Path,
    base: int,
    damage: Sequence[Damage],
    spans: Sequence[Span],
    last: bool,
    tip: Tip,
    ms: int,
) -> bytes:
    """The bytes of a segment with the records of the spans in their places. Raises Damaged."""
    here = [one for one in damage if one.segment == base and (one.length or one.first)]
    whole = _anew(disk, wal, base, spans)
    same = _same_places(read(disk, wal / segment_name(base)), here, spans)
    return same if same is not None else _form(tip, whole, ms, growing=last)


def _form(tip: Tip, span: Span, ms: int, *, growing: bool) -> bytes:
    form = segment.growing if growing else segment.sealed
    return form(span, epoch=tip.manifest.epoch, writer=tip.manifest.writer, ms=ms)


def _same_places(data: bytes, damage: Sequence[Damage], spans: Sequence[Span]) -> bytes | None:
    """The segment with each damaged run of bytes replaced, if the records fill exactly their places."""
    bodies = {(span.first, span.last): span.body for span in spans if not span.holes}
    for one in damage:
        body = bodies.get((one.first or 0, one.last or 0))
        if body is None or len(body) != one.length:
            return None
        data = data[: one.offset] + body + data[one.offset + one.length :]
    return data if damage else None


def _anew(disk: Disk, wal: Path, base: int, spans: Sequence[Span]) -> Span:
    """The segment's good records and those of the spans, proven to be one log. Raises Damaged."""
    frames: dict[int, tuple[bytes, str]] = {}
    chain_in = ""
    for found in walk(disk, wal, [base]):
        if isinstance(found, Good):
            frames[found.seq] = framed(found.line, bytes.fromhex(found.checksum)), found.checksum
        elif isinstance(found, Control) and found.kind == "header":
            chain_in = found.chain.hex()
    for span in spans:
        for one in segment.frames(span.body, span.first, span.chain_in, segment_name(base)):
            frames.setdefault(one.seq, (span.body[one.offset : one.offset + one.length], one.digest.hex()))
        chain_in = chain_in or (span.chain_in if span.first == base else "")
    if not frames:
        raise Damaged(f"nothing is left of {segment_name(base)}", hint="it is in quarantine")
    body = b"".join(frames[seq][0] for seq in sorted(frames))
    end = max(frames)
    return segment.proven(body, base, end, chain_in or NOTHING, frames[end][1], segment_name(base))
