"""Whether the agent's own files can be used: who it is, what it keeps in mind, and whether it can write that down.

    grimoires/BEAUVOIR.md   has to be there, in UTF-8, of at most 64 KiB
    grimoires/NOTES.md      may be missing or empty

What cannot be used is put back from the log, which has every version that was ever good; failing that, from the
template that a clean start is made of.
"""

import os
import stat
from collections.abc import Iterable, Sequence
from functools import partial
from hashlib import sha256
from importlib import resources
from pathlib import Path

from agent.identity import IDENTITY, IDENTITY_BYTES, NOTES
from persistence.blobs import Blobs
from persistence.errors import Damaged, NotFound
from persistence.files import FILES, Kept
from scheduler.check import Check, Remove, SetMode, Step, Write
from scheduler.finding import Seen
from scheduler.naming import some
from scheduler.site import Site

NOTES_BYTES = 8 << 20  #: of the notes that are looked into
FOLDERS_MOST = 2_000  #: of the grimoires that are looked at
WRITABLE = 0o700
IN_FORCE = "the last good text, or the one that finn comes with, is in force until then"


def _grimoires(site: Site) -> Path:
    return site.root / "grimoires"


def _kept(site: Site, name: str) -> Kept | None:
    """The file as the log has it."""
    found = site.state(FILES).files.get(f"grimoires/{name}")
    return found if found is not None and found.sha256 else None


def _fault(path: Path, most: int, *, needed: bool) -> str:
    """What is wrong with a file, as a clause; empty where nothing is."""
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return "is no plain file"
        if status.st_size > most:
            return f"has {status.st_size} bytes, more than {most}" if needed else ""
        text = path.read_bytes().decode()
    except FileNotFoundError:
        return "is not there" if needed else ""
    except UnicodeDecodeError as error:
        return f"is not UTF-8 at its byte {error.start}"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "is empty" if needed and not text.strip() else ""


def _see_text(name: str, most: int, needed: bool, site: Site) -> Seen:
    path = _grimoires(site) / name
    fault = _fault(path, most, needed=needed)
    if not fault:
        size = path.stat().st_size if path.exists() else 0
        return Seen("pass", f"{name} has {size} bytes of UTF-8", data={"bytes": size})
    if not _grimoires(site).is_dir():
        return _without_folder(site, name)
    hint = f"write {path} anew in UTF-8, or `finn doctor --fix` puts back what finn last had of it"
    return Seen("warn", f"{name} {fault}; {IN_FORCE}", hint, {"fault": fault, "in_log": _kept(site, name) is not None})


def _without_folder(site: Site, name: str) -> Seen:
    """A folder with this one file in it would look like one in which somebody deleted all the others."""
    if site.past.head.seq == 0:
        return Seen("pass", "finn has not started here yet")
    why = "finn writes the whole folder when it starts; one that held this file alone would delete the others"
    hint = "start `finn serve`: it writes the folder as the log has it; make no empty one"
    return Seen("warn", f"{name} is not there, nor is its folder; {IN_FORCE}", hint, {"blocked": why})


def _mend_text(name: str, most: int, needed: bool, site: Site) -> Sequence[Step]:
    path = _grimoires(site) / name
    if not _fault(path, most, needed=needed) or not _grimoires(site).is_dir():
        return []
    text = _last_good(site, name, most)
    odd = os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode)
    return [*([Remove(path)] if odd else []), Write(path, text)]


def _last_good(site: Site, name: str, most: int) -> bytes:
    """The file's bytes as the log has them, else as the template has them."""
    kept = _kept(site, name)
    if kept is not None and kept.sha256 and 0 < kept.bytes <= most:
        try:
            data = Blobs(site.disk, site.paths.blobs).get(kept.sha256)
            data.decode()
            return data
        except (NotFound, Damaged, UnicodeDecodeError):
            pass  # the template is left
    return (resources.files("grimoires") / name).read_bytes()


def _see_changed(site: Site) -> Seen:
    path, kept = _grimoires(site) / IDENTITY, _kept(site, IDENTITY)
    if _fault(path, IDENTITY_BYTES, needed=True):
        return Seen("info", f"{IDENTITY} cannot be used, so there is nothing to compare")
    now = sha256(path.read_bytes()).hexdigest()
    if kept is None or now == kept.sha256:
        what = "as the log has it" if kept else "not in the log yet"
        return Seen("pass", f"{IDENTITY} is {what}: {now[:12]}", data={"sha256": now})
    return Seen(
        "info",
        f"{IDENTITY} was changed since finn last looked: {now[:12]} now, {(kept.sha256 or '')[:12]} in the log",
        "if it was not you, see what changed: git has every version; finn takes it in before its next turn",
        {"sha256": now, "in_log": kept.sha256},
    )


def _folders(site: Site) -> Iterable[Path]:
    """The grimoires and what is below them; no link is followed."""
    top = _grimoires(site)
    if top.is_symlink() or not top.is_dir():
        return
    count = 0
    for folder, below, _ in os.walk(top):
        yield Path(folder)
        count += len(below)
        if count > FOLDERS_MOST:
            return


def _closed(site: Site) -> list[Path]:
    """Folders in which their owner cannot write, by their modes: root could, but finn need not be root."""
    return [folder for folder in _folders(site) if stat.S_IMODE(folder.stat().st_mode) & WRITABLE != WRITABLE]


def _see_writable(site: Site) -> Seen:
    if not _grimoires(site).is_dir():
        return Seen("info", "there is no folder grimoires") if site.past.head.seq else Seen("pass", "not begun yet")
    odd = [str(folder.relative_to(site.root)) for folder in _closed(site)]
    hint = f"`chmod -R u+rwX {_grimoires(site)}`"
    return some(odd, "warn", "the agent can write down what it learns", "the agent cannot write in", hint)


def _mend_writable(site: Site) -> Sequence[Step]:
    if not _grimoires(site).is_dir():
        return []
    return [SetMode(folder, stat.S_IMODE(folder.stat().st_mode) | WRITABLE) for folder in _closed(site)]


def _text(name: str, most: int, *, needed: bool) -> tuple[partial[Seen], partial[Sequence[Step]]]:
    return partial(_see_text, name, most, needed), partial(_mend_text, name, most, needed)


CHECKS: tuple[Check, ...] = (
    Check("identity.file", f"{IDENTITY} says who the agent is", *_text(IDENTITY, IDENTITY_BYTES, needed=True)),
    Check("identity.notes", f"{NOTES} can be read", *_text(NOTES, NOTES_BYTES, needed=False)),
    Check("identity.changed", f"{IDENTITY} is as the log has it", _see_changed),
    Check("identity.writable", "the agent can write in its own files", _see_writable, _mend_writable),
)
