"""What every floor calls the data that it passes on. Needs nothing, so that naming a type costs no import."""

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
