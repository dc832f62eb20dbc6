"""What may become of beads: pure decisions, each from the beads as they are to the beads that change.

    create  update  (status, fields, labels, comment, claim)     by whoever asked
    stale   health  trip  reset                                   by finn itself

Every change moves `updated_at` on, or br would pass it over. A state label brings its status with it, a status its
state label. What a tool makes is `task:proposed` and deferred; a tool comments on beads and closes them, and changes
nothing else, so that injected text can neither schedule itself nor change what is scheduled.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from persistence import bead_ids, labels
from persistence.bead import (
    ALWAYS,
    COMMENT_BYTES,
    STATUSES,
    TYPES,
    Bead,
    fault,
    made,
)
from persistence.errors import Ambiguous, Circular, Conflict, IllegalTransition, Invalid, NotFound
from persistence.events import By, Json
from persistence.labels import BREAKER, DIMENSIONS, STALE
from persistence.ready import ACTIVE, BLOCKING, EXTERNAL, PARENT, ById, resolve
from persistence.rfc3339 import MICROSECOND, SECOND, nanoseconds, rfc3339

Fields = Mapping[str, Json]

#: Fields that are set as they are; an empty text takes the field away.
PLAIN = (
    *("title", "description", "design", "acceptance_criteria", "notes", "status", "priority", "issue_type"),
    *("assignee", "owner", "estimated_minutes", "due_at", "defer_until", "external_ref", "ephemeral"),
)
EXTRA = ("labels", "parent", "dependencies")
NEW = (*PLAIN, *EXTRA, "created_by")
CHANGING = (
    *(*PLAIN, *EXTRA, "add_labels", "remove_labels", "close_reason", "closed_by_session", "comment", "claim"),
    *("remove_dependencies", "if_updated_at"),
)
BY_TOOL = frozenset({"status", "close_reason", "closed_by_session", "comment"})  #: and of states only `closed`

NAMES = ("assignee", "owner", "created_by", "closed_by_session")
NAME_BYTES = 200
LABELS_MOST = 64
OWN_REF = "finn:"  #: how the references of finn's own beads begin
AGENT_REF = f"{OWN_REF}agent"
BREAKER_REF = f"{OWN_REF}breaker:"
AHEAD = re.compile(r"\+([0-9]{1,6})([mhdw])")
UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
EDGES = (
    *BLOCKING,
    *(PARENT, "related", "discovered-from", "replies-to", "relates-to", "duplicates", "supersedes", "caused-by"),
)


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks, when, and under which name it is written down."""

    by: By
    now: int
    name: str = ""

    @property
    def is_tool(self) -> bool:
        """Whether what is asked for may come from a text that somebody else wrote."""
        return self.by.trust in ("untrusted", "external")

    @property
    def author(self) -> str:
        return self.name or self.by.actor


# ---------------------------------------------------------------- finding


def find(board: ById, name: str) -> Bead:
    """The bead that a name or a part of one means. Raises NotFound, Ambiguous."""
    found = resolve(name, board)
    if not found:
        raise NotFound(f"there is no bead {name[:64]!r}", hint="finn beads list shows them")
    if len(found) > 1:
        raise Ambiguous(f"{name[:64]!r} is part of {', '.join(found[:5])}", hint="say more of the id")
    return board[found[0]]


# ---------------------------------------------------------------- making


def create(board: ById, fields: Fields, asking: Asking) -> Bead:
    """A new bead. Raises Invalid, Circular, Conflict, IllegalTransition, NotFound."""
    _known(fields, NEW)
    at = rfc3339(asking.now)
    title, parent = fields.get("title"), fields.get("parent")
    blank = {**ALWAYS, "title": title, "created_at": at, "updated_at": at}
    _sound({**blank, **_plain(fields), "id": "bd-000"})  # before a title is hashed
    above = find(board, parent).id if parent else None
    description = fields.get("description") or ""
    own = bead_ids.name(str(title), description, asking.now, board, bead_ids.prefix_of(board))
    new = made(
        {
            "priority": 2,
            **_plain(fields),
            "id": bead_ids.child(above, board) if above else own,
            "created_at": at,
            "created_by": fields.get("created_by") or asking.author,
            "updated_at": at,
            "source_repo": ".",
            "compaction_level": 0,
            "original_size": 0,
        }
    )
    wanted = tuple(fields.get("labels") or ())
    if asking.is_tool:
        _refuse_states(wanted)
        wanted = (*wanted, "task:proposed")
    new = _labelled(board, _distinct(board, new), labels.moved((), wanted, ()), fields.get("status"))
    edges = _edges_of(fields.get("dependencies"))
    new = _linked(board, new, [*([(PARENT, above)] if above else []), *edges], at, asking.author)
    if asking.is_tool and new.status in ACTIVE:
        raise IllegalTransition("a tool makes no bead ready", hint="the owner does: finn beads label add ID task:ready")
    _own_ref(board, new, asking)
    new = _ended(new, None, asking.now)
    _sound(new.data)
    return new


