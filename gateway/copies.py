"""What is kept where: one frozen value, and what is told of it.

    local   this machine's disk     every record, before it is acknowledged
    store   FINN_STORE_URL          within a second
    git     FINN_GIT_REMOTE         within the hour

Whoever keeps a tier fills in its facts; what they mean is decided here, once, for /api/storage, `finn status` and the
page.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from persistence.clock import iso
from persistence.events import Json
from persistence.files import Files, Inventory
from persistence.journal import Journal
from scheduler.health import Fact

NAMED = 3  #: files that a warning names; the rest is counted

Name = Literal["local", "store", "git"]
State = Literal["saved", "behind", "failing", "unknown"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a copy takes nothing now, and since when, in seconds since 1970. Empty where nothing is in the way."""

    error: str = ""
    since: float | None = None

    def heard(self, error: str, now: float) -> "Trouble":
        """After another attempt: it goes on, perhaps in other words, or is over."""
        return Trouble(error, self.since or now) if error else Trouble()


@dataclass(frozen=True, slots=True)
class Tier:
    """One place where the log is kept.

    `last_seq` None: it has not answered yet. `at` is when it last confirmed, in seconds since 1970. `lag_s` is for how
    long the oldest record that it lacks has waited. `place` is shown to people: it holds no credential.
    """

    name: Name
    last_seq: int | None
    lag_seq: int = 0
    lag_s: float = 0.0
    at: float | None = None
    bytes: int | None = None
    trouble: Trouble = Trouble()
    place: str = ""

    @property
    def state(self) -> State:
        """In a word. A tier that failed and lacks nothing fails all the same: it could not take what comes next."""
        if self.trouble.error:
            return "failing"
        if self.last_seq is None:
            return "unknown"
        return "behind" if self.lag_seq else "saved"


@dataclass(frozen=True, slots=True)
class Copies:
    """The log's end, and every tier that is configured, the nearest first."""

    seq: int
    epoch: int
    tiers: tuple[Tier, ...]


def local_tier(journal: Journal, now: float, place: str) -> Tier:
    """The disk of this machine, which has whatever was acknowledged."""
    return Tier("local", journal.seq, at=now, bytes=journal.size, trouble=Trouble(journal.error or ""), place=place)


# ---------------------------------------------------------------- /api/storage


def storage(copies: Copies, inventory: Inventory, roots: Sequence[Files]) -> Json:
    """The answer of /api/storage. Grows with the number of files: make it off the event loop."""
    return {
        "seq": copies.seq,
        "epoch": copies.epoch,
        "tiers": [_tier(tier) for tier in copies.tiers],
        "inventory": list(_inventory(copies, inventory, _owed(roots))),
        "left_out": [{"path": path, "why": why} for path, why in sorted(left_out(roots).items())],
    }


def _tier(tier: Tier) -> Json:
    return {
        "name": tier.name,
        "state": tier.state,
        "last_seq": tier.last_seq,
        "at": None if tier.at is None else iso(tier.at),
        "bytes": tier.bytes,
        "lag_seq": tier.lag_seq,
        "lag_s": round(tier.lag_s, 3),
        "error": tier.trouble.error or None,
        "since": None if tier.trouble.since is None else iso(tier.trouble.since),
        "place": tier.place,
    }


def _inventory(copies: Copies, inventory: Inventory, owed: Mapping[str, str]) -> Iterator[Json]:
    for path, kept in sorted(inventory.files.items()):
        if kept.there:
            having = [tier.name for tier in copies.tiers if tier.last_seq is not None and tier.last_seq >= kept.seq]
            yield {
                "path": path,
                "bytes": kept.bytes,
                "sha256": kept.sha256,
                "link": kept.link,
                "tiers": [name for name in having if name != "local" or path not in owed],
            }


def _owed(roots: Sequence[Files]) -> Mapping[str, str]:
    """The files that are not on this disk yet, by `root/path`."""
    return {f"{files.name}/{path}": why for files in roots for path, why in files.owed.items()}


def left_out(roots: Sequence[Files]) -> Mapping[str, str]:
    """What is on this disk only, and why, by `root/path`."""
    return {f"{files.name}/{path}": why for files in roots for path, why in files.left_out.items()}


def files_fact(roots: Sequence[Files]) -> Fact:
    """How many files a person should know of, since no tier or not this disk has them; `output` names some."""
    troubles = {f"{files.name}/{path}": why for files in roots for path, why in files.troubles.items()}
    named = ", ".join(f"{path} ({why})" for path, why in sorted(troubles.items())[:NAMED])
    more = f" and {len(troubles) - NAMED} more" if len(troubles) > NAMED else ""
    output = f"not kept everywhere: {named}{more}; finn status lists them" if troubles else ""
    return Fact("files:leftOut", len(troubles), output=output)
