"""One bead: a tracked issue, as a line of `.beads/issues.jsonl` in the dialect of br.

    {"id":"bd-4k2","title":"…","status":"open","priority":2,"issue_type":"task",
     "created_at":"…Z","created_by":"owner","updated_at":"…Z","source_repo":".",
     "compaction_level":0,"original_size":0,"labels":["sprint:pending"],
     "dependencies":[{"issue_id","depends_on_id","type","created_at",…}],"comments":[{"id","issue_id","author","text",…}]}

A Bead is its line, to the byte: what is not changed is written as it was read, with the keys that finn does not know. A
changed one has the known keys in br's order (KEYS) and leaves empty ones out. `fault` says what br would refuse.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isinf
from typing import Any

from persistence.rfc3339 import nanoseconds
from persistence.values import DEPTH, Json, deeper_than, is_text

TITLE_BYTES = 500
TEXT_BYTES = 102_400  #: of a description, and of what else is written at length
REF_BYTES = 200
COMMENT_BYTES = 50_000
INT_MOST = 2**31 - 1  #: br's numbers have 32 bits

#: Every key that br knows, in its order.
KEYS = (
    *("id", "title", "description", "design", "acceptance_criteria", "notes", "status", "priority", "issue_type"),
    *("assignee", "owner", "estimated_minutes", "created_at", "created_by", "updated_at", "closed_at"),
    *("close_reason", "closed_by_session", "due_at", "defer_until", "external_ref", "source_system", "source_repo"),
    *("source_repo_path", "agent_context", "deleted_at", "deleted_by", "delete_reason", "original_type"),
    *("compaction_level", "compacted_at", "compacted_at_commit", "original_size", "sender", "ephemeral", "pinned"),
    *("is_template", "labels", "dependencies", "comments"),
)
RANK = {key: rank for rank, key in enumerate(KEYS)}

TEXTS = (
    *("description", "design", "acceptance_criteria", "notes", "assignee", "owner", "created_by", "close_reason"),
    *("closed_by_session", "external_ref", "source_system", "source_repo", "source_repo_path", "agent_context"),
    *("deleted_by", "delete_reason", "original_type", "compacted_at_commit", "sender"),
)
LONG = ("description", "design", "acceptance_criteria", "notes")
TIMES = ("closed_at", "due_at", "defer_until", "deleted_at", "compacted_at")
NUMBERS = ("estimated_minutes", "compaction_level", "original_size")
FLAGS = ("ephemeral", "pinned", "is_template")
EDGE = ("issue_id", "depends_on_id", "type")
COMMENT = ("issue_id", "author", "text")

#: What br takes a missing field for is not what it would be made with: a missing priority is the highest.
ALWAYS: Mapping[str, Json] = {"status": "open", "priority": 0, "issue_type": "task", "compaction_level": 0}

STATUSES = ("open", "in_progress", "blocked", "deferred", "draft", "closed", "tombstone", "pinned")
TYPES = ("task", "bug", "feature", "epic", "chore", "docs", "question")
ENDED = ("closed", "tombstone")

ID = re.compile(r"([a-z0-9_.-]{1,64})-([a-z0-9]{1,40})((?:\.[0-9]{1,9})*)")
ID_BYTES = 105


@dataclass(frozen=True)
class Bead:
    """A bead. `data` is what its line says: look, do not touch."""

    line: str

    @cached_property
    def data(self) -> Mapping[str, Json]:
        """Every field, in the order of the line."""
        found: dict[str, Json] = json.loads(self.line)
        return found

    @cached_property
    def id(self) -> str:
        return str(self.data["id"])

    @cached_property
    def title(self) -> str:
        return str(self.data["title"])

    @cached_property
    def status(self) -> str:
        return str(self.data.get("status") or "open").lower()

    @cached_property
    def type(self) -> str:
        return str(self.data.get("issue_type") or "task").lower()

    @cached_property
    def priority(self) -> int:
        """0 is the most urgent, and what is meant where nothing is said."""
        return int(self.data.get("priority") or 0)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Sorted, each once."""
        return tuple(sorted(set(self.data.get("labels") or ())))

    @cached_property
    def created(self) -> int:
        """When it was made, in nanoseconds since 1970."""
        return nanoseconds(self.data["created_at"])

    @cached_property
    def updated(self) -> int:
        """When it was changed last."""
        return nanoseconds(self.data["updated_at"])

    @property
    def ended(self) -> bool:
        """Closed or deleted."""
        return self.status in ENDED

    @property
    def edges(self) -> tuple[Mapping[str, Json], ...]:
        """What it depends on."""
        return tuple(self.data.get("dependencies") or ())

    @property
    def comments(self) -> tuple[Mapping[str, Json], ...]:
        return tuple(self.data.get("comments") or ())

    def text(self, key: str) -> str:
        """A field of text; empty where there is none."""
        return str(self.data.get(key) or "")

    def instant(self, key: str) -> int | None:
        """A field of time, in nanoseconds since 1970."""
        value = self.data.get(key)
        return nanoseconds(value) if value else None

    def having(self, changes: Mapping[str, Json]) -> "Bead":
        """The bead with other values; empty ones are left out, the rest keeps its bytes and its order."""
        return made({**self.data, **changes})


def made(data: Mapping[str, Json]) -> Bead:
    """The bead of these fields. What br always writes is written."""
    kept = {key: value for key, value in data.items() if key not in RANK or not _empty(key, value)}
    kept = {**ALWAYS, **kept}
    return Bead(json.dumps(_ordered(kept), ensure_ascii=False, separators=(",", ":")))