def _distinct(board: ById, new: Bead) -> Bead:
    """With a reference of its own where another bead says the same: br's import would make one of the two."""
    said = (new.title, new.text("description"))
    twin = not new.text("external_ref") and any((one.title, one.text("description")) == said for one in board.values())
    return new.having({"external_ref": f"bead:{new.id}"}) if twin else new


def _plain(fields: Fields) -> dict[str, Json]:
    return {key: fields[key] for key in PLAIN if key in fields}


def _refuse_states(wanted: Iterable[str]) -> None:
    for label in wanted:
        if labels.state(labels.checked(label)) is not None or label.startswith(BREAKER):
            raise IllegalTransition(f"a tool does not set {label}", hint="only the owner makes a bead task:ready")


# ---------------------------------------------------------------- changing


def update(board: ById, name: str, fields: Fields, asking: Asking) -> Bead:
    """The bead with other fields; the same one where nothing changes.

    Raises NotFound, Invalid, Circular, Conflict, IllegalTransition.
    """
    _known(fields, CHANGING)
    bead = find(board, name)
    if bead.status == "tombstone":
        raise Conflict(f"{bead.id} was deleted", hint="make another one")
    if asking.is_tool:
        _refuse_to_tool(bead, fields)
    _unchanged_since(bead, fields.get("if_updated_at"))
    plain = _plain(fields)
    if fields.get("claim"):
        plain |= {"status": "in_progress", "assignee": _claimed(bead, asking)}
    status = plain.pop("status", None)
    add, remove = _label_changes(bead, fields)
    changed = _labelled(board, bead.having(plain), labels.moved(bead.labels, add, remove), status)
    changed = changed.having({key: fields[key] for key in ("close_reason", "closed_by_session") if key in fields})
    at = rfc3339(max(asking.now, bead.updated + MICROSECOND))
    changed = _relinked(board, changed, fields, at, asking.author)
    if fields.get("comment") is not None:
        changed = _commented(board, changed, fields["comment"], at, asking.author)
    if changed.line in (bead.line, made(bead.data).line):
        return bead
    if STALE not in add:  # somebody works on it
        changed = changed.having({"labels": [label for label in changed.labels if label != STALE]})
    changed = _ended(changed.having({"updated_at": at}), bead, asking.now)
    _sound(changed.data)
    _own_ref(board, changed, asking)
    return changed


def _refuse_to_tool(bead: Bead, fields: Fields) -> None:
    if bead.text("external_ref").startswith(OWN_REF) or set(labels.states(bead.labels)) - {"task"}:
        raise IllegalTransition(f"{bead.id} is no task", hint="the owner ends runs, sprints and sessions; finn its own")
    beyond = sorted(set(fields) - BY_TOOL)
    if beyond or fields.get("status", "closed") != "closed":
        what = ", ".join(beyond) or f"status {fields['status']}"
        raise IllegalTransition(
            f"a tool does not change {what}", hint="it may comment and close; the owner does the rest"
        )


def _unchanged_since(bead: Bead, expected: Json) -> None:
    if expected and (not isinstance(expected, str) or expected != bead.text("updated_at")):
        raise Conflict(f"{bead.id} was changed at {bead.text('updated_at')}", hint="read it again")


def _claimed(bead: Bead, asking: Asking) -> str:
    holder = bead.text("assignee")
    if holder and holder != asking.author:
        raise Conflict(f"{bead.id} is claimed by {holder}", hint="take another one")
    if bead.ended or labels.states(bead.labels).get("task") == "proposed":
        raise IllegalTransition(f"{bead.id} is {bead.status}", hint="make it task:ready first")
    return asking.author


