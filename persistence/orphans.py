"""What a writer had acknowledged before it knew that it was fenced: kept, found, and brought into the living history.

    fenced writer    records after the fence ─▶ quarantine/ here ─▶ blobs ─▶ orphans/{epoch}-{writer}/{first}.wal
    living writer    listed at a start, after a takeover, hourly ─▶ entry_recovered … ─▶ orphans_imported ─▶ confirmed
                                                                                          └ only then deleted there

An orphan is never run and never becomes the state of anything: it is a branch beside the conversation, marked as
recovered, with the time and the author that it had. Its parent is what it was said below; where that is an orphan too,
it is the entry that the orphan has become. ORPHANS knows which have, so a crash in between brings nothing in twice.
What lies in the store was written by others: names, sizes and hashes are proven before anything is believed.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from persistence import quarantine
from persistence.blobs import Blobs
from persistence.codec import decode, named_blobs
from persistence.disk import Disk
from persistence.errors import Damaged, NotFound
from persistence.events import (
    EntryRecovered,
    Event,
    FileChanged,
    Json,
    OrphansImported,
    Record,
    SteerTaken,
    TurnStarted,
    Unknown,
    seq_of,
)
from persistence.fold import Fold
from persistence.journal import Journal
from persistence.layout import (
    NOTHING,
    Header,
    blob_key,
    bytes_of,
    decode_object,
    encode_object,
    orphan,
    orphan_key,
)
from persistence.runs import Run
from persistence.segment import frames
from persistence.store import Found, Store

OBJECT_MAX = 16 << 20  #: bytes of an orphan object that is read; a writer's own are far smaller
FOUND_MAX = 1000  #: objects looked at in one go
FOUND_BYTES = 64 << 20  #: and held in memory; the rest comes with the next look

#: What only says how a lost reign was kept, or what a recovered message says as well.
BOOKKEEPING = frozenset(
    {"chunk_sealed", "gap_declared", "log_recovered", "entry_recovered", "orphans_imported"}
    | {"message_checkpointed", "call_failed", "turn_started", "steer_taken", "turn_ended", "context_cut"}
)

_STREAM = re.compile(r"[0-9A-Za-z]{1,64}")  # it becomes the name of a file


# ---------------------------------------------------------------- what has come in


@dataclass(frozen=True)
class Imported:
    """What was brought in: the objects, with the seq at which each was done, and what each orphan has become."""

    done: Mapping[str, int]
    became: Mapping[str, str]


def follow(state: Imported, record: Record) -> Imported:
    """What was brought in after a record."""
    event = record.event
    if isinstance(event, EntryRecovered):
        return Imported(state.done, {**state.became, event.origin: record.entry})
    if isinstance(event, OrphansImported):
        return Imported({**state.done, event.name: record.seq}, state.became)
    return state


ORPHANS = Fold("orphans", 1, Imported, Imported({}, {}), follow, False, (EntryRecovered, OrphansImported))


# ---------------------------------------------------------------- keeping


def keep(
    store: Store,
    disk: Disk,
    folder: Path,
    epoch: int,
    writer: str,
    runs: Iterable[Run],
    blob: Callable[[str], bytes],
) -> int:
    """Keeps what this fenced writer had acknowledged, in `folder` and in the store. Returns how many objects it made.

    Done again after an error it writes the same under the same names. Raises StorageError before anything left this
    disk, StoreError once it is safe here.
    """
    kept = list(runs)
    for run in kept:
        name, why = f"orphans-{epoch}-{writer}-{run.first:016d}.wal", "acknowledged here after another had taken over"
        quarantine.keep(disk, folder, name, run.body, records=[run.first, run.last], why=why)
    for run in kept:
        _send(store, epoch, writer, run, blob)
    return len(kept)


def _send(store: Store, epoch: int, writer: str, run: Run, blob: Callable[[str], bytes]) -> None:
    for sha in run.blobs:
        try:
            store.put(blob_key(sha), blob(sha))
        except (NotFound, Damaged):
            continue  # the record says so itself once it is read without it
    header = Header(
        n=run.first,
        epoch=epoch,
        writer=writer,
        previous=NOTHING,
        first=run.first,
        last=run.last,
        chain_in=run.chain_in,
        chain_out=run.chain_out,
        nonce=sha256(run.body).hexdigest()[:32],  # the same object whenever it is sent
    )
    store.put(orphan_key(epoch, writer, run.first), bytes_of(encode_object(header, run.body)))


# ---------------------------------------------------------------- finding


class Orphans(NamedTuple):
    """One object of orphans: its key, and its records as they were."""

    key: str
    records: tuple[Record, ...]


class Search(NamedTuple):
    """What lies below orphans/, and, as sentences, what there cannot be used."""

    orphans: tuple[Orphans, ...]
    problems: tuple[str, ...]


def find(store: Store, done: Mapping[str, int], blobs: Blobs) -> Search:
    """The orphans that were not brought in yet, oldest first. Their long texts and files are fetched into `blobs`.

    Raises StoreError, StorageError.
    """
    found: list[Orphans] = []
    problems: list[str] = []
    size = 0
    for listed in sorted(islice(store.list("orphans/"), FOUND_MAX), key=_age):
        place = orphan(listed.key)
        if listed.key in done:
            continue
        if place is None or listed.bytes > OBJECT_MAX:
            problems.append(f"{listed.key} is no object of orphans and is left alone")
            continue
        size += listed.bytes
        if size > FOUND_BYTES:
            break
        try:
            found.append(Orphans(listed.key, tuple(_records(store, listed.key, place, blobs, problems.append))))
        except NotFound:
            continue  # another brought it in
        except (Damaged, ValueError, KeyError, TypeError) as error:
            problems.append(f"{listed.key} cannot be used: {error}")
    return Search(tuple(found), tuple(problems))


def clear(store: Store, done: Mapping[str, int], confirmed: int) -> int:
    """Deletes what was brought in by records that the store has. Returns how many objects. Raises StoreError."""
    over = [one.key for one in store.list("orphans/") if done.get(one.key, confirmed + 1) <= confirmed]
    for key in over:
        store.delete(key)
    return len(over)


def _age(listed: Found) -> tuple[int, str]:
    place = orphan(listed.key)
    return (place[0] if place else 0, listed.key)


def _records(
    store: Store, key: str, place: tuple[int, str, int], blobs: Blobs, tell: Callable[[str], None]
) -> Iterator[Record]:
    one = decode_object(store.get(key, 0, OBJECT_MAX), key)
    header = one.header
    if (header.epoch, header.writer, header.first) != place:
        raise Damaged(f"{key} holds what another name should")
    for seq, found in enumerate(frames(one.body, header.first, header.chain_in, key), header.first):
        if found.seq != seq:
            raise Damaged(f"{key} has a record that does not follow the one before it")
        for sha in named_blobs(found.line):
            _fetch(store, sha, blobs)
        record = decode(found.line, found.digest.hex(), blobs, tell)
        if record.stream is not None and not _STREAM.fullmatch(record.stream):
            raise Damaged(f"{key} has a record of {record.stream[:80]!r}, which is no session")
        yield record


def _fetch(store: Store, sha: str, blobs: Blobs) -> None:
    """The blob is here afterwards, if the store has it; where not, the record says so when it is read."""
    if blobs.has(sha):
        return
    try:
        data = store.get(blob_key(sha))
    except NotFound:
        return
    if sha256(data).hexdigest() == sha:
        blobs.put(data)


# ---------------------------------------------------------------- bringing in


async def bring_in(journal: Journal, disk: Disk, orphans: Orphans) -> int:
    """Commits each of these orphans that was not yet, and that all of them were. Returns how many it committed.

    What this log has itself is no orphan: a fenced writer may have been the next to write after all. A crash or an
    error anywhere: the next call goes on from there. Raises what commit raises.
    """
    places = {
        one.event.entry: one.event.parent for one in orphans.records if isinstance(one.event, TurnStarted | SteerTaken)
    }
    here: dict[str, str] = {}  # what each of these is called in this log
    last: dict[str | None, str] = {}
    count = 0
    for record in orphans.records:
        if record.type in BOOKKEEPING or (record.stream is None and not isinstance(record.event, FileChanged)):
            continue
        became = journal.whole(ORPHANS).became
        if await _is_own(journal, record):
            here[record.entry] = record.entry
        elif origin(record) not in became:
            said = places.get(record.entry, getattr(record.event, "parent", None))
            parent = _parent(said, here, became, orphans.records[0].seq) or last.get(record.stream)
            here[record.entry] = await _commit(journal, disk, record, parent)
            count += 1
        else:
            here[record.entry] = became[origin(record)]
        last[record.stream] = here[record.entry]
    await journal.commit(OrphansImported(name=orphans.key, count=count))
    return count


def origin(record: Record) -> str:
    """What an orphan was: its place in its own reign, which two writers may share, and its checksum, which they do not.

    Not its id: where two clocks stand still, two writers go on from the same one.
    """
    return f"{record.entry}/{record.checksum}"


async def _is_own(journal: Journal, record: Record) -> bool:
    """Whether this log has the record itself."""
    if record.stream is None:
        return False
    found = await journal.read(record.stream, after=record.seq - 1, before=record.seq + 1)
    return any(one.line == record.line for one in found)


async def _commit(journal: Journal, disk: Disk, record: Record, parent: str | None) -> str:
    """Returns what the orphan is called from now on."""
    event = record.event
    if isinstance(event, FileChanged) and event.sha256 is not None:
        await asyncio.to_thread(_rescue, journal, disk, record, event, event.sha256)
    known = not isinstance(event, Unknown)
    recovered = EntryRecovered(
        origin=origin(record),
        type=record.type,
        version=event.v if known else record.v,
        data=_data(event),
        at=record.time,
        by=record.by,
        parent=parent,
    )
    return (await journal.commit(recovered, stream=record.stream)).entry


def _data(event: Event) -> dict[str, Json]:
    data: dict[str, Json] = event.data if isinstance(event, Unknown) else event.model_dump(mode="json")
    return data


def _parent(said: str | None, here: Mapping[str, str], became: Mapping[str, str], first: int) -> str | None:
    """What an orphan stands below: what it was said below, as it is called now. None where that is lost."""
    if said is None or said in here:
        return here.get(said or "")
    earlier = [entry for was, entry in became.items() if was.startswith(f"{said}/")]
    if earlier:  # it came in with an object before this one
        return earlier[-1]
    return None if seq_of(said) >= first else said


def _rescue(journal: Journal, disk: Disk, record: Record, event: FileChanged, sha: str) -> None:
    """Puts the bytes that a fenced writer's file had where a person finds them; the living file stays as it is."""
    try:
        data = journal.blobs.get(sha)
    except (NotFound, Damaged):
        return  # the record says what is missing
    name = re.sub(r"[^0-9A-Za-z._-]", "_", event.path)[-100:]
    where = {"from": f"{event.root}/{event.path}", "sha256": sha}
    kept = f"orphan-{record.entry}-{name}"
    quarantine.keep(disk, journal.paths.quarantine, kept, data, **where, why="changed by an instance that was fenced")
