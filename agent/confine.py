"""Files beneath a root, and nothing else.

    text of the model ─ locate ─▶ Place (a root and names below it, no `..`) ─▶ read, list, replace, rewrite

The text decides which root is meant; the kernel decides that nothing leads out of it: openat2 with RESOLVE_BENEATH, or
where that is missing a walk from folder to folder that follows no link. Reading follows links that stay inside, writing
follows none. Whatever is not a regular file or a folder is refused. Every failure is a PathError.
"""

import ctypes
import errno
import functools
import os
import posixpath
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Literal

from persistence.errors import FinnError

NAME_BYTES = 255
PATH_BYTES = 4096
FOLDER_ENTRIES = 100_000  #: what is looked at in one folder
RACES = 100  #: how often the kernel is asked again when somebody renames on the way

Zone = Literal["workspace", "grimoires"]

OPENAT2 = 437  # the same number on every architecture
RESOLVE_NO_MAGICLINKS, RESOLVE_BENEATH = 0x02, 0x08

# One at a time in the whole process: what is read is what is replaced, and one name is enough for the unfinished file.
WRITING = threading.RLock()
UNFINISHED = ".finn-unfinished"

KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

SAYINGS = {
    errno.ENOENT: ("does not exist", "find and read of a folder show what there is"),
    errno.EXDEV: ("leads out of the agent's own folder", "use a path inside the workspace"),
    errno.ELOOP: ("goes through a symbolic link", "name the real file"),
    errno.ENOTDIR: ("goes through something that is not a folder", "check each part of the path"),
    errno.EISDIR: ("is a folder", "name a file"),
    errno.EACCES: ("may not be opened: permission denied", "choose another file"),
    errno.EPERM: ("may not be changed: operation not permitted", "choose another file"),
    errno.EROFS: ("lies on a read-only file system", "choose another file"),
    errno.ENAMETOOLONG: ("is too long a name", "use a shorter one"),
    errno.ENXIO: ("is not a regular file", "choose another file"),
    errno.ENOSPC: ("was not written: the disk is full", "nothing was changed; delete something first"),
    errno.EDQUOT: ("was not written: the quota is used up", "nothing was changed; delete something first"),
    errno.EAGAIN: ("is being renamed all the time", "try again when it is quiet"),
}


class PathError(FinnError):
    """A path that the agent may not use, or that does not allow what was asked."""

    code = "path"


class Missing(PathError):
    """There is nothing at that path."""


@dataclass(frozen=True)
class Place:
    """A file or folder: the root it belongs to and the names that lead to it."""

    zone: Zone
    root: Path
    names: tuple[str, ...]

    def __str__(self) -> str:
        """As the model names it."""
        shown = self.names if self.zone == "workspace" else ("grimoires", *self.names)
        return "/".join(shown) or "."

    def below(self, *names: str) -> "Place":
        """The place that so many names lead to from here."""
        return Place(self.zone, self.root, self.names + names)


@dataclass(frozen=True)
class Entry:
    """What stands in a folder. `link` is neither file nor folder: it is shown, and not entered."""

    name: str
    kind: Literal["file", "folder", "link", "other"]


# ---------------------------------------------------------------- from text to place


def locate(path: str, workspace: Path, grimoires: Path) -> Place:
    """The place that a path of the model means: relative to the workspace, or `grimoires/...`, or below one of the two.

    Looks at the text alone. Raises PathError for what is no path or leads out of both.
    """
    text = _sound(path.removeprefix("@"))
    if text.startswith("~"):
        raise PathError(f"{text} means a home folder, and the agent has none", hint="use a path in the workspace")
    names = tuple(name for name in posixpath.normpath(text).split("/") if name not in ("", "."))
    if text.startswith("/"):
        return _absolute(names, text, workspace, grimoires)
    if names[:1] == ("..",):
        raise PathError(f"{text} leads out of the workspace", hint="use a path inside it, without ..")
    if names[:1] == ("grimoires",):
        return Place("grimoires", grimoires, names[1:])
    return Place("workspace", workspace, names)


