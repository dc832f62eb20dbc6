"""What contradicts itself in the beads, and how each is put right: pure decisions, told apart from the file.

    rivals         a state that one bead alone may be in, on several     the youngest keeps it, the others give way
    undecided      two states of one kind on a bead                      the one that its status means stays
    unreadable     a label that br would refuse                          each odd sign becomes _
    unclosed       closed without closed_at, or the other way round      closed_at follows the status
    twins          an external_ref on two beads                          the older one keeps it
    ownerless      session:active where nobody works                     session:expired
    works_again    an open breaker's bead, and no such breaker is open   closed

Each takes the beads and gives those that change, as they would be. An Edit is such a change as data: it can be shown,
made a record of (`put`), and taken back by another record (`undone`).
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from persistence.bead import ENDED, Bead
from persistence.changes import ended
from persistence.errors import Conflict
from persistence.labels import BREAKER, DIMENSIONS, LABEL, state, states
from persistence.own_beads import BREAKER_REF, reset
from persistence.ready import ById
from persistence.rfc3339 import MICROSECOND, rfc3339
from persistence.values import Json

LABEL_CHARS = 50

#: What becomes of a bead that gives way: its label, and the status that this means. Nothing: the label goes.
GIVES_WAY: Mapping[str, tuple[str, str]] = {
    "run:current": ("run:halted", "blocked"),
    "sprint:in_progress": ("sprint:pending", "open"),
}

Amend = Callable[[ById, int], list[Bead]]


# ---------------------------------------------------------------- decisions


def rivals(board: ById, now: int) -> list[Bead]:
    """Of several beads in a state that is for one alone, all but the youngest, without it, and with a word on why."""
    changed: dict[str, Bead] = {}
    for holders in rivalries(board):
        winner = max(holders, key=lambda bead: (bead.updated, bead.id))
        for bead in holders:
            if bead.id != winner.id:
                was = changed.get(bead.id, bead)
                changed[bead.id] = _gave_way(was, winner, {**board, **changed}, now)
    return [changed[name] for name in sorted(changed)]


def rivalries(board: ById) -> list[list[Bead]]:
    """The beads that are together in a state for one alone."""
    found: defaultdict[str, list[Bead]] = defaultdict(list)
    for bead in board.values():
        if not bead.ended:
            for dimension, value in states(bead.labels).items():
                if value in DIMENSIONS[dimension].alone:
                    found["health" if dimension == "health" else f"{dimension}:{value}"].append(bead)
    return [found[name] for name in sorted(found) if len(found[name]) > 1]


def _gave_way(bead: Bead, winner: Bead, board: ById, now: int) -> Bead:
    changes: dict[str, Json] = {}
    for label in sorted(set(bead.labels) & set(winner.labels) | _healths(bead, winner)):
        dimension, value = state(label) or ("", "")
        if dimension and value in DIMENSIONS[dimension].alone:
            instead, status = GIVES_WAY.get(label, ("", bead.status))
            kept = {*(changes.get("labels") or bead.labels)} - {label} | ({instead} - {""})
            changes |= {"labels": sorted(kept), "status": status}
            why = f"{label} went from here: {winner.id} has it, and was changed later"
            changes["comments"] = _with_word({**board, bead.id: bead.having(changes)}, bead.id, why, now)
    return _later(bead, changes, now)


def _healths(bead: Bead, winner: Bead) -> set[str]:
    """The bead's state of health, where the winner has one, be it another."""
    found = [{label for label in one.labels if label in ("health:ok", "health:degraded")} for one in (bead, winner)]
    return found[0] if all(found) else set()


def undecided(board: ById, now: int) -> list[Bead]:
    """Beads with two states of one kind, with one."""
    changed = []
    for bead in _sorted(board):
        labels = set(bead.labels)
        for dimension, values in _several(bead).items():
            kept = _likely(bead, dimension, values)
            labels -= {f"{dimension}:{value}" for value in values if value != kept}
        if labels != set(bead.labels):
            changed.append(_later(bead, {"labels": sorted(labels)}, now))
    return changed


def _several(bead: Bead) -> dict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for label in bead.labels:
        if known := state(label):
            found[known[0]].append(known[1])
    return {dimension: values for dimension, values in found.items() if len(values) > 1}


def _likely(bead: Bead, dimension: str, values: Sequence[str]) -> str:
    """The state that the status means, else the one that is furthest on the way."""
    known = DIMENSIONS[dimension]
    means = [value for value in values if known.status.get(value) == bead.status]
    if means:
        return means[0]
    way = [*known.moves, *(to for many in known.moves.values() for to in many)]
    return max(values, key=way.index)


