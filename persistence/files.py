"""Files of the data directory as records: what a person or a tool changed becomes part of the log.

    disk ─ look ─▶ bytes ─▶ blob (fsync) ─▶ file_changed {path, sha256 | link} ─▶ FILES {path: kept}
    disk ◀─ write_back ─── blob, fetched where it is missing here ◀──────────────── FILES

A look reads what is new in rounds, and between two of them another look may come in, as that after a tool call. What a
look under way has found is left to that one, so the other is done as soon as it has recorded what is its own.

The local disk is the truth while the log is the local one: a changed file is a record, a deleted one too. After a
restoration from elsewhere it is the other way round: `write_back` makes the files what the log says, and what was there
instead goes to quarantine. A template only fills in what is missing and was never recorded; it overwrites nothing.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import Literal, TypeVar

from persistence.disk import Disk, refused
from persistence.disk import replace as write_whole
from persistence.errors import FinnError, StorageError, StoreError
from persistence.events import SYSTEM, By, Event, FileChanged, Record
from persistence.fold import Fold
from persistence.folder import Entry, Folder, Stamp
from persistence.journal import Journal
from persistence.lanes import LANES, Lanes, parts
from persistence.limits import CACHE, NAMES_SECRET, SECRET, Limits, beyond, inside, plain
from persistence.redact import Redactor

BATCH = 64  #: records that are on their way to the disk at once

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


@dataclass(frozen=True, slots=True)
class Found:
    """What one pass over the folder came to: what is to be read, what another look is about to read, what is missing.

    `events` are the changes for which nothing has to be read.
    """

    due: Mapping[str, Entry]
    elsewhere: Mapping[str, Entry]
    events: Sequence[Event]
    gone: Sequence[str]


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
        self._seen: dict[str, Seen] = {}
        self._due: dict[str, Entry] = {}  # what looks under way have found and not yet read
        self._whole = asyncio.Lock()  # held by a look that leaves nothing to another
        self._one = asyncio.Lock()  # two rounds at once would record a change twice

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

    async def look(self, by: By, *, own: bool = False) -> None:
        """Records what changed since the last look, and tries again what is owed. Raises StorageError, OSError.

        `own`: what a look that is still under way found before is left to that one, and not waited for.
        """
        if own:
            await self._look(by)
        else:
            async with self._whole:
                await self._look(by)

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

    def _last(self, name: str) -> Kept | None:
        return self._journal.whole(FILES).files.get(f"{self.name}/{name}")

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

        def fetch(fetched: list[bytes], sha: str) -> bytes:
            if self._journal.blobs.has(sha):
                return self._journal.blob(sha)
            if silence:
                raise silence[0]  # a start does not wait for the same silence once more with every file
            try:
                fetched.append(self._journal.blob(sha, keep=False))
            except StoreError as error:
                silence.append(error)
                raise
            return fetched[-1]

        def bring(part: list[tuple[str, Kept]]) -> dict[str, str]:
            fetched: list[bytes] = []
            whys = {name: self._bring_one(name, kept, aside, again, partial(fetch, fetched)) for name, kept in part}
            with suppress(StorageError):  # without room for them here they come from there again
                self._journal.blobs.put_all(fetched)
            return {name: why for name, why in whys.items() if why}

        with Lanes("finn-files") as lanes:
            waiting = parts(sorted(files.items()), lambda one: one[1].bytes)
            for whys in await asyncio.gather(*(lanes.run(bring, part) for part in waiting)):
                owed |= whys
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

    async def _look(self, by: By) -> None:
        async with self._one:
            if self.owed:
                await self._bring({name: kept for name, kept in self._known().items() if name in self.owed}, again=True)
            found = await asyncio.to_thread(self._scan, self._journal.whole(FILES))
            await self._commit(found.events, by)
            self._due = {**found.elsewhere, **found.due}
        try:
            with Lanes("finn-look") as lanes:
                for some in _batches(parts(found.due.values(), lambda entry: entry.bytes), LANES):
                    async with self._one:
                        await self._round(lanes, some, by)
        finally:
            self._due = {name: entry for name, entry in self._due.items() if found.due.get(name) is not entry}
        async with self._one:
            await self._commit(self._gone([*found.gone, *found.due]), by)

    async def _round(self, lanes: Lanes, some: Iterable[list[Entry]], by: By) -> None:
        """Reads and records files, but for those that another look has seen since then."""
        known = self._journal.whole(FILES).files
        still = [[entry for entry in part if self._due.get(entry.name) is entry] for part in some]
        seen: dict[str, Seen] = {}
        for each in await asyncio.gather(*(lanes.run(self._read, part, known) for part in still)):
            seen |= each
        self._seen |= seen
        await self._commit(self._news(seen), by)
        for entry in chain(*still):
            del self._due[entry.name]

    async def _commit(self, events: Iterable[Event], by: By) -> None:
        for some in _batches(events, BATCH):
            await asyncio.gather(*(self._journal.commit(event, by=by) for event in some))

    def _scan(self, inventory: Inventory) -> Found:
        """Looks at everything, and reads nothing."""
        known = inventory.below(self.name)
        entries = self._discreet(sorted(self._folder.entries(), key=lambda entry: entry.name))
        sizes = ((entry.name, entry.bytes) for entry in entries if not entry.why)
        over = beyond(sizes, {name for name, kept in known.items() if kept.there}, self._limits)
        seen: dict[str, Seen] = {}
        due: dict[str, Entry] = {}
        elsewhere: dict[str, Entry] = {}
        for entry in entries:
            name, waiting = entry.name, self._due.get(entry.name)
            if (one := self._glance(entry, entry.why or over.get(name, ""))) is not None:
                seen[name] = one
            elif waiting is not None and waiting.stamp == entry.stamp:
                elsewhere[name] = waiting
            else:
                due[name] = entry
        self._seen = seen
        there = seen.keys() | due.keys() | elsewhere.keys()
        gone = sorted(name for name, kept in known.items() if kept.there and name not in there)
        return Found(due, elsewhere, tuple(self._news(seen)), gone)

    def _discreet(self, entries: list[Entry]) -> list[Entry]:
        """The entries, without those names that hold a secret: what is recorded of them would be another name."""
        names = "\n".join(entry.name for entry in entries)
        if self._redactor.text(names) == names:
            return entries
        told = [(entry, self._redactor.text(entry.name)) for entry in entries]
        return [entry if name == entry.name else replace(entry, name=name, why=NAMES_SECRET) for entry, name in told]

    def _news(self, seen: Mapping[str, Seen]) -> Iterator[Event]:
        """The events that make the log say what the disk has."""
        for name, one in seen.items():
            last = self._last(name)
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

    def _gone(self, missed: Iterable[str]) -> Iterator[Event]:
        """The events that tell of deleted files: last of all, so that a file that was moved is at no time nowhere."""
        there = self._seen.keys() | self._due.keys() | self.owed.keys()
        closed = tuple(f"{name}/".removeprefix("./") for name, one in self._seen.items() if one.closed)
        for name in missed:
            last = self._last(name)
            if name not in there and last is not None and last.there and not name.startswith(closed):
                yield FileChanged(root=self.name, path=name, sha256=None, bytes=0)

    def _glance(self, entry: Entry, why: str) -> Seen | None:
        """What the entry is, where nothing has to be read for that: a file is, when its stamp changed."""
        last = self._seen.get(entry.name)
        if not why and entry.link is None:
            return last if last is not None and last.stamp == entry.stamp and last.left_out in ("", SECRET) else None
        if not why and entry.link is not None and self._redactor.text(entry.link) != entry.link:
            why = SECRET
        return Seen(entry.stamp, link=entry.link if not why else None, left_out=why, closed=entry.closed)

    def _read(self, part: Iterable[Entry], known: Mapping[str, Kept]) -> dict[str, Seen]:
        """What the files are now, their bytes safe in blobs; without those that are gone again."""
        seen: dict[str, Seen] = {}
        new: list[bytes] = []
        for entry in part:
            try:
                data, _ = self._folder.read(entry.name, self._limits.file_bytes)
            except FileNotFoundError:
                continue
            except OSError as error:
                seen[entry.name] = Seen(entry.stamp, left_out=f"cannot be read: {error.strerror}")
                continue
            if why := self._objection(data):
                seen[entry.name] = Seen(entry.stamp, left_out=why)
                continue
            sha = sha256(data).hexdigest()
            seen[entry.name] = Seen(entry.stamp, entry.executable, sha)
            last = known.get(f"{self.name}/{entry.name}")
            if last is None or last.sha256 != sha or not self._journal.blobs.has(sha):
                new.append(data)  # the one the log knows is there already
        self._journal.blobs.put_all(new)
        return seen

    def _objection(self, data: bytes) -> str:
        """Why the bytes cannot be kept; empty where they can."""
        if len(data) > self._limits.file_bytes:
            return "grew while it was read"
        return SECRET if self._redactor.bytes(data) is not data else ""


def _batches(things: Iterable[T], most: int) -> Iterator[tuple[T, ...]]:
    rest = iter(things)
    while batch := tuple(islice(rest, most)):
        yield batch
