"""What is looked at of the log: whether it is there, whole, in order, and alone in its folder.

bytes that cannot be read    one byte changed ─▶ found again by the checksums, written back
                             more             ─▶ the next start puts back what the store has, declares the rest
a whole record, its frame not ─▶ the frame is made again
a torn tail                   ─▶ cut off, as a start does
"""

import json
import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from persistence.disk import read, read_range
from persistence.frame import framed, parse
from persistence.lock import LOCK
from persistence.scan import Damage, Good, segment_name, walk
from persistence.values import Json
from persistence.wal import FORMAT
from scheduler.aside import aside
from scheduler.check import Check, SetMode, Step, Write
from scheduler.finding import Seen
from scheduler.naming import some
from scheduler.reading import ranges
from scheduler.repair import mended
from scheduler.site import Site

MODE = 0o600
HEADER_BYTES = 512  #: more than any header

_SEGMENT = re.compile(r"\d{16}\.wal")
_FRAMES = ("length", "space", "crc", "sha", "newline")  #: damage around a JSON that is whole

VERIFY = "`finn verify` names every place"
START = "start `finn serve`: it puts back what the store has, and keeps in quarantine/ what it cannot read"


def _figures(site: Site) -> dict[str, Json]:
    log = site.log
    return {"records": log.order.records, "bytes": log.bytes, "segments": len(log.bases), "last_seq": log.last}


def _where(damage: Iterable[Damage]) -> str:
    pairs = [(one.first, one.last) for one in damage if one.first is not None and one.last is not None]
    return ranges(pairs)


# ---------------------------------------------------------------- is it there


def _see_begun(site: Site) -> Seen:
    log = site.log
    if log.bases:
        return Seen("pass", f"{log.order.records} records in {len(log.bases)} segments", data=_figures(site))
    rest = [name for name in ("snapshots", "chunks") if any((site.root / name).glob("*"))]
    if not rest:
        return Seen("pass", "nothing was said yet")
    what = f"{site.paths.wal} has no segment, and there is a past: {' and '.join(rest)}"
    back = "start `finn serve`: it takes the past from the store or from git"
    hint = back if site.settings.get("FINN_STORE_URL") else "put wal/ back from where it went; a snapshot alone serves"
    return Seen("fail", what, hint)


# ---------------------------------------------------------------- is it whole


def _unreadable(site: Site) -> list[Damage]:
    return [one for one in site.log.report.lost if one.length]


def _see_chain(site: Site) -> Seen:
    bad, log = _unreadable(site), site.log
    if not bad:
        return Seen("pass", f"{log.order.records} records, {log.bytes} bytes: every checksum and the chain", "")
    data = {**_figures(site), "count": len(bad), "first_bad_seq": bad[0].first, "damage": [str(one) for one in bad]}
    return Seen("fail", f"the records number {_where(bad)} cannot be read; {VERIFY}", START, data)


def _mend_chain(site: Site) -> Sequence[Step]:
    """Where one byte of a record was changed, the checksums say which and what it was."""
    patches = [(one, mended(site.disk, site.paths.wal, one)) for one in _unreadable(site)]
    return _written(site, [(one, data) for one, data in patches if data is not None])


def _written(site: Site, patches: Sequence[tuple[Damage, bytes]]) -> Sequence[Step]:
    """The segments with these bytes where the damage is."""
    made: dict[int, bytes] = {}
    for one, data in sorted(patches, key=lambda patch: -patch[0].offset):  # from the back, so that offsets hold
        whole = made.get(one.segment) or read(site.disk, site.paths.wal / segment_name(one.segment))
        made[one.segment] = whole[: one.offset] + data + whole[one.offset + one.length :]
    return [Write(site.paths.wal / segment_name(base), data) for base, data in sorted(made.items())]


def _flaws(site: Site) -> list[Damage]:
    return [one for one in site.log.report.damage if one.usable]


def _see_frames(site: Site) -> Seen:
    bad = _flaws(site)
    if not bad:
        return Seen("pass", f"around all {site.log.order.records} records")
    what = f"{len(bad)} records have damaged checksums around them, and can all be read: {bad[0]}"
    hint = "nothing is lost by it; but bytes changed by themselves, so look at the disk's health"
    return Seen("warn", what, hint, {"count": len(bad), "damage": [str(one) for one in bad]})


