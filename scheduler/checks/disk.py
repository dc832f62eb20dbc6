"""What is looked at of the disk below the data directory: how much is left, and whether it keeps what it takes."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

from persistence.limits import amount
from scheduler.below import files
from scheduler.check import Check
from scheduler.finding import Seen
from scheduler.health import Fact, rule_of
from scheduler.notes import FOLDER
from scheduler.site import Site
from scheduler.undo import fixes

FLEETING = ("tmpfs", "ramfs")
LOCKLESS = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "9p",
    "fuse.sshfs",
    "fuse.s3fs",
    "fuse.rclone",
)  #: flock may mean nothing there
UNDO_BYTES = 1 << 30
UNDO_FIXES = 20


class Mount(NamedTuple):
    """Where a file system begins, and of which kind it is."""

    at: str
    kind: str


def mount_of(site: Site) -> Mount | None:
    """The file system below the data directory; None where the kernel does not tell."""
    try:
        lines = (site.proc / "self" / "mountinfo").read_text(errors="replace").splitlines()
        root = site.root.resolve()
        mounts = [Mount(_unescaped(line.split()[4]), line.split(" - ")[1].split()[0]) for line in lines]
    except (OSError, IndexError):
        return None
    holding = [mount for mount in mounts if root.is_relative_to(mount.at)]
    return max(reversed(holding), key=lambda mount: len(mount.at), default=None)


def _unescaped(text: str) -> str:
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def _here(site: Site) -> Path | None:
    return site.root if site.root.is_dir() else None


def _see_free(site: Site) -> Seen:
    folder = _here(site)
    if folder is None:
        return Seen("pass", "nothing is kept yet")
    usage = shutil.disk_usage(folder)
    severity = rule_of("disk:free").judge(Fact("disk:free", usage.free, "bytes", of=usage.total))
    said = f"{amount(usage.free)} of {amount(usage.total)} are free"
    hint = "make room: a full disk takes no more records, and prompts are refused until it does"
    return Seen(severity, said, "" if severity == "pass" else hint, {"free": usage.free, "total": usage.total})


def _inodes(folder: Path) -> tuple[int, int]:
    """How many files can still be made, and how many in all; 0 of 0 where the file system has no such bound."""
    found = os.statvfs(folder)
    return found.f_favail, found.f_files


def _see_inodes(site: Site) -> Seen:
    folder = _here(site)
    left, all_of_them = _inodes(folder) if folder else (0, 0)
    severity = rule_of("disk:files").judge(Fact("disk:files", left)) if all_of_them else "pass"
    if severity == "pass":
        return Seen("pass", f"{left or 'any number of'} more files can be made")
    what = f"{left} more files can be made, of {all_of_them}"
    return Seen(severity, what, "remove small files on this file system, such as caches", {"left": left})


def _see_kind(site: Site) -> Seen:
    mount = mount_of(site)
    if mount is None or mount.kind not in FLEETING:
        return Seen("pass", f"the data directory is on {mount.kind if mount else 'a file system'}")
    what = f"{site.root} is on {mount.kind}: all of it is in memory, and gone with the machine"
    return Seen("warn", what, "set FINN_DATA_DIR to a real disk, or set FINN_STORE_URL", {"kind": mount.kind})


def _see_locks(site: Site) -> Seen:
    mount = mount_of(site)
    if mount is None or mount.kind not in LOCKLESS:
        return Seen("pass", "one machine has this file system")
    what = f"{site.root} is on {mount.kind}, where a lock or an fsync may mean nothing to another machine"
    return Seen("warn", what, "use a local disk, and FINN_STORE_URL for the copy", {"kind": mount.kind})


def _see_log(site: Site) -> Seen:
    """A log that would not fit a second time cannot be restored beside itself."""
    size = sum(path.stat().st_size for path in site.paths.wal.glob("*.wal")) if site.paths.wal.is_dir() else 0
    free = _free(site)
    if size <= free:
        return Seen("pass", f"the log takes {amount(size)}", data={"bytes": size})
    what = f"the log takes {amount(size)}, and {amount(free)} are free: there is no room to restore it beside itself"
    return Seen("warn", what, "make room, or set FINN_STORE_URL: what the store has is pruned here", {"bytes": size})


def _free(site: Site) -> int:
    folder = _here(site)
    return shutil.disk_usage(folder).free if folder else 0


def _see_undo(site: Site) -> Seen:
    folder = site.root / FOLDER
    kept = fixes(site)
    size = sum(status.st_size for _, status in files(folder))
    data = {"fixes": len(kept), "bytes": size}
    if size <= UNDO_BYTES and len(kept) <= UNDO_FIXES:
        return Seen("pass", f"{len(kept)} fixes can be undone ({amount(size)})", data=data)
    what = f"{len(kept)} fixes can be undone, which takes {amount(size)}; nothing of it goes by itself"
    return Seen("info", what, f"once you need none of it: `rm -r {folder}/ID`, the oldest first", data)


CHECKS: tuple[Check, ...] = (
    Check("disk.free", "there is room", _see_free),
    Check("disk.inodes", "files can be made", _see_inodes),
    Check("disk.kind", "the disk outlives the machine's memory", _see_kind),
    Check("disk.locks", "the disk is this machine's own", _see_locks),
    Check("disk.log", "the log fits twice", _see_log),
    Check("disk.undo", "earlier fixes keep little", _see_undo),
)
