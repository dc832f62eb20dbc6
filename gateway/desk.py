"""Where `finn beads` finds the beads: at the finn that runs, or, where none does, in the log itself.

Desk ─┬─ Far   HTTP of the running gateway
       └─ Near  the journal, opened under its lock; the file is written before it is let go
"""

import asyncio
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import quote

from gateway.client import Client, Unreachable, running
from gateway.folds import FOLDS
from gateway.settings import Settings
from persistence.amends import Edit
from persistence.bead import Bead
from persistence.bead_file import FOLDER, BeadFile
from persistence.beads import Beads
from persistence.changes import Asking, create
from persistence.clock import Clock, Ids, SystemClock, system_entropy
from persistence.disk import SystemDisk
from persistence.errors import Fenced
from persistence.events import OWNER, Json
from persistence.journal import Journal
from persistence.redact import Redactor
from persistence.replay import Means
from persistence.standby import marked
from persistence.swap import RESTORED, RESTORING

COUNTS = ("dependency_count", "dependent_count")  #: what a list adds to a bead


class Desk(Protocol):
    """The beads, to be looked at and changed. Every call raises FinnError."""

    @property
    def now(self) -> int:
        """Nanoseconds since 1970."""

    def beads(self) -> Mapping[str, Bead]:
        """All of them, as they are now."""

    def create(self, fields: Mapping[str, Json], *, dry: bool = False) -> Bead:
        """Makes one, or, when `dry`, shows what would be made."""

    def update(self, name: str, fields: Mapping[str, Json]) -> Bead:
        """Changes one."""


@contextmanager
def open_desk(settings: Settings, url: str | None, actor: str) -> Iterator[Desk]:
    """The beads of a gateway at `url`, of the one on the data directory, or of that directory itself."""
    if url is not None or running(settings.data_dir) is not None:
        yield Far(Client.find(settings, url), actor)
        return
    near = Near(settings, actor)
    try:
        yield near
    finally:
        near.close()


def _now(clock: Clock) -> int:
    return int(clock.now() * 1_000_000) * 1000


class Far:
    """The beads of a running gateway."""

    def __init__(self, client: Client, actor: str) -> None:
        self._client = client
        self._actor = actor

    @property
    def now(self) -> int:
        return _now(SystemClock())

    def beads(self) -> Mapping[str, Bead]:
        found = [_bead(one) for one in self._client.get("/api/beads?limit=0&deleted=true")]
        return {bead.id: bead for bead in found}

    def create(self, fields: Mapping[str, Json], *, dry: bool = False) -> Bead:
        if dry:
            return create(self.beads(), fields, Asking(OWNER, self.now, self._actor))
        return _bead(self._client.post("/api/beads", dict(fields)))

    def update(self, name: str, fields: Mapping[str, Json]) -> Bead:
        body = {**fields, "actor": self._actor}
        return _bead(self._client.patch(f"/api/beads/{quote(name, safe='')}", body))


def _bead(data: dict[str, Json]) -> Bead:
    kept = {key: value for key, value in data.items() if key not in COUNTS}
    return Bead(json.dumps(kept, ensure_ascii=False, separators=(",", ":")))


class Near:
    """The beads of a data directory on which nothing runs. Opened on first use; only a change makes a log."""

    def __init__(self, settings: Settings, actor: str) -> None:
        self._settings = settings
        self._actor = actor
        self._clock = SystemClock()
        self._runner = asyncio.Runner()
        self._open: tuple[Journal, Beads, BeadFile] | None = None

    @property
    def now(self) -> int:
        return _now(self._clock)

    def beads(self) -> Mapping[str, Bead]:
        root = self._settings.data_dir
        if not (root / "wal").is_dir() and not (root / "state" / FOLDER).is_dir():
            return {}
        return self._opened()[1].board.beads

    def create(self, fields: Mapping[str, Json], *, dry: bool = False) -> Bead:
        if dry:
            return create(self.beads(), fields, Asking(OWNER, self.now, self._actor))
        require_own_log(self._settings)
        return self._runner.run(self._opened()[1].create(fields, OWNER, self._actor))

    def update(self, name: str, fields: Mapping[str, Json]) -> Bead:
        require_own_log(self._settings)
        return self._runner.run(self._opened()[1].update(name, fields, OWNER, self._actor))

    def mend(self, edits: Sequence[Edit]) -> None:
        """Makes beads what the doctor wants them to be. Raises Conflict, Fenced, StorageError."""
        require_own_log(self._settings)
        self._runner.run(self._opened()[1].mend(edits, OWNER))

    def close(self) -> None:
        """Writes the file and lets go of the log. Raises StorageError where that fails: the log has it all the same."""
        try:
            if self._open is not None:
                self._runner.run(self._close(*self._open))
        finally:
            self._runner.close()

    def _opened(self) -> tuple[Journal, Beads, BeadFile]:
        if self._open is None:
            self._settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open = self._runner.run(self._start())
        return self._open

    async def _start(self) -> tuple[Journal, Beads, BeadFile]:
        disk, settings = SystemDisk(), self._settings
        journal = await open_log(settings, Ids(self._clock, system_entropy))
        beads = Beads(journal, self._clock)
        folder = settings.data_dir / "state" / FOLDER
        file = BeadFile(beads, disk, folder, journal.paths.quarantine, self._clock)
        try:
            if marked(disk, settings.data_dir) is None:
                await file.look()
        except BaseException:
            await journal.close()
            raise
        return journal, beads, file

    async def _close(self, journal: Journal, beads: Beads, file: BeadFile) -> None:
        try:
            await file.look()
        finally:
            await journal.close()


def require_own_log(settings: Settings) -> None:
    """Nothing is written where the log that it would go to may not be this agent's. Raises Fenced, Unreachable."""
    root = settings.data_dir
    if marked(SystemDisk(), root) is not None:
        raise Fenced("another instance of this agent has taken over", hint="ask that one, with --url")
    copies = settings.store_url or settings.git_remote
    half_done = (root / RESTORING).exists() or (root / RESTORED).exists()
    if half_done or (copies and not (root / "wal").is_dir()):
        raise Unreachable(f"the log in {root} is not there yet", hint="start finn serve: it fetches it from a copy")


async def open_log(settings: Settings, ids: Ids) -> Journal:
    """The log of a data directory on which nothing runs, under its lock. Raises Locked, StorageError."""
    clock = SystemClock()
    return await Journal.open(settings.data_dir, FOLDS, Means(SystemDisk(), clock, ids, Redactor(_secrets(settings))))


def _secrets(settings: Settings) -> dict[str, Any]:
    """What must not get into a record: also the token that finn made for itself."""
    secrets = dict(settings.secrets)
    path = settings.data_dir / "auth" / "token"
    if "FINN_TOKEN" not in secrets and os.access(path, os.R_OK):
        secrets["FINN_TOKEN"] = path.read_text(errors="replace").strip()
    return secrets
