"""A folder that others write in while we do: what is below it, and nothing of what is not.

    entries          every file by name and stamp; links are seen, never followed
    read, write      through handles of folders, one name at a time: a folder that turns into a link on the way is
                     refused, so a command that plays with links cannot make us read or write elsewhere
    set_aside        moves what is in the way to a place of its own

Waits for the disk: call it off the event loop. Every call may raise OSError, ELOOP or ENOTDIR where a name on the way
is no folder.
"""

import errno
import itertools
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Literal, NamedTuple

from persistence.disk import TEMPORARY
from persistence.limits import CACHE, CLOSED, CLUTTER, IGNORED, MARKS, OUTSIDE, PATH_BYTES, SPECIAL, inside

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not make us wait
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
NO_STAMP = (0, 0, 0, 0)

Stamp = tuple[int, int, int, int]
Found = Literal["nothing", "file", "link", "folder", "special", "blocked"]
KINDS: Mapping[int, Found] = MappingProxyType({stat.S_IFREG: "file", stat.S_IFLNK: "link", stat.S_IFDIR: "folder"})

_temporaries = itertools.count()


@dataclass(frozen=True, slots=True)
class Entry:
    """Something below the root: its stamp, the text of a link, and why it cannot be kept, where that is so.

    `closed`: a folder that was not looked into, so nothing is known of what it holds.
    """

    name: str
    stamp: Stamp
    executable: bool = False
    link: str | None = None
    why: str = ""
    closed: bool = False

    @property
    def bytes(self) -> int:
        """The file's size."""
        return self.stamp[2]


class Content(NamedTuple):
    """What a file holds, and whether it may be run."""

    data: bytes
    executable: bool