def _absolute(names: tuple[str, ...], text: str, workspace: Path, grimoires: Path) -> Place:
    roots: tuple[tuple[Zone, Path], ...] = (("grimoires", grimoires), ("workspace", workspace))
    for zone, root in roots:
        own = root.parts[1:]
        if names[: len(own)] == own:
            return Place(zone, root, names[len(own) :])
    raise PathError(f"{text} lies outside the workspace", hint=f"use a path relative to {workspace}")


def _sound(path: str) -> str:
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise PathError("the path is not valid Unicode", hint="use bash for such a file") from None
    if b"\0" in encoded:
        raise PathError("the path contains a NUL byte", hint="leave it out")
    if len(encoded) > PATH_BYTES:
        raise PathError(f"the path has {len(encoded)} bytes, more than {PATH_BYTES}", hint="use a shorter one")
    if any(len(name) > NAME_BYTES for name in encoded.split(b"/")):
        raise PathError(f"a name in the path has more than {NAME_BYTES} bytes", hint="use a shorter one")
    return path


# ---------------------------------------------------------------- reading


@contextmanager
def reading(place: Place) -> Iterator[int]:
    """A descriptor of the regular file at `place`, for reading. Raises PathError."""
    with _told(place), ExitStack() as held:
        descriptor = _opened(held, place)
        _demand_regular(place, os.fstat(descriptor))
        yield descriptor


def is_folder(place: Place) -> bool:
    """Whether there is a folder at `place`. Raises PathError if there is nothing, or no way to it."""
    with _told(place), ExitStack() as held:
        return stat.S_ISDIR(os.fstat(_opened(held, place)).st_mode)


def entries(place: Place) -> list[Entry]:
    """What stands in the folder at `place`, by name; at most FOLDER_ENTRIES of it. Raises PathError."""
    with _told(place), ExitStack() as held:
        folder = _opened(held, place, os.O_DIRECTORY)
        found = held.enter_context(os.scandir(folder))
        return sorted((_entry(item) for item in islice(found, FOLDER_ENTRIES)), key=attrgetter("name"))


def whole(place: Place, limit: int) -> bytes:
    """All bytes of the file at `place`. Raises PathError, also if there are more than `limit`."""
    with reading(place) as descriptor:
        return _whole(place, descriptor, limit)


# ---------------------------------------------------------------- writing


def replace(place: Place, data: bytes) -> bool:
    """Puts `data` there in one step, making folders on the way; True if a file was there before. Raises PathError."""
    with WRITING, _told(place), ExitStack() as held:
        folder = _parent(held, place)
        before = _present(place, folder)
        _put(held, place, folder, data, before)
        return before is not None


def rewrite(place: Place, change: Callable[[bytes | None], bytes], limit: int) -> None:
    """Replaces the bytes there by `change` of them (of None where there is no file), with nobody in between.

    Raises PathError, also if there are more than `limit` bytes or a command changes the file meanwhile, and whatever
    `change` raises; then nothing was written.
    """
    with WRITING, _told(place), ExitStack() as held:
        folder = _parent(held, place)
        before, data = _current(held, place, folder, limit)
        changed = change(data)
        if changed != data:
            _put(held, place, folder, changed, before)


def _parent(held: ExitStack, place: Place) -> int:
    """The folder that `place` stands in, made if need be. No link is followed on the way."""
    if not place.names:
        raise PathError(f"{place} is a folder", hint="name a file in it")
    folder = _root(held, place)
    for name in place.names[:-1]:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=folder)
            os.fsync(folder)
        folder = _kept(held, os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder))
    return folder


