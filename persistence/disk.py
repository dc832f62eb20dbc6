"""The local disk, as far as durability depends on it.

    Disk                the calls, and no others, by which anything durable is read or written
    SystemDisk          the machine's own
    read, write_all     whole files and whole writes, for the kernel may do less than it was asked
    replace             temporary ─▶ fsync ─▶ rename ─▶ fsync the folder: the old bytes or the new, never a mixture
    replace_all         the same for many files, step by step together
    refused             an OSError as the StorageError that it is for everybody above

A handle is a number that only the disk which gave it understands. Every call may raise OSError.
"""

import errno
import itertools
import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

from persistence.errors import StorageError, StorageFailed, StorageFull

CHUNK_BYTES = 1 << 20
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  #: no room: the bytes were not taken, everything else is as it was
NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
TEMPORARY = ".finn-"  #: how the name of an unfinished file begins; a start may remove what a crash left behind

_temporaries = itertools.count()


class Disk(Protocol):
    """Files by path and by handle. `open` takes the flags of os.open and follows no link at the end of the path."""

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int: ...

    def close(self, handle: int) -> None: ...

    def write(self, handle: int, data: bytes | memoryview) -> int:
        """How many of the bytes were taken, which may be fewer than were given."""

    def pread(self, handle: int, count: int, offset: int) -> bytes: ...

    def size(self, handle: int) -> int: ...

    def fdatasync(self, handle: int) -> None:
        """The bytes survive a loss of power from here on; an error where the file has no name any more."""

    def ftruncate(self, handle: int, size: int) -> None: ...

    def forget(self, handle: int) -> None:
        """Drops the cached pages of the file, so that the next read comes from the medium."""

    def sync_folder(self, path: Path) -> None:
        """Makes the names in the folder durable."""

    def rename(self, old: Path, new: Path) -> None: ...

    def unlink(self, path: Path) -> None: ...

    def mkdir(self, path: Path) -> None:
        """The folder exists afterwards, with its parents."""

    def rmdir(self, path: Path) -> None:
        """There is no such folder afterwards; an error where it holds something."""

    def chmod(self, path: Path, mode: int) -> None:
        """Who may read and write it, from here on also after a loss of power where the file can be opened."""

    def names(self, path: Path) -> list[str]:
        """What the folder holds, sorted; nothing if there is no such folder."""


class SystemDisk:
    """The machine's own disk."""

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode)

    def close(self, handle: int) -> None:
        os.close(handle)

    def write(self, handle: int, data: bytes | memoryview) -> int:
        return os.write(handle, data)

    def pread(self, handle: int, count: int, offset: int) -> bytes:
        return os.pread(handle, count, offset)

    def size(self, handle: int) -> int:
        return os.fstat(handle).st_size

    def fdatasync(self, handle: int) -> None:
        os.fdatasync(handle)
        if os.fstat(handle).st_nlink == 0:  # nobody will ever find these bytes again
            raise OSError(errno.ESTALE, "the file was deleted while it was written to")

    def ftruncate(self, handle: int, size: int) -> None:
        os.ftruncate(handle, size)

    def forget(self, handle: int) -> None:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)

    def sync_folder(self, path: Path) -> None:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def mkdir(self, path: Path) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def rmdir(self, path: Path) -> None:
        with suppress(FileNotFoundError):
            path.rmdir()

    def chmod(self, path: Path, mode: int) -> None:
        path.chmod(mode)
        with suppress(PermissionError):  # a mode that keeps its owner out cannot be synced, and protects nothing
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def names(self, path: Path) -> list[str]:
        try:
            return sorted(entry.name for entry in path.iterdir())
        except FileNotFoundError:
            return []


def read(disk: Disk, path: Path) -> bytes:
    """The whole file. Raises OSError."""
    handle = disk.open(path, os.O_RDONLY)
    try:
        return read_range(disk, handle, 0, disk.size(handle))
    finally:
        disk.close(handle)


def read_range(disk: Disk, handle: int, offset: int, count: int) -> bytes:
    """`count` bytes from `offset`, fewer only where the file ends before."""
    pieces = []
    while count > 0 and (piece := disk.pread(handle, min(count, CHUNK_BYTES), offset)):
        pieces.append(piece)
        offset += len(piece)
        count -= len(piece)
    return b"".join(pieces)


def write_all(disk: Disk, handle: int, data: bytes) -> None:
    """Every byte of `data`, however few the disk takes at a time. Raises OSError with a part of it written."""
    taken = disk.write(handle, data)
    while taken < len(data):
        more = disk.write(handle, memoryview(data)[taken:])
        if more == 0:
            raise OSError(errno.EIO, "the disk takes no more bytes and gives no reason")
        taken += more


def replace(disk: Disk, path: Path, data: bytes, mode: int = 0o600) -> None:
    """`path` holds `data`, durably, or what it held before. Raises StorageError."""
    try:
        replace_all(disk, {path: data}, mode)
    except OSError as error:
        raise refused(error, path) from error


def replace_all(disk: Disk, files: Mapping[Path, bytes], mode: int = 0o600) -> None:
    """Each path holds its bytes, durably, or what it held before; where it raises, some may hold the new ones.

    Every folder is synced once. Raises OSError.
    """
    temporaries = {path.with_name(f"{TEMPORARY}{os.getpid()}-{next(_temporaries)}"): path for path in files}
    try:
        _create(disk, {temporary: files[path] for temporary, path in temporaries.items()}, mode)
        for temporary, path in temporaries.items():
            disk.rename(temporary, path)
    except OSError:
        for temporary in temporaries:
            _discard(disk, temporary)
        raise
    for folder in sorted({path.parent for path in files}):
        disk.sync_folder(folder)


def refused(error: OSError, path: Path) -> StorageError:
    """The error for the layers above: full, not ours to write, or failed."""
    if error.errno in FULL:
        return StorageFull(f"no space left for {path}", hint="make room on the disk; nothing was changed")
    reason = error.strerror or str(error)
    if error.errno in NOT_OURS:
        what = f"{path} cannot be used: {reason}"
        return StorageFailed(what, hint="let this user write there, or choose another FINN_DATA_DIR")
    return StorageFailed(f"the disk failed at {path}: {reason}", hint="look at the kernel's log and the disk's health")


def _create(disk: Disk, files: Mapping[Path, bytes], mode: int) -> None:
    """Written, all of them, before the first is synced: one commit of the file system then makes many durable."""
    with ExitStack() as until_synced:
        handles = []
        for path, data in files.items():
            handles.append(disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode))
            until_synced.callback(disk.close, handles[-1])
            write_all(disk, handles[-1], data)
        for handle in handles:
            disk.fdatasync(handle)


def _discard(disk: Disk, path: Path) -> None:
    """Best effort: the error that led here is the one to tell, and a start sweeps what stays."""
    try:
        disk.unlink(path)
    except OSError:
        return
