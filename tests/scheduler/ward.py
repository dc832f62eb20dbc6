"""A ward for the doctor's tests: a healthy data directory, broken in one place, looked at, mended, and put back.

    ward = new_ward()                    a copy of what a real finn made and left: two sessions, files, beads
    (ward.root / "wal").chmod(0o755)     break one thing
    ward.broken("dirs.modes")            exactly that finding is there which a healthy directory does not have
    ward.cured("dirs.modes")             its plan is shown, the fix brings it to pass, a second one changes nothing, and
                                         the undo puts every byte and mode back

The directory is made once in a run of the tests, and always lies at the same path, as its paths are part of it.
"""

import asyncio
import atexit
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from agent import models
from gateway.app import Finn
from gateway.auth import Auth
from gateway.chosen import chosen_of
from gateway.rooms import Rooms
from gateway.settings import read
from gateway.site import site_of
from persistence.clock import Ids, SystemClock, system_entropy
from persistence.events import OWNER, SessionCreated
from scheduler.checks import CHECKS
from scheduler.doctor import Fixed, examine, fix
from scheduler.finding import Finding
from scheduler.site import Site
from scheduler.undo import undo

SAID = ("remember the tea is green", "list files", "add task water the plants")
LOCK = "wal/LOCK"  #: holds the number of the last process, and nothing that counts

Tree = Mapping[str, tuple[str, int, str]]


