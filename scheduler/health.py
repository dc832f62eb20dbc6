"""Is finn well? Facts that others hold in memory, judged by one table.

    source() ─▶ Fact(name, value, unit) ─ JUDGES ─▶ pass | warn | fail ─▶ report

`warn` means that finn works and a person should look; `fail` is only what a restart or a person must mend. Nothing here
waits for a disk or a network: a source gives what it knows already.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from persistence.clock import iso
from persistence.values import Json

Status = Literal["pass", "warn", "fail"]
ORDER: tuple[Status, ...] = ("pass", "warn", "fail")

MIB = 1024 * 1024
DISK_WARN_BYTES = 1024 * MIB
DISK_FAIL_BYTES = 64 * MIB


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is so at this moment. `output` says what to do, where something is wrong."""

    name: str
    value: Json
    unit: str = ""
    output: str = ""


Source = Callable[[], Iterable[Fact]]


@dataclass(frozen=True, slots=True)
class Report:
    """The judgement of all facts: the worst status, and each check as the draft has it."""

    status: Status
    checks: Mapping[str, list[Json]]


def _free_disk(fact: Fact) -> Status:
    if fact.value < DISK_FAIL_BYTES:
        return "fail"
    return "warn" if fact.value < DISK_WARN_BYTES else "pass"


def _told(fact: Fact) -> Status:
    """A fact that only speaks when something should be looked at."""
    return "warn" if fact.output else "pass"


def _broken(fact: Fact) -> Status:
    """A fact that only speaks when a restart or a person is needed."""
    return "fail" if fact.output else "pass"


JUDGES: Mapping[str, Callable[[Fact], Status]] = {
    "wal:error": _broken,
    "wal:upkeep": _told,
    "wal:held": _told,
    "gateway:state": _told,
    "recovery:source": _told,
    "identity:checksum": _told,
    "model:state": _told,
    "sandbox:rung": _told,
    "settings:problems": _told,
    "files:leftOut": _told,
    "beads:stale": _told,
    "beads:file": _told,
    "store:lastError": _told,
    "store:unfenced": _told,
    "git:lastError": _told,
    "disk:free": _free_disk,
}  #: facts that are not named here are numbers to look at: they always pass


def judge(sources: Iterable[Source], now: float) -> Report:
    """The state of everything, at `now` seconds since 1970."""
    worst: Status = "pass"
    checks: dict[str, list[Json]] = {}
    for source in sources:
        for fact in source():
            status = JUDGES.get(fact.name, _well)(fact)
            worst = max(worst, status, key=ORDER.index)
            checks[fact.name] = [_check(fact, status, now)]
    return Report(worst, checks)


def _well(fact: Fact) -> Status:
    return "pass"


def _check(fact: Fact, status: Status, now: float) -> Json:
    return {
        "observedValue": fact.value,
        **({"observedUnit": fact.unit} if fact.unit else {}),
        "status": status,
        "time": iso(now),
        **({"output": fact.output} if fact.output else {}),
    }
