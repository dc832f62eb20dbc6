"""The notes of a fix, read with suspicion: what they say is done to the data directory, whoever wrote them.

steps.jsonl ─▶ each line has what its step needs, and names nothing outside ─▶ the steps that hold, in their order

Whether a folder on the way is a link that leads outside is seen when a step is taken back, as it may have become one.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from persistence.amends import Edit
from persistence.errors import Damaged
from persistence.values import Json

FOLDER = "doctor-undo"
STEPS = "steps.jsonl"
KEPT = "kept"
SHA256 = re.compile(r"[0-9a-f]{64}")


def noted(home: Path) -> list[Json]:
    """The steps that hold, in their order. A last line that is cut was never taken. Raises Damaged, OSError."""
    try:
        text = (home / STEPS).read_bytes()
    except FileNotFoundError:
        return []
    found: list[Json] = []
    for raw in text.split(b"\n")[:-1]:
        try:
            line = json.loads(raw)
            if "back" in line:
                found = [one for one in found if one["n"] <= line["back"]]
            elif "do" in line:
                found.append(_whole(line, home))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            hint = f"put things back by hand from {home / KEPT}"
            raise Damaged(f"{home / STEPS} cannot be read: {error}", hint=hint) from error
    return found


def _whole(line: Json, home: Path) -> Json:
    """The line with what its step needs, and nothing else. Raises ValueError, KeyError, TypeError, RecursionError."""
    number = line["n"]
    if type(number) is not int:
        raise ValueError(f"{number!r} is no number of a step")
    own = f"{FOLDER}/{home.name}/{KEPT}/{number}"
    for key, fits in NEEDED[line["do"]].items():
        if not fits(line[key], own):
            raise ValueError(f"{key} of step {number} is none that finn writes, or leads outside")
    return {key: line[key] for key in ("n", "do", *NEEDED[line["do"]])} | {"alone": bool(line.get("alone"))}


Fits = Callable[[Any, str], bool]  #: a value, and where its step keeps what it replaces


def _place(value: Any, _: str) -> bool:
    """A place in the data directory that is no fix's."""
    parts = Path(value).parts
    return not Path(value).is_absolute() and ".." not in parts and "\0" not in value and parts[:1] != (FOLDER,)


def _goal(value: Any, own: str) -> bool:
    """Such a place, or its own."""
    return _place(value, own) or value == own


def _copy(value: Any, own: str) -> bool:
    """The name of what is kept, where something is."""
    return value is None or value == Path(own).name


def _mode(value: Any, _: str) -> bool:
    return type(value) is int and 0 <= value <= 0o7777


def _hash(value: Any, _: str) -> bool:
    return SHA256.fullmatch(value) is not None


def _hash_or_none(value: Any, own: str) -> bool:
    return value is None or _hash(value, own)


def _edits(value: Any, _: str) -> bool:
    return all(Edit(before, after).id and Edit(after, before).id for before, after in value)


#: For each kind of step what its line must have.
NEEDED: Mapping[str, Mapping[str, Fits]] = {
    "make_folder": {"path": _place},
    "set_mode": {"path": _place, "was": _mode, "now": _mode},
    "write": {"path": _place, "was": _hash_or_none, "now": _hash, "kept": _copy},
    "move": {"path": _place, "to": _goal},
    "change": {"edits": _edits},
}
