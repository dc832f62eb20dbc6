"""What is looked at of the program and its process: Python, packages, the clock, and who runs here."""

import json
import os
import resource
import sys
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from persistence.clock import iso
from persistence.errors import FinnError
from persistence.lock import LOCK
from scheduler.check import Check, Remove, Step
from scheduler.finding import Seen
from scheduler.naming import some
from scheduler.site import Site
from scheduler.undo import cut_off

PYTHON = (3, 11)
PACKAGES = ("agent", "gateway", "grimoires", "persistence", "scheduler")
DISTRIBUTION = "finn"
FILES = 512  #: that a process has to be allowed to have open: sockets, segments, git, the store
FIRST_DAY = 1_700_000_000.0  #: no clock that is right says an earlier time
BEHIND_S = 300.0  #: a clock so far behind the newest record is wrong, or was


def _see_python(site: Site) -> Seen:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < PYTHON:
        wanted = ".".join(map(str, PYTHON))
        return Seen("fail", f"this is Python {version}, and finn needs {wanted}", f"install Python {wanted} or newer")
    return Seen("pass", f"Python {version}", data={"version": version})


def _see_packages(site: Site) -> Seen:
    """Another program's `agent` or `gateway` in the same environment would be imported in place of ours."""
    specs = [find_spec(name) for name in PACKAGES]
    homes = sorted({str(Path(spec.origin).parent.parent) for spec in specs if spec and spec.origin})
    if len(homes) == 1:
        return Seen("pass", f"all of finn comes from {homes[0]}")
    what = f"finn's packages come from {len(homes)} places: {', '.join(homes)}"
    return Seen("fail", what, "install finn in an environment of its own", {"places": list(homes)})


def _see_distributions(site: Site) -> Seen:
    missing = []
    for line in metadata.requires(DISTRIBUTION) or ():
        name, _, condition = line.partition(";")
        bare = name.split("=")[0].split("<")[0].split(">")[0].split("[")[0].split("~")[0].strip()
        if "extra" not in condition and not _is_installed(bare):
            missing.append(bare)
    hint = "install finn again: `pip install --require-hashes -r requirements.lock`"
    return some(missing, "fail", "everything that finn needs is installed", "not installed", hint)


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _see_clock(site: Site) -> Seen:
    now, newest = site.clock.now(), _newest(site)
    hint = "set the machine's clock, and let it be kept right (NTP); finn's own order does not depend on it"
    if now < FIRST_DAY:
        return Seen("warn", f"the clock says {iso(now)}, which is long past", hint)
    if newest and newest - now > BEHIND_S:
        what = f"the clock says {iso(now)}, and the newest record is of {iso(newest)}"
        return Seen("warn", what, hint, {"behind_s": round(newest - now)})
    return Seen("pass", f"the clock says {iso(now)}")


def _newest(site: Site) -> float:
    """The time of the newest record; 0 where there is none, or none that can be read."""
    from ulid import ULID

    try:
        return ULID.from_str(site.past.last_id).timestamp if site.past.last_id else 0.0
    except (FinnError, OSError):
        return 0.0  # `wal` tells what is wrong with it


def _see_files(site: Site) -> Seen:
    soft = _limit(site)
    if soft is not None and soft < FILES:
        what = f"a process may have {soft} files open, and finn may need {FILES}"
        return Seen(
            "warn", what, f"raise it where finn is started: `ulimit -n {FILES * 8}`, or LimitNOFILE=", {"soft": soft}
        )
    return Seen("pass", f"{soft or 'any number of'} files may be open")


def _limit(site: Site) -> int | None:
    """How many files the running finn may open, else how many this process may; None without a limit."""
    if site.running is not None:
        try:
            for line in (site.proc / str(site.running.pid) / "limits").read_text().splitlines():
                if line.startswith("Max open files"):
                    soft = line.split()[3]
                    return int(soft) if soft.isdigit() else None
        except (OSError, ValueError, IndexError):
            pass  # another user's, or no such kernel: what holds for us most likely holds there
    soft_here = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft_here == resource.RLIM_INFINITY else soft_here


