"""Files of the data directory as records: what a person or a tool changed becomes part of the log.

    disk ─ look ─▶ bytes ─▶ blob (fsync) ─▶ file_changed {path, sha256 | link} ─▶ FILES {path: kept}
    disk ◀─ write_back ─── blob, fetched where it is missing here ◀──────────────── FILES

The local disk is the truth while the log is the local one: a changed file is a record, a deleted one too. After a
restoration from elsewhere it is the other way round: `write_back` makes the files what the log says, and what was there
instead goes to quarantine. A template only fills in what is missing and was never recorded; it overwrites nothing.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

from persistence.disk import Disk, refused
from persistence.disk import replace as write_whole
from persistence.errors import FinnError, StoreError
from persistence.events import SYSTEM, By, Event, FileChanged, Record
from persistence.fold import Fold
from persistence.folder import Entry, Folder, Stamp
from persistence.journal import Journal
from persistence.limits import CACHE, NAMES_SECRET, SECRET, Limits, beyond, inside, plain
from persistence.redact import Redactor

BATCH = 64  #: records that are on their way to the disk at once
LANES = 8  #: files that are fetched and written back at once

Root = Literal["grimoires", "workspace"]
Fetch = Callable[[str], bytes]  #: a blob's bytes, from wherever they are
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kept:
    """A file as the log knows it: its bytes, or the text of a link; neither: it was deleted."""

    sha256: str | None
    bytes: int
    executable: bool
    seq: int
    link: str | None = None

    @property
    def there(self) -> bool:
        """Whether it is a file now."""
        return self.sha256 is not None or self.link is not None


@dataclass(frozen=True, slots=True)
class Inventory:
    """Every file the log ever knew, by `root/path`."""

    files: Mapping[str, Kept]

    def below(self, root: Root) -> dict[str, Kept]:
        """The files of one root, by their path below it."""
        start = f"{root}/"
        return {key.removeprefix(start): kept for key, kept in self.files.items() if key.startswith(start)}


def keep(inventory: Inventory, record: Record) -> Inventory:
    """The inventory after a record."""
    event = record.event
    if not isinstance(event, FileChanged):
        return inventory
    kept = Kept(event.sha256, event.bytes, event.executable, record.seq, event.link)
    return Inventory({**inventory.files, f"{event.root}/{event.path}": kept})


FILES = Fold("files", 1, Inventory, Inventory({}), keep, False, (FileChanged,))


@dataclass(frozen=True, slots=True)
class Seen:
    """A file when it was last looked at: its stamp, and what it is, or why it is left out.

    `closed`: it is a folder, and nothing is known of what it holds.
    """

    stamp: Stamp
    executable: bool = False
    sha256: str | None = None
    link: str | None = None
    left_out: str = ""
    closed: bool = False

    @property
    def bytes(self) -> int:
        """The file's size."""
        return self.stamp[2]


