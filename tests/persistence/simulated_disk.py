"""A disk that forgets what was never synced, as a power cut makes it.

    write, truncate ──▶ pending blocks of 512 bytes ── fdatasync ──▶ durable bytes of the file
    create, rename, unlink ──▶ pending names ── sync_folder ──▶ durable names of the folder

The files are real (in a folder that may be a tmpfs), so that whatever reads a path sees what a running process sees;
what would be left after a crash is kept beside them. `crash` writes that to another folder: durable bytes and names,
and of everything pending any part, in any order within a file, torn at 512 bytes: the random source decides.
"""

import os
import random
from dataclasses import dataclass, field
from pathlib import Path

from persistence.disk import SystemDisk

BLOCK_BYTES = 512


@dataclass
class Inode:
    """A file: what is durable of it, and what was done to it since, as (offset, bytes) or a new size."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes] | int] = field(default_factory=list)

    def sync(self) -> None:
        for change in self.pending:
            _apply(self.durable, change)
        self.pending = []

    def after_crash(self, rng: random.Random) -> bytes:
        """The durable bytes with any of the pending blocks on top; the size may have grown ahead of them."""
        data = bytearray(self.durable)
        for change in self.pending:
            if isinstance(change, int):
                if rng.random() < 0.5:
                    _apply(data, change)
                continue
            offset, written = change
            if rng.random() < 0.3:
                continue
            end = offset + len(written)
            for start in range(offset - offset % BLOCK_BYTES, end, BLOCK_BYTES):
                if rng.random() < 0.7:
                    first, last = max(start, offset), min(start + BLOCK_BYTES, end)
                    _apply(data, (first, written[first - offset : last - offset]))
        return bytes(data)


def _apply(data: bytearray, change: tuple[int, bytes] | int) -> None:
    if isinstance(change, int):
        del data[change:]
        data.extend(bytes(change - len(data)))
        return
    offset, written = change
    data.extend(bytes(max(0, offset - len(data))))
    data[offset : offset + len(written)] = written


class SimulatedDisk(SystemDisk):
    """A disk below `root`. Folders are durable at once; fsyncs cost nothing. One crash ends its use."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._inodes: dict[Path, Inode] = {}  # by their names as they are now
        self._durable: dict[Path, Inode] = {}  # by the names that a crash leaves
        self._handles: dict[int, Inode] = {}
        self._names: list[tuple[str, Path, Path | None, Inode]] = []  # what was done to names and not yet synced
        for path in sorted(root.rglob("*")):
            if path.is_file() and not path.is_symlink():
                self._inodes[path] = self._durable[path] = Inode(bytearray(path.read_bytes()))

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        existed = path.exists()
        handle = super().open(path, flags, mode)
        if path not in self._inodes:
            self._inodes[path] = inode = Inode()
            if existed:  # made past this disk: nobody relies on it, so it is durable
                inode.durable = bytearray(path.read_bytes())
                self._durable[path] = inode
            else:
                self._names.append(("create", path, None, inode))
        if existed and flags & os.O_TRUNC:
            self._inodes[path].pending.append(0)
        self._handles[handle] = self._inodes[path]
        return handle

    def close(self, handle: int) -> None:
        super().close(handle)
        del self._handles[handle]

    def write(self, handle: int, data: bytes | memoryview) -> int:
        appends = os.O_APPEND & _flags(handle)
        offset = os.fstat(handle).st_size if appends else os.lseek(handle, 0, os.SEEK_CUR)
        taken = super().write(handle, data)
        self._handles[handle].pending.append((offset, bytes(data[:taken])))
        return taken

    def fdatasync(self, handle: int) -> None:
        self._handles[handle].sync()

    def ftruncate(self, handle: int, size: int) -> None:
        super().ftruncate(handle, size)
        self._handles[handle].pending.append(size)

    def forget(self, handle: int) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        """What was done to names in the folder is durable, and before it what was done to the same names elsewhere."""
        durable: list[bool] = []
        names: set[Path] = set()
        for change in reversed(self._names):
            touched = {change[1], change[2] or change[1]}
            durable.append(any(one.parent == path for one in touched) or not names.isdisjoint(touched))
            names |= touched if durable[-1] else set()
        kept = list(zip(self._names, reversed(durable), strict=True))
        self._names = [change for change, done in kept if not done]
        for change, done in kept:
            if done:
                _name(self._durable, change)

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        inode = self._inodes.pop(old, None) or Inode(bytearray(new.read_bytes()))
        self._inodes[new] = inode
        self._names.append(("rename", old, new, inode))

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._names.append(("unlink", path, None, self._inodes.pop(path, Inode())))

    def crash(self, into: Path, rng: random.Random) -> None:
        """Writes to `into` what the disk holds after a power cut at this moment. This disk is not to be used again."""
        names = dict(self._durable)
        ends = rng.randrange(len(self._names) + 1)  # a journal of names is replayed up to some point
        for change in self._names[:ends]:
            _name(names, change)
        for folder in (one for one in self._root.rglob("*") if one.is_dir()):
            (into / folder.relative_to(self._root)).mkdir(parents=True, exist_ok=True)
        into.mkdir(parents=True, exist_ok=True)
        left: dict[int, bytes] = {}
        for path, inode in names.items():
            data = left.setdefault(id(inode), inode.after_crash(rng))
            copy = into / path.relative_to(self._root)
            copy.parent.mkdir(parents=True, exist_ok=True)  # gone no sooner than its files are
            copy.write_bytes(data)


def _flags(handle: int) -> int:
    import fcntl

    return fcntl.fcntl(handle, fcntl.F_GETFL)


def _name(names: dict[Path, Inode], change: tuple[str, Path, Path | None, Inode]) -> None:
    kind, path, new, inode = change
    if kind == "create":
        names[path] = inode
        return
    names.pop(path, None)
    if kind == "rename" and new is not None:
        names[new] = inode