def unreadable(board: ById, now: int) -> list[Bead]:
    """Beads with a label that br would refuse, with one that it takes. Deleted ones are left as they are."""
    changed = []
    for bead in _sorted(board):
        if bead.status != "tombstone" and any(not LABEL.fullmatch(label) for label in bead.labels):
            fine = {readable(label) for label in bead.labels} - {""}
            changed.append(_later(bead, {"labels": sorted(fine)}, now))
    return changed


def readable(label: str) -> str:
    """The label with each sign that none has replaced, and not too long."""
    return label if LABEL.fullmatch(label) else re.sub(r"[^A-Za-z0-9_:-]", "_", label)[:LABEL_CHARS]


def unclosed(board: ById, now: int) -> list[Bead]:
    """Beads of which `closed_at` and status do not agree. When one was closed, its last change says."""
    changed = []
    for bead in _sorted(board):
        if bead.status == "closed" and not bead.text("closed_at"):
            changed.append(_later(bead, {"closed_at": rfc3339(bead.updated)}, now))
        elif bead.status not in ENDED and bead.text("closed_at"):
            changed.append(_later(bead, {"closed_at": None, "close_reason": None, "closed_by_session": None}, now))
    return changed


def twins(board: ById, now: int) -> list[Bead]:
    """Beads without the external_ref that an older one has as well."""
    taken: set[str] = set()
    changed = []
    for bead in sorted(board.values(), key=lambda one: (one.created, one.id)):
        ref = bead.text("external_ref")
        if ref in taken:
            changed.append(_later(bead, {"external_ref": None}, now))
        taken |= {ref} - {""}
    return sorted(changed, key=lambda one: one.id)


def ownerless(board: ById, now: int) -> list[Bead]:
    """Sessions of work that are active, for a moment at which nobody can be at work: they have expired."""
    return [
        _later(bead, {"labels": sorted({*bead.labels, "session:expired"} - {"session:active"})}, now)
        for bead in _sorted(board)
        if "session:active" in bead.labels and not bead.ended
    ]


def works_again(board: ById, now: int, open_tasks: Collection[str]) -> list[Bead]:
    """Beads of breakers that are open, where the breaker is not: they are closed."""
    return [
        changed
        for bead in _sorted(board)
        if (task := breaker_of(bead)) and task not in open_tasks
        for changed in reset(board, task, now)
    ]


def breaker_of(bead: Bead) -> str:
    """The task whose open breaker this bead stands for; empty for any other bead."""
    if bead.ended or not any(label.startswith(BREAKER) for label in bead.labels):
        return ""
    ref = bead.text("external_ref")
    return ref.removeprefix(BREAKER_REF) if ref.startswith(BREAKER_REF) else ""


# ---------------------------------------------------------------- as data


@dataclass(frozen=True, slots=True)
class Edit:
    """A bead's line as it is, and as it is to be. When it was changed does not count in either."""

    before: str
    after: str

    @property
    def id(self) -> str:
        """The bead's name."""
        return Bead(self.after).id


def edits(board: ById, changed: Iterable[Bead]) -> tuple[Edit, ...]:
    """Changes as data."""
    return tuple(Edit(board[bead.id].line, bead.line) for bead in changed)


def undone(done: Iterable[Edit]) -> tuple[Edit, ...]:
    """The changes that take those back."""
    return tuple(Edit(one.after, one.before) for one in done)


def put(board: ById, wanted: Iterable[Edit], now: int) -> list[Bead]:
    """The beads as the edits want them, later than they were. Raises Conflict for one that is no longer as it was."""
    found = []
    for edit in wanted:
        there, after = board.get(edit.id), Bead(edit.after)
        if there is not None and _says(there) == _says(after):
            continue
        if there is None or _says(there) != _says(Bead(edit.before)):
            raise Conflict(f"{edit.id} was changed meanwhile", hint="look again, and decide then")
        found.append(after.having({"updated_at": rfc3339(max(now, there.updated + MICROSECOND))}))
    return found


def _says(bead: Bead) -> dict[str, Json]:
    return {key: value for key, value in bead.data.items() if key != "updated_at"}


# ---------------------------------------------------------------- steps


def _sorted(board: ById) -> list[Bead]:
    return [board[name] for name in sorted(board)]


def _later(bead: Bead, changes: Mapping[str, Json], now: int) -> Bead:
    at = rfc3339(max(now, bead.updated + MICROSECOND))
    return (
        ended(bead.having({**changes, "updated_at": at}), bead, now)
        if "status" in changes
        else bead.having({**changes, "updated_at": at})
    )


def _with_word(board: ById, name: str, text: str, now: int) -> list[Json]:
    """The bead's comments with one more, of finn's own."""
    numbers = [one["id"] for bead in board.values() for one in bead.comments if isinstance(one["id"], int)]
    word = {"id": max(numbers, default=0) + 1, "issue_id": name, "author": "finn", "text": text}
    return [*map(dict, board[name].comments), {**word, "created_at": rfc3339(now)}]
