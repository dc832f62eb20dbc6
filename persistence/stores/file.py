"""Objects as files in a folder: another disk, or a share that is mounted.

    root/log/0000000000000042.wal       a key is a path below the root
    root/log/.finn-3f09c2…              being written; what a crash left of these goes after a day

    create   temporary ─▶ fsync ─▶ link ─▶ fsync the folder        the link is what fails where the name is in use
    put      temporary ─▶ fsync ─▶ rename ─▶ fsync the folder

The root must be there. Made by finn, a folder where a disk is not mounted would look like a store without a past, and
an agent would begin anew. Every step below it is taken from an open folder and follows no link, so that nothing in the
store leads out of it.
"""

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from persistence.clock import Clock, SystemClock, system_entropy
from persistence.disk import FULL, TEMPORARY, SystemDisk, read_range, write_all
from persistence.errors import StoreError, StoreRefused, StoreUnreachable, UsageError
from persistence.store import OBJECT_MAX, Access, Found, absent, checked_key, checked_prefix, is_key, taken, too_large

ABANDONED_S = 24 * 3600.0  #: a temporary file this old belongs to nobody

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # NONBLOCK: a pipe in the folder holds up nobody
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EXDEV)


class FileStore:
    """The objects below a folder that exists. Raises as the protocol says; waits for the disk."""

    def __init__(self, root: Path, *, clock: Clock | None = None) -> None:
        self._root = root
        self._clock = clock or SystemClock()
        self._disk = SystemDisk()
        self._durable: set[str] = set()  # folders whose name this process has seen made durable
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"file://{self._root}"

    def create(self, key: str, data: bytes) -> None:
        with self._errors(key), self._written(key, data) as (folder, temporary, name):
            try:
                os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                os.fsync(folder)  # who reads the object next may take it for durable
                raise taken(key, self.url) from None
            os.fsync(folder)

    def put(self, key: str, data: bytes) -> None:
        with self._errors(key), self._written(key, data) as (folder, temporary, name):
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    def get(self, key: str, first: int = 0, count: int | None = None) -> bytes:
        with self._errors(key):
            handle = self._open(key)
            try:
                size = os.fstat(handle).st_size
                wanted = max(0, size - first) if count is None else min(count, max(0, size - first))
                if wanted > OBJECT_MAX:
                    raise too_large(key, self.url)
                return read_range(self._disk, handle, first, wanted)
            finally:
                os.close(handle)

    def list(self, prefix: str, after: str = "") -> Iterator[Found]:
        with self._errors(prefix), self._top() as root:
            yield from _walk(root, "", checked_prefix(prefix), after)

    def delete(self, key: str) -> None:
        with self._errors(key):
            try:
                with self._folder(key) as (folder, name):
                    os.unlink(name, dir_fd=folder)
                    os.fsync(folder)
            except FileNotFoundError:
                with self._top():
                    return  # absent, in a store that is present

    def close(self) -> None:
        """Nothing is held between calls."""

    def _open(self, key: str) -> int:
        """A handle of the object's file. Raises NotFound, StoreRefused (a link, a pipe) or OSError."""
        try:
            with self._folder(key) as (folder, name):
                handle = os.open(name, _READ, dir_fd=folder)
        except FileNotFoundError:
            with self._top():  # the object is absent only where the store is present
                raise absent(key, self.url) from None
        if stat.S_ISREG(kind := os.fstat(handle).st_mode):
            return handle
        os.close(handle)
        if stat.S_ISDIR(kind):
            raise absent(key, self.url)
        raise StoreRefused(f"{key} in {self.url} is no plain file", hint="see who put it there, and remove it")

    @contextlib.contextmanager
    def _written(self, key: str, data: bytes) -> Iterator[tuple[int, str, str]]:
        """The open folder of the key, a temporary file in it that holds the bytes, durably, and the name to give it."""
        temporary = f"{TEMPORARY}{system_entropy(8).hex()}"
        with self._folder(key, make=True) as (folder, name):
            try:
                handle = os.open(temporary, _NEW, 0o600, dir_fd=folder)
                try:
                    write_all(self._disk, handle, data)
                    os.fsync(handle)
                finally:
                    os.close(handle)
                yield folder, temporary, name
            finally:
                with contextlib.suppress(OSError):  # the error that led here is the one to tell
                    os.unlink(temporary, dir_fd=folder)

    @contextlib.contextmanager
    def _folder(self, key: str, make: bool = False) -> Iterator[tuple[int, str]]:
        """The open folder that the key's object is in, and the object's name there."""
        *words, name = checked_key(key).split("/")
        with self._top() as handle, contextlib.ExitStack() as opened:
            path = ""
            for word in words:
                path += f"{word}/"
                if make and path not in self._durable:
                    self._make(handle, word, path)
                try:
                    handle = os.open(word, _FOLDER, dir_fd=handle)
                except FileNotFoundError:
                    self._durable.discard(path)  # somebody removed it: the next write makes it again
                    raise
                opened.callback(os.close, handle)
            yield handle, name

    @contextlib.contextmanager
    def _top(self) -> Iterator[int]:
        """The open root, which may be a link: it is the one path that a person chose."""
        try:
            handle = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise StoreRefused(
                f"there is no folder {self._root}", hint="mount the disk that it is on, or make the folder"
            ) from None
        try:
            yield handle
        finally:
            os.close(handle)

    def _make(self, parent: int, word: str, path: str) -> None:
        """The folder and its name are durable afterwards, and nothing abandoned is in it."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(word, 0o700, dir_fd=parent)
        os.fsync(parent)
        self._sweep(parent, word)
        with self._lock:
            self._durable.add(path)

    def _sweep(self, parent: int, word: str) -> None:
        folder = os.open(word, _FOLDER, dir_fd=parent)
        try:
            with os.scandir(folder) as entries:
                temporaries = [entry.name for entry in entries if entry.name.startswith(TEMPORARY)]
            for name in temporaries:
                with contextlib.suppress(FileNotFoundError):  # its owner finished
                    age = self._clock.now() - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
                    if age > ABANDONED_S:
                        os.unlink(name, dir_fd=folder)
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._error(error, key) from error

    def _error(self, error: OSError, key: str) -> StoreError:
        reason = error.strerror or str(error)
        what = f"{self.url} did not serve {key or 'a listing'}: {reason}"
        if error.errno in FULL:
            return StoreRefused(what, hint="make room there")
        if error.errno in _NOT_OURS:
            return StoreRefused(what, hint="let this user write there, and let no link or file stand in the way")
        return StoreUnreachable(what, hint="look at the disk or the mount")


def _walk(folder: int, path: str, prefix: str, after: str) -> Iterator[Found]:
    """What lies below an open folder, in order of the whole keys: `a-b` comes before `a/b`, as `-` does before `/`."""
    with os.scandir(folder) as entries:
        seen = sorted(
            (f"{path}{e.name}/" if e.is_dir(follow_symlinks=False) else f"{path}{e.name}", e) for e in entries
        )
    for key, entry in seen:
        if key.endswith("/"):
            if _leads(key, prefix) and not (key < after and not after.startswith(key)):
                yield from _inside(folder, entry.name, key, prefix, after)
        elif prefix.startswith(f"{key}/"):
            raise NotADirectoryError(errno.ENOTDIR, f"{key} is no folder")  # what it hides is not proven absent
        elif key.startswith(prefix) and key > after and is_key(key):
            yield from _found(folder, entry.name, key)


def _leads(path: str, prefix: str) -> bool:
    return path.startswith(prefix) or prefix.startswith(path)


def _inside(parent: int, name: str, path: str, prefix: str, after: str) -> Iterator[Found]:
    folder = os.open(name, _FOLDER, dir_fd=parent)
    try:
        yield from _walk(folder, path, prefix, after)
    finally:
        os.close(folder)


def _found(folder: int, name: str, key: str) -> Iterator[Found]:
    """The object, or nothing where it was deleted meanwhile or is no plain file."""
    with contextlib.suppress(FileNotFoundError):
        facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISREG(facts.st_mode):
            yield Found(key, facts.st_size, facts.st_mtime)


def opened(place: str, access: Access) -> FileStore:
    """The store for `file:///dir`. Raises UsageError."""
    path = Path(unquote(place))
    if not path.is_absolute() or "\0" in str(path) or path == Path("/") or ".." in path.parts:
        raise UsageError("a store of files needs an absolute path", hint="write it as file:///mnt/backup/finn")
    return FileStore(path)
