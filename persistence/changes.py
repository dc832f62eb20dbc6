"""What may become of beads: pure decisions, each from the beads as they are to the beads that change.

    create      a new one
    update      status, fields, labels, comment, claim, dependencies

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
from persistence.edges import edges_of, find, linked, relinked
from persistence.errors import Conflict, IllegalTransition, Invalid
from persistence.events import By, Json
from persistence.labels import BREAKER, DIMENSIONS, STALE
from persistence.ready import ACTIVE, PARENT, ById, blocked, waits_for
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
    *("remove_dependencies", "if_updated_at", "force"),
)
BY_TOOL = frozenset({"status", "close_reason", "closed_by_session", "comment"})  #: and of states only `closed`

NAMES = ("assignee", "owner", "created_by", "closed_by_session")
NAME_BYTES = 200
LABELS_MOST = 64
OWN_REF = "finn:"  #: how the references of finn's own beads begin
AHEAD = re.compile(r"\+([0-9]{1,6})([mhdw])")
UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


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
    edges = edges_of(fields.get("dependencies"))
    new = linked(board, new, [*([(PARENT, above)] if above else []), *edges], at, asking.author)
    if asking.is_tool and new.status in ACTIVE:
        raise IllegalTransition("a tool makes no bead ready", hint="the owner does: finn beads label add ID task:ready")
    _own_ref(board, new, asking)
    new = ended(new, None, asking.now)
    _sound(new.data)
    return new


def _distinct(board: ById, new: Bead) -> Bead:
    """With a reference of its own where another bead says the same: br's import would make one of the two."""
    said = (new.title, new.text("description"))
    twin = not new.text("external_ref") and any((one.title, one.text("description")) == said for one in board.values())
    return new.having({"external_ref": f"bead:{new.id}"}) if twin else new


def _plain(fields: Fields) -> dict[str, Json]:
    """What is set; that a bead has no priority, type or status cannot be said."""
    return {key: fields[key] for key in PLAIN if key in fields and not (fields[key] is None and key in ALWAYS)}


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
    if asking.is_tool:
        _refuse_to_tool(bead, fields)
    start = _undeleted(bead, fields.get("status")) if bead.status == "tombstone" else bead
    _unchanged_since(bead, fields.get("if_updated_at"))
    plain = _plain(fields)
    if fields.get("claim"):
        plain |= {"status": "in_progress", "assignee": _claimed(bead, asking)}
    status = plain.pop("status", None)
    add, remove = _label_changes(bead, fields)
    changed = _labelled(board, start.having(plain), labels.moved(bead.labels, add, remove), status)
    changed = changed.having({key: fields[key] for key in ("close_reason", "closed_by_session") if key in fields})
    at = rfc3339(max(asking.now, bead.updated + MICROSECOND))
    changed = relinked(board, changed, fields, at, asking.author)
    if not fields.get("force"):
        _refuse_to_begin(board, bead, changed)
    if fields.get("comment") is not None:
        changed = _commented(board, changed, fields["comment"], at, asking.author)
    if changed.line in (bead.line, made(bead.data).line):
        return bead
    if STALE not in add:  # somebody works on it
        changed = changed.having({"labels": [label for label in changed.labels if label != STALE]})
    changed = ended(changed.having({"updated_at": at}), bead, asking.now)
    _sound(changed.data)
    _own_ref(board, changed, asking)
    return changed


def _refuse_to_tool(bead: Bead, fields: Fields) -> None:
    if bead.status == "tombstone":
        raise Conflict(f"{bead.id} was deleted", hint="the owner may bring it back")
    if bead.text("external_ref").startswith(OWN_REF) or set(labels.states(bead.labels)) - {"task"}:
        raise IllegalTransition(f"{bead.id} is no task", hint="the owner ends runs, sprints and sessions; finn its own")
    beyond = sorted(set(fields) - BY_TOOL)
    if beyond or fields.get("status", "closed") != "closed":
        what = ", ".join(beyond) or f"status {fields['status']}"
        raise IllegalTransition(
            f"a tool does not change {what}", hint="it may comment and close; the owner does the rest"
        )


def _undeleted(bead: Bead, status: Json) -> Bead:
    """A deleted bead as a closed one, for whoever gives it a status again."""
    if status is None:
        raise Conflict(f"{bead.id} was deleted", hint=f"finn beads update {bead.id} --status open brings it back")
    stone = ("deleted_at", "deleted_by", "delete_reason", "original_type")
    return bead.having({"status": "closed", **dict.fromkeys(stone)})


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


def _refuse_to_begin(board: ById, before: Bead, after: Bead) -> None:
    """Nobody works on what waits for something else; as br has it, `force` does so all the same."""
    if after.status != "in_progress" or before.status == "in_progress":
        return
    waiting = {**board, after.id: after}
    if after.id in blocked(waiting):
        by = ", ".join(waits_for(after, waiting)) or "what it is a part of"
        raise Conflict(f"{after.id} is blocked by {by}", hint="end that one first, or say --force")


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


def ended(bead: Bead, before: Bead | None, now: int) -> Bead:
    """The bead with `closed_at` if, and only if, it is closed."""
    if bead.status == "closed":
        if bead.text("closed_at") and before is not None and before.status == "closed":
            return bead
        return bead.having({"closed_at": rfc3339(max(now, bead.created))})
    return bead.having({"closed_at": None, "close_reason": None, "closed_by_session": None})


# ---------------------------------------------------------------- comments


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
