"""Whether the copy in the store is one: that it answers, that it holds this log's past, and how far it is behind.

    site.there ─▶ silent | refused | damaged | a tip ─▶ related to the log here, proven, behind by so much

The whole of what it holds is proven by `finn verify --store`; here the manifests, the log's tail and the snapshot are.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from persistence.ancestry import Place
from persistence.errors import Damaged, FinnError, Newer
from persistence.layout import PROVE, orphan, orphan_key
from persistence.orphans import ORPHANS
from persistence.reigns import REIGNS
from persistence.relation import Stand, is_after, relate
from persistence.remote import Tip
from persistence.scan import Good, segments, walk
from persistence.shelf import opened_snapshot, verified
from persistence.standby import MARK, Mark, marked
from persistence.store import Store
from persistence.streams import STREAMS
from scheduler.check import Check, Remove, Step
from scheduler.finding import Seen, Severity
from scheduler.naming import named
from scheduler.patience import within
from scheduler.site import Site

LAG_S = 90.0  #: as in the table of health
ORPHANS_MOST = 1000  #: objects that are counted

_LEFT = re.compile(r"orphans-([0-9]{1,15})-([0-9A-Za-z_-]{1,64})-([0-9]{16})\.wal")
_TS = re.compile(rb'"ts":(\d+)')

KEYS = "look at FINN_STORE_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what the key may do in this bucket"
UNSET = Seen("pass", "no store is set")


def _unknown(site: Site) -> Seen | None:
    """What a check says that needs a tip, where there is none."""
    if site.store is None:
        return UNSET
    there = site.there
    if there.error is not None or there.store is None:
        return Seen("info", "not known: the store was not asked, or did not answer")
    return Seen("pass", "the store holds no log yet") if there.tip is None else None


def _tip(site: Site) -> tuple[Store, Tip]:
    there = site.there
    assert there.store is not None and there.tip is not None
    return there.store, there.tip


# ---------------------------------------------------------------- whether there is one


def _see_configured(site: Site) -> Seen:
    if site.store is not None:
        return Seen("pass", f"the log is copied to {site.settings.get('FINN_STORE_URL')}")
    more = "" if site.remote is None else "; git has it within the hour"
    return Seen(
        "info",
        f"no store is set: what was said last exists on this disk alone{more}",
        "set FINN_STORE_URL to s3://bucket/prefix or file:///dir, so that a lost disk loses nothing",
    )


def _see_answers(site: Site) -> Seen:
    if site.store is None:
        return UNSET
    if not site.network:
        return Seen("info", "the store was not asked: no network is to be used")
    there = site.there
    if there.answers or there.refused:
        return Seen("pass", "the store answers")
    assert there.error is not None
    return Seen(
        "warn",
        f"the store does not answer: {there.error.message}",
        "see whether its address is right and reachable from here; finn goes on and sends everything once it answers",
        {"error": there.error.code, "limit_s": site.limit_s},
    )


def _see_credentials(site: Site) -> Seen:
    if site.store is None:
        return UNSET
    if not site.there.refused:
        return _unknown(site) or Seen("pass", "the store takes the key")
    error = site.there.error
    assert error is not None
    folder = str(site.settings.get("FINN_STORE_URL")).startswith("file:")
    remedy = f"{error.hint}; or correct FINN_STORE_URL" if folder and error.hint else KEYS
    return Seen("fail", f"the store refuses: {error.message}", remedy, {"hint": error.hint})


def _see_conditions(site: Site) -> Seen:
    if (unknown := _unknown(site)) is not None:
        return unknown
    _, tip = _tip(site)
    if tip.manifest.conditional:
        return Seen("pass", "of several writers the store lets one win")
    return Seen(
        "warn",
        "the store ignores conditional writes: two instances at once would not notice one another",
        "run one instance only, or use a store with If-None-Match (AWS S3, R2, Tigris, MinIO)",
        {"writer": tip.manifest.writer},
    )


# ---------------------------------------------------------------- whether it is this one's past


def _stand(site: Site) -> Stand:
    """How the log here stands to the one there, as the tip found it. Raises FinnError, OSError."""
    store, tip = _tip(site)
    here = replace(site) if site.running else site  # read after the tip: a running finn goes on meanwhile
    head = here.past.head
    stand = relate(site.disk, site.paths.wal, head, store, tip)
    if stand.relation == "unrelated" and head.seq:
        folded = here.past.folded
        mine = Place(here.past.epoch, head.seq, head.checksum.hex(), set(folded.streams(STREAMS)))
        if is_after(site.disk, site.paths.wal, mine, folded.whole(REIGNS), store, tip):
            return Stand("after", tip.seq)
    return stand


SAID: dict[str, tuple[Severity, str]] = {
    "same": ("pass", "the store has the whole log"),
    "ahead": ("pass", "what the store has is this log's past"),
    "after": ("pass", "the store's log ends before this one begins; the next start sums up what is between"),
    "behind": ("warn", "the store has records that this disk lacks"),
    "beyond": ("warn", "the store has records that this disk lacks, and sums up what is between"),
    "diverged": ("warn", "the log here and the one in the store have gone apart"),
    "unrelated": ("fail", "the log in the store is not this agent's: the two have no record in common"),
}
TO_DO = {
    "behind": "start `finn serve`: it fetches them; if another instance runs, talk to that one",
    "beyond": "start `finn serve`: it fetches them; if another instance runs, talk to that one",
    "diverged": "start `finn serve`: it goes on with the later one; what only this disk has comes back beside it",
    "unrelated": "look at FINN_STORE_URL and FINN_AGENT_ID; give each agent a prefix of its own",
}


def _see_history(site: Site) -> Seen:
    if (unknown := _unknown(site)) is not None:
        return unknown
    _, tip = _tip(site)
    if site.past.head.seq == 0:
        return Seen("pass", f"there is no log here yet; a start takes the {tip.seq} records of the store")
    stand = within(site.limit_s, "the store", partial(_stand, site))
    severity, said = SAID[stand.relation]
    figures = f"{site.past.head.seq} records here, {tip.seq} there, {stand.common} in common"
    data = {"relation": stand.relation, "here": site.past.head.seq, "there": tip.seq, "common": stand.common}
    return Seen(severity, f"{said}: {figures}", TO_DO.get(stand.relation, ""), data)


def _see_epoch(site: Site) -> Seen:
    if (unknown := _unknown(site)) is not None:
        return unknown
    _, tip = _tip(site)
    here = (site.running.epoch if site.running else None) or site.past.epoch
    data = {"here": here, "there": tip.epoch}
    if tip.epoch <= here or site.past.head.seq == 0:
        return Seen("pass", f"nobody else has begun to write: epoch {here} here, {tip.epoch} in the store", data=data)
    how = "and has stopped cleanly" if tip.manifest.released else "and may be writing now"
    return Seen(
        "warn",
        f"another instance has taken over with epoch {tip.epoch} {how}; the last one here was {here}",
        "if it is gone for good, start `finn serve` here and it takes over; otherwise stop this one",
        {**data, "writer": tip.manifest.writer, "released": tip.manifest.released},
    )


# ---------------------------------------------------------------- how good the copy is


def _see_lag(site: Site) -> Seen:
    if (unknown := _unknown(site)) is not None:
        return unknown
    _, tip = _tip(site)
    lag = max(0, site.past.head.seq - tip.seq)
    at = _time_of(site, tip.seq + 1) if lag else None
    waited = max(0.0, site.clock.now() - at) if at is not None else 0.0
    data = {"records": lag, "seconds": round(waited, 1)}
    if not lag:
        return Seen("pass", f"the store has all {tip.seq} records", data=data)
    figures = f"{lag} records are not in the store, the oldest of them for {waited:.0f} s"
    if waited <= LAG_S:
        return Seen("pass", figures, data=data)
    todo = "see in /health why the store does not take them" if site.running else "start `finn serve`: it sends them"
    return Seen("warn", figures, todo, data)


def _time_of(site: Site, seq: int) -> float | None:
    """When a local record was made, in seconds since 1970; None where it cannot be read."""
    bases = segments(site.disk, site.paths.wal)
    first = max((base for base in bases if base <= seq), default=None)
    for found in walk(site.disk, site.paths.wal, [base for base in bases if first is not None and base >= first]):
        if isinstance(found, Good) and found.seq >= seq:
            said = _TS.search(found.line)
            return int(said[1]) / 1000 if said else None
    return None


def _see_proof(site: Site) -> Seen:
    if site.store is None:
        return UNSET
    error = site.there.error
    if isinstance(error, Damaged | Newer):
        return Seen("fail", f"what the store holds cannot be used: {error.message}", error.hint or PROVE)
    if (unknown := _unknown(site)) is not None:
        return unknown
    store, tip = _tip(site)
    problems = list(tip.problems)
    if not tip.complete:
        problems.append("no state can be made of what is there: the log's beginning has no snapshot")
    try:
        problems += within(site.limit_s, "the store", lambda: list(_wrong_with_snapshot(store, tip)))
    except FinnError as error:
        return Seen("info", f"the snapshot in the store was not read: {error.message}")
    if not problems:
        what = f"manifest {tip.manifest.m}, {len(tip.manifest.segs)} segments, {len(tip.tail)} log objects"
        return Seen("pass", f"{what} and the snapshot follow one another; {PROVE} for all of it")
    return Seen(
        "fail",
        f"{len(problems)} faults in the store: {named(problems)}",
        f"{PROVE} tells all of it; a running finn sends what is missing from this disk",
        {"problems": problems[:100]},
    )


def _wrong_with_snapshot(store: Store, tip: Tip) -> Iterator[str]:
    snap = tip.manifest.snap
    if snap is not None:
        try:
            opened_snapshot(verified(store, snap.key, snap.sha256, snap.bytes), snap)
        except Damaged as error:
            yield error.message


# ---------------------------------------------------------------- what a fence leaves


def _see_orphans(site: Site) -> Seen:
    if (unknown := _unknown(site)) is not None:
        return unknown
    store = site.there.store
    assert store is not None
    done = site.state(ORPHANS).done
    found = within(site.limit_s, "the store", lambda: _waiting(store))
    mine = [key for key in found if key not in done]
    odd = [key for key in mine if orphan(key) is None]
    if odd:
        hint = "see who else writes there; finn leaves them alone"
        return Seen("warn", f"below orphans/ lies what is none: {named(odd)}", hint, {"found": odd[:100]})
    if mine:
        what = f"{len(mine)} objects of a finn that was replaced wait in the store to be brought in"
        return Seen("info", what, "finn does so when it starts, and hourly", {"found": mine[:100]})
    return Seen("pass", "nothing of a fenced writer waits in the store")


def _waiting(store: Store) -> list[str]:
    found = store.list("orphans/")
    return [one.key for one, _ in zip(found, range(ORPHANS_MOST), strict=False)]


def _left(site: Site) -> dict[str, str]:
    """What a fence left in quarantine: the file's name, and the key under which the store had it."""
    names = site.disk.names(site.paths.quarantine) if site.paths.quarantine.is_dir() else []
    matches = map(_LEFT.fullmatch, names)
    return {one[0]: orphan_key(int(one[1]), one[2], int(one[3])) for one in matches if one}


