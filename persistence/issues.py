"""The text of `.beads/issues.jsonl`: a bead a line, sorted by id.

    bytes ─ read ─▶ beads, lines that are none (kept), faults (told)         beads ─ written ─▶ bytes

Whatever the bytes are, reading ends and raises nothing: a line that cannot be used is a fault with its number. A byte
order mark, CRLF and empty lines are let pass; of two lines with one id the last one counts. Lines of bd that say they
are something else (`"_type":"memory"`) are kept as they are, behind the beads.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from persistence.bead import Bead, parse

LINE_BYTES = 8 << 20  #: a longer line is no bead, and is not looked into
CONFLICT = ("<<<<<<<", "=======", ">>>>>>>")
ISSUE = ("issue", None)
OTHER_BYTES = 1 << 20  #: of lines that are no beads, in all


@dataclass(frozen=True)
class Issues:
    """What a file holds. `faults` are sentences, `conflict` says that git has left both sides of a merge in it."""

    beads: Mapping[str, Bead] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    conflict: bool = False


def read(data: bytes) -> Issues:
    """What the bytes say."""
    beads: dict[str, Bead] = {}
    others: list[str] = []
    faults: list[str] = []
    size = 0  # of the others
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        line = raw.strip(b" \t\r")
        if not line:
            continue
        if line.startswith(tuple(sign.encode() for sign in CONFLICT)):
            return Issues(faults=(f"line {number} is a mark of a merge that was not finished",), conflict=True)
        try:
            text = _text(line)
            if _is_bead(text):
                bead = parse(text)
                if bead.id in beads:
                    faults.append(f"line {number} has the id {bead.id} once more; the last one counts")
                beads[bead.id] = bead
            elif (size := size + len(line)) > OTHER_BYTES:
                faults.append(f"line {number} is no bead, and there are {OTHER_BYTES} bytes of such lines before it")
            else:
                others.append(text)
        except ValueError as error:
            faults.append(f"line {number} {error}")
    return Issues(beads, tuple(dict.fromkeys(others)), tuple(faults))


def written(beads: Iterable[Bead], others: Iterable[str] = ()) -> bytes:
    """The bytes that say this. What is ephemeral is not kept in files."""
    lines = [bead.line for bead in sorted(beads, key=lambda bead: bead.id) if not bead.data.get("ephemeral")]
    return "".join(f"{line}\n" for line in (*lines, *others)).encode()


def _text(line: bytes) -> str:
    if len(line) > LINE_BYTES:
        raise ValueError(f"is longer than {LINE_BYTES} bytes")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 at its byte {error.start}") from None


def _is_bead(text: str) -> bool:
    """Whether a line says that it is an issue, or nothing of the kind. What is no JSON is for `parse` to refuse."""
    if '"_type"' not in text and '"_schema"' not in text:
        return True
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return True
    return not isinstance(data, dict) or (data.get("_type") in ISSUE and "_schema" not in data)
