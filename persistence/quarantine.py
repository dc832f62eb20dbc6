"""Where bytes go that cannot be used, or that something else takes the place of: finn removes nothing that it did not
make again.

    quarantine/NAME         the bytes: a copy, or the file or folder itself
    quarantine/NAME.json    {from, why, …}: the note, there first, so that nobody finds bytes that nothing explains
"""

import json
from collections.abc import Iterable
from pathlib import Path

from persistence.disk import Disk, refused, replace
from persistence.values import Json


def note(disk: Disk, folder: Path, name: str, **facts: Json) -> None:
    """What `name` in the folder is, and why it is there. Raises StorageError."""
    try:
        disk.mkdir(folder)
        disk.sync_folder(folder.parent)
    except OSError as error:
        raise refused(error, folder) from error
    replace(disk, folder / f"{name}.json", json.dumps(facts, indent=1).encode() + b"\n")


def keep(disk: Disk, folder: Path, name: str, data: bytes, **facts: Json) -> None:
    """A copy of these bytes, durable when this returns; done again, it is the same one. Raises StorageError."""
    note(disk, folder, name, **facts)
    replace(disk, folder / name, data)


def move(disk: Disk, path: Path, folder: Path, name: str, **facts: Json) -> None:
    """Moves a file or a folder to a name that is not taken. Raises StorageError, also where there is none."""
    note(disk, folder, name, **{"from": str(path)}, **facts)
    try:
        disk.rename(path, folder / name)
        disk.sync_folder(folder)
        disk.sync_folder(path.parent)
    except OSError as error:
        raise refused(error, path) from error


def make_way(disk: Disk, root: Path, folders: Iterable[str]) -> None:
    """What is a plain file where a folder belongs goes to quarantine: nothing that finn makes, and no reason to stop.

    A link that leads nowhere stays, and stops a start: what it led to may come back. Raises StorageError.
    """
    for name in folders:
        path = root / name
        if not path.is_file() or path.is_symlink():
            continue
        if path == root / "quarantine":
            _rename(disk, path, path.with_name("quarantine-was-a-file"))
        else:
            kept = f"{path.parent.name}-{path.name}-{path.lstat().st_mtime_ns}"
            move(disk, path, root / "quarantine", kept, why="a folder belongs where it was")


def _rename(disk: Disk, path: Path, to: Path) -> None:
    try:
        disk.rename(path, to)
        disk.sync_folder(path.parent)
    except OSError as error:
        raise refused(error, path) from error