def _label_changes(bead: Bead, fields: Fields) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is added and what is taken away."""
    add, remove = tuple(fields.get("add_labels") or ()), tuple(fields.get("remove_labels") or ())
    if fields.get("labels") is not None:  # all of them, as they are to be
        wanted = tuple(fields["labels"])
        return (*add, *wanted), (*remove, *(label for label in bead.labels if label not in {*wanted, *add}))
    return add, remove


def _labelled(board: ById, bead: Bead, wanted: tuple[str, ...], status: Json) -> Bead:
    """The bead with those labels and what they mean for its status, or the other way round."""
    kept = () if bead.ended else bead.labels  # what it was in before it ended, others may be in by now
    if status is not None:
        bead, wanted = _with_status(bead, str(status), wanted)
    elif brought := labels.status(bead.labels, wanted):
        bead = bead.having({"status": brought})
        wanted = labels.closing(wanted, ended=True) if brought == "closed" else wanted
    _alone(board, bead, set(wanted) - set(kept))
    return bead if wanted == bead.labels else bead.having({"labels": list(wanted)})


def _with_status(bead: Bead, status: str, wanted: tuple[str, ...]) -> tuple[Bead, tuple[str, ...]]:
    if status not in STATUSES or status == "tombstone":
        known = ", ".join(one for one in STATUSES if one != "tombstone")
        raise Invalid(f"{status[:40]!r} is no status", hint=f"there are {known}")
    if (status == "closed") != (bead.status == "closed"):
        return bead.having({"status": status}), labels.closing(wanted, ended=status == "closed")
    return bead.having({"status": status}), tuple(sorted(_followed(wanted, status)))


def _followed(wanted: Iterable[str], status: str) -> Iterable[str]:
    """The labels, each state moved on to the one that means this status, where there is a way."""
    for label in wanted:
        known, value = DIMENSIONS.get(label.partition(":")[0]), label.partition(":")[2]
        ways = known.moves.get(value, ()) if known and known.status.get(value, status) != status else ()
        means = [way for way in ways if known and known.status.get(way) == status]
        yield f"{label.partition(':')[0]}:{means[0]}" if means else label


def _alone(board: ById, bead: Bead, wanted: Collection[str]) -> None:
    """Refuses a new state that another bead is in, where one alone may be."""
    if bead.ended:
        return
    for dimension, value in labels.states(wanted).items():
        if dimension == "run" and bead.type != "epic":
            raise IllegalTransition(f"{bead.id} is no epic, and only an epic runs", hint="--type epic")
        label = f"{dimension}:{value}"
        if value in DIMENSIONS[dimension].alone:
            own = {f"{dimension}:{one}" for one in DIMENSIONS[dimension].alone if dimension == "health"} or {label}
            for other in board.values():
                if other.id != bead.id and not other.ended and own & set(other.labels):
                    raise IllegalTransition(f"{other.id} is {label} already", hint="end that one first")


def _ended(bead: Bead, before: Bead | None, now: int) -> Bead:
    """The bead with `closed_at` if, and only if, it is closed."""
    if bead.status == "closed":
        if bead.text("closed_at") and before is not None and before.status == "closed":
            return bead
        return bead.having({"closed_at": rfc3339(max(now, bead.created))})
    return bead.having({"closed_at": None, "close_reason": None, "closed_by_session": None})


# ---------------------------------------------------------------- edges and comments


def _edges_of(asked: Json) -> list[tuple[str, str]]:
    """`blocks:bd-1` and {"type", "depends_on_id"} alike; a bare id means `blocks`."""
    found = []
    for one in asked or ():
        if isinstance(one, str):
            kind, _, target = one.rpartition(":") if not EXTERNAL.startswith(one.partition(":")[0]) else ("", "", one)
            found.append((kind or "blocks", target))
        else:
            found.append((str(one.get("type") or "blocks"), str(one.get("depends_on_id") or "")))
    return found


def _linked(board: ById, bead: Bead, edges: Iterable[tuple[str, str]], at: str, author: str) -> Bead:
    """The bead with further edges; one to a bead that it has an edge to takes that one's place."""
    there = {str(edge["depends_on_id"]): dict(edge) for edge in bead.edges}
    for kind, name in edges:
        if kind not in EDGES:
            raise Invalid(f"{kind[:40]!r} is no kind of dependency", hint=f"there are {', '.join(EDGES)}")
        target = name if name.startswith(EXTERNAL) else _target(board, name)
        if target == bead.id:
            raise Circular(f"{bead.id} cannot depend on itself", hint="name another bead")
        if there.get(target, {}).get("type") != kind:
            edge = {"issue_id": bead.id, "depends_on_id": target, "type": kind, "created_at": at}
            there[target] = {**edge, "created_by": author, "metadata": "{}", "thread_id": ""}
            _refuse_circle(board, bead.id, target, kind)
    wanted = [there[target] for target in sorted(there)]
    return bead if wanted == list(bead.edges) else bead.having({"dependencies": wanted})


def _target(board: ById, name: str) -> str:
    try:
        return find(board, name).id
    except NotFound as error:
        raise Circular(error.message, hint=error.hint) from None


def _refuse_circle(board: ById, start: str, target: str, kind: str) -> None:
    if kind not in (*BLOCKING, PARENT):
        return
    front, seen = {target}, {target}
    while front:
        if start in front:
            raise Circular(f"{start} would wait for itself, by way of {target}", hint="take one dependency away")
        front = {
            str(edge["depends_on_id"])
            for name in front
            if name in board
            for edge in board[name].edges
            if edge["type"] in (*BLOCKING, PARENT)
        } - seen
        seen |= front


