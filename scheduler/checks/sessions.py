"""What is looked at of the sessions: every one, from its first record to its last, with its mirror and its bodies.

log ─▶ tree, calls, turns, state          what is wrong there is told
 └──▶ mirrors, chunks, blobs              what is wrong there is made again from the log, or moved out of the way
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from agent.mirror import encode
from persistence.disk import TEMPORARY
from persistence.values import Json
from scheduler.aside import aside
from scheduler.bodies import Kind, holds
from scheduler.check import Ask, Check, Remove, Step, Write
from scheduler.conversations import MIRRORS, SUFFIX, Conversation, Kept
from scheduler.finding import Seen, Severity
from scheduler.naming import named, some
from scheduler.site import Site

MOMENT_S = 60.0  #: by then a finn that runs has written the file of a session
RENEW = "mirrors"  #: what a running finn is asked for where mirrors went

LOST = "records are lost from the log, see wal.chain, wal.missing and wal.gaps"
VERIFY = "the page shows what the log has, as it is; compare with the store: `finn verify --store`"


def _whole(site: Site) -> list[Conversation]:
    return [one for one in site.conversations if one.whole]


def _judged(site: Site, bad: Sequence[str], sound: str, what: str, severity: Severity = "warn") -> Seen:
    """A finding about sessions: where records are lost, what follows from that is no finding of its own."""
    if not bad:
        return Seen("pass", sound)
    if site.log.lost:
        return Seen(
            "info", f"{what}: {named(bad)}; {LOST}", "mend that first, then look again", {"sessions": list(bad)}
        )
    return Seen(severity, f"{what}: {named(bad)}", VERIFY, {"sessions": list(bad)})


# ---------------------------------------------------------------- what the log says


def _see_tree(site: Site) -> Seen:
    all_of_them = _whole(site)
    bad = [one.session for one in all_of_them if one.orphans or one.twice or not one.leaf]
    orphans = sum(len(one.orphans) for one in all_of_them)
    twice = sum(len(one.twice) for one in all_of_them)
    records = sum(one.records for one in all_of_them)
    what = f"{orphans} messages stand below one that is not before them, {twice} have two places, in"
    return _judged(
        site, bad, f"{len(all_of_them)} sessions, {records} records: every message has its place", what, "fail"
    )


def _see_calls(site: Site) -> Seen:
    bad = [one.session for one in _whole(site) if one.unanswered]
    count = sum(len(one.unanswered) for one in _whole(site))
    return _judged(site, bad, "every tool call has its result", f"{count} tool calls have no result in")


def _see_turns(site: Site) -> Seen:
    open_turns = {one.session: one.turns for one in _whole(site) if one.turns}
    several = [session for session, turns in open_turns.items() if len(turns) > 1]
    if several or site.running is not None or not open_turns:
        return _judged(site, several, f"{len(open_turns)} turns run", "more than one turn runs at a time in")
    what = f"{len(open_turns)} turns were interrupted, in {named(list(open_turns))}"
    hint = "start `finn serve`: it ends them as interrupted, says so in the session, and goes on with what waits"
    return Seen("info", what, hint, {"sessions": list(open_turns)})


def _see_state(site: Site) -> Seen:
    if site.log.lost:
        return Seen("pass", f"not compared: {LOST}")
    all_of_them = _whole(site)
    bad = [one.session for one in all_of_them if one.messages != one.state.messages or not _runs_as_told(one)]
    said = sum(one.messages for one in all_of_them)
    return _judged(
        site, bad, f"{said} messages, as the state counts them", "the state and the records differ in", "fail"
    )


def _runs_as_told(one: Conversation) -> bool:
    return one.state.running is None or one.state.running.turn in one.turns


# ---------------------------------------------------------------- mirrors


def _mirror(site: Site, session: str) -> Path:
    return site.root / MIRRORS / f"{session}{SUFFIX}"


def _kept(site: Site, *kept: Kept) -> list[Conversation]:
    return [one for one in _whole(site) if one.mirror.kept in kept]


def _missing(site: Site) -> list[Conversation]:
    """Those without a file. A finn that runs writes it a moment after a session has begun, or after its own start."""
    found = _kept(site, "missing")
    if site.running is None:
        return found
    note = site.root / "run.json"
    started, now = note.stat().st_mtime if note.exists() else 0.0, site.clock.now()
    return [one for one in found if now - max(started, one.state.created_at / 1000) > MOMENT_S]


def _see_missing(site: Site) -> Seen:
    bad = [one.session for one in _missing(site)]
    if not bad:
        return Seen("pass", f"{len(site.conversations)} sessions, each has its file")
    hint = "start `finn serve`: it writes them again from the log, so nothing is lost"
    return Seen("warn", f"{len(bad)} sessions have no file in {MIRRORS}: {named(bad)}", hint, {"sessions": bad})


def _see_mirrors(site: Site) -> Seen:
    other, behind = _kept(site, "other"), _kept(site, "behind")
    only = sum(one.mirror.only for one in _whole(site))
    data: dict[str, Json] = {"lines_of_lost_records": only} if only else {}
    if other:
        told = [f"{one.session} from line {one.mirror.line} on" for one in other]
        what = f"{len(other)} files in {MIRRORS} do not say what the log says: {named(told)}"
        hint = (
            "these are copies, and were changed; `finn doctor --fix` writes them from the log and keeps what they were"
        )
        return Seen("warn", what, hint, {**data, "sessions": {one.session: one.mirror.line for one in other}})
    if only:
        what = f"{only} lines in {MIRRORS} are all that is left of records that the log lost; they are kept as they are"
        return Seen("info", what, "read them there; a start that finds these records in the store puts them back", data)
    if behind and site.running is None:
        return Seen("info", f"{len(behind)} files end before the log does", "start `finn serve`: it goes on from there")
    lines = sum(one.mirror.line for one in _whole(site))
    return Seen("pass", f"{lines} lines of {len(site.conversations)} files, as the log has them", data={"lines": lines})


def _mend_missing(site: Site) -> Sequence[Step]:
    if site.running is not None:
        return [Ask(RENEW)]
    return [_drawn(site, one) for one in _missing(site)]


def _mend_mirrors(site: Site) -> Sequence[Step]:
    """Not where a mirror has lines that nothing else has. With a finn that runs, that one writes them."""
    others = [one for one in _kept(site, "other") if not one.mirror.only]
    if site.running is not None:
        return [*(Remove(_mirror(site, one.session)) for one in others), Ask(RENEW)] if others else []
    return [_drawn(site, one) for one in others]


def _drawn(site: Site, one: Conversation) -> Step:
    return Write(_mirror(site, one.session), encode(site.sessions.mirror(one.session, one.state)))


def _strangers(site: Site) -> list[Path]:
    folder = site.root / MIRRORS
    names = [name for name in site.disk.names(folder) if site.running is None or not name.startswith(TEMPORARY)]
    found = [folder / name for name in names if not _is_mirror(site, folder / name)]
    if not found or site.running is None:
        return found
    now = replace(site)  # the log as it is after the names were read: sessions may have begun meanwhile
    return [path for path in found if not _is_mirror(now, path)]


def _is_mirror(site: Site, path: Path) -> bool:
    known = path.suffix == SUFFIX and path.stem in site.sessions.states()
    return known and (path.is_file() or not os.path.lexists(path)) and not path.is_symlink()


def _see_foreign(site: Site) -> Seen:
    found = [path.name for path in _strangers(site)]
    hint = "move away what you want to keep; --fix moves the rest to quarantine/"
    wrong = f"names in {MIRRORS} that are of no session, so that finn never reads them"
    return some(found, "warn", "each file is of a session", wrong, hint)


def _mend_foreign(site: Site) -> Sequence[Step]:
    return [step for path in _strangers(site) for step in aside(site, path, "it is of no session of this log")]


# ---------------------------------------------------------------- bodies


def _elsewhere(site: Site) -> str:
    """Where another copy would be; empty where none is set."""
    places = {"FINN_STORE_URL": "the store", "FINN_GIT_REMOTE": "git"}
    return " or ".join(name for setting, name in places.items() if site.settings.get(setting))


def _judge_bodies(site: Site, kind: Kind, what: str, again: Callable[[Site, str], bytes | None]) -> Seen:
    bad = [*kind.damaged, *kind.missing]
    if not bad:
        spare = f"; {len(kind.spare)} more are named by nothing that is now" if kind.spare else ""
        return Seen(
            "pass", f"{kind.named} {what}, each holds what its name says{spare}", data={"spare": len(kind.spare)}
        )
    copy = _elsewhere(site)
    made = sum(again(site, sha) is not None for sha in bad)
    told = (
        f"{len(kind.missing)} of {kind.named} {what} are missing, {len(kind.damaged)} damaged; {made} can be made again"
    )
    data: dict[str, Json] = {"count": len(bad), "missing": list(kind.missing), "damaged": list(kind.damaged)}
    if not kind.damaged and copy and not made:
        return Seen("info", f"{told}; finn fetches them from {copy} when they are read", "nothing has to be done", data)
    hint = f"start `finn serve`: it fetches them from {copy}" if copy else "put them back from a copy of this directory"
    return Seen("warn" if made == len(bad) or copy else "fail", f"{told}: {named(bad)}", hint, data)


def _mend_bodies(site: Site, kind: Kind, why: str, again: Callable[[Site, str], bytes | None]) -> Sequence[Step]:
    """Made again where that can be done; what is damaged goes out of the way only where there is another copy."""
    made = {sha: data for sha in (*kind.damaged, *kind.missing) if (data := again(site, sha)) is not None}
    steps: list[Step] = []
    for sha in kind.damaged:
        if sha in made or _elsewhere(site):
            steps.extend(aside(site, kind.path(sha), why))
    return [*steps, *(Write(kind.path(sha), data) for sha, data in made.items())]


def _chunk_again(site: Site, sha: str) -> bytes | None:
    session, ref = site.bodies.refs[sha]
    return site.sessions.remade(session, ref)


def _blob_again(site: Site, sha: str) -> bytes | None:
    path = site.bodies.files.get(sha)
    return holds(path, sha) if path is not None else None


def _see_chunks(site: Site) -> Seen:
    return _judge_bodies(site, site.bodies.chunks, "chunks", _chunk_again)


def _mend_chunks(site: Site) -> Sequence[Step]:
    return _mend_bodies(site, site.bodies.chunks, "it does not hold what its name says", _chunk_again)


def _see_blobs(site: Site) -> Seen:
    return _judge_bodies(site, site.bodies.blobs, "blobs", _blob_again)


def _mend_blobs(site: Site) -> Sequence[Step]:
    return _mend_bodies(site, site.bodies.blobs, "it does not hold what its name says", _blob_again)


CHECKS: tuple[Check, ...] = (
    Check("sessions.tree", "every message has its place in its session", _see_tree),
    Check("sessions.calls", "every tool call has its result", _see_calls),
    Check("sessions.turns", "one turn at a time, and each has its end", _see_turns),
    Check("sessions.state", "what finn knows of a session is what its records say", _see_state),
    Check("sessions.mirror_missing", "every session has its file", _see_missing, _mend_missing),
    Check("sessions.mirrors", "the files say what the log says", _see_mirrors, _mend_mirrors),
    Check("sessions.foreign", "the files are of sessions", _see_foreign, _mend_foreign),
    Check("sessions.chunks", "the chunks of all sessions are there", _see_chunks, _mend_chunks),
    Check("sessions.blobs", "long texts and files are there", _see_blobs, _mend_blobs),
)
