"""One process for one log.

wal/LOCK is held with flock for the life of the process: the kernel lets go of it however that process ends. What is
written inside is only for the message to a second process and never decides anything, so neither a file left by a
crash nor one with our own pid (in a container it is always 1) is in the way.
"""

import json
import os
from pathlib import Path

from persistence.clock import iso
from persistence.errors import Locked, StorageFailed

LOCK = "LOCK"
NOTE_BYTES = 4096


class Lock:
    """The held lock. The end of the process releases it as well as `release` does."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def release(self) -> None:
        os.close(self._handle)


def hold(wal_dir: Path) -> Lock:
    """Takes the lock of a log, whose folder exists. Raises Locked, which names the holder, StorageFailed or OSError."""
    import portalocker  # imported on first use: a start to the first answer need not wait for it

    path = wal_dir / LOCK
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        portalocker.lock(handle, portalocker.LOCK_EX | portalocker.LOCK_NB)
        _note(handle)
    except portalocker.AlreadyLocked as error:
        holder = _holder(handle)
        os.close(handle)
        raise Locked(f"{wal_dir} is in use by {holder}", hint="stop it, or choose another FINN_DATA_DIR") from error
    except portalocker.LockException as error:
        os.close(handle)
        raise StorageFailed(f"{path} cannot be locked: {error}", hint="use a file system that knows flock") from error
    except BaseException:
        os.close(handle)
        raise
    return Lock(handle)


def _note(handle: int) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id")
    note = {"pid": os.getpid(), "boot": boot.read_text().strip() if boot.exists() else None}
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(note).encode() + b"\n", 0)


def _holder(handle: int) -> str:
    """What the holder wrote, and since when; it may just be about to write it."""
    since = iso(os.fstat(handle).st_mtime)
    try:
        return f"process {int(json.loads(os.pread(handle, NOTE_BYTES, 0))['pid'])} since {since}"
    except (ValueError, TypeError, KeyError):
        return f"another process since {since}"
