"""`finn restore`: a whole data directory in an empty folder, from the store or from git.

    store ─▶ log, snapshot ─▶ chunks, blobs (8 at once) ┐
    git ──▶ log, snapshot, chunks, blobs ───────────────┴▶ grimoires/, workspace/ ─▶ ready for `finn serve --data-dir`

Nothing is claimed and nothing is written to the source: an agent that runs from it goes on as it is. What is
interrupted is begun anew by the same command.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from gateway.folds import FOLDS
from gateway.settings import Settings
from gateway.sources import archive_of, remote_of, store_of
from persistence import restoration, swap
from persistence.archive import Archive
from persistence.clock import Ids, SystemClock, system_entropy
from persistence.disk import SystemDisk
from persistence.drill import fetching
from persistence.errors import ArchiveError, Conflict, Damaged, FinnError, NotFound, StoreError, UsageError
from persistence.events import Json
from persistence.files import Files, Root
from persistence.git import Remote
from persistence.journal import Journal
from persistence.limits import Limits
from persistence.lock import LOCK, hold
from persistence.redact import Redactor
from persistence.remote import look, together
from persistence.replay import Means, Paths
from persistence.swap import RESTORING, Restored

Source = Literal["store", "git", "auto"]
Build = Callable[[int | None], Restored]

ROOTS: tuple[Root, ...] = ("grimoires", "workspace")
UNUSABLE = (StoreError, ArchiveError, Damaged, NotFound)  #: of one source, so that another one is asked


@dataclass(frozen=True)
class Rebuilt:
    """What was made. `problems` says what could not be had; `bytes` is the size of the log and the snapshot."""

    source: str
    seq: int
    state_sha: str
    bytes: int
    problems: tuple[str, ...]


def rebuild(settings: Settings, to: Path, source: Source, at: int | None) -> dict[str, Json]:
    """Makes the data directory `to`: the answer for programs.

    Raises UsageError, Conflict where it is not empty, and why no source will do.
    """
    if at is not None and source == "git":
        raise UsageError("git keeps the newest state only", hint="--at goes with --from store")
    if at is not None and at < 1:
        raise UsageError("--at is the number of a record", hint="the first one is 1")
    _refuse_unless_empty(to)
    clock = SystemClock()
    means = Means(SystemDisk(), clock, Ids(clock, system_entropy), Redactor(settings.secrets))
    return asdict(asyncio.run(_Rebuilding(settings, Paths(to), means).rebuild(source, at)))


def told(found: dict[str, Json], to: str) -> Iterator[str]:
    """The answer for people, line by line."""
    yield f"{found['seq']} records restored from {found['source']} into {to} (state {found['state_sha'][:12]})"
    yield from (f"  {sentence}" for sentence in found["problems"])
    yield f"start it with: finn serve --data-dir {to}"


class _Rebuilding:
    """One run of the command."""

    def __init__(self, settings: Settings, paths: Paths, means: Means) -> None:
        self._settings = settings
        self._paths = paths
        self._means = means
        self._store = store_of(settings)
        self._problems: list[str] = []
        self._bytes = 0

    async def rebuild(self, source: Source, at: int | None) -> Rebuilt:
        took = await asyncio.to_thread(self._locked, source, at)
        journal = await Journal.open(self._paths.root, FOLDS, self._fetching())
        try:
            await self._fill(journal)
            await self._write_files(journal)
            self._problems += [journal.loss] if journal.loss else []
            seq, sha = journal.seq, journal.state_sha()
        finally:
            await journal.close()
        if not self._problems:
            swap.settled(self._means.disk, self._paths.root)
        return Rebuilt(took, seq, sha, self._bytes, tuple(dict.fromkeys(self._problems)))

    # ------------------------------------------------------------ the log

    def _locked(self, source: Source, at: int | None) -> str:
        self._paths.make(self._means.disk)
        lock = hold(self._paths.wal)
        try:
            return self._take(source, at)
        finally:
            lock.release()

    def _take(self, source: Source, at: int | None) -> str:
        """The first source that has what is wanted, in its place. Returns its name."""
        failures: list[FinnError] = []
        for name, build in self._sources(source):
            try:
                restored = build(at)
            except UNUSABLE as error:
                failures.append(error)
                continue
            if failures:
                self._problems.append(f"{failures[0].message}; {name} was taken")
            name_of_old = f"log-{self._means.ids.new()}"
            swap.move_in(self._means.disk, self._paths.root, restored=restored, name=name_of_old, why="finn restore")
            return name
        raise failures[0]

    def _sources(self, source: Source) -> list[tuple[str, Build]]:
        """What may be asked, in order. Raises UsageError where nothing is configured."""
        there = {"store": self._store is not None, "git": self._remote() is not None}
        builds: dict[str, Build] = {"store": self._from_store, "git": self._from_git}
        wanted = [name for name in builds if source in (name, "auto") and there[name]]
        if not wanted:
            hint = {"store": "set FINN_STORE_URL", "git": "set FINN_GIT_REMOTE"}
            raise UsageError("there is no such copy to restore from", hint=hint.get(source, "; ".join(hint.values())))
        return [(name, builds[name]) for name in wanted]

    def _from_store(self, at: int | None) -> Restored:
        assert self._store is not None
        tip = look(self._store, clock=self._means.clock)
        if tip is None or not tip.seq:
            raise NotFound(f"{self._store.url} holds nothing", hint="see FINN_STORE_URL and FINN_AGENT_ID")
        if at is not None and at > tip.seq:
            raise NotFound(f"{self._store.url} ends with record {tip.seq}", hint=f"--at {tip.seq} is the newest")
        into, ms = swap.begin(self._means.disk, self._paths.root), int(self._means.clock.now() * 1000)
        built = restoration.restore(self._store, tip, into, self._means.disk, ms=ms, at=at)
        self._problems += [*tip.problems, *built.problems]
        self._bytes = built.bytes
        return Restored("store", built.seq)

    def _from_git(self, at: int | None) -> Restored:
        if at is not None:
            raise NotFound("git keeps the newest state only", hint="--at goes with --from store")
        archive = self._archive()
        state = archive.latest()
        if state is None:
            raise NotFound("the archive has no commit", hint="see FINN_GIT_REMOTE and FINN_GIT_BRANCH")
        into = swap.begin(self._means.disk, self._paths.root)
        built = archive.restore(state, into, self._means, epoch=state.epoch + 1)
        self._problems += built.problems
        self._bytes = built.bytes
        return Restored("git", built.seq)

    def _archive(self) -> Archive:
        return archive_of(self._settings, self._means.disk, self._paths, self._means.ids, self._remote())

    def _remote(self) -> Remote | None:
        """The archive's remote; without one the git folder of the data directory that the settings name."""
        own = self._settings.data_dir.resolve() / "git"
        return remote_of(self._settings) or (Remote(str(own)) if own.is_dir() else None)

    # ------------------------------------------------------------ what it names

    def _fetching(self) -> Means:
        return replace(self._means, fetch=fetching(self._store)) if self._store else self._means

    async def _fill(self, journal: Journal) -> None:
        """Every chunk and blob that is not here yet. What a chunk names is known only once it is here."""
        tried: set[tuple[str, str]] = set()
        while missing := set(await asyncio.to_thread(journal.missing)) - tried:
            calls = [partial(_fetched, journal, kind, sha) for kind, sha in sorted(missing)]
            self._problems += filter(None, await asyncio.to_thread(together, calls))
            tried |= missing

    async def _write_files(self, journal: Journal) -> None:
        settings = self._settings
        limits = Limits(file_bytes=settings.workspace_file_max, total_bytes=settings.workspace_max)
        for name in ROOTS:
            root = self._paths.root / name
            root.mkdir(mode=0o700, exist_ok=True)
            files = Files(journal, self._means.disk, self._means.redactor, name, root, limits)
            await files.write_back()
            self._problems += [f"{name}/{path}: {why}" for path, why in files.owed.items()]


def _fetched(journal: Journal, kind: str, sha: str) -> str:
    """Why the bytes cannot be had; empty where they are here now."""
    try:
        (journal.chunk if kind == "chunk" else journal.blob)(sha)
    except (NotFound, Damaged) as error:
        return error.message
    return ""


def _refuse_unless_empty(to: Path) -> None:
    """A folder may hold what an interrupted restoration left, for that is begun anew."""
    if to.exists() and not to.is_dir():
        raise Conflict(f"{to} is no folder", hint="choose another one, or none that exists")
    kept = [path for path in _files(to) if path != to / "wal" / LOCK and RESTORING not in path.parts]
    if kept:
        raise Conflict(f"{to} is not empty: it holds {kept[0].name}", hint="choose an empty folder")


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