class Files:
    """The files below one root."""

    def __init__(
        self,
        journal: Journal,
        disk: Disk,
        redactor: Redactor,
        name: Root,
        root: Path,
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> None:
        self.owed: Mapping[str, str] = {}  #: files of the log that could not be written back yet, and why
        self._journal = journal
        self._disk = disk
        self._redactor = redactor
        self.name: Root = name
        self._root = root
        self._folder = Folder(root)
        self._limits = limits
        self._seen: Mapping[str, Seen] = {}
        self._one = asyncio.Lock()  # two looks at once would record a change twice

    @property
    def left_out(self) -> dict[str, str]:
        """The files and folders that are on this disk only, with the reason."""
        return {path: seen.left_out for path, seen in self._seen.items() if seen.left_out}

    @property
    def troubles(self) -> dict[str, str]:
        """What a person should know of: what is left out or owed, but for caches, which nobody misses."""
        return {**{path: why for path, why in self.left_out.items() if why != CACHE}, **self.owed}

    async def fill(self, template: Mapping[str, bytes]) -> None:
        """Writes a template's files that are missing here and unknown to the log, then looks. Raises StorageError."""
        known = self._known()
        missing = {path: data for path, data in template.items() if path not in known}
        await asyncio.to_thread(self._write_missing, missing)
        await self.look(SYSTEM)

    async def look(self, by: By) -> None:
        """Records what changed since the last look, and tries again what is owed. Raises StorageError, OSError."""
        async with self._one:
            if self.owed:
                await self._bring({name: kept for name, kept in self._known().items() if name in self.owed}, again=True)
            inventory = self._journal.whole(FILES)
            for events in _batches(await asyncio.to_thread(self._changed, inventory)):
                await asyncio.gather(*(self._journal.commit(event, by=by) for event in events))

    async def write_back(self) -> None:
        """Makes the files what the log says, after a restoration from elsewhere than this disk.

        A local file that differs goes to quarantine, and so does one that the log knows as deleted; one that the log
        never knew stays. What cannot be had or written now is `owed`: no look takes it for deleted, each tries again.
        Until it has returned with nothing owed, a next start has to call it again.
        """
        async with self._one:
            await self._bring(self._known(), again=False)

    def _known(self) -> dict[str, Kept]:
        return self._journal.whole(FILES).below(self.name)

    # ------------------------------------------------------------ from the log to the disk

    def _write_missing(self, files: Mapping[str, bytes]) -> None:
        for path, data in files.items():
            target = self._root / path
            if not target.exists():
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_whole(self._disk, target, data)

    async def _bring(self, files: Mapping[str, Kept], *, again: bool) -> None:
        aside = self._journal.paths.quarantine / f"{self.name}-{self._journal.seq}"
        owed: dict[str, str] = {}
        silence: list[StoreError] = []

        def fetch(sha: str) -> bytes:
            if silence and not self._journal.blobs.has(sha):
                raise silence[0]  # a start does not wait for the same silence once more with every file
            try:
                return self._journal.blob(sha)
            except StoreError as error:
                silence.append(error)
                raise

        async def lane(waiting: Iterator[tuple[str, Kept]]) -> None:
            for name, kept in waiting:  # shared: each file is taken by one lane
                if why := await asyncio.to_thread(self._bring_one, name, kept, aside, again, fetch):
                    owed[name] = why

        waiting = iter(sorted(files.items()))
        await asyncio.gather(*(lane(waiting) for _ in range(LANES)))
        self.owed = owed

    def _bring_one(self, name: str, kept: Kept, aside: Path, again: bool, fetch: Fetch) -> str:
        """Why the file is not yet what the log says; empty where it is."""
        try:
            if plain(name) and not self._is(name, kept):
                self._make(name, kept, aside, again, fetch)
        except FinnError as error:
            return error.message
        except OSError as error:
            return refused(error, self._root / name).message
        return ""

    def _is(self, name: str, kept: Kept) -> bool:
        """Whether the disk has the file as the log says. Raises OSError."""
        found = self._folder.find(name)
        if not kept.there:
            return found not in ("file", "link", "special")  # as a folder the name belongs to other files
        if kept.link is not None:
            return found == "link" and self._folder.link(name) == kept.link
        if found != "file":
            return False
        data, executable = self._folder.read(name, kept.bytes)
        if sha256(data).hexdigest() != kept.sha256:
            return False
        if executable != kept.executable:
            self._folder.allow(name, executable=kept.executable)
        return True

    def _make(self, name: str, kept: Kept, aside: Path, again: bool, fetch: Fetch) -> None:
        """Puts the file there. Raises FinnError, OSError.

        What is in its place goes at once, even where the bytes cannot be had yet: whatever is found there when it is
        tried again was then written after the restoration.
        """
        if kept.link is not None and not inside(name, kept.link):
            return  # no link that finn records: somebody made it up
        if self._folder.find(name) != "nothing":
            if again:
                return
            self._folder.set_aside(name, aside)
        if kept.link is not None:
            self._folder.write_link(name, kept.link)
        elif kept.sha256 is not None:
            self._folder.write(name, fetch(kept.sha256), executable=kept.executable)

    # ------------------------------------------------------------ from the disk to the log

    def _changed(self, inventory: Inventory) -> list[Event]:
        """The events that make the log say what the disk has."""
        known = inventory.below(self.name)
        entries = self._discreet(list(self._folder.entries()))
        sizes = ((entry.name, entry.bytes) for entry in entries if not entry.why)
        over = beyond(sizes, {name for name, kept in known.items() if kept.there}, self._limits)
        looked = ((one.name, self._look_at(one, one.why or over.get(one.name, ""), known)) for one in entries)
        seen = self._seen = {name: one for name, one in looked if one is not None}
        return [*self._new(seen, known), *self._gone(seen, known)]

    def _discreet(self, entries: list[Entry]) -> list[Entry]:
        """The entries, without those names that hold a secret: what is recorded of them would be another name."""
        names = "\n".join(entry.name for entry in entries)
        if self._redactor.text(names) == names:
            return entries
        told = [(entry, self._redactor.text(entry.name)) for entry in entries]
        return [entry if name == entry.name else replace(entry, name=name, why=NAMES_SECRET) for entry, name in told]

    def _new(self, seen: Mapping[str, Seen], known: Mapping[str, Kept]) -> Iterator[Event]:
        for name, one in seen.items():
            last = known.get(name)
            as_known = (last.sha256, last.link, last.executable) if last else None
            if not one.left_out and (one.sha256, one.link, one.executable) != as_known:
                yield FileChanged(
                    root=self.name,
                    path=name,
                    sha256=one.sha256,
                    bytes=one.bytes,
                    executable=one.executable,
                    link=one.link,
                )

    def _gone(self, seen: Mapping[str, Seen], known: Mapping[str, Kept]) -> Iterator[Event]:
        closed = tuple(f"{name}/".removeprefix("./") for name, one in seen.items() if one.closed)
        for name in sorted(name for name, kept in known.items() if kept.there and name not in seen):
            if name not in self.owed and not name.startswith(closed):
                yield FileChanged(root=self.name, path=name, sha256=None, bytes=0)

    def _look_at(self, entry: Entry, why: str, known: Mapping[str, Kept]) -> Seen | None:
        """What the file is now, its bytes safe in a blob; read only when its stamp changed. None: it is gone again."""
        if why or entry.link is not None:
            return self._glance(entry, why)
        last = self._seen.get(entry.name)
        if last is not None and last.stamp == entry.stamp and last.left_out in ("", SECRET):
            return last
        try:
            data, _ = self._folder.read(entry.name, self._limits.file_bytes)
        except FileNotFoundError:
            return None
        except OSError as error:
            return Seen(entry.stamp, left_out=f"cannot be read: {error.strerror}")
        if len(data) > self._limits.file_bytes:
            return Seen(entry.stamp, left_out="grew while it was read")
        if self._redactor.bytes(data) is not data:
            return Seen(entry.stamp, left_out=SECRET)
        return Seen(entry.stamp, entry.executable, self._keep(data, known.get(entry.name)))

    def _glance(self, entry: Entry, why: str) -> Seen:
        """What needs no reading."""
        if not why and entry.link is not None and self._redactor.text(entry.link) != entry.link:
            why = SECRET
        return Seen(entry.stamp, link=entry.link if not why else None, left_out=why, closed=entry.closed)

    def _keep(self, data: bytes, kept: Kept | None) -> str:
        """The name of the bytes in a blob; the one the log knows is there already."""
        sha = sha256(data).hexdigest()
        if kept is not None and kept.sha256 == sha and self._journal.blobs.has(sha):
            return sha
        return self._journal.blobs.put(data)


def _batches(events: Iterable[T]) -> Iterator[tuple[T, ...]]:
    rest = iter(events)
    while batch := tuple(islice(rest, BATCH)):
        yield batch
