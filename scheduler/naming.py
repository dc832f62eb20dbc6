"""How findings name many things: the first few, and how many more there are."""

from collections.abc import Iterable, Sequence

from persistence.values import Json
from scheduler.finding import Seen, Severity

SHOWN = 5  #: that a sentence names
TOLD = 100  #: that the data has


def named(names: Iterable[str]) -> str:
    """The first few of them."""
    found = list(names)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more


def some(found: Sequence[str], severity: Severity, well: str, wrong: str, remediation: str, **data: Json) -> Seen:
    """A pass where nothing was found; else `wrong`, which goes on with the names."""
    if not found:
        return Seen("pass", well, data={"count": 0})
    said = f"{wrong}: {named(found)}"
    return Seen(severity, said, remediation, {"count": len(found), "found": list(found[:TOLD]), **data})
