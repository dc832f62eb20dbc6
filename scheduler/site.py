"""Where the doctor looks: plain values that the gateway gives, and what is read once for several checks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from persistence.clock import Clock
from persistence.disk import Disk
from persistence.replay import Paths
from persistence.store import Store
from persistence.values import Json


@dataclass(frozen=True)
class Running:
    """The finn that runs on this directory, as run.json names it. `answers`: it was asked and said something."""

    pid: int
    url: str
    epoch: int | None
    answers: bool


@dataclass(frozen=True)
class Site:
    """A data directory and everything that is known of it.

    `settings` are the effective ones by their name (FINN_…), secrets left out; `problems` what is odd about them and
    `refusal` what would make `finn serve` exit 2. `facts` are those of health, where a finn runs in this process.
    `store` opens the store that is set; it may raise FinnError, and waits for a network.
    `keys` are the names of the secrets that are set. `acts` are what a running finn can do when it is asked; they
    may raise FinnError. `again` gives the same place as it is now.
    """

    paths: Paths
    disk: Disk
    clock: Clock
    settings: Mapping[str, Json] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    refusal: str = ""
    token: Mapping[str, Json] = field(default_factory=dict)
    public_url: str = ""
    running: Running | None = None
    facts: Mapping[str, Json] = field(default_factory=dict)
    store: Callable[[], Store] | None = None
    acts: Mapping[str, Callable[[], None]] = field(default_factory=dict)
    keys: frozenset[str] = frozenset()
    again: "Callable[[], Site] | None" = None

    def renew(self) -> "Site":
        """The same place as it is now: nothing that was read of it before is remembered."""
        return self.again() if self.again is not None else replace(self)

    @property
    def root(self) -> Path:
        """The data directory."""
        return self.paths.root
