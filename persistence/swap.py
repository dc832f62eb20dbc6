"""Puts a restored log in the place of the one that is there, all of it or nothing, whatever interrupts it.

    begin      .restoring/ is empty; the restored wal, snapshots, chunks and blobs are built in there
    move_in    everything in there is made durable ─▶ out.json is written: from here on it will happen
               out   wal/*.wal and snapshots/* go to quarantine/NAME/, with a note why
               out.json ─▶ in.json: from here on whatever lies in wal/ is the new log
               in    .restoring/* go to their places; chunks and blobs join those of the same names
               in.json is removed
    join       as move_in, without the first half: what was built is added to the log that is there
    finish     goes on where a crash came between; a build without out.json or in.json goes, and .restoring/ with it

Every step is a rename that can be done again. At no moment is a file of either log gone: it is in its place, in
.restoring/ or in quarantine/. wal/LOCK stays where it is, held by whoever calls this.

With the restored log comes `restored.json` {source, seq}. It says that grimoires/ and workspace/ have not been written
from it yet, so a start that finds it must not take missing files for deleted ones; `settled` removes it.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from persistence import quarantine
from persistence.disk import Disk, read, refused, replace
from persistence.errors import Damaged

RESTORING = ".restoring"
RESTORED = "restored.json"
OUT, IN = "out.json", "in.json"  #: which half of the swap is due
FLAT, FANNED = ("wal", "snapshots"), ("chunks", "blobs")
SUFFIXES = (".wal", ".json.z")  #: of what goes out; LOCK and temporaries stay


class Restored(NamedTuple):
    """Where the log in a data directory was restored from, and up to which seq."""

    source: str
    seq: int


def begin(disk: Disk, root: Path) -> Path:
    """An empty folder to build in. Raises StorageError."""
    building = root / RESTORING
    try:
        _sweep(disk, building)
        disk.mkdir(building)
        disk.sync_folder(root)
    except OSError as error:
        raise refused(error, building) from error
    return building


def move_in(disk: Disk, root: Path, *, restored: Restored, name: str, why: str) -> None:
    """Takes what was built for the data directory's log; the old one is kept as quarantine/`name`. Raises StorageError.

    `name` must be new. Where this raises, or the process ends, `finish` brings it to an end or leaves all as it was.
    """
    _commit(disk, root, restored, OUT, {"name": name, "why": why})


def join(disk: Disk, root: Path, *, restored: Restored | None) -> None:
    """Adds what was built to the data directory's log; a file of the same name is replaced. Raises StorageError.

    Without `restored` the state is the one that the log had, so nothing is to be written to grimoires/ and workspace/.
    """
    _commit(disk, root, restored, IN, {})


def _commit(disk: Disk, root: Path, restored: Restored | None, phase: str, note: dict[str, str]) -> None:
    building = root / RESTORING
    try:
        if restored:
            replace(disk, building / RESTORED, json.dumps(restored._asdict()).encode() + b"\n")
        _make_durable(disk, building)
        replace(disk, building / phase, json.dumps(note).encode() + b"\n")
    except OSError as error:
        raise refused(error, building) from error
    finish(disk, root)


def finish(disk: Disk, root: Path) -> bool:
    """Ends a swap that was begun; an unfinished build goes. Whether a log was moved in. Raises StorageError."""
    building = root / RESTORING
    try:
        due = set(disk.names(building)) & {OUT, IN}
        if OUT in due:
            _out(disk, root, **json.loads(read(disk, building / OUT)))
            disk.rename(building / OUT, building / IN)
            disk.sync_folder(building)
        if due:
            _in(disk, root)
        _sweep(disk, building)
    except OSError as error:
        raise refused(error, building) from error
    return bool(due)


def restored(disk: Disk, root: Path) -> Restored | None:
    """What the log was restored from, while its files are not written yet. Raises StorageError, Damaged."""
    path = root / RESTORED
    if RESTORED not in disk.names(root):
        return None
    try:
        return Restored(**json.loads(read(disk, path)))
    except OSError as error:
        raise refused(error, path) from error
    except (ValueError, TypeError) as error:
        raise Damaged(f"{path} cannot be read: {error}", hint="remove it if grimoires/ is complete") from error


def settled(disk: Disk, root: Path) -> None:
    """The files of a restored log are written: from now on the disk tells what they are. Raises StorageError."""
    try:
        if RESTORED in disk.names(root):
            disk.unlink(root / RESTORED)
            disk.sync_folder(root)
    except OSError as error:
        raise refused(error, root / RESTORED) from error


# ---------------------------------------------------------------- the two halves


def _out(disk: Disk, root: Path, name: str, why: str) -> None:
    """What is in the place of the log, if anything, goes to quarantine."""
    for folder in FLAT:
        old = [one for one in disk.names(root / folder) if one.endswith(SUFFIXES)]
        if old:
            kept = root / "quarantine" / name / folder
            disk.mkdir(kept)
            quarantine.note(disk, kept.parent, folder, **{"from": folder}, why=why)
            _move(disk, root / folder, kept, old)
            disk.sync_folder(root / "quarantine")


def _in(disk: Disk, root: Path) -> None:
    """What was built goes to its place."""
    building = root / RESTORING
    for folder in _folders(disk, building):
        files = disk.names(building / folder)
        disk.mkdir(root / folder)
        if files:
            _move(disk, building / folder, root / folder, files)
            disk.sync_folder((root / folder).parent)
        else:  # they may have been moved before a crash, in or out, and nobody knows whether durably
            disk.sync_folder(root / folder)
    if RESTORED in disk.names(building):
        disk.rename(building / RESTORED, root / RESTORED)
    disk.sync_folder(root)
    disk.unlink(building / IN)
    disk.sync_folder(building)


def _move(disk: Disk, old: Path, new: Path, names: list[str]) -> None:
    """Files into a folder, durably there before they are durably gone."""
    for name in names:
        disk.rename(old / name, new / name)
    disk.sync_folder(new)
    disk.sync_folder(old)


# ---------------------------------------------------------------- the folder that is built in


def _folders(disk: Disk, building: Path) -> Iterator[str]:
    """The folders with files, relative to the build."""
    yield from FLAT
    for fanned in FANNED:
        yield from (f"{fanned}/{two}" for two in disk.names(building / fanned))


def _make_durable(disk: Disk, building: Path) -> None:
    for folder in _folders(disk, building):
        names = disk.names(building / folder)
        for name in names:
            _sync(disk, building / folder / name)
        if names:
            disk.sync_folder(building / folder)
            disk.sync_folder((building / folder).parent)
    disk.sync_folder(building)


def _sync(disk: Disk, path: Path) -> None:
    handle = disk.open(path, os.O_RDWR)
    try:
        disk.fdatasync(handle)
    finally:
        disk.close(handle)


def _sweep(disk: Disk, building: Path) -> None:
    """The build goes, the innermost folders first."""
    for folder in (*_folders(disk, building), *FANNED, ""):
        names = disk.names(building / folder)
        for name in names:
            disk.unlink(building / folder / name)
        if names:
            disk.sync_folder(building / folder)
        disk.rmdir(building / folder)
