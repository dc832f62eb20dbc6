"""What every floor calls the data that it passes on, and what has to be asked of data from outside."""

import json
from typing import Any

Json = Any  #: what a JSON text can hold

DEPTH = 32  #: arrays and objects inside one another, in all data that comes from outside


def deeper_than(value: Json, depth: int) -> bool:
    """Level by level, so that neither the stack nor a wide value is a way to hurt."""
    level = [value] if isinstance(value, list | dict) else []
    while level and depth:
        children = (child for node in level for child in (node.values() if isinstance(node, dict) else node))
        level = [child for child in children if isinstance(child, list | dict)]
        depth -= 1
    return bool(level)


def is_text(value: Json) -> bool:
    """Whether every string in it is text: JSON can spell half of a surrogate pair, which fits in no file."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def mended(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
