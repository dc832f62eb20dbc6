"""Beads: tracked work, and the one place where finn keeps what it is in the midst of.

    ask ─▶ decide (pure) ─▶ beads_changed, durable ─▶ BEADS ─▶ .beads/issues.jsonl, within half a second
                                                                    ▲                 │
                                         merge (three ways) ────────┴── changed by hand, by br, by git

Records first, the file second: what a caller was told is in the log, and the file is written from it (bead_file.py). Of
two who change the same bead one is first, and the other decides on what that one left.

    bead.py  one line     labels.py  states and their arrows     ready.py  what br would show     bead_ids.py  names
    changes.py, edges.py, own_beads.py  decisions     issues.py  the file's text     merge.py  three versions into one
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from persistence import amends, changes, own_beads
from persistence.bead import Bead, parse
from persistence.changes import Asking, Fields
from persistence.clock import Clock
from persistence.events import SYSTEM, BeadChange, BeadsChanged, By, Json, Record
from persistence.fold import Fold
from persistence.issues import written
from persistence.journal import Journal
from persistence.labels import STALE
from persistence.rfc3339 import SECOND

BATCH_CHARS = 500_000  #: of lines in one record, where a file with many was changed by hand


@dataclass(frozen=True)
class Board:
    """All beads by id, the lines of their file that are none, and the seq of the record that changed them last."""

    beads: Mapping[str, Bead] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    seq: int = 0

    @property
    def text(self) -> bytes:
        """The bytes of their file."""
        return written(self.beads.values(), self.others)

    @cached_property
    def stale(self) -> tuple[str, ...]:
        """The beads in progress that nobody touched for long, by name. Probes ask for it all the time."""
        return tuple(sorted(bead.id for bead in self.beads.values() if STALE in bead.labels and not bead.ended))


def keep(board: Board, record: Record) -> Board:
    """The board after a record. A line that could not be read back from its blob leaves the bead as it was."""
    event = record.event
    if not isinstance(event, BeadsChanged):
        return board
    beads = {change.id: Bead(change.line) for change in event.beads if _is_whole(change.line)}
    others = board.others if event.others is None else event.others
    return Board({**board.beads, **beads}, others, record.seq)


def _is_whole(line: str) -> bool:
    try:
        parse(line)
    except ValueError:
        return False
    return True


#: Who comes from a release without beads had none.
BEADS = Fold("beads", 1, Board, Board(), keep, False, (BeadsChanged,), lifts={0: lambda _: {"beads": {}}})

Decide = Callable[[Board], Iterable[Bead]]


class Beads:
    """The beads of a journal. Used on its event loop."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._one = asyncio.Lock()
        self._changing: set[asyncio.Task[list[Bead]]] = set()

    @property
    def board(self) -> Board:
        """The beads as they are."""
        return self._journal.whole(BEADS)

    @property
    def now(self) -> int:
        """Nanoseconds since 1970, as whole microseconds: a float holds no more."""
        return int(self._clock.now() * 1_000_000) * 1000

    async def create(self, fields: Fields, by: By, name: str = "") -> Bead:
        """Makes a bead. Raises what `changes.create` raises, and StorageError, Fenced."""
        clean = self._discreet(fields)
        asking = Asking(by, self.now, self._journal.redact(name))
        return (await self.change("created", lambda board: [changes.create(board.beads, clean, asking)], by))[0]

    async def update(self, name: str, fields: Fields, by: By, who: str = "") -> Bead:
        """Changes a bead, in one step from what it is then. Raises what `changes.update` raises, and so on."""
        clean = self._discreet(fields)
        asking = Asking(by, self.now, self._journal.redact(who))
        op = "closed" if clean.get("status") == "closed" else "updated"
        return (await self.change(op, lambda board: [changes.update(board.beads, name, clean, asking)], by))[0]

    async def mark_stale(self, after_s: float) -> list[str]:
        """Labels what lies still for so long. Returns the ids; writes nothing where there is nothing new."""
        found = await self.change("stale", lambda board: own_beads.stale(board.beads, self.now, int(after_s) * SECOND))
        return [bead.id for bead in found]

    async def set_health(self, *, degraded: bool) -> None:
        """What the agent's own bead says of its health."""
        await self.change("health", lambda board: own_beads.health(board.beads, self.now, degraded=degraded))

    async def expire(self) -> None:
        """Called when nobody can be at work, as at a start: what was active then has no owner any more."""
        await self.change("expired", lambda board: amends.ownerless(board.beads, self.now))

    async def mend(self, edits: Sequence[amends.Edit], by: By) -> None:
        """Makes beads what the edits want. Raises Conflict where one was changed meanwhile; then none is."""
        await self.change("mended", lambda board: amends.put(board.beads, edits, self.now), by)

    async def trip(self, task: str, why: str) -> None:
        """A task's breaker has opened."""
        words = self._journal.redact(why)
        await self.change("tripped", lambda board: own_beads.trip(board.beads, task, words, self.now))

    async def reset(self, task: str) -> None:
        """A task's breaker has closed again."""
        await self.change("reset", lambda board: own_beads.reset(board.beads, task, self.now))

    async def change(
        self, op: str, decide: Decide, by: By = SYSTEM, others: tuple[str, ...] | None = None
    ) -> list[Bead]:
        """Decides on the beads as they are, and makes that so before anybody else decides. Returns what was decided.

        What does not differ from what is there is no change, and without one nothing is recorded. It goes on when its
        caller is cancelled, or the next one would decide on beads that are about to change.
        """
        changing = asyncio.create_task(self._change(op, decide, by, others))
        self._changing.add(changing)
        changing.add_done_callback(self._forget)
        return await asyncio.shield(changing)

    async def _change(self, op: str, decide: Decide, by: By, others: tuple[str, ...] | None) -> list[Bead]:
        async with self._one:
            board = self.board
            decided = list(decide(board))
            changed = [_change(board.beads.get(bead.id), bead) for bead in decided if board.beads.get(bead.id) != bead]
            others = None if others == board.others else others
            if changed or others is not None:
                await self._journal.admit()
            for batch in _batches(changed, others is not None):
                await self._journal.commit(BeadsChanged(op=op, beads=batch, others=others), by=by)
                others = None
            return decided

    def _forget(self, task: "asyncio.Task[list[Bead]]") -> None:
        self._changing.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked was told, unless it is gone

    def _discreet(self, fields: Fields) -> dict[str, Json]:
        """The fields as they may be recorded: within a line of JSON a secret would hide behind escapes."""
        return {key: _redacted(value, self._journal.redact) for key, value in fields.items()}


def _batches(changed: Sequence[BeadChange], even_none: bool) -> Iterator[tuple[BeadChange, ...]]:
    """The changes in as few records as hold them; `even_none` gives one of nothing as well."""
    batch, size = list[BeadChange](), 0
    for one in changed:
        if batch and size + len(one.line) > BATCH_CHARS:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(one)
        size += len(one.line)
    if batch or even_none:
        yield tuple(batch)


def _change(before: Bead | None, after: Bead) -> BeadChange:
    return BeadChange(id=after.id, line=after.line, before=before.labels if before else (), after=after.labels)


def _redacted(value: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: _redacted(one, redact) for key, one in value.items()}
    return [_redacted(one, redact) for one in value] if isinstance(value, Sequence) else value
