"""Bytes that are named by their hash: too large for a record, or a sealed chunk of them.

    blobs/ab/cdef…      SHA-256 in hex, the first two digits as a folder

Written once, atomically, and durable before a record may name them. A name says what must be inside, so every read
proves itself. What is missing or damaged is fetched from a copy elsewhere, where there is one, and kept.
"""

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from errno import EISDIR, ELOOP, ENOENT
from hashlib import sha256
from pathlib import Path
from typing import Literal

from persistence import quarantine
from persistence.disk import Disk, read, refused, replace_all
from persistence.errors import Damaged, NotFound, StorageError

Kind = Literal["chunk", "blob"]

NO_FILE = (ELOOP, EISDIR)  #: a link, or a folder, has taken the place of a file

_SHA = re.compile(r"[0-9a-f]{64}")


def fetched(fetch: Callable[[str], bytes] | None, sha: str) -> bytes | None:
    """The bytes of that name from elsewhere; None where there is no such place, or it has not just these."""
    if fetch is None:
        return None
    try:
        data = fetch(sha)
    except (NotFound, Damaged):
        return None
    return data if sha256(data).hexdigest() == sha else None


class Blobs:
    """The blobs in a folder, which is made with the first. May be used from any thread; waits for the disk."""

    def __init__(self, disk: Disk, directory: Path, fetch: Callable[[str], bytes] | None = None) -> None:
        self._disk = disk
        self._dir = directory
        self._fetch = fetch

    def put(self, data: bytes) -> str:
        """The name under which the bytes are kept, durably. No write where they are, whole. Raises StorageError."""
        return self.put_all([data])[0]

    def put_all(self, contents: Sequence[bytes]) -> list[str]:
        """The names of many, durable when it returns; where it raises, some may be kept. Raises StorageError."""
        names = [sha256(data).hexdigest() for data in contents]
        files = {self._path(sha): data for sha, data in zip(names, contents, strict=True)}
        try:
            missing = {path: data for path, data in files.items() if not self._holds(path, data)}
            for folder in sorted({path.parent for path in files.keys() - missing.keys()}):
                self._disk.sync_folder(folder)  # a crash may have come between the rename and this
            for folder in sorted({path.parent for path in missing}):
                self._disk.mkdir(folder)
            if missing:
                self._disk.sync_folder(self._dir)
                replace_all(self._disk, missing)
        except OSError as error:
            raise refused(error, self._dir) from error
        return names

    def _holds(self, path: Path, data: bytes) -> bool:
        return self._size(path) == len(data) and read(self._disk, path) == data

    def get(self, sha: str, *, keep: bool = True) -> bytes:
        """The bytes of that name. Raises NotFound, Damaged (they are not what the name says) or StorageError.

        Where they would have to come from elsewhere it raises StoreError if nothing answers: they may be there. What
        came from there is kept, unless whoever asks will see to that.
        """
        try:
            return self._read(sha)
        except (NotFound, Damaged):
            data = fetched(self._fetch, sha) if _SHA.fullmatch(sha) else None
            if data is None:
                raise
        if keep:
            with suppress(StorageError):  # without room for it here it comes from there again
                self.put(data)
        return data

    def _read(self, sha: str) -> bytes:
        path = self._path(sha)
        try:
            data = read(self._disk, path)
        except FileNotFoundError as error:
            raise NotFound(f"there is no blob {sha}", hint="run finn verify") from error
        except OSError as error:
            if error.errno in NO_FILE:
                raise Damaged(f"{path} is no plain file", hint="run finn verify") from error
            raise refused(error, path) from error
        if sha256(data).hexdigest() != sha:
            raise Damaged(f"{path} does not hold what its name says", hint="run finn verify")
        return data

    def set_aside(self, sha: str, folder: Path, name: str, reason: str) -> None:
        """Moves a file that does not hold what its name says to quarantine, with a note; nothing where there is none.

        Raises StorageError.
        """
        if self.has(sha):
            quarantine.move(self._disk, self._path(sha), folder, f"{name}-{sha[:12]}", sha256=sha, why=reason)

    def has(self, sha: str) -> bool:
        """Whether there is such a file; what is in it only `get` proves. Raises StorageError."""
        return bool(_SHA.fullmatch(sha)) and self._size(self._path(sha)) is not None

    def _path(self, sha: str) -> Path:
        if not _SHA.fullmatch(sha):
            raise NotFound(f"{sha!r} is no name of a blob")
        return self._dir / sha[:2] / sha[2:]

    def _size(self, path: Path) -> int | None:
        try:
            handle = self._disk.open(path, os.O_RDONLY)
        except OSError as error:
            if error.errno in (ENOENT, *NO_FILE):
                return None
            raise refused(error, path) from error
        try:
            return self._disk.size(handle)
        finally:
            self._disk.close(handle)
