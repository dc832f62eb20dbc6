"""What is looked at of the snapshots: whether a start finds a sound one, and whether it is of this log."""

import re
from collections.abc import Sequence
from pathlib import Path

from persistence.blobs import Blobs
from persistence.codec import decode
from persistence.disk import TEMPORARY
from persistence.errors import Newer
from persistence.fold import Folded
from persistence.reigns import REIGNS
from persistence.scan import Good, scan
from persistence.snapshot import KEPT, Snapshot
from persistence.streams import STREAMS
from persistence.upkeep import SNAPSHOT_BYTES, SNAPSHOT_RECORDS
from scheduler.aside import aside
from scheduler.check import Ask, Check, Remove, Step
from scheduler.finding import Seen
from scheduler.naming import some
from scheduler.reading import Shot, located
from scheduler.site import Site

LATE = 4  #: times what is between two snapshots
FOLDED = 5_000  #: records that are folded again for a proof

_NAME = re.compile(r"\d{16}\.json\.z")


def _sound(site: Site) -> list[tuple[Path, Snapshot]]:
    return [(one.path, one.snapshot) for one in site.shots if one.snapshot is not None]


# ---------------------------------------------------------------- can they be read


def _damaged(site: Site) -> list[Shot]:
    return [one for one in site.shots if one.snapshot is None]


def _see_damaged(site: Site) -> Seen:
    bad = _damaged(site)
    if not bad:
        return Seen("pass", f"{len(site.shots)} snapshots, each has the hash that it names")
    what = f"{len(bad)} of {len(site.shots)} snapshots cannot be used: {bad[0].problem}"
    hint = "nothing is lost while the log is whole: an older one and the log give the same state"
    return Seen("warn", what, hint, {"names": [one.path.name for one in bad]})


def _mend_damaged(site: Site) -> Sequence[Step]:
    return [step for one in _damaged(site) for step in aside(site, one.path, one.problem)]


def _see_usable(site: Site) -> Seen:
    """Whether today's folds can take the newest sound one; else a start folds the log from its first record."""
    sound = _sound(site)
    if not sound:
        return Seen("pass", "there is none; the log is folded from its first record")
    path, newest = sound[0]
    problem = _misfit(site, newest)
    if problem:
        whole = not site.log.bases or site.log.bases[0] == 1
        hint = (
            "start `finn serve`: it reads the log anew and takes a new snapshot"
            if whole
            else "start the release that wrote it"
        )
        return Seen("info" if whole else "warn", f"another release wrote it: {path.name}: {problem[:200]}", hint)
    return Seen("pass", f"the newest is of record {newest.seq}", data={"seq": newest.seq})


def _misfit(site: Site, snapshot: Snapshot) -> str:
    """Why today's folds cannot take its state; empty where they can."""
    try:
        Folded((STREAMS, REIGNS, *site.folds)).load(snapshot.folds)
    except (KeyError, ValueError) as problem:
        return str(problem)
    return ""


# ---------------------------------------------------------------- are there enough


def _see_there(site: Site) -> Seen:
    sound, log = _sound(site), site.log
    seq = sound[0][1].seq if sound else 0
    if not sound and log.bases and log.bases[0] > 1:
        what = f"no snapshot can be used, and the log begins with record {log.bases[0]}: what was before is not here"
        return Seen("fail", what, "start `finn serve`: it takes the past from the store or from git, where one is set")
    behind = log.last - seq
    spot = located(site.disk, site.paths.wal, log, seq)
    since = log.bytes if spot is None else spot.after
    data = {"count": len(sound), "seq": seq, "records_since": behind, "bytes_since": since}
    if behind > LATE * SNAPSHOT_RECORDS or since > LATE * SNAPSHOT_BYTES:
        what = f"{behind} records were said since the newest of {len(sound)} snapshots: a start has to read them all"
        return Seen("warn", what, "start `finn serve`, or `POST /api/tasks/snapshot/run`: it takes one", data)
    if len(sound) < KEPT:
        return Seen("pass", f"{len(sound)} of {KEPT} so far, {behind} records since", data=data)
    return Seen("pass", f"{len(sound)} snapshots, {behind} records since the newest", data=data)


def _mend_there(site: Site) -> Sequence[Step]:
    return [Ask("snapshot")]


# ---------------------------------------------------------------- are they of this log