def _relinked(board: ById, bead: Bead, fields: Fields, at: str, author: str) -> Bead:
    edges = _edges_of(fields.get("dependencies"))
    gone = {find(board, one).id if one in board else one for one in fields.get("remove_dependencies") or ()}
    if "parent" in fields:
        gone |= {str(edge["depends_on_id"]) for edge in bead.edges if edge["type"] == PARENT}
        edges += [(PARENT, fields["parent"])] if fields["parent"] else []
    if gone:
        bead = bead.having({"dependencies": [dict(e) for e in bead.edges if e["depends_on_id"] not in gone]})
    return _linked(board, bead, edges, at, author)


def _commented(board: ById, bead: Bead, text: Json, at: str, author: str) -> Bead:
    if not isinstance(text, str) or not text.strip() or len(text.encode(errors="surrogatepass")) > COMMENT_BYTES:
        raise Invalid(f"a comment is a text of 1 to {COMMENT_BYTES} bytes", hint="say it in smaller parts")
    numbers = (one["id"] for other in board.values() for one in other.comments if isinstance(one["id"], int))
    comment = {
        "id": max(numbers, default=0) + 1,
        "issue_id": bead.id,
        "author": author,
        "text": text,
        "created_at": at,
    }
    return bead.having({"comments": [*map(dict, bead.comments), comment]})


# ---------------------------------------------------------------- what has to hold


def _known(fields: Fields, known: Collection[str]) -> None:
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise Invalid(f"a bead has no {', '.join(unknown)[:100]} to set", hint=f"there are {', '.join(known)}")


def _sound(data: Fields) -> None:
    if wrong := fault(data):
        raise Invalid(f"the bead {wrong}", hint="finn beads create --help, or docs/beads.md")
    for key in NAMES:
        if len(str(data.get(key) or "").encode(errors="surrogatepass")) > NAME_BYTES:
            raise Invalid(f"a bead has no {key} of more than {NAME_BYTES} bytes", hint="say it shorter")
    if len(data.get("labels") or ()) > LABELS_MOST:
        raise Invalid(f"a bead has no more than {LABELS_MOST} labels", hint="take some away")
    kind = data.get("issue_type") or "task"
    if kind not in TYPES:
        raise Invalid(f"{str(kind)[:40]!r} is no type of bead", hint=f"there are {', '.join(TYPES)}")


def _own_ref(board: ById, bead: Bead, asking: Asking) -> None:
    ref, before = bead.text("external_ref"), board.get(bead.id)
    if (
        ref.startswith(OWN_REF)
        and asking.by.trust != "system"
        and (before is None or before.text("external_ref") != ref)
    ):
        raise Invalid(f"an external_ref that begins with {OWN_REF} is finn's own", hint="choose another one")
    twin = next((one.id for one in board.values() if ref and one.id != bead.id and one.text("external_ref") == ref), "")
    if twin:
        raise Conflict(f"{twin} has the external_ref {ref[:64]!r} already", hint="it names one bead alone")


# ---------------------------------------------------------------- by finn itself


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
        return [_own(board, now, "finn, the agent", AGENT_REF, [label], status="pinned")] if degraded else []
    wanted = sorted({label, *(one for one in there.labels if not one.startswith("health:"))})
    return _moved(there, now, {"labels": wanted})


def trip(board: ById, task: str, why: str, now: int) -> list[Bead]:
    """The bead of a task's breaker that opened: open as long as the breaker is."""
    there = _breaker(board, task)
    if there is None:
        title, ref = f"circuit breaker of {task}", f"{BREAKER_REF}{task}"
        return [_own(board, now, title, ref, [breaker_label(task)], description=why, pinned=True)]
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


def breaker_label(task: str) -> str:
    """The label of a task's breaker. A label has no dot, so `bd-4k2.1` stands there as `bd-4k2_1`."""
    return labels.checked(f"{BREAKER}{task.replace('.', '_')}")


def _breaker(board: ById, task: str) -> Bead | None:
    return next((bead for bead in board.values() if bead.text("external_ref") == f"{BREAKER_REF}{task}"), None)


def _own(board: ById, now: int, title: str, ref: str, wanted: list[str], **fields: Json) -> Bead:
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
    return [_ended(changed.having({"updated_at": at}), bead, now)]


def instant(text: str, now: int) -> str:
    """A time that somebody typed (2026-11-21, 2026-11-21T10:00:00Z, tomorrow, +3d), as br writes it. Raises Invalid."""
    try:
        if ahead := AHEAD.fullmatch(text):
            return rfc3339(now + int(ahead[1]) * UNITS[ahead[2]] * SECOND)
        if text == "tomorrow":
            return rfc3339(now + UNITS["d"] * SECOND)
        return rfc3339(nanoseconds(f"{text}T00:00:00Z" if len(text) == 10 else text))
    except (ValueError, OverflowError) as error:
        raise Invalid(f"no time: {error}", hint="say it like 2026-11-21, 2026-11-21T10:00:00Z or +3d") from None