def _see_fence_left(site: Site) -> Seen:
    left = _left(site)
    done = site.state(ORPHANS).done
    missing = {name: key for name, key in left.items() if key not in done}
    if missing and site.there.answers and site.there.store is not None:
        store = site.there.store
        waiting = set(within(site.limit_s, "the store", lambda: _waiting(store)))
        missing = {name: key for name, key in missing.items() if key not in waiting}
    if not missing:
        return Seen("pass", f"{len(left)} files of a fence are kept, and their records are in the log or on their way")
    return Seen(
        "warn",
        f"what was said here after another finn took over is nowhere but in quarantine: {named(missing)}",
        "start `finn serve` with the store reachable: it sends them; until then leave the files alone",
        {"found": list(missing)[:100]},
    )


def _mark_holds(site: Site, mark: Mark) -> bool | None:
    """Whether somebody took over from the reign that was fenced here; None: nobody knows."""
    if site.store is None:
        return False
    there = site.there
    if there.error is not None or there.store is None:
        return None
    return there.tip is not None and there.tip.epoch > mark.epoch


def _see_mark(site: Site) -> Seen:
    mark = marked(site.disk, site.root)
    if mark is None:
        if (site.root / MARK).exists():
            hint = f"remove {site.root / MARK}, or `finn doctor --fix`"
            return Seen("warn", f"{MARK} is there, and cannot be read", hint)
        return Seen("pass", "this finn was not fenced")
    data = {"epoch": mark.epoch, "release": mark.release}
    holds = _mark_holds(site, mark)
    if holds is None:
        return Seen("info", f"{MARK} says that epoch {mark.epoch} was fenced; the store cannot be asked", data=data)
    if holds:
        what = f"this finn stands by: another took over from epoch {mark.epoch}"
        return Seen("info", what, "nothing has to be done: it takes over when the other one has gone", data)
    why = "no store is set" if site.store is None else "nobody in the store is later"
    hint = f"remove {site.root / MARK}, or `finn doctor --fix`; until then nothing is written here"
    return Seen("warn", f"{MARK} says that epoch {mark.epoch} was fenced, but {why}", hint, data)


