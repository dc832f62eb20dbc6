"""`finn doctor`: finds who can look, has it look or mend, and tells what came of it.

    a finn runs here and answers ──▶ its own doctor, over HTTP
    it runs and does not answer ───▶ a look from outside, and no fix: the log is that finn's
    none runs ─────────────────────▶ a look from outside; a fix or an undo under the log's lock

Without --fix nothing is written, and nothing is made. 0, or 1 where the worst is at or above --fail-on.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from gateway.client import Client
from gateway.routes.health import VERSION
from gateway.settings import coloured, read_leniently
from gateway.site import site_of
from persistence.clock import Ids, SystemClock, system_entropy
from persistence.errors import Conflict, FinnError, NotFound
from persistence.lock import LOCK, Lock, hold
from persistence.replay import Paths
from persistence.values import Json
from scheduler.check import Check
from scheduler.checks import CHECKS
from scheduler.doctor import chosen, examine, fix
from scheduler.finding import ORDER
from scheduler.report import as_json, as_markdown, as_text
from scheduler.site import Site
from scheduler.undo import undo

FIX_S = 600.0  #: a fix of a large directory reads it more than once
LOOK_S = 120.0


def doctor(args: argparse.Namespace) -> int:
    """The command. Raises UsageError for a category that there is not, and FinnError where a fix cannot begin."""
    only = tuple(name.strip() for name in (args.only or "").split(",") if name.strip())
    checks = chosen(CHECKS, only or (args.only,)) if args.only is not None else CHECKS
    place = site_of(flags={"FINN_DATA_DIR": args.data_dir})
    if args.undo:
        return _undone(place, args)
    report = (_mended if args.fix else _looked)(place, args, checks, only)
    print(_written(report, args))
    worst = ORDER.index(report["overall"])
    return 1 if worst >= ORDER.index(args.fail_on) else 0


def _looked(place: Site, args: argparse.Namespace, checks: Sequence[Check], only: Sequence[str]) -> Json:
    if place.running is not None and place.running.answers:
        try:
            return _client(args, LOOK_S).get(f"/doctor?only={','.join(only)}")
        except FinnError as error:
            _aside(f"the running finn was not asked: {error}")
    return as_json(examine(checks, place), VERSION)


def _mended(place: Site, args: argparse.Namespace, checks: Sequence[Check], only: Sequence[str]) -> Json:
    if place.running is not None:
        _require_answers(place)
    if args.format == "text":
        _announce(_looked(place, args, checks, only))
    if place.running is not None:
        return _client(args, FIX_S).post("/doctor/fix", {"only": list(only)})
    with _under_lock(place) as site:
        done = fix(checks, site, Ids(SystemClock(), system_entropy).new)
        return as_json(done.findings, VERSION, done)


def _undone(place: Site, args: argparse.Namespace) -> int:
    if place.running is not None:
        _require_answers(place)
        restored: list[str] = _client(args, FIX_S).post("/doctor/undo", {"id": args.undo})["restored"]
    else:
        with _under_lock(place) as site:
            restored = list(undo(site, args.undo))
    told = {"id": args.undo, "restored": restored}
    print(json.dumps(told) if args.format == "json" else "\n".join([*restored, f"undone: {args.undo}"]))
    return 0


def _require_answers(place: Site) -> None:
    assert place.running is not None
    if not place.running.answers:
        what = f"process {place.running.pid} has this directory and does not answer"
        raise Conflict(what, hint="stop it, and say this again")


def _client(args: argparse.Namespace, timeout_s: float) -> Client:
    settings, _ = read_leniently(flags={"FINN_DATA_DIR": args.data_dir})
    return Client.find(settings, None, timeout_s=timeout_s)


@contextmanager
def _under_lock(place: Site) -> Iterator[Site]:
    """The site, while no finn can start on it. Raises Locked.

    Where there is no log there is nothing to hold; where LOCK is no file, no finn can start before that is mended.
    """
    if not place.root.is_dir():
        raise NotFound(f"there is no data directory at {place.root}", hint="say --data-dir, or start finn once")
    lock = place.paths.wal / LOCK
    if not place.paths.wal.is_dir() or lock.is_symlink() or (lock.exists() and not lock.is_file()):
        yield place
        return
    held = _Held(place.paths)
    try:
        yield held.lending(place)
    finally:
        held.release()


class _Held:
    """The log's lock, lent to who opens the log while a fix is under way."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._lock: Lock | None = hold(paths.wal)

    def release(self) -> None:
        if self._lock is not None:
            self._lock.release()
        self._lock = None

    def lending(self, site: Site) -> Site:
        """The site, of which what opens the log gets the lock for as long as it takes."""
        change = site.change
        if change is None:
            return replace(site, again=lambda: self.lending(site.renew()))
        own = change
        return replace(
            site, again=lambda: self.lending(site.renew()), change=lambda edits: self._lent(lambda: own(edits))
        )

    def _lent(self, act: Callable[[], None]) -> None:
        self.release()
        try:
            act()
        finally:
            self._lock = hold(self._paths.wal)


# ---------------------------------------------------------------- telling


def _written(report: Json, args: argparse.Namespace) -> str:
    match args.format:
        case "json":
            return json.dumps(report, indent=2, ensure_ascii=False)
        case "markdown":
            return as_markdown(report)
    return as_text(report, shutil.get_terminal_size((80, 24)).columns, colour=coloured(sys.stdout.isatty()))


def _announce(report: Json) -> None:
    """What a fix will do, before it is done."""
    plans = [(one["id"], one["data"]["plan"]) for one in report["findings"] if one["fixability"] == "autofixable"]
    if plans:
        print("finn doctor will")
        print("\n".join(f"  {step}  ({name})" for name, plan in plans for step in plan))
        print()


def _aside(text: str) -> None:
    print(f"finn: {text}", file=sys.stderr)