def _mend_frames(site: Site) -> Sequence[Step]:
    """The frame follows from the JSON and the digest before it, so it is made again."""
    places = {(one.segment, one.offset): one for one in _flaws(site) if one.kind in _FRAMES and one.first is not None}
    bases = sorted({segment for segment, _ in places})
    if not bases:
        return []
    found = [one for one in walk(site.disk, site.paths.wal, site.log.bases) if isinstance(one, Good)]
    frames = {(one.segment, one.offset): framed(one.line, bytes.fromhex(one.checksum)) for one in found}
    return _written(site, [(one, frames[place]) for place, one in places.items() if place in frames])


def _see_torn_tail(site: Site) -> Seen:
    report = site.log.report
    if report.torn is None:
        return Seen("pass", f"it ends with record {site.log.last}, whole")
    if site.running is not None:
        return Seen("pass", "a record is being written")
    what = f"the last {report.torn_bytes} bytes are a write that never ended, behind record {site.log.last}"
    return Seen(
        "warn",
        what,
        "start `finn serve`: it cuts them off; nobody was told that this was kept, so nothing is lost",
        {"bytes": report.torn_bytes},
    )


def _mend_torn_tail(site: Site) -> Sequence[Step]:
    torn = site.log.report.torn
    if torn is None:
        return []
    path = site.paths.wal / segment_name(torn.segment)
    return [Write(path, read(site.disk, path)[: torn.offset])]


def _see_missing(site: Site) -> Seen:
    bad = [one for one in site.log.report.lost if not one.length]
    if not bad:
        return Seen("pass", f"{len(site.log.bases)} segments, each goes on from the one before")
    data: dict[str, Json] = {"gaps": [[one.first, one.last] for one in bad]}
    return Seen("fail", f"the files that held records {_where(bad)} are gone or shorter", START, data)


def _see_gaps(site: Site) -> Seen:
    gaps = site.log.gaps
    if not gaps:
        return Seen("pass", "none is declared")
    what = f"the records number {ranges(gaps)} were lost some time ago; what was left of them is in quarantine/"
    hint = "if another copy has them, set FINN_STORE_URL to it and start `finn serve`: it puts them back"
    return Seen("info", what, hint, {"gaps": [list(gap) for gap in gaps]})


def _see_order(site: Site) -> Seen:
    order = site.log.order
    if order.reigns:
        what = (
            f"{len(order.reigns)} records come from a finn that another had already replaced, first {order.reigns[0]}"
        )
        hint = "two processes wrote this log; compare it with the store: `finn verify --store`"
        return Seen("fail", what, hint, {"seqs": order.reigns[:100]})
    if order.earlier:
        what = (
            f"the clock went back {len(order.earlier)} times, at most {order.back_ms} ms; first at {order.earlier[0]}"
        )
        return Seen("info", what, "keep the machine's time right (ntp); finn goes by the order of its records")
    return Seen(
        "pass", f"one finn wrote after the other, the last is number {order.epoch}", data={"epoch": order.epoch}
    )


# ---------------------------------------------------------------- what is in it


def _see_unknown(site: Site) -> Seen:
    held = site.past.held
    if not held:
        return Seen("pass", "this release knows every kind of record")
    kinds = sorted({f"{said['type']} v{said['v']}" for said in (json.loads(one.line) for one in held)})
    what = f"{len(held)} records are of kinds that this release does not know: {', '.join(kinds)}"
    hint = "they are kept byte for byte; the release that wrote them shows them again"
    return Seen("info", what, hint, {"seqs": [one.seq for one in held][:100], "kinds": kinds})


def _see_format(site: Site) -> Seen:
    newer = [base for base in site.log.bases if _format(site, base) > FORMAT]
    if not newer:
        return Seen("pass", f"every segment is of format {FORMAT}")
    what = f"{len(newer)} segments are of a format that this release does not know, from record {newer[0]} on"
    return Seen("fail", what, "start the release that wrote them; this one may write what that one cannot use")


def _format(site: Site, base: int) -> int:
    """The format that a segment's header names; that of today where there is no header to be read."""
    handle = site.disk.open(site.paths.wal / segment_name(base), os.O_RDONLY)
    try:
        head = parse(read_range(site.disk, handle, 0, HEADER_BYTES), 0, ())
        said = json.loads(getattr(head, "line", b"{}"))
    except ValueError:
        return FORMAT
    finally:
        site.disk.close(handle)
    number = said.get("segment", FORMAT)
    return number if isinstance(number, int) else FORMAT


