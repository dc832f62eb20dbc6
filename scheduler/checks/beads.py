"""Whether the beads are in order: their file, what the log has of them, and what each says of the others.

state/.beads/issues.jsonl ─ read ─▶ lines that are none, marks of a merge, edits not yet taken in
the log ─ BEADS ──────────────────▶ what contradicts itself (persistence/amends.py), what waits for ever
"""

import stat
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from persistence import amends, own_beads
from persistence.amends import Amend, breaker_of, edits
from persistence.bead import Bead
from persistence.bead_file import BASE, FILE_BYTES, FOLDER, NAME
from persistence.beads import BEADS
from persistence.breaker import BREAKERS
from persistence.disk import read as read_whole
from persistence.issues import Issues, read
from persistence.labels import LABEL, STALE
from persistence.own_beads import AGENT_REF
from persistence.ready import BLOCKING, EXTERNAL, PARENT, ById
from persistence.rfc3339 import SECOND
from scheduler.check import Change, Check, SetMode, Step
from scheduler.finding import Seen, Severity
from scheduler.naming import TOLD, some
from scheduler.site import Site

OURS = 0o600


# ---------------------------------------------------------------- what there is


def board(site: Site) -> ById:
    """The beads as the log has them."""
    return site.state(BEADS).beads


def _path(site: Site) -> Path:
    return site.root / "state" / FOLDER / NAME


def _bytes(site: Site) -> bytes:
    """The file's bytes; none where there is no file, or it is none that is read."""
    path = _path(site)
    if path.is_symlink() or not path.is_file() or path.stat().st_size > FILE_BYTES:
        return b""
    return read_whole(site.disk, path)


def _file(site: Site) -> Issues:
    return read(_bytes(site))


def _now(site: Site) -> int:
    return int(site.clock.now() * 1_000_000) * 1000


# ---------------------------------------------------------------- the file


def _see_file(site: Site) -> Seen:
    path = _path(site)
    if path.is_symlink() or (path.exists() and not path.is_file()):
        what = f"{path.name} is no plain file; finn moves it to quarantine and writes its own"
        return Seen("warn", what, f"move {path} away, or let finn do it", {"plain": False})
    issues = _file(site)
    faults = [] if issues.conflict else list(issues.faults)
    hint = f"mend or remove these lines in {path}; what finn cannot use it keeps in quarantine, and then writes anew"
    well = f"{len(issues.beads)} beads, every line can be read" if path.exists() else "there is no file yet"
    return some(faults, "warn", well, f"{len(faults)} lines of {path.name} cannot be used", hint)


def _see_conflict(site: Site) -> Seen:
    issues = _file(site)
    if not issues.conflict:
        return Seen("pass", "no merge was left half done")
    return Seen(
        "warn",
        f"{_path(site).name}: {issues.faults[0]}; nothing in the file counts until it is gone",
        "keep of both sides what you want and remove the lines <<<<<<<, ======= and >>>>>>>; or remove the file, "
        "and finn writes what its log has",
        {"fault": issues.faults[0]},
    )


def _see_pending(site: Site) -> Seen:
    """What a running finn takes in within two seconds, and one that is down at its next start."""
    issues = _file(site)
    if issues.conflict or not issues.beads:
        return Seen("pass", "nothing in the file waits to be taken in")
    there = board(site)
    odd = sorted(
        name
        for name in {*issues.beads, *there}
        if _line(issues.beads.get(name)) != _line(there.get(name)) and not _is_ephemeral(there.get(name))
    )
    known = read(_read_or_nothing(site, _path(site).with_name(BASE))).beads
    mine = [name for name in odd if _line(issues.beads.get(name)) != _line(known.get(name))]
    hint = "nothing has to be done: finn takes them in while it runs, or when it starts"
    return some(mine, "info", "the file says what the log says", "changes in the file that the log has not yet", hint)


def _line(bead: Bead | None) -> str:
    """A bead without what is computed when the file is written."""
    if bead is None or bead.text("external_ref") != AGENT_REF:
        return "" if bead is None else bead.line
    return bead.having({"labels": [label for label in bead.labels if not label.startswith("sync:")]}).line


def _is_ephemeral(bead: Bead | None) -> bool:
    return bead is not None and bool(bead.data.get("ephemeral"))


def _read_or_nothing(site: Site, path: Path) -> bytes:
    try:
        return read_whole(site.disk, path)
    except OSError:
        return b""


