"""What lies below a folder in which somebody else may be at work: read as it is, and never waited for.

files     plain and odd ones alike, with their status; no link is followed, however deep it goes, so many at most
content   the bytes of a plain file; a pipe, a device or a link that has taken its place since is none
"""

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

MOST = 20_000  #: files and folders that are looked at
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not make us wait


class Found(NamedTuple):
    """Something that is no folder, and how it was when it was looked at."""

    path: Path
    status: os.stat_result


def files(top: Path, ignored: Collection[str] = (), most: int = MOST) -> Iterator[Found]:
    """Every one below `top`, which may be nothing, but for what lies in folders of an ignored name."""
    folders, count = [top], 0
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            continue  # gone meanwhile, shut, or deeper than a path can say
        for entry in found:
            if (count := count + 1) > most:
                return
            try:
                if not entry.is_dir(follow_symlinks=False):
                    yield Found(Path(entry.path), entry.stat(follow_symlinks=False))
                elif entry.name not in ignored:
                    folders.append(Path(entry.path))
            except OSError:
                continue


def content(path: Path, most: int) -> bytes | None:
    """The bytes of a plain file of at most so many; None where it is none by now. Raises OSError."""
    with os.fdopen(os.open(path, FILE), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            return None
        return file.read(status.st_size)