def _mend_mark(site: Site) -> Sequence[Step]:
    mark = marked(site.disk, site.root)
    if (mark is None and (site.root / MARK).exists()) or (mark is not None and _mark_holds(site, mark) is False):
        return [Remove(site.root / MARK)]
    return []


CHECKS: tuple[Check, ...] = (
    Check("store.configured", "there is a store", _see_configured),
    Check("store.answers", "the store answers", _see_answers, far=True),
    Check("store.credentials", "the store takes the key", _see_credentials, far=True),
    Check("store.conditions", "of several writers the store lets one win", _see_conditions, far=True),
    Check("store.history", "the log in the store is this log's past", _see_history, far=True),
    Check("store.epoch", "nobody else has taken over", _see_epoch, far=True),
    Check("store.lag", "the store has what was said", _see_lag, far=True),
    Check("store.proof", "what the store holds proves itself", _see_proof, far=True),
    Check("store.orphans", "nothing of a finn that was replaced waits in the store", _see_orphans, far=True),
    Check(
        "store.fence_left",
        "what was said here after another finn took over is kept elsewhere too",
        _see_fence_left,
        far=True,
    ),
    Check(
        "store.standby_mark",
        "this finn stands by only while another has taken over",
        _see_mark,
        _mend_mark,
        alone=True,
        far=True,
    ),
)