def _odd_modes(site: Site) -> list[Path]:
    paths = (_path(site), _path(site).with_name(BASE))
    return [path for path in paths if path.is_file() and not path.is_symlink() and _mode(path) & 0o077]


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def _see_mode(site: Site) -> Seen:
    odd = [f"{path.name} ({_mode(path):04o})" for path in _odd_modes(site)]
    hint = f"`chmod 600 {_path(site).parent}/*.jsonl`"
    return some(odd, "warn", "nobody else may read the file", "others may read", hint)


def _mend_mode(site: Site) -> Sequence[Step]:
    return [SetMode(path, OURS) for path in _odd_modes(site)]


# ---------------------------------------------------------------- what contradicts itself


def _amended(amend: Amend, site: Site) -> list[Bead]:
    return amend(board(site), _now(site))


def _see_amends(amend: Amend, severity: Severity, well: str, wrong: str, hint: str, site: Site) -> Seen:
    return some([bead.id for bead in _amended(amend, site)], severity, well, wrong, hint)


def _mend_amends(amend: Amend, site: Site) -> Sequence[Step]:
    wanted = edits(board(site), _amended(amend, site))
    return [Change(wanted)] if wanted else []


def _rivals(label: str, beads: ById, now: int) -> list[Bead]:
    """Those that would give way in this state; the others are another check's."""
    found = amends.rivals(beads, now)
    return [bead for bead in found if label in beads[bead.id].labels and label not in bead.labels]


def _unreadable(site: Site) -> Seen:
    odd = [bead.id for bead in _amended(amends.unreadable, site)]
    labels = [label for name in odd for label in board(site)[name].labels if not LABEL.fullmatch(label)]
    hint = "give them labels of letters, digits, _, - and :, at most 50; br refuses such a bead at its next change"
    wrong = "labels that br would refuse are on"
    return some(odd, "warn", "every label is one that br takes", wrong, hint, labels=labels[:TOLD])


def _ownerless(beads: ById, now: int, *, alone: bool) -> list[Bead]:
    return amends.ownerless(beads, now) if alone else []


def _without_owner(site: Site) -> Amend:
    """While finn runs, what is active has begun in this life: what was before expired at its start."""
    return partial(_ownerless, alone=site.running is None)


def _see_sessions(site: Site) -> Seen:
    well = "every session of work that is active has an owner"
    hint = "`finn serve` marks them session:expired when it starts"
    return _see_amends(_without_owner(site), "warn", well, "work goes on for nobody in", hint, site)


def _works_again(site: Site) -> Amend:
    tasks = frozenset(site.state(BREAKERS).opened)
    return lambda beads, now: amends.works_again(beads, now, tasks)


def _see_breakers(site: Site) -> Seen:
    found = [f"{bead.id} ({breaker_of(bead)})" for bead in map(board(site).get, _ids(_works_again(site), site)) if bead]
    hint = "close them: `finn beads close ID`"
    return some(found, "warn", "each open breaker bead has an open breaker", "no breaker is open for", hint)


def _ids(amend: Amend, site: Site) -> list[str]:
    return [bead.id for bead in _amended(amend, site)]


# ---------------------------------------------------------------- what a person has to decide


def _see_targets(site: Site) -> Seen:
    beads = board(site)
    missing = {
        f"{bead.id} → {edge['depends_on_id']}": edge
        for bead in beads.values()
        if not bead.ended
        for edge in bead.edges
        if str(edge["depends_on_id"]) not in beads and not str(edge["depends_on_id"]).startswith(EXTERNAL)
    }
    holding = sum(edge["type"] in BLOCKING for edge in missing.values())
    hint = "take the dependency away (`PATCH /api/beads/ID`, remove_dependencies), or make the bead that it means"
    wrong = f"dependencies on beads that do not exist, {holding} of which hold their bead up for ever"
    return some(sorted(missing), "warn", "every dependency leads to a bead", wrong, hint, holding=holding)


def _see_cycles(site: Site) -> Seen:
    found = [" → ".join((*circle, circle[0])) for circle in cycles(board(site))]
    hint = "take one dependency of each circle away: `PATCH /api/beads/ID`, remove_dependencies"
    return some(found, "warn", "nothing waits for itself", "beads that wait for one another in a circle", hint)


