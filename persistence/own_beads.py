"""The beads that finn keeps by itself, and what it notices about the others: pure decisions.

stale    a bead in progress that lies still ─▶ stale:true, once
health   the agent's own bead: health:ok ◀─▶ health:degraded, and sync:… where the file shows it
breaker  trip ─▶ an open bead with circuit-breaker:TASK ─▶ reset: closed
"""

from collections.abc import Mapping

from persistence import bead_ids, labels
from persistence.bead import Bead, made
from persistence.changes import OWN_REF, ended
from persistence.events import Json
from persistence.labels import BREAKER, STALE
from persistence.ready import ById
from persistence.rfc3339 import MICROSECOND, rfc3339

AGENT_REF = f"{OWN_REF}agent"
BREAKER_REF = f"{OWN_REF}breaker:"
Fields = Mapping[str, Json]


def stale(board: ById, now: int, after: int) -> list[Bead]:
    """The beads that are in progress and were not touched for so long, each once: as they are from now on.

    `updated_at` moves on by the least that br notices, since nobody worked on it; a clock that went back finds nothing.
    """
    found = [bead for bead in board.values() if _in_progress(bead) and now - bead.updated >= after]
    marked = [_marked_stale(bead) for bead in sorted(found, key=lambda bead: bead.id)]
    if any("run:current" in bead.labels for bead in found):
        marked += health(board, now, degraded=True)
    return marked


def _in_progress(bead: Bead) -> bool:
    working = {"session:active", "sprint:in_progress", "task:in_progress", "run:current"} & set(bead.labels)
    return STALE not in bead.labels and (bead.status == "in_progress" or (bead.status == "open" and bool(working)))


def _marked_stale(bead: Bead) -> Bead:
    given_back = "task:in_progress" in bead.labels
    wanted = {label for label in bead.labels if label != "task:in_progress"} | {STALE}
    changes: dict[str, Json] = {
        "labels": sorted(wanted | ({"task:ready"} if given_back else set())),
        "updated_at": rfc3339(bead.updated + MICROSECOND),
    }
    return bead.having({**changes, "status": "open", "assignee": None} if given_back else changes)


def health(board: ById, now: int, *, degraded: bool) -> list[Bead]:
    """The agent's own bead where it says something else; it is made when there is first something to say."""
    there = next((bead for bead in board.values() if bead.text("external_ref") == AGENT_REF), None)
    label = "health:degraded" if degraded else "health:ok"
    if there is None:
        return [_made(board, now, "finn, the agent", AGENT_REF, [label], status="pinned")] if degraded else []
    wanted = sorted({label, *(one for one in there.labels if not one.startswith("health:"))})
    return _moved(there, now, {"labels": wanted})


def trip(board: ById, task: str, why: str, now: int) -> list[Bead]:
    """The bead of a task's breaker that opened: open as long as the breaker is."""
    there = _breaker(board, task)
    if there is None:
        title, ref = f"circuit breaker of {task}", f"{BREAKER_REF}{task}"
        return [_made(board, now, title, ref, [breaker_label(task)], description=why, pinned=True)]
    wanted = sorted({breaker_label(task), *there.labels})
    return _moved(there, now, {"status": "open", "labels": wanted, "description": why or there.text("description")})


def reset(board: ById, task: str, now: int) -> list[Bead]:
    """The same, closed."""
    there = _breaker(board, task)
    return (
        [] if there is None or there.ended else _moved(there, now, {"status": "closed", "close_reason": "works again"})
    )


def shown(bead: Bead, *, complete: bool) -> Bead:
    """The bead as the file has it: the agent's own with what is computed, which is no part of the state."""
    if bead.text("external_ref") != AGENT_REF:
        return bead
    label = f"{labels.COMPUTED}:{'complete' if complete else 'pending'}"
    return bead.having({"labels": sorted({label, *bead.labels})})


def tripped(board: ById) -> frozenset[str]:
    """The tasks whose breaker's bead is open."""
    refs = (bead.text("external_ref") for bead in board.values() if not bead.ended)
    return frozenset(ref.removeprefix(BREAKER_REF) for ref in refs if ref.startswith(BREAKER_REF))


def breaker_label(task: str) -> str:
    """The label of a task's breaker. A label has no dot, so `bd-4k2.1` stands there as `bd-4k2_1`."""
    return labels.checked(f"{BREAKER}{task.replace('.', '_')}")


def _breaker(board: ById, task: str) -> Bead | None:
    return next((bead for bead in board.values() if bead.text("external_ref") == f"{BREAKER_REF}{task}"), None)


def _made(board: ById, now: int, title: str, ref: str, wanted: list[str], **fields: Json) -> Bead:
    at = rfc3339(now)
    return made(
        {
            "id": bead_ids.name(title, str(fields.get("description", "")), now, board, bead_ids.prefix_of(board)),
            "title": title,
            "priority": 2,
            "created_at": at,
            "created_by": "finn",
            "updated_at": at,
            "external_ref": ref,
            "source_repo": ".",
            "original_size": 0,
            "labels": wanted,
            **fields,
        }
    )


def _moved(bead: Bead, now: int, changes: Fields) -> list[Bead]:
    """The bead with those changes, later than before; none where nothing changes."""
    changed = bead.having(changes)
    if changed == bead:
        return []
    at = rfc3339(max(now, bead.updated + MICROSECOND))
    return [ended(changed.having({"updated_at": at}), bead, now)]