def _present(place: Place, folder: int) -> os.stat_result | None:
    """The file that would be replaced, if there is one. Links and files with a second name are not replaced."""
    try:
        there = os.stat(place.names[-1], dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    _demand_regular(place, there)
    if there.st_nlink > 1:
        raise PathError(f"{place} has {there.st_nlink} names (hard links)", hint="remove it first, then write it anew")
    return there


def _current(held: ExitStack, place: Place, folder: int, limit: int) -> tuple[os.stat_result | None, bytes | None]:
    if _present(place, folder) is None:
        return None, None
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = _kept(held, os.open(place.names[-1], flags, dir_fd=folder))
    there = os.fstat(descriptor)
    _demand_regular(place, there)
    return there, _whole(place, descriptor, limit)


def _put(held: ExitStack, place: Place, folder: int, data: bytes, before: os.stat_result | None) -> None:
    """Write aside, sync, look once more, rename, sync the folder."""
    with suppress(FileNotFoundError):
        os.unlink(UNFINISHED, dir_fd=folder)
    mode = stat.S_IMODE(before.st_mode) & 0o777 if before else 0o600
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = _kept(held, os.open(UNFINISHED, flags, 0o600, dir_fd=folder))
    try:
        _write(descriptor, data)
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
        if not _same(before, _present(place, folder)):
            raise PathError(f"{place} was changed by somebody else meanwhile", hint="read it and try again")
        os.rename(UNFINISHED, place.names[-1], src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(UNFINISHED, dir_fd=folder)
        raise
    os.fsync(folder)


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _same(before: os.stat_result | None, now: os.stat_result | None) -> bool:
    if before is None or now is None:
        return before is now
    return (before.st_ino, before.st_mtime_ns, before.st_size) == (now.st_ino, now.st_mtime_ns, now.st_size)


# ---------------------------------------------------------------- opening


class _How(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def beneath(folder: int, names: tuple[str, ...], flags: int) -> int:
    """Opens for reading what `names` lead to below `folder`, which nothing on the way can leave. Raises OSError."""
    flags |= os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    if not names:
        return os.open(".", flags, dir_fd=folder)
    if ".." in names:  # openat2 would allow it as long as it stays below
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    return (_openat2 if has_openat2() else _walk)(folder, names, flags)


@functools.cache
def has_openat2() -> bool:
    """Whether this kernel and its filters know the call (Linux 5.6; not under some container profiles)."""
    if not hasattr(os, "O_PATH"):
        return False
    here = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        os.close(_openat2(here, (".",), os.O_PATH | os.O_CLOEXEC))
    except OSError:
        return False
    finally:
        os.close(here)
    return True


def _openat2(folder: int, names: tuple[str, ...], flags: int) -> int:
    how = _How(flags, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    path = os.fsencode("/".join(names))
    for _ in range(RACES):
        descriptor: int = _libc().syscall(OPENAT2, folder, path, ctypes.byref(how), ctypes.sizeof(how))
        if descriptor >= 0:
            return descriptor
        if ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _walk(folder: int, names: tuple[str, ...], flags: int) -> int:
    """The same without openat2: from folder to folder, through no link at all."""
    with ExitStack() as held:
        for name in names[:-1]:
            folder = _kept(held, os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder))
        return os.open(names[-1], flags | os.O_NOFOLLOW, dir_fd=folder)


def _root(held: ExitStack, place: Place) -> int:
    return _kept(held, os.open(place.root, os.O_RDONLY | os.O_DIRECTORY))


def _opened(held: ExitStack, place: Place, flags: int = 0) -> int:
    return _kept(held, beneath(_root(held, place), place.names, flags))


def _kept(held: ExitStack, descriptor: int) -> int:
    held.callback(os.close, descriptor)
    return descriptor


def _whole(place: Place, descriptor: int, limit: int) -> bytes:
    with os.fdopen(os.dup(descriptor), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise PathError(f"{place} is larger than {limit} bytes", hint="use bash, or a smaller file")
    return data


def _entry(item: os.DirEntry[str]) -> Entry:
    if item.is_symlink():
        return Entry(item.name, "link")
    if item.is_dir(follow_symlinks=False):
        return Entry(item.name, "folder")
    return Entry(item.name, "file" if item.is_file(follow_symlinks=False) else "other")


def _demand_regular(place: Place, there: os.stat_result) -> None:
    if stat.S_ISREG(there.st_mode):
        return
    kind = next((words for test, words in KINDS if test(there.st_mode)), "something else")
    raise PathError(f"{place} is {kind} and not a regular file", hint="choose another file")


@contextmanager
def _told(place: Place) -> Iterator[None]:
    """Turns what the kernel says about `place` into words."""
    try:
        yield
    except OSError as error:
        said, hint = SAYINGS.get(error.errno or 0, (f"cannot be used: {error.strerror}", "choose another file"))
        kind = Missing if error.errno == errno.ENOENT else PathError
        raise kind(f"{place} {said}", hint=hint) from error
