"""What a fix does, step by step, so that all of it can be taken back.

    doctor-undo/ULID/steps.jsonl     {"version":1, id, at, alone}
                                     {n, do:"make_folder", path, mode}
                                     {n, do:"set_mode", path, was, now}
                                     {n, do:"write", path, was: sha256 | null, now: sha256, kept: "n" | null}
                                     {n, do:"move", path, to}   (what is removed goes to where it is kept)
                                     {n, do:"change", edits}     (beads)
                                     {back: n}            (what came after n is taken back)
                                     {end: true}
    doctor-undo/ULID/kept/n          what step n replaced or removed, as it was

A line is durable before its step is taken, and tells both what was and what is: wherever the process ends, each step
is found taken or not taken, and taking it back twice is taking it back once. Paths are relative to the data directory.
An undo looks first, and begins only where nothing that came later would be lost by it.
"""

import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from persistence.amends import Edit, undone
from persistence.clock import iso
from persistence.disk import Disk, read, refused, replace, write_all
from persistence.errors import Conflict, Invalid, NotFound
from persistence.values import Json
from scheduler.check import Ask, Change, MakeFolder, Move, Remove, SetMode, Step, Write
from scheduler.finding import told
from scheduler.notes import FOLDER, KEPT, STEPS, noted
from scheduler.site import Site

DONE = "undone.jsonl"  #: the name of STEPS once all of it was taken back
VERSION = 1
WHOLE = ("grimoires", "workspace")  #: an empty one would mean that everything in it was deleted
END = b'{"end": true}\n'
ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def said(step: Step, root: Path) -> str:
    """What a step does, as a sentence without its full stop."""
    match step:
        case MakeFolder(path, mode):
            return f"make the folder {_short(path, root)} with mode {mode:04o}"
        case SetMode(path, mode):
            return f"set the mode of {_short(path, root)} to {mode:04o}"
        case Write(path, data):
            return f"write {len(data)} bytes to {_short(path, root)}"
        case Move(path, to):
            return f"move {_short(path, root)} to {_short(to, root)}"
        case Remove(path):
            return f"remove {_short(path, root)} and keep it for the undo"
        case Ask(act):
            return f"ask the running finn for: {act}"
        case Change(edits):
            return f"change {', '.join(edit.id for edit in edits)}"


