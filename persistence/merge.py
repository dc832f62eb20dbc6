"""Three versions of the beads become one: what was written last, what is so now, and what somebody made of the file.

    base ─┬─ ours ───┐      one side changed: that side          both: the younger, a tie ours; labels, comments and
          └─ theirs ─┴─▶    deleted here or there: deleted       dependencies of both

A line that is gone from the file deletes its bead, as a tombstone that keeps all it said. What is in the file and was
never here is taken in. Where this log is older than what was written last (it was restored), the file is right.

Two versions that are each in order may not be so together: of two beads that come to be in a state for one alone, the
younger is in it, and the other one says why it no longer is.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from persistence.amends import rivals
from persistence.bead import Bead
from persistence.labels import COMPUTED, state
from persistence.rfc3339 import MICROSECOND, rfc3339
from persistence.values import Json

ById = Mapping[str, Bead]

TOMBSTONE = "tombstone"


def merge(base: ById, ours: ById, theirs: ById, now: int, *, deleting: bool = True) -> list[Bead]:
    """The beads that change here, in the order of their ids. Without `deleting` a line that is gone means nothing."""
    found = [_one(name, base.get(name), ours.get(name), theirs.get(name), now, deleting) for name in {*base, *theirs}]
    changed = {bead.id: bead for bead in found if bead is not None}
    others = (bead for name, bead in ours.items() if name not in changed)
    merged = {bead.id: bead for bead in _own_refs([changed[name] for name in sorted(changed)], others)}
    if merged:
        merged |= {bead.id: bead for bead in rivals({**ours, **merged}, now)}
    return [merged[name] for name in sorted(merged)]


def _one(name: str, base: Bead | None, ours: Bead | None, theirs: Bead | None, now: int, deleting: bool) -> Bead | None:
    """The bead as it is to be, where that is not as it is."""
    if theirs is None:
        gone = deleting and base is not None and ours is not None and ours.line == base.line
        return deleted(ours, now, "removed from the file") if gone and ours and ours.status != TOMBSTONE else None
    theirs = _uncomputed(theirs)
    if ours is None:
        return theirs
    if ours.line == theirs.line or ours.status == TOMBSTONE:
        return None
    base = base and _uncomputed(base)
    if base is not None and theirs.line == base.line:
        return theirs if ours.updated < base.updated else None
    if theirs.status == TOMBSTONE or (base is not None and ours.line == base.line):
        return _after(theirs, ours)
    merged = both(base, ours, theirs)
    return None if merged.line == ours.line else merged


def both(base: Bead | None, ours: Bead, theirs: Bead) -> Bead:
    """Two versions of which neither is the other's past."""
    newer, older = (theirs, ours) if theirs.updated > ours.updated else (ours, theirs)
    merged = newer.having(
        {
            "labels": list(_labels(base, newer, older)),
            "dependencies": _dependencies(newer, older),
            "comments": _comments(newer, older),
        }
    )
    return merged if merged.line == newer.line else merged.having({"updated_at": rfc3339(newer.updated + MICROSECOND)})


def deleted(bead: Bead, now: int, reason: str, by: str = "owner") -> Bead:
    """A tombstone: the line stays with all that it said, and is out of every list."""
    at = rfc3339(max(now, bead.updated + MICROSECOND))
    stone = {"deleted_at": at, "deleted_by": by, "delete_reason": reason, "original_type": bead.type}
    return bead.having({"status": TOMBSTONE, "updated_at": at, **stone})


def _after(theirs: Bead, ours: Bead) -> Bead:
    """Their version, with a time after ours: who edits by hand does not think of it, and br would pass it over."""
    if theirs.updated > ours.updated:
        return theirs
    return theirs.having({"updated_at": rfc3339(ours.updated + MICROSECOND)})


def _uncomputed(bead: Bead) -> Bead:
    """Without what is computed whenever the file is written."""
    kept = [label for label in bead.labels if (state(label) or ("",))[0] != COMPUTED]
    return bead if len(kept) == len(bead.labels) else bead.having({"labels": kept})


def _labels(base: Bead | None, newer: Bead, older: Bead) -> tuple[str, ...]:
    """What either side added, less what either side took away; in each dimension the newer side's state."""
    before = set(base.labels) if base else set()
    added = (set(newer.labels) - before) | (set(older.labels) - before)
    removed = (before - set(newer.labels)) | (before - set(older.labels))
    merged = (before | added) - removed
    plain = {label for label in merged if state(label) is None}
    return tuple(sorted(plain | {label for label in newer.labels if state(label) is not None}))


def _dependencies(newer: Bead, older: Bead) -> list[Json]:
    """One edge to each bead, the newer side's where both have one."""
    edges = {str(edge["depends_on_id"]): edge for edge in (*older.edges, *newer.edges)}
    return [dict(edges[name]) for name in sorted(edges)]


def _comments(newer: Bead, older: Bead) -> list[Json]:
    """All of them, in the order in which they were made; an id that is taken is given anew."""
    known: dict[tuple[Any, ...], dict[str, Json]] = {}
    for comment in (*newer.comments, *older.comments):
        known.setdefault((comment["created_at"], comment["author"], comment["text"]), dict(comment))
    taken = set[Any]()
    numbers = [comment["id"] for comment in known.values() if isinstance(comment["id"], int)]
    following = max(numbers, default=0) + 1
    for key in known:
        comment = known[key]
        if comment["id"] in taken:
            comment["id"], following = following, following + 1
        taken.add(comment["id"])
    return [known[key] for key in sorted(known)]


def _own_refs(changed: list[Bead], others: Iterable[Bead]) -> Iterator[Bead]:
    """The changed beads, without an external_ref that another one has: br takes no file in which two have the same."""
    taken = {bead.text("external_ref") for bead in others} - {""}
    for bead in changed:
        ref = bead.text("external_ref")
        if ref in taken:
            yield bead.having({"external_ref": None, "updated_at": rfc3339(bead.updated + MICROSECOND)})
        else:
            taken |= {ref} - {""}
            yield bead