def parse(line: str) -> Bead:
    """The bead in a line. Raises ValueError with what is wrong with it, as a clause."""
    try:
        data = json.loads(line, object_pairs_hook=_once, parse_constant=_no_number, parse_float=_number)
    except RecursionError:
        raise ValueError("is nested too deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(data, dict):
        raise ValueError("is not a JSON object")
    if deeper_than(data, DEPTH):
        raise ValueError(f"is nested deeper than {DEPTH}")
    if not is_text(data):
        raise ValueError("holds half a character")
    if wrong := fault(data):
        raise ValueError(wrong)
    return Bead(line)


def fault(data: Mapping[str, Json]) -> str:
    """Why br would not take a bead of these fields, as a clause; empty where it would."""
    return next((wrong for rule in RULES if (wrong := rule(data))), "")


def _ordered(data: Mapping[str, Json]) -> dict[str, Json]:
    """Known keys in br's order; each unknown one stays behind the known key that it stood behind."""
    place, rank = {}, -1
    for key in data:
        rank = RANK.get(key, rank)
        place[key] = rank
    return {key: data[key] for key in sorted(data, key=lambda key: (place[key], key not in RANK))}


def _empty(key: str, value: Json) -> bool:
    """What br leaves out. A number of 0 is written, and so is the empty text of somebody else's key."""
    return value is None or (value in ("", [], False) and key not in NUMBERS and key != "priority")


def _once(pairs: Iterable[tuple[str, Json]]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"says {key[:64]!r} twice")
        found[key] = value
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"says {name}, which is no JSON number")


def _number(text: str) -> float:
    """A number too large to be written again is refused: it would come back as another one."""
    if isinf(value := float(text)):
        _no_number(text[:40])
    return value


# ---------------------------------------------------------------- what br takes


def _id(data: Mapping[str, Json]) -> str:
    name = data.get("id")
    if not isinstance(name, str):
        return "has no id"
    if ID.fullmatch(name) is None or len(name) > ID_BYTES:
        return f"has the id {name[:64]!r}; an id reads like bd-4k2 or bd-4k2.1"
    return ""


def title_fault(title: Json) -> str:
    """What is wrong with a title, as a clause."""
    if not isinstance(title, str) or not title.strip():
        return "has no title"
    if (size := len(title.encode(errors="surrogatepass"))) > TITLE_BYTES:
        return f"has a title of {size} bytes; {TITLE_BYTES} is the most"
    return "has a NUL in its title" if "\0" in title else ""


def _title(data: Mapping[str, Json]) -> str:
    return title_fault(data.get("title"))


def _texts(data: Mapping[str, Json]) -> str:
    for key in TEXTS:
        value = data.get(key)
        if value is not None and not isinstance(value, str):
            return f"has a {key} that is no text"
        if value and "\0" in value:
            return f"has a NUL in its {key}"
    for key in LONG:
        if data.get(key) and len(data[key].encode(errors="surrogatepass")) > TEXT_BYTES:
            return f"has a {key} of more than {TEXT_BYTES} bytes"
    return _ref(data.get("external_ref") or "")


def _ref(ref: str) -> str:
    if len(ref.encode(errors="surrogatepass")) > REF_BYTES:
        return f"has an external_ref of more than {REF_BYTES} bytes"
    return "has white space in its external_ref" if any(sign.isspace() for sign in ref) else ""


def _words(data: Mapping[str, Json]) -> str:
    for key in ("status", "issue_type"):
        value = data.get(key)
        if value is not None and (not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,50}", value)):
            return f"has a {key} that is no word"
    return ""


def _numbers(data: Mapping[str, Json]) -> str:
    priority = data.get("priority", 0)
    if not _int(priority) or not 0 <= priority <= 4:
        return "has a priority that is not 0 to 4"
    for key in NUMBERS:
        value = data.get(key)
        if value is not None and (not _int(value) or not 0 <= value <= INT_MOST):
            return f"has a {key} that is no number from 0"
    for key in FLAGS:
        if data.get(key, False) not in (True, False) or _int(data.get(key, False)):
            return f"has a {key} that is neither true nor false"
    return ""


def _times(data: Mapping[str, Json]) -> str:
    for key in ("created_at", "updated_at", *TIMES):
        value = data.get(key)
        if value is None and key in TIMES:
            continue
        if not _is_time(value):
            return f"has no {key} that is a time" if value is None else f"has a {key} that is no time"
    if nanoseconds(data["created_at"]) > nanoseconds(data["updated_at"]):
        return "was updated before it was created"
    return ""


def _labels(data: Mapping[str, Json]) -> str:
    labels = data.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        return "has labels that are not a list of texts"
    return ""


def _edges(data: Mapping[str, Json]) -> str:
    edges = data.get("dependencies", [])
    if not isinstance(edges, list):
        return "has dependencies that are no list"
    for edge in edges:
        if not _texts_in(edge, EDGE) or not _is_time(edge.get("created_at")):
            return "has a dependency without issue_id, depends_on_id, type or created_at"
    return ""


def _comments(data: Mapping[str, Json]) -> str:
    comments = data.get("comments", [])
    if not isinstance(comments, list):
        return "has comments that are no list"
    for comment in comments:
        if not _texts_in(comment, COMMENT) or not _is_time(comment.get("created_at")):
            return "has a comment without issue_id, author, text or created_at"
        if not _int(comment.get("id")) and not isinstance(comment.get("id"), str):
            return "has a comment without an id"
    return ""


def _texts_in(value: Json, keys: Iterable[str]) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in keys)


def _int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_time(value: Json) -> bool:
    if not isinstance(value, str):
        return False
    try:
        nanoseconds(value)
    except (ValueError, OverflowError):
        return False
    return True


RULES = (_id, _title, _texts, _words, _numbers, _times, _labels, _edges, _comments)
