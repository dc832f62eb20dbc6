"""What the doctor says: one finding for each check.

pass < info < warn < fail          overall is the highest, and info counts as pass
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from persistence.values import Json

Severity = Literal["pass", "info", "warn", "fail"]
Fixability = Literal["notfixable", "autofixable", "fixed"]
ORDER: tuple[Severity, ...] = ("pass", "info", "warn", "fail")
SOUND: tuple[Severity, ...] = ("pass", "info")  #: nothing is to be done
TEXT_CHARS = 4000  #: of one text; names of files and labels may be of any length


@dataclass(frozen=True, slots=True)
class Seen:
    """What a check saw: how bad it is, figures, and what a person is to do where it is not well."""

    severity: Severity
    detail: str
    remediation: str = ""
    data: Mapping[str, Json] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Whether nothing is to be done."""
        return self.severity in SOUND

    @property
    def count(self) -> int:
        """How many things are not well, as the figures say it; 0 where they do not."""
        count = self.data.get("count")
        return count if isinstance(count, int) else 0


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check saw, as people and programs are told it."""

    id: str
    severity: Severity
    title: str
    detail: str
    remediation: str = ""
    fixability: Fixability = "notfixable"
    data: Mapping[str, Json] = field(default_factory=dict)

    @property
    def category(self) -> str:
        """What it is about."""
        return self.id.partition(".")[0]


def overall(findings: Iterable[Finding]) -> Severity:
    """The worst of all; `info` is no reason to worry."""
    found: set[Severity] = {finding.severity for finding in findings}
    worst = max(found, key=ORDER.index, default=ORDER[0])
    return "pass" if worst == "info" else worst


def told(value: Json, redact: Callable[[str], str]) -> Json:
    """What was found, as it may be told: without secrets, in characters that every wire takes, and no text endless.

    Names come from whoever made the files. One that is no UTF-8 is told with escapes.
    """
    match value:
        case str():
            plain = redact(value.encode(errors="backslashreplace").decode())
            return plain if len(plain) <= TEXT_CHARS else f"{plain[:TEXT_CHARS]}…"
        case list() | tuple():
            return [told(one, redact) for one in value]
        case dict():
            return {key: told(one, redact) for key, one in value.items()}
    return value
