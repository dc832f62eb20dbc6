"""The doctor's look for a finn that runs, in a process of its own: finn goes on, however much there is to read.

    finn ── what its site is, on stdin ──▶ python, this file: every check ── findings, on stdout ──▶ finn

The site holds secrets, so the process hides its memory before it takes it. It can ask nothing of finn: that a fix
could is all it needs to know. What looks at the process itself is looked at in finn.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gateway.folds import FOLDS
from gateway.hidden import hide_memory
from persistence.errors import Busy
from scheduler.check import Check
from scheduler.checks import CHECKS
from scheduler.doctor import examine
from scheduler.finding import Finding
from scheduler.site import Site

LOOK_S = 600.0  #: for all of it; one that takes longer hangs
NICE = 10  #: finn's own turn comes first
TOLD = 300  #: characters of what a process said when it failed

_PROGRAM = (
    f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r}); import gateway.lookout as it; it.main()"
)


def look(checks: Sequence[Check], site: Site) -> tuple[Finding, ...]:
    """As `examine`: in another process where there is much to read. Raises Busy where that one comes to no end."""
    if not site.is_large:
        return examine(checks, site)
    own = {finding.id: finding for finding in examine([one for one in checks if one.own], site)}
    there = {finding.id: finding for finding in _asked([one.id for one in checks if not one.own], site)}
    return tuple((own | there)[check.id] for check in checks)


def _asked(ids: Sequence[str], site: Site) -> tuple[Finding, ...]:
    change = _never if site.change is not None else None
    sent = replace(site, again=None, folds=(), acts=dict.fromkeys(site.acts, _never), change=change)
    command = [sys.executable, "-P", "-c", _PROGRAM]
    try:
        done = subprocess.run(
            command, input=pickle.dumps((ids, sent)), capture_output=True, check=False, timeout=LOOK_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Busy(f"the doctor's look came to no end: {error}", hint="look again in a minute") from error
    if done.returncode:
        said = site.redactor.text(done.stderr.decode(errors="replace"))[-TOLD:].strip()
        what = f"the doctor's look ended with {done.returncode}: {said or 'it said nothing'}"
        raise Busy(what, hint="see whether there is memory for it; `finn doctor` looks while finn is stopped")
    found: tuple[Finding, ...] = pickle.loads(done.stdout)  # noqa: S301 - said by this program
    return found


def _never(*_: object) -> None:
    raise AssertionError("a look does nothing")


def main() -> None:
    """The life of that process."""
    if sys.platform == "linux":
        hide_memory()
    os.nice(NICE)
    ids, site = pickle.load(sys.stdin.buffer)  # noqa: S301 - said by finn
    found = examine([check for check in CHECKS if check.id in ids], replace(site, folds=FOLDS))
    sys.stdout.buffer.write(pickle.dumps(found))
    sys.stdout.buffer.flush()
    os._exit(0)  # nothing is left to close, and a question to a network may still wait
