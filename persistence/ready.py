"""What can be worked on, what waits, and what lies still: computed as br computes it.

    blocked  a bead that waits for one which is not ended, or is not there; and whatever is below such a bead
    ready    open or in progress, not blocked, not deferred, not pinned, no template, not ephemeral
    stale    open or in progress, and not touched for so long

An edge of BLOCKING waits, a `parent-child` edge hands the waiting down, every other one tells and does nothing. A
circle of waiting beads blocks all of them, and nothing here goes round it twice.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from persistence.bead import Bead

BLOCKING = ("blocks", "conditional-blocks", "waits-for")
PARENT = "parent-child"
EXTERNAL = "external:"  #: what lies in another project is not known here, and holds nothing up
DEPTH = 50  #: generations to which a parent hands its waiting down
ACTIVE = ("open", "in_progress")
URGENT = 1  #: the last priority that goes before all the others
DAY = 86_400 * 1_000_000_000

ById = Mapping[str, Bead]


def waits_for(bead: Bead, beads: ById) -> tuple[str, ...]:
    """What holds the bead up by itself."""
    return tuple(
        str(edge["depends_on_id"])
        for edge in bead.edges
        if edge["type"] in BLOCKING and _holds_up(str(edge["depends_on_id"]), beads)
    )


def _holds_up(target: str, beads: ById) -> bool:
    found = beads.get(target)
    return not target.startswith(EXTERNAL) if found is None else not found.ended


def blocked(beads: ById) -> frozenset[str]:
    """The ids of all beads that wait."""
    children: defaultdict[str, list[str]] = defaultdict(list)
    for bead in beads.values():
        for edge in bead.edges:
            if edge["type"] == PARENT:
                children[str(edge["depends_on_id"])].append(bead.id)
    found = {bead.id for bead in beads.values() if waits_for(bead, beads)}
    front = found
    for _ in range(DEPTH):
        front = {child for parent in front for child in children.get(parent, ())} - found
        if not front:
            break
        found = found | front
    return frozenset(found)


def below(beads: ById, parent: str, *, deep: bool) -> set[str]:
    """The ids of a bead's children, or of all that is below it."""
    found, front = set[str](), {parent}
    while front:
        children = {
            bead.id
            for bead in beads.values()
            for edge in bead.edges
            if edge["type"] == PARENT and edge["depends_on_id"] in front
        }
        front = (children - found) if deep else set()
        found |= children
    return found


def ready(beads: ById, now: int, sort: str = "hybrid", *, deferred: bool = False) -> list[Bead]:
    """What can be worked on at `now`, in order; also what is put off, where that is asked for."""
    waiting = blocked(beads)
    found = [bead for bead in beads.values() if bead.id not in waiting and _can_begin(bead, now, deferred)]
    return sorted(found, key=ORDERS[sort])


def _can_begin(bead: Bead, now: int, deferred: bool) -> bool:
    if bead.status not in (*ACTIVE, *(("deferred",) if deferred else ())) or "-wisp-" in bead.id:
        return False
    if any(bead.data.get(flag) for flag in ("pinned", "is_template", "ephemeral")):
        return False
    until = bead.instant("defer_until")
    return deferred or until is None or until <= now


ORDERS = {
    "hybrid": lambda bead: (bead.priority > URGENT, bead.created, bead.id),
    "priority": lambda bead: (bead.priority, bead.created, bead.id),
    "oldest": lambda bead: (bead.created, bead.id),
}


def untouched(beads: ById, before: int, statuses: Iterable[str] = ACTIVE) -> list[Bead]:
    """What was changed last before an instant, the oldest first."""
    among = set(statuses)
    found = [bead for bead in beads.values() if bead.status in among and bead.updated < before]
    return sorted(found, key=lambda bead: (bead.updated, bead.id))


# ---------------------------------------------------------------- lists


@dataclass(frozen=True)
class Query:
    """Which beads a list shows; what is empty asks for nothing. Words in `…_contains` are found whatever their case."""

    statuses: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    priorities: tuple[int, ...] = ()
    priority_min: int = 0
    priority_max: int = 4
    ids: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    labels_any: tuple[str, ...] = ()
    assignee: str = ""
    unassigned: bool = False
    title_contains: str = ""
    desc_contains: str = ""
    notes_contains: str = ""
    overdue: bool = False
    everything: bool = False  #: the closed ones too
    deleted: bool = False  #: also what no list shows: tombstones and templates
    sort: str = ""
    reverse: bool = False


def select(beads: Iterable[Bead], query: Query, now: int) -> list[Bead]:
    """The beads that the query means, in its order: without one by priority, the youngest first."""
    found = [bead for bead in beads if _is_meant(bead, query) and (not query.overdue or _overdue(bead, now))]
    found.sort(key=SORTS[query.sort])
    return found[::-1] if query.reverse else found


def is_among(bead: Bead, query: Query) -> bool:
    """Whether type, priority, labels and assignee are those that are asked for."""
    return (
        (not query.types or bead.type in query.types)
        and (not query.priorities or bead.priority in query.priorities)
        and set(query.labels) <= set(bead.labels)
        and (not query.labels_any or bool(set(query.labels_any) & set(bead.labels)))
        and (not query.assignee or bead.text("assignee") == query.assignee)
        and not (query.unassigned and bead.text("assignee"))
    )


def _is_meant(bead: Bead, query: Query) -> bool:
    if query.deleted:
        return True
    if query.statuses:
        if bead.status not in query.statuses:
            return False
    elif bead.ended and not (query.everything and bead.status != "tombstone"):
        return False
    return (
        not bead.data.get("is_template")
        and is_among(bead, query)
        and query.priority_min <= bead.priority <= query.priority_max
        and (not query.ids or bead.id in query.ids)
        and query.title_contains.casefold() in bead.title.casefold()
        and query.desc_contains.casefold() in bead.text("description").casefold()
        and query.notes_contains.casefold() in bead.text("notes").casefold()
    )


def _overdue(bead: Bead, now: int) -> bool:
    due = bead.instant("due_at")
    return due is not None and due < now and not bead.ended


SORTS = {
    "": lambda bead: (bead.priority, -bead.created, bead.id),
    "priority": lambda bead: (bead.priority, -bead.created, bead.id),
    "created_at": lambda bead: (-bead.created, bead.id),
    "created": lambda bead: (-bead.created, bead.id),
    "updated_at": lambda bead: (-bead.updated, bead.id),
    "updated": lambda bead: (-bead.updated, bead.id),
    "title": lambda bead: (bead.title.casefold(), bead.id),
}


# ---------------------------------------------------------------- names


def resolve(name: str, beads: ById) -> list[str]:
    """The ids that a name can mean: the id itself, else its part behind the prefix, or a part of that."""
    if name in beads:
        return [name]
    there = [bead.id for bead in beads.values() if bead.status != "tombstone"]
    wanted = name.lower()
    for means in (lambda one: _hash(one) == wanted, lambda one: wanted in _hash(one) or one.startswith(wanted)):
        if wanted and (found := sorted(filter(means, there))):
            return found
    return []


def _hash(name: str) -> str:
    return name.rpartition("-")[2]