def cycles(beads: ById) -> list[list[str]]:
    """The circles of beads that wait for one another, each once, as groups in which everyone reaches everyone.

    Tarjan's walk, with a stack of its own: a chain of beads may be longer than the interpreter's.
    """
    waits = {name: _waits(bead, beads) for name, bead in beads.items() if not bead.ended}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    on_path: set[str] = set()
    found: list[list[str]] = []
    for start in sorted(waits):
        if start in index:
            continue
        todo = [(start, iter(waits[start]))]
        while todo:
            name, rest = todo[-1]
            if name not in index:
                index[name] = low[name] = len(index)
                path.append(name)
                on_path.add(name)
            for target in rest:
                if target not in index:
                    todo.append((target, iter(waits[target])))
                    break
                if target in on_path:
                    low[name] = min(low[name], index[target])
            else:
                todo.pop()
                if todo:
                    low[todo[-1][0]] = min(low[todo[-1][0]], low[name])
                if low[name] == index[name]:
                    group = path[path.index(name) :]
                    del path[path.index(name) :]
                    on_path -= set(group)
                    if len(group) > 1 or name in waits[name]:
                        found.append(sorted(group))
    return sorted(found)


def _waits(bead: Bead, beads: ById) -> list[str]:
    targets = (str(edge["depends_on_id"]) for edge in bead.edges if edge["type"] in (*BLOCKING, PARENT))
    return sorted({target for target in targets if target in beads and not beads[target].ended})


def _see_stale(site: Site) -> Seen:
    after = int(float(site.settings.get("FINN_STALE_BEADS_AFTER") or 86_400))
    now = _now(site)
    marked = {bead.id for bead in own_beads.stale(board(site), now, after * SECOND) if STALE in bead.labels}
    still = [one for one in board(site).values() if one.id in marked or (STALE in one.labels and not one.ended)]
    found = [f"{bead.id} ({(now - bead.updated) // (3600 * SECOND)} h)" for bead in sorted(still, key=_age)]
    hint = "`finn beads show ID`; then go on with it, close it, or give it back: `finn beads update ID --status open`"
    return some(found, "warn", "nothing that is in progress lies still", "in progress and not touched for long", hint)


def _age(bead: Bead) -> tuple[int, str]:
    return bead.updated, bead.id


# ---------------------------------------------------------------- the checks


def _amending(name: str, title: str, amend: Amend, wrong: str, hint: str, severity: Severity = "warn") -> Check:
    look: Callable[[Site], Seen] = partial(_see_amends, amend, severity, title, wrong, hint)
    return Check(name, title, look, partial(_mend_amends, amend))


CHECKS: tuple[Check, ...] = (
    Check("beads.file", "every line of the beads' file can be read", _see_file),
    Check("beads.conflict", "no merge was left half done in the beads' file", _see_conflict),
    Check("beads.pending", "the beads' file and the log say the same", _see_pending),
    Check("beads.mode", "the beads' file is for its owner alone", _see_mode, _mend_mode),
    _amending(
        "beads.current_run",
        "at most one run is the current one",
        partial(_rivals, "run:current"),
        "more than one epic is run:current; these are older",
        "halt them: `finn beads label remove ID run:current`, then label add ID run:halted",
    ),
    _amending(
        "beads.sprint",
        "at most one sprint is in progress",
        partial(_rivals, "sprint:in_progress"),
        "more than one sprint is in progress; these are older",
        "end them: `finn beads close ID`",
    ),
    _amending(
        "beads.two_states",
        "a bead is in one state of each kind",
        amends.undecided,
        "in two states of one kind at once",
        "take one of the two labels away: `finn beads label remove ID LABEL`",
    ),
    Check("beads.labels", "every label is one that br takes", _unreadable, partial(_mend_amends, amends.unreadable)),
    _amending(
        "beads.closed_at",
        "a bead says when it was closed if, and only if, it is closed",
        amends.unclosed,
        "closed without saying when, or the other way round",
        "bd refuses a file with such a line; `finn doctor --fix` sets or clears closed_at",
    ),
    _amending(
        "beads.external_ref",
        "an external_ref names one bead alone",
        amends.twins,
        "with the external_ref of an older bead",
        "give each its own: `finn beads update ID --external-ref REF`; br refuses the whole file otherwise",
    ),
    Check(
        "beads.session_owner",
        "work that is active has somebody who does it",
        _see_sessions,
        lambda site: _mend_amends(_without_owner(site), site),
    ),
    Check(
        "beads.breakers",
        "a breaker's bead is open as long as the breaker is",
        _see_breakers,
        lambda site: _mend_amends(_works_again(site), site),
    ),
    Check("beads.targets", "what a bead depends on exists", _see_targets),
    Check("beads.cycles", "no bead waits for itself", _see_cycles),
    Check("beads.stale", "what is in progress is worked on", _see_stale),
)