# ---------------------------------------------------------------- who runs here


def _note(site: Site) -> Path:
    return site.root / "run.json"


def _holder(site: Site) -> int | None:
    """The other process that has the log's lock, as the kernel tells it; None where none has, or nobody can say."""
    try:
        inode = (site.paths.wal / LOCK).stat().st_ino
        lines = (site.proc / "locks").read_text().splitlines()
        held = [line.split() for line in lines if "FLOCK" in line]
        found = next((int(parts[4]) for parts in held if parts[5].rpartition(":")[2] == str(inode)), None)
        noted = json.loads((site.paths.wal / LOCK).read_text())["pid"]
    except (OSError, ValueError, IndexError, KeyError, TypeError):
        return None
    return found if found == noted != os.getpid() else None


def _see_note(site: Site) -> Seen:
    path = _note(site)
    if not path.exists() and not path.is_symlink():
        return Seen("pass", "no finn has left a note that it runs")
    if site.running is not None:
        return Seen("pass", f"process {site.running.pid} runs at {site.running.url}")
    what = "run.json names a finn that does not run: it was killed, or the machine went down"
    return Seen(
        "warn",
        what,
        "nothing is lost; start `finn serve`, which writes it anew, or remove it",
        {"bytes": path.lstat().st_size},
    )


def _mend_note(site: Site) -> Sequence[Step]:
    return [Remove(_note(site))] if site.running is None else []


def _see_answers(site: Site) -> Seen:
    holder = _holder(site)
    if site.running is None and holder is None:
        return Seen("pass", "no finn runs here now")
    if site.running is None:
        what = f"process {holder} has the log, and no run.json says where it is: it starts, or the note was removed"
        return Seen("warn", what, f"wait a minute; if it stays so, restart that process ({holder})")
    if site.running.answers:
        return Seen("pass", f"process {site.running.pid} answers at {site.running.url}")
    if holder != site.running.pid:
        what = f"run.json names process {site.running.pid}, which lives and is no finn: a killed one left the note"
        return Seen(
            "warn", what, "start `finn serve`, which writes it anew, or remove run.json", {"pid": site.running.pid}
        )
    what = f"process {site.running.pid} has the log and does not answer at {site.running.url}"
    return Seen(
        "fail",
        what,
        f"`kill {site.running.pid}`, then start `finn serve`: nothing that finn has taken in is lost by that",
    )


def _see_fixes(site: Site) -> Seen:
    left = list(cut_off(site))
    hint = f"`finn doctor --undo {left[0]}`" if left else ""
    return some(left, "warn", "no fix was cut off", "fixes that were cut off before their end", hint)


def _see_tasks(site: Site) -> Seen:
    tasks = {name: state for name, state in site.facts.items() if name.startswith("task:")}
    off = [f"{name.removeprefix('task:')} ({state})" for name, state in tasks.items() if state not in ("closed", None)]
    hint = "`finn status` says why; once mended, `POST /api/tasks/NAME/run` tries one at once"
    well = f"{len(tasks)} tasks run" if tasks else "tasks run only in a finn that runs"
    return some(off, "warn", well, "tasks that failed three times and wait", hint)


CHECKS: tuple[Check, ...] = (
    Check("runtime.python", "Python is new enough", _see_python),
    Check("runtime.packages", "finn's packages come from one place", _see_packages),
    Check("runtime.distributions", "what finn needs is installed", _see_distributions),
    Check("runtime.clock", "the clock is right", _see_clock),
    Check("runtime.files", "enough files may be open", _see_files),
    Check("runtime.note", "run.json names a finn that runs", _see_note, _mend_note, alone=True),
    Check("runtime.answers", "who has the log answers", _see_answers),
    Check("runtime.fixes", "every fix came to its end", _see_fixes),
    Check("runtime.tasks", "no task has given up for now", _see_tasks),
)
