"""What is looked at of the data directory: whether its folders are there, are folders, are ours, and are for us alone.

What an own subject looks at is left to it: wal/ and snapshots/ inside, auth/, .env, the beads' file.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from persistence.disk import TEMPORARY
from persistence.limits import amount
from persistence.standby import MARK
from persistence.swap import RESTORED, RESTORING
from scheduler.aside import aside
from scheduler.below import files
from scheduler.check import Check, MakeFolder, Move, Remove, SetMode, Step
from scheduler.finding import Seen
from scheduler.naming import some
from scheduler.site import Site

#: What a start makes. Without grimoires/ and workspace/: an empty one would look as if all in it had been deleted.
MADE = ("snapshots", "chunks", "blobs", "quarantine", "state", "state/sessions")
KEPT = ("grimoires", "workspace")  #: written back from the log where the whole folder is missing
FOLDERS = ("wal", *MADE, *KEPT, "auth", "git", "cache")
KNOWN = (*FOLDERS, "doctor-undo", "run.json", ".env", MARK, RESTORING, RESTORED)
SWEPT = ("", "state", "state/sessions", "state/.beads", "quarantine")  #: where files are made under another name first
OLD_S = 86_400.0  #: a write takes no day
USER = 0o700


def _begun(site: Site) -> bool:
    """Whether a finn has ever been here."""
    return site.paths.wal.is_dir()


def _there(site: Site) -> list[Path]:
    return [site.root / name for name in FOLDERS if os.path.lexists(site.root / name)]


def _short(site: Site, path: Path) -> str:
    return str(path.relative_to(site.root)) if path != site.root else str(path)


def _see_data(site: Site) -> Seen:
    if site.root.is_dir():
        return Seen("pass", f"{site.root} is there")
    if os.path.lexists(site.root):
        return Seen("fail", f"{site.root} is no folder", "move it away, or choose another FINN_DATA_DIR")
    return Seen("info", f"{site.root} is not there yet", "`finn serve` makes it")


def _see_missing(site: Site) -> Seen:
    missing = [name for name in MADE if not os.path.lexists(site.root / name)] if _begun(site) else []
    hint = "`finn serve` makes them, and so does --fix; what was in them is in the log, or in a copy of it"
    return some(missing, "warn", "every folder is there", "folders that are missing", hint)


def _mend_missing(site: Site) -> Sequence[Step]:
    return [MakeFolder(site.root / name) for name in MADE if not os.path.lexists(site.root / name)]


def _see_kind(site: Site) -> Seen:
    odd = [_short(site, path) for path in _there(site) if not path.is_dir()]
    hint = "start `finn serve`, or let --fix do it: what is there goes to quarantine/, and the folder is made"
    return some(odd, "fail", "where a folder belongs, there is one", "something else is where a folder belongs", hint)


def _mend_kind(site: Site) -> Sequence[Step]:
    odd = [path for path in _there(site) if not path.is_dir()]
    steps: list[Step] = []
    for path in sorted(odd, key=lambda path: path != site.paths.quarantine):  # first, as the others go there
        if path == site.paths.quarantine:
            steps += [Move(path, path.with_name("quarantine-was-a-file"))]
        else:
            steps += aside(site, path, "a folder belongs here")
        steps += [MakeFolder(path)] if _short(site, path) in MADE else []
    return steps


def _see_links(site: Site) -> Seen:
    links = [
        f"{_short(site, path)} -> {path.readlink()}" for path in _there(site) if path.is_symlink() and path.is_dir()
    ]
    hint = "move the folder here, or set FINN_DATA_DIR to where it is: a link is lost with the copy of a directory"
    return some(links, "info", "no folder is a link", "folders that are links", hint)


# ---------------------------------------------------------------- who may


def _open(site: Site) -> Iterator[tuple[Path, int]]:
    """What others may read or write at the top, with the mode that it should have."""
    files = [site.root / name for name in ("run.json", RESTORED)]
    for path in (site.root, *_there(site), site.root / "state" / ".beads", *files):
        if os.path.lexists(path) and not path.is_symlink() and path != site.root / "auth":
            mode = stat.S_IMODE(path.lstat().st_mode)
            if mode & 0o077:
                yield path, mode & USER


def _see_modes(site: Site) -> Seen:
    odd = [f"{_short(site, path)} ({stat.S_IMODE(path.lstat().st_mode):04o})" for path, _ in _open(site)]
    hint = f"`chmod go=` {site.root} and what is named, or `finn doctor --fix` does"
    return some(odd, "warn", "the data directory is for its owner alone", "others can get at", hint)


def _mend_modes(site: Site) -> Sequence[Step]:
    return [SetMode(path, mode) for path, mode in _open(site)]


def _shut(site: Site) -> list[Path]:
    """Folders that keep out even their owner."""
    folders = [path for path in (site.root, *_there(site)) if path.is_dir() and not path.is_symlink()]
    return [path for path in folders if stat.S_IMODE(path.lstat().st_mode) & USER != USER]


def _see_shut(site: Site) -> Seen:
    odd = [f"{_short(site, path)} ({stat.S_IMODE(path.lstat().st_mode):04o})" for path in _shut(site)]
    return some(
        odd,
        "fail",
        "finn may use every folder",
        "folders that keep finn out",
        f"`chmod u+rwx` what is named below {site.root}, or `finn doctor --fix` does",
    )


def _mend_shut(site: Site) -> Sequence[Step]:
    return [SetMode(path, stat.S_IMODE(path.lstat().st_mode) | USER) for path in _shut(site)]


def _own_user() -> int:
    return os.geteuid()


def _see_owner(site: Site) -> Seen:
    me = _own_user()
    foreign = [
        f"{_short(site, path)} (user {path.lstat().st_uid})"
        for path in (site.root, *_there(site))
        if os.path.lexists(path) and path.lstat().st_uid != me
    ]
    hint = f"`chown -R {me} {site.root}`, or run this as the user that finn runs as"
    return some(foreign, "warn", f"all of it belongs to user {me}", f"this is user {me}, and others own", hint)


def _is_read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _see_writable(site: Site) -> Seen:
    if site.root.is_dir() and _is_read_only(site.root):
        what = f"{site.root} is on a file system that is mounted read-only"
        return Seen("fail", what, "look at the kernel's log: a failing disk is set so; else mount it with rw")
    return Seen("pass", "the file system takes writes")


# ---------------------------------------------------------------- what is left behind


def _leftovers(site: Site) -> list[Path]:
    before = site.clock.now() - OLD_S
    found = []
    for folder in (*SWEPT, *(f"{top}/{one}" for top in ("chunks", "blobs") for one in _names(site.root / top))):
        for name in _names(site.root / folder):
            path = site.root / folder / name
            if name.startswith(TEMPORARY) and path.lstat().st_mtime < before:
                found.append(path)
    return found


def _names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []


def _see_leftovers(site: Site) -> Seen:
    found = [_short(site, path) for path in _leftovers(site)]
    size = sum(path.lstat().st_size for path in _leftovers(site))
    hint = "remove them: a write that ends has another name"
    return some(found, "warn", "no write was left half done", f"{amount(size)} of writes that never ended", hint)


def _mend_leftovers(site: Site) -> Sequence[Step]:
    return [Remove(path) for path in _leftovers(site)]


def _see_files(site: Site) -> Seen:
    gone = [name for name in KEPT if not os.path.lexists(site.root / name)] if _begun(site) else []
    hint = "start `finn serve`: it writes all of it back from the log. Make no empty folder: that would mean delete all"
    return some(gone, "warn", "the agent's files and its workspace are there", "folders that are gone as a whole", hint)


def _see_quarantine(site: Site) -> Seen:
    folder = site.paths.quarantine
    things = [name for name in _names(folder) if not name.endswith(".json") and not name.startswith(TEMPORARY)]
    size = sum(status.st_size for _, status in files(folder))
    hint = f"{folder}/NAME.json says of each why it is there; remove both once you need neither"
    return some(things, "info", "nothing is in quarantine", f"{amount(size)} that could not be used are kept", hint)


def _see_restoring(site: Site) -> Seen:
    if site.running is not None:
        return Seen("pass", "a finn runs, and sees to it")
    if os.path.lexists(site.root / RESTORING):
        what = f"a restoration was cut off: {site.root / RESTORING} holds what it had"
        return Seen("warn", what, "start `finn serve`: it brings the restoration to its end, or takes it back")
    if os.path.lexists(site.root / RESTORED):
        return Seen("info", "the log was restored, and the files are not all written from it yet", "start `finn serve`")
    return Seen("pass", "no restoration is under way")


def _see_strangers(site: Site) -> Seen:
    strangers = [name for name in _names(site.root) if name not in KNOWN and not name.startswith(TEMPORARY)]
    hint = "finn leaves them alone and copies them nowhere; what the agent is to have belongs in workspace/"
    return some(strangers, "info", "nothing else lies in the data directory", "names that finn does not know", hint)


CHECKS: tuple[Check, ...] = (
    Check("dirs.data", "there is a data directory", _see_data),
    Check("dirs.kind", "folders are folders", _see_kind, _mend_kind, alone=True),
    Check("dirs.missing", "every folder is there", _see_missing, _mend_missing),
    Check("dirs.files", "grimoires and workspace are there", _see_files),
    Check("dirs.links", "folders are no links", _see_links),
    Check("dirs.shut", "finn may use every folder", _see_shut, _mend_shut),
    Check("dirs.modes", "nobody but finn's user sees into the data directory", _see_modes, _mend_modes),
    Check("dirs.owner", "all of it is one user's", _see_owner),
    Check("dirs.writable", "the file system takes writes", _see_writable),
    Check("dirs.leftovers", "no write was left half done", _see_leftovers, _mend_leftovers),
    Check("dirs.quarantine", "nothing is in quarantine", _see_quarantine),
    Check("dirs.restoring", "no restoration is under way", _see_restoring),
    Check("dirs.strangers", "nothing else lies here", _see_strangers),
)