def _see_history(site: Site) -> Seen:
    log, sound = site.log, _sound(site)
    ahead = [path.name for path, one in sound if log.bases and one.seq > log.last]
    if ahead and site.running is None:  # one that runs may have taken it since the log was read
        what = f"{', '.join(ahead)} tells of records behind the end of the log, which is {log.last}"
        hint = "the log lost its end; start `finn serve`: it goes on from the snapshot, and takes what the store has"
        return Seen("fail", what, hint, {"ahead": ahead, "last_seq": log.last})
    spots = [(path, one, located(site.disk, site.paths.wal, log, one.seq)) for path, one in sound]
    other = [path.name for path, one, spot in spots if spot is not None and spot.digest != one.chain]
    if other:
        what = f"{', '.join(other)} is of another history than the log: the digests at its record differ"
        hint = "one of the two came from elsewhere; compare with the store: `finn verify --store`"
        return Seen("fail", what, hint, {"other": other})
    return Seen("pass", "each leads to the log as it is")


def _see_state(site: Site) -> Seen:
    """Whether the newest holds what the one before it and the log in between give."""
    sound = _sound(site)
    if len(sound) < 2:
        return Seen("pass", "there is none before the newest to compare with")
    (path, newest), (_, before) = sound[0], sound[1]
    if newest.seq - before.seq > FOLDED:
        return Seen("pass", f"not folded again: {newest.seq - before.seq} records lie between the last two")
    again = _folded(site, before, newest.seq)
    if again is None:
        return Seen("pass", "not folded again: the log or an older release does not allow it")
    names = [name for name in again if name in newest.folds and newest.folds[name]["v"] == again[name]["v"]]
    wrong = [name for name in names if again[name] != newest.folds[name]]
    if not wrong:
        return Seen("pass", f"{newest.seq - before.seq} records folded again give the same state")
    what = f"{path.name} is not what the log gives: {', '.join(wrong)} differ"
    return Seen(
        "fail",
        what,
        "move it away, or `finn doctor --fix` does: a start then uses the one before it, and the log",
        {"folds": wrong},
    )


def _folded(site: Site, before: Snapshot, seq: int) -> dict[str, dict[str, object]] | None:
    """The state at `seq`, folded from an older one; None where the log does not lead there."""
    folded = Folded((STREAMS, REIGNS, *site.folds))
    try:
        folded.load(before.folds)
    except (KeyError, ValueError, Newer):
        return None
    base = max((one for one in site.log.bases if one <= before.seq + 1), default=None)
    last, blobs = before.seq, Blobs(site.disk, site.paths.blobs)
    for found in scan(site.disk, site.paths.wal, base) if base is not None else ():
        if isinstance(found, Good) and last < found.seq <= seq:
            if found.seq != last + 1:
                return None
            folded.step(decode(found.line, found.checksum, blobs, lambda _: None))
            last = found.seq
    return folded.dump() if last == seq else None


def _mend_state(site: Site) -> Sequence[Step]:
    return aside(site, _sound(site)[0][0], "its state is not what the log gives")


# ---------------------------------------------------------------- their folder


def _leftovers(site: Site) -> list[Path]:
    names = site.disk.names(site.paths.snapshots)
    return [site.paths.snapshots / name for name in names if name.startswith(TEMPORARY)]


def _see_leftovers(site: Site) -> Seen:
    found = _leftovers(site)
    if not found or site.running is not None:
        return Seen("pass", "no write was left half done")
    size = sum(path.lstat().st_size for path in found)
    what = f"{len(found)} files of writes that never ended, {size} bytes"
    return Seen("warn", what, "remove snapshots/.finn-*: nothing reads them", {"names": [path.name for path in found]})


def _mend_leftovers(site: Site) -> Sequence[Step]:
    return [Remove(path) for path in _leftovers(site)]


def _strangers(site: Site) -> list[Path]:
    names = site.disk.names(site.paths.snapshots)
    return [
        site.paths.snapshots / name for name in names if not name.startswith(TEMPORARY) and not _NAME.fullmatch(name)
    ]


def _see_foreign(site: Site) -> Seen:
    found = [path.name for path in _strangers(site)]
    hint = "move away what you want to keep, --fix moves it to quarantine/"
    return some(found, "warn", "only snapshots", "names in snapshots/ that are no snapshots", hint)


def _mend_foreign(site: Site) -> Sequence[Step]:
    return [step for path in _strangers(site) for step in aside(site, path, "it is no snapshot")]


CHECKS: tuple[Check, ...] = (
    Check("snapshots.damaged", "every snapshot can be read", _see_damaged, _mend_damaged),
    Check("snapshots.usable", "this release understands the newest", _see_usable),
    Check("snapshots.there", "snapshots keep up with the log", _see_there, _mend_there),
    Check("snapshots.history", "snapshots and log are one history", _see_history),
    Check("snapshots.state", "the newest is what the log gives", _see_state, _mend_state, alone=True),
    Check("snapshots.leftovers", "no snapshot was left half written", _see_leftovers, _mend_leftovers, alone=True),
    Check("snapshots.foreign", "nothing else lies in their folder", _see_foreign, _mend_foreign),
)
