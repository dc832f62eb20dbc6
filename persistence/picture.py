"""The agent at one seq, as it goes into the archive: its snapshot, and what of its sessions no chunk holds yet.

    journal ─▶ snapshot at seq S ─▶ the tails up to S, read back ─▶ Picture

Chunks, files and long texts are named in the snapshot by their hashes; whoever keeps the picture fetches their bytes.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from persistence import snapshot
from persistence.beads import BEADS
from persistence.chunks import ChunkRef
from persistence.errors import Damaged
from persistence.files import FILES, Kept
from persistence.journal import Journal
from persistence.snapshot import Snapshot
from persistence.streams import STREAMS, Stream

PAGE = 1000  #: records of a tail that are read at once


class Source(Protocol):
    """Where bytes are fetched by their hash: the journal. Both raise NotFound, Damaged, StorageError, StoreError."""

    def blob(self, sha: str) -> bytes: ...

    def chunk(self, sha: str) -> bytes: ...


@dataclass(frozen=True)
class Picture:
    """State after the record `seq`. `text` is the snapshot's canonical JSON, `tails` the lines of unsealed records.

    `manifest` is the number of the store's newest manifest (0: no store), `time` in whole seconds since 1970.
    """

    seq: int
    chain: str
    epoch: int
    state_sha: str
    manifest: int
    time: int
    text: bytes
    streams: Mapping[str, Stream]
    files: Mapping[str, Kept]
    tails: Mapping[str, tuple[bytes, ...]]
    beads: bytes = b""  #: of `.beads/issues.jsonl`

    @property
    def chunks(self) -> tuple[tuple[str, ChunkRef], ...]:
        """Every chunk with its session, in order."""
        return tuple((name, ref) for name, stream in sorted(self.streams.items()) for ref in stream.chunks)


async def take(journal: Journal, *, manifest: int, time: int) -> Picture:
    """The picture of now. Raises StorageError, OSError or Damaged where the disk refuses."""
    await journal.renew()
    taken = await asyncio.to_thread(_newest, journal.paths.snapshots)
    picture = await asyncio.to_thread(of, taken, manifest=manifest, time=time)
    tails = {name: await _tail(journal, name, stream, picture.seq) for name, stream in picture.streams.items()}
    return replace(picture, tails={name: lines for name, lines in tails.items() if lines})


def of(taken: Snapshot, *, manifest: int = 0, time: int = 0) -> Picture:
    """What a snapshot alone tells: no tails. Raises Damaged where its sections are not of the shape known here."""
    sections: Mapping[str, Any] = taken.folds
    try:
        streams = {name: STREAMS.load(state) for name, state in sections[STREAMS.name]["state"].items()}
        files = FILES.load(sections[FILES.name]["state"]).files if FILES.name in sections else {}
        beads = BEADS.load(sections[BEADS.name]["state"]).text if BEADS.name in sections else b""
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"the snapshot at {taken.seq} is of another shape: {error}", hint="run finn verify") from error
    return Picture(
        seq=taken.seq,
        chain=taken.chain,
        epoch=taken.epoch,
        state_sha=snapshot.state_sha(sections),
        manifest=manifest,
        time=time,
        text=taken.text,
        streams=streams,
        files=files,
        tails={},
        beads=beads,
    )


def _newest(snapshots: Path) -> Snapshot:
    path = snapshot.listed(snapshots)[0]
    return snapshot.decode(path.read_bytes(), path.name)


async def _tail(journal: Journal, name: str, stream: Stream, seq: int) -> tuple[bytes, ...]:
    """The lines of the stream's records up to `seq` that are in no chunk of that moment, wherever they are now."""
    lines: list[bytes] = []
    after = None if stream.tail_first is None else stream.tail_first - 1
    while after is not None:
        page = await journal.read(name, after=after, before=seq + 1, limit=PAGE)
        lines += [record.line for record in page if not _sealed(stream, record.seq)]
        after = page[-1].seq if len(page) == PAGE else None
    return tuple(lines)


def _sealed(stream: Stream, seq: int) -> bool:
    """Chunks lie before the tail, but for one whose seal was lost."""
    return (
        bool(stream.chunks) and seq <= stream.chunks[-1].last and any(c.first <= seq <= c.last for c in stream.chunks)
    )