@cache
def _place() -> Path:
    """A folder of this run, gone with it."""
    place = Path(tempfile.mkdtemp(prefix="finn-ward-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


@cache
def pristine(store: bool = False) -> Path:
    """The healthy directory, as a finn left it that was told SAID. With `store`, it has its copy in a folder."""
    place = _place() / ("stored" if store else "plain")
    root = place / "data"
    root.mkdir(parents=True, mode=0o700)
    if store:
        (place / "store").mkdir()
    umask = os.umask(0o077)
    try:
        asyncio.run(_live(environ_of(root, store=store)))
    finally:
        os.umask(umask)
    for name in ("data", "store"):
        if (place / name).exists():
            shutil.copytree(place / name, place / f"{name}.kept", symlinks=True)
    return place


async def _live(environ: Mapping[str, str]) -> None:
    """One life of a finn that is told SAID."""
    async with living(environ) as rooms:
        for number in range(2):
            session = rooms.ids.new()
            await rooms.turns.record(SessionCreated(title=f"Talk {number}"), session, OWNER)
            for text in SAID:
                accepted = await rooms.turns.say(session, text, rooms.ids.new(), by=OWNER)
                await rooms.turns.outcome(session, accepted)


@asynccontextmanager
async def living(environ: Mapping[str, str]) -> AsyncIterator[Rooms]:
    """A finn, without its port, until it is drained."""
    settings, clock = read(environ), SystemClock()
    auth = Auth.open(settings.data_dir / "auth", clock=clock, entropy=system_entropy, token=settings.token)
    finn = Finn(settings, models.choose(chosen_of(settings), clock), auth, clock, system_entropy, 8080)
    loop, ready = asyncio.get_running_loop(), asyncio.Event()

    def answering() -> None:
        loop.call_soon_threadsafe(ready.set)

    app = finn.app(answering, answering)
    async with app.router.lifespan_context(app):
        await ready.wait()
        assert finn.failure is None, finn.failure
        yield finn.rooms()
        await finn.drain()


def environ_of(root: Path, *, store: bool = False, **more: str) -> dict[str, str]:
    """The settings of the ward's finn."""
    copy = {"FINN_STORE_URL": f"file://{root.parent / 'store'}"} if store else {}
    return {"FINN_DATA_DIR": str(root), "FINN_MODEL": "builtin", **copy, **more}


@dataclass
class Ward:
    """One directory, and what it is looked at with. `healthy` are the findings before anything was broken."""

    root: Path
    environ: dict[str, str]
    healthy: Mapping[str, Finding]
    changed: dict[str, Any] = field(default_factory=dict)  #: fields of the site that are other than they are

    def site(self) -> Site:
        """The place as it is now."""
        return replace(site_of(self.environ), **self.changed, again=self.site)

    def examine(self) -> dict[str, Finding]:
        """Every finding, by its id. Looking changes nothing."""
        before = tree(self.root)
        found = {finding.id: finding for finding in examine(CHECKS, self.site())}
        assert tree(self.root) == before, "a look changed something"
        return found

    def examine_nothing(self) -> dict[str, Finding]:
        """Every finding where there is no directory to walk through. None is made."""
        was = self.root.is_dir(), os.path.lexists(self.root)
        found = {finding.id: finding for finding in examine(CHECKS, self.site())}
        assert (self.root.is_dir(), os.path.lexists(self.root)) == was, "a look made something"
        return found

    def broken(self, name: str, severity: str | None = None) -> Finding:
        """The finding of that id, which is not sound; and nothing else became worse."""
        found = self.examine()
        worse = {one.id: one.detail for one in found.values() if one.severity != self.healthy[one.id].severity}
        assert list(worse) == [name], worse
        finding = found[name]
        assert finding.severity in ("warn", "fail") if severity is None else finding.severity == severity, finding
        assert finding.detail and finding.remediation, finding
        return finding

    def fix(self, *ids: str) -> Fixed:
        """Mends all that can be mended, or only what has one of those ids."""
        checks = [check for check in CHECKS if not ids or check.id in ids]
        return fix(checks, self.site(), Ids(SystemClock(), system_entropy).new)

    def undo(self, name: str) -> Sequence[str]:
        """Takes a fix back."""
        return undo(self.site(), name)

    def cured(self, name: str) -> Finding:
        """The finding is mended: the plan, the fix, the second fix, the undo, and the fix again."""
        broken, before = self.examine()[name], tree(self.root)
        assert broken.fixability == "autofixable", broken
        assert broken.data["plan"], broken
        done = self.fix(name)
        (after,) = done.findings
        assert (after.severity, after.fixability) == ("pass", "fixed"), after
        assert list(done.applied) == broken.data["plan"] or done.applied, done
        assert self.examine()[name].severity == "pass"
        mended = tree(self.root)
        assert self.fix(name).applied == (), "a second fix found something to do"
        assert tree(self.root) == mended, "a second fix changed something"
        if done.id:
            self.undo(done.id)
            assert tree(self.root) == before, "the undo did not put everything back"
            assert self.fix(name).findings[0].fixability == "fixed"
        return after


def new_ward(store: bool = False, **environ: str) -> Ward:
    """A healthy directory, as if nothing had ever been done to it."""
    place = pristine(store)
    for name in ("data", "store"):
        shutil.rmtree(place / name, ignore_errors=True)
        (place / name).unlink(missing_ok=True)
        if (place / f"{name}.kept").exists():
            shutil.copytree(place / f"{name}.kept", place / name, symlinks=True)
    said = environ_of(place / "data", store=store, **environ)
    return Ward(place / "data", said, _healthy(store, tuple(sorted(environ.items()))))


@cache
def _healthy(store: bool, environ: tuple[tuple[str, str], ...]) -> Mapping[str, Finding]:
    root = pristine(store) / "data"
    said = environ_of(root, store=store, **dict(environ))
    return {finding.id: finding for finding in examine(CHECKS, site_of(said))}


def kernel(folder: Path) -> Path:
    """A folder in the place of /proc, in which a test may say what it likes of locks and mounts."""
    (folder / "self").mkdir()
    (folder / "self" / "status").symlink_to("/proc/self/status")
    return folder


def tree(root: Path) -> Tree:
    """Every name below a folder with its kind, its mode, and what it holds."""
    return {
        str(path.relative_to(root)): _node(path)
        for path in sorted([root, *root.rglob("*")])
        if str(path.relative_to(root)) != LOCK
    }


def _node(path: Path) -> tuple[str, int, str]:
    mode = path.lstat().st_mode & 0o7777
    if path.is_symlink():
        return "link", mode, str(path.readlink())
    if path.is_dir():
        return "folder", mode, ""
    return "file", mode, sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
