"""Files of the data directory as records: what a person or a tool changed becomes part of the log.

    grimoires/NOTES.md ─ bytes ─▶ blob (fsync) ─▶ file_changed {path, sha256} ─▶ FILES {path: sha256}

The local disk is the truth while it is there: a changed file is a record, a deleted one too. A template only fills in
what is missing and was never recorded; it overwrites nothing.
"""

import asyncio
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from persistence.disk import TEMPORARY, Disk, replace
from persistence.events import SYSTEM, By, FileChanged, Record
from persistence.fold import Fold
from persistence.journal import Journal
from persistence.redact import Redactor

FILE_BYTES = 8 * 1024 * 1024  #: a larger file is left out, and told
CLOSED = "a folder that cannot be read"  #: so that nothing is known of what it holds

Root = Literal["grimoires", "workspace"]


@dataclass(frozen=True, slots=True)
class Kept:
    """A file as the log knows it; `sha256` None: it was deleted."""

    sha256: str | None
    bytes: int
    executable: bool
    seq: int


@dataclass(frozen=True, slots=True)
class Inventory:
    """Every file the log ever knew, by `root/path`."""

    files: Mapping[str, Kept]


def keep(inventory: Inventory, record: Record) -> Inventory:
    """The inventory after a record."""
    event = record.event
    if not isinstance(event, FileChanged):
        return inventory
    kept = Kept(event.sha256, event.bytes, event.executable, record.seq)
    return Inventory({**inventory.files, f"{event.root}/{event.path}": kept})


FILES = Fold("files", 1, Inventory, Inventory({}), keep, False, (FileChanged,))


@dataclass(frozen=True, slots=True)
class Seen:
    """A file when it was last looked at: its stamp, and the hash of its bytes, or why they are left out."""

    stamp: tuple[int, int, int, int]
    executable: bool
    sha256: str = ""
    left_out: str = ""

    @property
    def bytes(self) -> int:
        """The file's size."""
        return self.stamp[2]


class Files:
    """The files below one root. `left_out` names those that are not recorded, and why."""

    def __init__(self, journal: Journal, disk: Disk, redactor: Redactor, name: Root, root: Path) -> None:
        self._journal = journal
        self._disk = disk
        self._redactor = redactor
        self._name: Root = name
        self._root = root
        self._seen: dict[str, Seen] = {}
        self._one = asyncio.Lock()  # two looks at once would record a change twice

    @property
    def left_out(self) -> dict[str, str]:
        """The files that no tier keeps, with the reason."""
        return {path: seen.left_out for path, seen in self._seen.items() if seen.left_out}

    async def fill(self, template: Mapping[str, bytes]) -> None:
        """Writes a template's files that are missing here and unknown to the log, then looks. Raises StorageError."""
        known = self._journal.whole(FILES).files
        missing = {path: data for path, data in template.items() if f"{self._name}/{path}" not in known}
        await asyncio.to_thread(self._write_missing, missing)
        await self.look(SYSTEM)

    async def look(self, by: By) -> None:
        """Records what changed since the last look. Raises StorageError, OSError."""
        async with self._one:
            known = {key: (kept.sha256, kept.executable) for key, kept in self._journal.whole(FILES).files.items()}
            for event in await asyncio.to_thread(self._changed, known):
                await self._journal.commit(event, by=by)

    def _write_missing(self, files: Mapping[str, bytes]) -> None:
        for path, data in files.items():
            target = self._root / path
            if not target.exists():
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                replace(self._disk, target, data)

    def _changed(self, known: Mapping[str, tuple[str | None, bool]]) -> list[FileChanged]:
        """The changes between the log and the disk, their bytes already safe in blobs."""
        here = {_name(path.relative_to(self._root)): path for path in sorted(_below(self._root))}
        seen = {name: one for name, path in here.items() if (one := self._look_at(name, path)) is not None}
        self._seen = seen
        changed = [
            FileChanged(root=self._name, path=name, sha256=one.sha256, bytes=one.bytes, executable=one.executable)
            for name, one in seen.items()
            if not one.left_out and known.get(f"{self._name}/{name}") != (one.sha256, one.executable)
        ]
        unseen = {key.partition("/")[2] for key, (sha, _) in known.items() if sha and key.startswith(f"{self._name}/")}
        closed = tuple(f"{name}/".removeprefix("./") for name, one in seen.items() if one.left_out == CLOSED)
        gone = sorted(name for name in unseen - seen.keys() if not name.startswith(closed))
        return changed + [FileChanged(root=self._name, path=name, sha256=None, bytes=0) for name in gone]

    def _look_at(self, name: str, path: Path) -> Seen | None:
        """What the file is now, its bytes safe in a blob; read only when its stamp changed. None: there is no file."""
        try:
            status = path.lstat()
        except FileNotFoundError:
            return None
        except OSError as error:
            return Seen((0, 0, 0, 0), executable=False, left_out=f"cannot be read: {error.strerror}")
        stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
        last = self._seen.get(name)
        if last is not None and last.stamp == stamp:
            return last
        executable = bool(status.st_mode & stat.S_IXUSR)
        reason, data = _read(path, status)
        if not reason and self._redactor.bytes(data) is not data:
            reason = "holds a known secret"
        return Seen(stamp, executable, "" if reason else self._journal.blobs.put(data), reason)


def _name(path: Path) -> str:
    """The path as text; where its bytes are no UTF-8, one that can be shown."""
    return path.as_posix().encode(errors="surrogateescape").decode(errors="backslashreplace")


def _read(path: Path, status: os.stat_result) -> tuple[str, bytes]:
    """Why the file is left out, or its bytes."""
    if stat.S_ISDIR(status.st_mode):
        return CLOSED, b""
    if not stat.S_ISREG(status.st_mode):
        return "no plain file", b""
    if status.st_size > FILE_BYTES:
        return f"larger than {FILE_BYTES} bytes", b""
    if _name(path) != path.as_posix():
        return "its name is not UTF-8", b""
    try:
        return "", path.read_bytes()
    except OSError as error:
        return f"cannot be read: {error.strerror}", b""


def _below(root: Path) -> Iterator[Path]:
    """All files below a folder but unfinished ones, however deep, and the folders that are closed to us.

    Links are not followed.
    """
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    elif not entry.name.startswith(TEMPORARY):
                        yield Path(entry.path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            yield folder