def _short(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path != root and path.is_relative_to(root) else str(path)


def barred(step: Step, root: Path) -> str:
    """Why a step is not to be taken: it would make a folder that finn writes back as a whole where it is missing."""
    match step:
        case MakeFolder(path) | Write(path) | Move(_, path) if path.is_relative_to(root) and path != root:
            top = root / path.relative_to(root).parts[0]
        case _:
            return ""
    if top.name not in WHOLE or os.path.lexists(top) or not (root / "wal").is_dir():
        return ""
    return f"{top.name} is gone as a whole: start `finn serve`, which writes all of it back from the log"


# ---------------------------------------------------------------- doing


@dataclass
class Doing:
    """A fix under way. Nothing is on disk of it before the first step that changes something."""

    site: Site
    new_id: Callable[[], str]
    id: str = ""
    applied: list[str] = field(default_factory=list)
    _lines: list[Json] = field(default_factory=list)

    @property
    def _home(self) -> Path:
        return self.site.root / FOLDER / self.id

    def take(self, step: Step, *, alone: bool = False) -> None:
        """Takes a step, after it is written down how it is taken back. Raises FinnError."""
        with _telling(self.site.root):
            if why := barred(step, self.site.root):
                raise Conflict(why)
            TAKE[type(step)](self, step, alone)

    def back(self, mark: int) -> None:
        """Takes back what was done since `len(applied)` was `mark`. Raises FinnError."""
        since = [line for line in self._lines if line["mark"] > mark]
        if since:
            with _telling(self.site.root):
                _take_back(self.site, self._home, since)
        self._lines = [line for line in self._lines if line["mark"] <= mark]
        del self.applied[mark:]

    def end(self) -> None:
        """Says that this is all so far; a fix that changed nothing in the end leaves no trace. Raises FinnError."""
        if not self.id:
            return
        with _telling(self.site.root):
            if self._lines:
                _note(self.site.disk, self._home, {"end": True})
            else:
                _sweep(self.site.disk, self._home)
                self.id = ""

    # ------------------------------------------------------------ steps

    def _make_folder(self, step: MakeFolder, alone: bool) -> None:
        _inside(self.site.root, step.path)
        if step.path.is_dir() and not step.path.is_symlink():
            return
        self._parents(step.path, alone)
        if os.path.lexists(step.path):
            raise Conflict(f"{step.path} is there and is no folder", hint="see what it is, and move it away")
        self._plan(step, alone, do="make_folder", path=step.path, mode=step.mode)
        self.site.disk.mkdir(step.path)
        if stat.S_IMODE(step.path.stat().st_mode) != step.mode:
            self.site.disk.chmod(step.path, step.mode)
        self.site.disk.sync_folder(step.path.parent)

    def _set_mode(self, step: SetMode, alone: bool) -> None:
        _inside(self.site.root, step.path)
        found = step.path.lstat()
        if stat.S_ISLNK(found.st_mode):
            raise Conflict(f"{step.path} is a link", hint="change the mode of what it leads to")
        if stat.S_IMODE(found.st_mode) != step.mode:
            self._plan(step, alone, do="set_mode", path=step.path, was=stat.S_IMODE(found.st_mode), now=step.mode)
            self.site.disk.chmod(step.path, step.mode)

    def _write(self, step: Write, alone: bool) -> None:
        disk, path = self.site.disk, step.path
        _inside(self.site.root, path)
        self._parents(path, alone)
        was, kept = None, None
        if os.path.lexists(path):
            if not stat.S_ISREG(path.lstat().st_mode):
                raise Conflict(f"{path} is no plain file", hint="see what it is, and move it away")
            old = read(disk, path)
            was, kept = sha256(old).hexdigest(), self._keep(path, old, alone)
        fresh = self._fresh(step, alone)
        self._plan(step, alone, do="write", path=path, was=was, now=sha256(step.data).hexdigest(), kept=kept)
        _rename(disk, fresh, path)

    def _move(self, step: Move, alone: bool) -> None:
        _inside(self.site.root, step.path)
        _inside(self.site.root, step.to)
        self._parents(step.to, alone)
        self._go(step, step.path, step.to, alone)

    def _remove(self, step: Remove, alone: bool) -> None:
        _inside(self.site.root, step.path)
        self._begin(alone)
        self._go(step, step.path, self._place(), alone)

    def _go(self, step: Step, path: Path, to: Path, alone: bool) -> None:
        if not os.path.lexists(path):
            raise NotFound(f"{path} is not there any more", hint="look again")
        if os.path.lexists(to):
            raise Conflict(f"{to} is there already", hint="see what it is, and move it away")
        self._plan(step, alone, do="move", path=path, to=to)
        _rename(self.site.disk, path, to)

    def _ask(self, step: Ask, alone: bool) -> None:
        act = self.site.acts.get(step.act)
        if act is None:
            raise Conflict(f"only a running finn can do this: {step.act}", hint="start `finn serve`, and fix it then")
        act()
        self.applied.append(said(step, self.site.root))

    def _change(self, step: Change, alone: bool) -> None:
        if self.site.change is None:
            raise Conflict("the beads cannot be changed from here", hint="start `finn serve`, and fix it then")
        self._plan(step, alone, do="change", edits=[[edit.before, edit.after] for edit in step.edits])
        self.site.change(tuple(step.edits))

    # ------------------------------------------------------------ the journal

    def _parents(self, path: Path, alone: bool) -> None:
        if path.parent != self.site.root and not path.parent.is_dir():
            self._make_folder(MakeFolder(path.parent), alone)

    def _begin(self, alone: bool) -> None:
        if self.id:
            return
        disk, top = self.site.disk, self.site.root / FOLDER
        if os.path.lexists(top) and not _is_folder(top):
            raise Conflict(f"{top} is no folder", hint="move it away: what a fix replaces is kept there")
        self.id = self.new_id()
        for folder in (self._home.parent, self._home, self._home / KEPT):  # one by one: each is for its owner alone
            disk.mkdir(folder)
        for folder in (self._home, self._home.parent, self.site.root):
            disk.sync_folder(folder)
        _note(self.site.disk, self._home, {"version": VERSION, "id": self.id, "at": iso(self.site.clock.now())})

    def _place(self) -> Path:
        """Where the next step keeps what it replaces."""
        return self._home / KEPT / str(self._next())

    def _next(self) -> int:
        return max((line["n"] for line in self._lines), default=0) + 1

    def _keep(self, path: Path, data: bytes, alone: bool) -> str:
        """A durable copy, with the mode and the times of the file."""
        self._begin(alone)
        found, place = path.lstat(), self._place()
        replace(self.site.disk, place, data)
        self.site.disk.chmod(place, stat.S_IMODE(found.st_mode))
        os.utime(place, ns=(found.st_atime_ns, found.st_mtime_ns))
        return place.name

    def _fresh(self, step: Write, alone: bool) -> Path:
        """What is to be written, durable where a sweep finds it if it never comes to its place."""
        self._begin(alone)
        place = self._place().with_suffix(".new")
        replace(self.site.disk, place, step.data)
        if step.mode != 0o600:
            self.site.disk.chmod(place, step.mode)
        return place

    def _plan(self, step: Step, alone: bool, **facts: Any) -> None:
        """Writes a step down, durably, before it is taken."""
        self._begin(alone)
        root = self.site.root
        plain = {key: str(one.relative_to(root)) if isinstance(one, Path) else one for key, one in facts.items()}
        line = {"n": self._next(), "mark": len(self.applied) + 1, "alone": alone, **plain}
        _note(self.site.disk, self._home, line)
        self._lines.append(line)
        self.applied.append(said(step, root))


TAKE: dict[type[Any], Callable[[Doing, Any, bool], None]] = {
    MakeFolder: Doing._make_folder,
    SetMode: Doing._set_mode,
    Write: Doing._write,
    Move: Doing._move,
    Remove: Doing._remove,
    Ask: Doing._ask,
    Change: Doing._change,
}


# ---------------------------------------------------------------- taking back


def undo(site: Site, name: str) -> tuple[str, ...]:
    """Puts back all that the fix of that id replaced; what it did, as sentences. Done again, it goes on where it was.

    Raises NotFound, Conflict (and then nothing was touched) where something would be lost, StorageError.
    """
    home = site.root / FOLDER / name
    if name not in fixes(site):
        known = ", ".join(fixes(site)) or "none"
        raise NotFound(f"there is no fix {name[:64]} to undo", hint=f"those that can be undone: {known}")
    with _telling(site.root):
        if (home / KEPT).is_symlink():
            raise Conflict(f"{home / KEPT} is a link", hint="no fix makes one: see who did")
        lines = noted(home)
        for path in (path for line in lines for path in _named(site.root, line)):
            _lies_inside(site.root, path)
        if site.running is not None and any(line["alone"] for line in lines):
            raise Conflict("this fix changed what a running finn uses", hint="stop finn, then undo it")
        if found := list(_objections(site.root, home, lines)):
            what = told("; ".join(found), site.redactor.text)
            raise Conflict(what, hint=f"nothing was touched; what the fix replaced is in {home / KEPT}")
        _cut_tail(site.disk, home / STEPS)
        done = _take_back(site, home, lines)
        if (home / STEPS).exists():
            site.disk.rename(home / STEPS, home / DONE)
            site.disk.sync_folder(home)
        _sweep(site.disk, home)
    return tuple(told(done, site.redactor.text))


def fixes(site: Site) -> tuple[str, ...]:
    """The fixes that can be undone, oldest first."""
    top = site.root / FOLDER
    names = site.disk.names(top) if _is_folder(top) else []
    return tuple(name for name in names if ULID.fullmatch(name) and _is_folder(top / name))


def cut_off(site: Site) -> tuple[str, ...]:
    """The fixes, and undoings of fixes, that did not come to their end."""
    homes = [(name, site.root / FOLDER / name / STEPS) for name in fixes(site)]
    return tuple(name for name, path in homes if not path.exists() or not read(site.disk, path).endswith(END))


def _objections(root: Path, home: Path, lines: Sequence[Json]) -> Iterator[str]:
    """What would be lost. Goes backwards through the steps, and keeps in mind where each thing would be by then."""
    moved: dict[Path, Path | None] = {}

    def here(path: Path) -> Path | None:
        for above in (path, *path.parents):
            if above in moved:
                base = moved[above]
                return None if base is None else _there(base / path.relative_to(above))
        return _there(path)

    for line in reversed(lines):
        path = root / line.get("path", "")
        found = here(path)
        match line["do"]:
            case "make_folder":
                if found is not None and found.is_dir() and not any(here(one) for one in found.iterdir()):
                    moved[path] = None
            case "set_mode":
                if found is None:
                    yield f"{line['path']} is not there any more"
                elif stat.S_IMODE(found.lstat().st_mode) not in (line["was"], line["now"]):
                    yield f"{line['path']} has been given another mode since"
            case "write":
                kept = home / KEPT / line["kept"] if line["kept"] else None
                if kept is not None and not kept.exists():
                    continue  # it is back already
                if found is not None and _digest(found) not in (line["was"], line["now"]):
                    yield f"{line['path']} was written to since"
                moved[path] = kept
            case "move":
                to = root / line["to"]
                source = here(to)
                if source is None and found is None:
                    yield f"{line['to']} is not there any more"
                elif source is not None and found is not None:
                    yield f"{line['path']} is there again"
                elif source is not None:
                    moved[path], moved[to] = source, None


def _there(path: Path) -> Path | None:
    return path if os.path.lexists(path) else None


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""


def _take_back(site: Site, home: Path, lines: Sequence[Json]) -> list[str]:
    """The last step first. Each is noted once it is back: what is cut off goes on with that one, not with all."""
    done = []
    for line in reversed(lines):
        for path in _named(site.root, line):
            _lies_inside(site.root, path)
        done.append(BACK[line["do"]](site, home, line))
        _note(site.disk, home, {"back": line["n"] - 1})
    return [sentence for sentence in done if sentence]


def _back_folder(site: Site, home: Path, line: Json) -> str:
    path = site.root / line["path"]
    if not path.is_dir() or path.is_symlink():
        return ""
    if site.disk.names(path):
        return f"{line['path']} stays: it holds something by now"
    site.disk.rmdir(path)
    site.disk.sync_folder(path.parent)
    return f"{line['path']} is gone again"


def _back_mode(site: Site, home: Path, line: Json) -> str:
    path = site.root / line["path"]
    if path.is_symlink():
        raise Conflict(f"{path} is a link by now", hint="see who made it, and move it away")
    site.disk.chmod(path, line["was"])
    return f"{line['path']} has mode {line['was']:04o} again"


def _back_write(site: Site, home: Path, line: Json) -> str:
    path, kept = site.root / line["path"], home / KEPT / str(line["kept"])
    if line["kept"] and kept.exists():
        _rename(site.disk, kept, path)
        return f"{line['path']} is as it was"
    if line["kept"] or not os.path.lexists(path):
        return ""
    site.disk.unlink(path)
    site.disk.sync_folder(path.parent)
    return f"{line['path']} is gone again"


def _back_move(site: Site, home: Path, line: Json) -> str:
    path, to = site.root / line["path"], site.root / line["to"]
    if os.path.lexists(path) or not os.path.lexists(to):
        return ""
    _rename(site.disk, to, path)
    return f"{line['path']} is back"


def _back_change(site: Site, home: Path, line: Json) -> str:
    if site.change is None:
        raise Conflict("the beads cannot be changed from here", hint="start `finn serve`, and undo it then")
    edits = tuple(Edit(before, after) for before, after in line["edits"])
    site.change(undone(edits))
    return f"{', '.join(edit.id for edit in edits)} as before"


BACK: dict[str, Callable[[Site, Path, Json], str]] = {
    "make_folder": _back_folder,
    "set_mode": _back_mode,
    "write": _back_write,
    "move": _back_move,
    "change": _back_change,
}


# ---------------------------------------------------------------- the disk


def _note(disk: Disk, home: Path, line: Json) -> None:
    """One more line of the notes, durable when this returns."""
    path = home / STEPS
    new = not path.exists()
    handle = disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        write_all(disk, handle, json.dumps(line).encode() + b"\n")
        disk.fdatasync(handle)
    finally:
        disk.close(handle)
    if new:
        disk.sync_folder(home)


def _cut_tail(disk: Disk, path: Path) -> None:
    """Takes off the beginning of a line of which the end was never written; its step was never taken."""
    if not path.exists():
        return
    data = read(disk, path)
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        handle = disk.open(path, os.O_WRONLY)
        try:
            disk.ftruncate(handle, whole)
            disk.fdatasync(handle)
        finally:
            disk.close(handle)


def _rename(disk: Disk, old: Path, new: Path) -> None:
    """Durably at its new place before it is durably gone from the old one."""
    disk.rename(old, new)
    disk.sync_folder(new.parent)
    disk.sync_folder(old.parent)


def _sweep(disk: Disk, home: Path) -> None:
    """What an undo leaves of a fix: copies that nobody needs, and the folders around them."""
    for folder in (home / KEPT, home):
        for name in disk.names(folder):
            disk.unlink(folder / name)
        disk.rmdir(folder)
    if not disk.names(home.parent):
        disk.rmdir(home.parent)
    disk.sync_folder(home.parent if home.parent.exists() else home.parent.parent)


def _is_folder(path: Path) -> bool:
    """Whether it is a folder itself, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def _named(root: Path, line: Json) -> list[Path]:
    """The places that a line of the notes names."""
    return [root / line[key] for key in ("path", "to") if key in line]


def _lies_inside(root: Path, path: Path) -> None:
    """Raises Invalid for a path outside the data directory, also by a link."""
    above = path if path == root else path.parent
    if not path.is_relative_to(root) or ".." in path.parts or not above.resolve().is_relative_to(root.resolve()):
        raise Invalid(f"{path} is not inside {root}", hint="mend this one by hand")


def _inside(root: Path, path: Path) -> None:
    """Raises Invalid for a path outside the data directory, also by a link, and for the memory of the fixes."""
    _lies_inside(root, path)
    if path.is_relative_to(root / FOLDER):
        raise Invalid(f"{path} is what an earlier fix keeps", hint="`finn doctor --undo` puts it back")


@contextmanager
def _telling(root: Path) -> Iterator[None]:
    """An OSError is the StorageError that everybody above knows."""
    try:
        yield
    except OSError as error:
        raise refused(error, Path(str(error.filename)) if error.filename else root) from error
