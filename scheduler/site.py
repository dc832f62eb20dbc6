"""Where the doctor looks: plain values that the gateway gives, and what is read once for several checks."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from agent.models import Chosen
from persistence.amends import Edit
from persistence.beads import BEADS
from persistence.breaker import BREAKERS
from persistence.clock import Clock, Ids
from persistence.disk import Disk
from persistence.errors import FinnError
from persistence.files import FILES
from persistence.fold import Fold
from persistence.git import Remote
from persistence.redact import Redactor
from persistence.replay import Means, Paths, Replayed, survey
from persistence.store import Store
from persistence.values import Json
from scheduler.bodies import Bodies, looked_through
from scheduler.conversations import Conversation, Sessions
from scheduler.reading import Log, Shot, read_log, shots
from scheduler.there import There, asked

LIMIT_S = 5.0  #: how long one question to a network may take
LARGE = 16 << 20  #: bytes of log

S = TypeVar("S")


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
    may raise FinnError. `change` makes a record of changed beads, whether a finn runs or not. `again` gives the same
    place as it is now. `network` False: nothing is asked that is not on this machine; `limit_s` bounds each question.
    `folds` are what is folded from the log, `redactor` knows the secret values, `chosen` says which model is meant;
    neither shows them. `proc` is where the kernel tells of itself. `hooks` are
    the origins of the addresses that the owner is told at, by the name of their setting.
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
    change: Callable[[Sequence[Edit]], None] | None = None
    network: bool = True
    limit_s: float = LIMIT_S
    remote: Remote | None = None
    branch: str = ""
    release: str = ""
    chosen: Chosen = Chosen()  # noqa: RUF009 - frozen
    redactor: Redactor = field(default_factory=lambda: Redactor({}))
    proc: Path = Path("/proc")
    hooks: Mapping[str, str] = field(default_factory=dict)
    folds: tuple[Fold[Any], ...] = (FILES, BEADS, BREAKERS)

    def renew(self) -> "Site":
        """The same place as it is now: nothing that was read of it before is remembered."""
        return self.again() if self.again is not None else replace(self)

    @property
    def root(self) -> Path:
        """The data directory."""
        return self.paths.root

    @cached_property
    def past(self) -> Replayed:
        """What the log says, as a start would find it. Nothing is touched. Raises Newer, OSError."""
        ids = Ids(self.clock, lambda count: bytes(count))
        return survey(self.paths, self.folds, Means(self.disk, self.clock, ids, Redactor({})))

    @cached_property
    def log(self) -> Log:
        """The whole log, read through and proven. Raises OSError."""
        return read_log(self.disk, self.paths.wal)

    @cached_property
    def shots(self) -> tuple[Shot, ...]:
        """The snapshots there are, newest first, also those that cannot be read."""
        return shots(self.disk, self.paths.snapshots)

    @cached_property
    def sessions(self) -> Sessions:
        """The sessions, and where their records are. Raises Newer, OSError."""
        return Sessions(
            self.disk,
            self.paths,
            self.past,
            lambda seq: self.log.has_lost(seq),
            lambda: min(self.log.last, self.past.head.seq),  # a finn that runs writes on while this reads
        )

    @cached_property
    def conversations(self) -> tuple[Conversation, ...]:
        """Every session, read from its first record to its last. Raises Newer, OSError."""
        return self._begun()

    @cached_property
    def _begun(self) -> Callable[[], tuple[Conversation, ...]]:
        return self.sessions.begun() if self.is_large else self.sessions.conversations

    def begin(self) -> None:
        """Has others read the sessions from now on, where that is much. What cannot be read is told by who needs it."""
        with suppress(FinnError, OSError):
            _ = self._begun

    @cached_property
    def is_large(self) -> bool:
        """Whether there is so much to read that several processes are faster."""
        try:
            with os.scandir(self.paths.wal) as entries:
                return sum(entry.stat(follow_symlinks=False).st_size for entry in entries) > LARGE
        except OSError:
            return False

    @cached_property
    def bodies(self) -> Bodies:
        """The chunks and blobs that the state and the sessions name, each read and proven. Raises Newer, OSError."""
        return looked_through(self.sessions, self.conversations)

    @cached_property
    def there(self) -> There:
        """What the store holds; nothing is asked where none is set, or no network may be."""
        if self.store is None or not self.network:
            return There()
        return asked(self.store, self.clock, self.limit_s)

    def state(self, fold: Fold[S]) -> S:
        """The state of a fold over the whole log; its first one where this site does not fold it."""
        return self.past.folded.whole(fold) if fold in self.folds else fold.initial