class Folder:
    """The tree below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._moving = Lock()  # two that move the same thing away: the second would move what came in its place

    # ------------------------------------------------------------ looking

    def entries(self) -> Iterator[Entry]:
        """All files, however deep, and the folders that are not looked into; a root that is gone is one of these."""
        folders = [self._root]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder) as scanned:
                    found = list(scanned)
            except OSError as error:
                if folder != self._root and isinstance(error, FileNotFoundError | NotADirectoryError):
                    continue
                yield Entry(self._name(folder), NO_STAMP, why=CLOSED, closed=True)
                continue
            if folder != self._root and any(entry.name in MARKS for entry in found):
                yield Entry(self._name(folder), NO_STAMP, why=CACHE, closed=True)
                continue
            for entry in found:
                if not entry.is_dir(follow_symlinks=False):
                    yield from self._entry(entry)
                elif entry.name in IGNORED:
                    yield Entry(self._name(Path(entry.path)), NO_STAMP, why=CACHE, closed=True)
                else:
                    folders.append(Path(entry.path))

    def _entry(self, entry: os.DirEntry[str]) -> Iterator[Entry]:
        """The file, unless it is gone again or nobody's."""
        if entry.name.startswith(TEMPORARY) or entry.name in CLUTTER:
            return
        name = self._name(Path(entry.path))
        try:
            status = entry.stat(follow_symlinks=False)
            link = os.readlink(entry.path) if stat.S_ISLNK(status.st_mode) else None  # noqa: PTH115 - its text as it is
        except FileNotFoundError:
            return
        except OSError as error:
            yield Entry(name, NO_STAMP, why=f"cannot be read: {error.strerror}")
            return
        stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
        executable = link is None and bool(status.st_mode & stat.S_IXUSR)
        yield Entry(name, stamp, executable, link, _why(name, entry.name, status.st_mode, link))

    def _name(self, path: Path) -> str:
        """The path below the root as text; where its bytes are no UTF-8, one that can be shown."""
        return _shown(path.relative_to(self._root).as_posix())

    # ------------------------------------------------------------ one file

    def read(self, name: str, most: int) -> Content:
        """What the file holds; of a larger one `most` + 1 bytes. Raises FileNotFoundError."""
        with self._parent(name) as (folder, last):
            handle = os.open(last, FILE, dir_fd=folder)
            with os.fdopen(handle, "rb") as file:
                status = os.fstat(handle)
                if not stat.S_ISREG(status.st_mode):
                    raise OSError(errno.ELOOP, SPECIAL, name)
                return Content(file.read(most + 1), bool(status.st_mode & stat.S_IXUSR))

    def find(self, name: str) -> Found:
        """What has that name. `blocked`: something that is no folder stands where one of its folders should."""
        try:
            with self._parent(name) as (folder, last):
                mode = os.stat(last, dir_fd=folder, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return "nothing"
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            return "blocked"
        return KINDS.get(stat.S_IFMT(mode), "special")

    def link(self, name: str) -> str:
        """The text of a link."""
        with self._parent(name) as (folder, last):
            return os.readlink(last, dir_fd=folder)

    def write(self, name: str, data: bytes, *, executable: bool) -> None:
        """The file holds `data`, durably, or what it held before. Folders on the way are made."""
        with self._parent(name, make=True) as (folder, last):
            temporary = f"{TEMPORARY}{os.getpid()}-folder-{next(_temporaries)}"
            _discard(temporary, folder)  # a crash's, of a process with our number
            try:
                with os.fdopen(os.open(temporary, NEW, 0o700 if executable else 0o600, dir_fd=folder), "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(temporary, last, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                _discard(temporary, folder)
                raise
            os.fsync(folder)

    def write_link(self, name: str, target: str) -> None:
        """There is a link with that text, durably. Raises FileExistsError."""
        with self._parent(name, make=True) as (folder, last):
            os.symlink(target, last, dir_fd=folder)
            os.fsync(folder)

    def allow(self, name: str, *, executable: bool) -> None:
        """Lets a file be run, or no longer."""
        with self._parent(name) as (folder, last):
            handle = os.open(last, FILE, dir_fd=folder)
            try:
                os.fchmod(handle, 0o700 if executable else 0o600)
                os.fsync(handle)
            finally:
                os.close(handle)

    def set_aside(self, name: str, to: Path) -> None:
        """Moves what has that name, or stands where one of its folders should, below `to`; nothing if nothing does."""
        with self._moving:
            self._set_aside(name, to)

    def _set_aside(self, name: str, to: Path) -> None:
        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            with self._parent("/".join(parts[:depth])) as (folder, last):
                try:
                    status = os.stat(last, dir_fd=folder, follow_symlinks=False)
                except FileNotFoundError:
                    return
                if depth == len(parts) or not stat.S_ISDIR(status.st_mode):
                    place = _free(to.joinpath(*parts[:depth]))
                    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    os.rename(last, place, src_dir_fd=folder)
                    os.fsync(folder)
                    return

    @contextmanager
    def _parent(self, name: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """The folder of a file as a handle, and the file's name in it."""
        *folders, last = name.split("/")
        if make:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self._root, FOLDER & ~os.O_NOFOLLOW)
        try:
            for each in folders:
                if make:
                    _make(each, handle)
                below = os.open(each, FOLDER, dir_fd=handle)
                os.close(handle)
                handle = below
            yield handle, last
        finally:
            os.close(handle)


def _why(name: str, last: str, mode: int, link: str | None) -> str:
    """Why something is left out for what it is; empty where it is not."""
    if link is None and not stat.S_ISREG(mode):
        return SPECIAL
    if _shown(last) != last or not last or (link is not None and _shown(link) != link):
        return "its name is not UTF-8"
    if len(name.encode()) > PATH_BYTES:
        return f"its name is longer than {PATH_BYTES} bytes"
    return OUTSIDE if link is not None and not inside(name, link) else ""


def _shown(text: str) -> str:
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _free(path: Path) -> Path:
    """The path, or one beside it that nothing has yet."""
    number = 0
    found = path
    while os.path.lexists(found):
        number += 1
        found = path.with_name(f"{path.name}.{number}")
    return found


def _make(name: str, folder: int) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=folder)
    except FileExistsError:
        return
    os.fsync(folder)


def _discard(name: str, folder: int) -> None:
    """Best effort: where it fails, what comes next tells why."""
    try:
        os.unlink(name, dir_fd=folder)
    except OSError:
        return