# ---------------------------------------------------------------- its folder


def _strangers(site: Site) -> list[Path]:
    """What is no file of the log: by its name, or since a link or a folder has a segment's."""
    paths = (site.paths.wal / name for name in site.disk.names(site.paths.wal) if name != LOCK)
    return [path for path in paths if not _SEGMENT.fullmatch(path.name) or path.is_symlink() or not path.is_file()]


def _leads_to_segment(path: Path) -> bool:
    return bool(_SEGMENT.fullmatch(path.name)) and path.is_file()


def _see_foreign(site: Site) -> Seen:
    found = _strangers(site)
    if linked := [path.name for path in found if _leads_to_segment(path)]:
        hint = "stop finn and put the file that each leads to in the link's place: finn follows no link here"
        return Seen("fail", f"a link stands where a part of the log belongs: {', '.join(linked)}", hint)
    well, hint = "only segments and the lock", "move away what you want to keep, --fix moves it to quarantine/"
    return some([path.name for path in found], "warn", well, "names in wal/ that are no part of the log", hint)


def _mend_foreign(site: Site) -> Sequence[Step]:
    """Not where a link leads to a part of the log: without it those records would count as lost."""
    moved = (path for path in _strangers(site) if not _leads_to_segment(path))
    return [step for path in moved for step in aside(site, path, "it is no part of the log")]


def _open(site: Site) -> list[Path]:
    names = (*map(segment_name, site.log.bases), LOCK)
    files = (site.paths.wal / name for name in names)
    return [path for path in files if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o077]


def _see_modes(site: Site) -> Seen:
    found = _open(site)
    if not found:
        return Seen("pass", "the log's files are for their owner alone")
    modes = ", ".join(f"{path.name} {stat.S_IMODE(path.stat().st_mode):04o}" for path in found[:5])
    return Seen("warn", f"{len(found)} files of the log are open to others: {modes}", f"`chmod 600 {site.paths.wal}/*`")


def _mend_modes(site: Site) -> Sequence[Step]:
    return [SetMode(path, MODE) for path in _open(site)]


def _see_lock(site: Site) -> Seen:
    path = site.paths.wal / LOCK
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        return Seen("fail", f"{path} is no plain file, so no finn can take it", "move it away; a start makes it anew")
    if site.running is not None and _is_gone(site, site.running.pid, path):
        what = f"process {site.running.pid} holds a lock whose file is gone: a second finn could start beside it"
        return Seen("fail", what, "stop that process and start finn again; let nothing delete files in wal/")
    return Seen("pass", "one finn at a time")


def _mend_lock(site: Site) -> Sequence[Step]:
    path = site.paths.wal / LOCK
    plain = not os.path.lexists(path) or (path.is_file() and not path.is_symlink())
    return [] if plain else aside(site, path, "the lock has to be a plain file")


def _is_gone(site: Site, pid: int, path: Path) -> bool:
    """Whether that process has the lock open under a name that leads nowhere any more."""
    try:
        held = [str(one.readlink()) for one in (site.proc / str(pid) / "fd").iterdir() if one.is_symlink()]
    except OSError:
        return False  # not ours to look at
    return f"{path.resolve()} (deleted)" in held


CHECKS: tuple[Check, ...] = (
    Check("wal.begun", "the log is there", _see_begun),
    Check("wal.chain", "every record can be read", _see_chain, _mend_chain, alone=True),
    Check("wal.missing", "no part of the log is missing", _see_missing),
    Check("wal.frames", "the bytes around the records are whole", _see_frames, _mend_frames, alone=True),
    Check("wal.torn_tail", "the log ends with a whole record", _see_torn_tail, _mend_torn_tail, alone=True),
    Check("wal.gaps", "nothing is declared as lost", _see_gaps),
    Check("wal.order", "one finn wrote after the other", _see_order),
    Check("wal.unknown", "every record is of a known kind", _see_unknown),
    Check("wal.format", "every segment is of a known format", _see_format),
    Check("wal.foreign", "nothing else lies in the log's folder", _see_foreign, _mend_foreign),
    Check("wal.modes", "the log is for its owner alone", _see_modes, _mend_modes),
    Check("wal.lock", "one finn has the log", _see_lock, _mend_lock, alone=True),
)
