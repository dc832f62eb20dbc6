"""Beads as br prints them with --json: the shapes that other programs read.

listed    the issue, dependency_count, dependent_count       detailed  with what it depends on and what waits for it
ready     fewer fields, in the order of the alphabet         stale     fewer still
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from persistence.bead import Bead
from persistence.events import Json
from persistence.ready import PARENT

ById = Mapping[str, Bead]

READY = (
    *("acceptance_criteria", "assignee", "created_at", "created_by", "description", "estimated_minutes", "id"),
    *("issue_type", "notes", "owner", "priority", "status", "title", "updated_at"),
)
STALE = ("created_at", "id", "issue_type", "priority", "status", "title", "updated_at")
CLOSED = ("id", "title", "status", "closed_at", "close_reason")


def counted(found: Iterable[Bead], beads: ById) -> list[Json]:
    """Whole issues, each with how many it depends on and how many depend on it."""
    dependents = Counter(str(edge["depends_on_id"]) for bead in beads.values() for edge in bead.edges)
    return [
        {**bead.data, "dependency_count": len(bead.edges), "dependent_count": dependents[bead.id]} for bead in found
    ]


def detailed(bead: Bead, beads: ById) -> Json:
    """One issue with those around it."""
    below = [(other, edge) for other in beads.values() for edge in other.edges if edge["depends_on_id"] == bead.id]
    above = [(beads[str(edge["depends_on_id"])], edge) for edge in bead.edges if edge["depends_on_id"] in beads]
    parent = next((str(edge["depends_on_id"]) for edge in bead.edges if edge["type"] == PARENT), None)
    around = {
        "dependencies": [_related(other, edge) for other, edge in above],
        "dependents": [_related(other, edge) for other, edge in sorted(below, key=lambda pair: pair[0].id)],
    }
    plain = {key: value for key, value in bead.data.items() if key != "dependencies"}
    return {**plain, **{key: many for key, many in around.items() if many}, **({"parent": parent} if parent else {})}


def some(bead: Bead, keys: Iterable[str]) -> Json:
    """Those fields that are there."""
    return {key: bead.data[key] for key in keys if key in bead.data}


def _related(other: Bead, edge: Mapping[str, Json]) -> Json:
    return {
        "id": other.id,
        "title": other.title,
        "status": other.status,
        "priority": other.priority,
        "dependency_type": edge["type"],
    }
