"""Where bytes go that cannot be used, or that something else takes the place of: finn removes nothing that it did not
make again.

    quarantine/NAME         the bytes: a copy, or the file or folder itself
    quarantine/NAME.json    {from, why, …}: the note, there first, so that nobody finds bytes that nothing explains
"""

import json
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
