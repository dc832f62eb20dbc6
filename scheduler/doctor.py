"""Looks at everything, says what is not as it should be, and mends what can be mended without making it worse.

    examine      every check looks ─▶ findings                                   reads only
    fix          unsound and mendable ─▶ steps, each noted before it is taken ─▶ the check looks again
                   sound by now       ─▶ pass, fixed
                   fewer than before  ─▶ what was done stays, and the finding tells the rest
                   not                ─▶ what was done is taken back, and the finding says so
                 once more, until a round changes nothing: what is mended may bring to light what it hid, or give
                 what another cure was lacking

What a check raises is a finding of itself, told once where several raise the same. Checks that ask a network look
beside the others and have FAR_S together.
`scheduler/undo.py` takes a fix back.
"""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from persistence.errors import FinnError, UsageError
from persistence.values import Json
from scheduler.apart import apart
from scheduler.check import Ask, Change, Check, Step
from scheduler.finding import Finding, Seen, told
from scheduler.naming import named
from scheduler.site import Site
from scheduler.undo import Doing, barred, said

FAR_S = 20.0  #: for all checks together that ask a network
ROUNDS = 4  #: of mending; what is not well by then stays as it is
UNSEEN = "this could not be looked at"
STOP_FIRST = "stop finn first, then `finn doctor --fix` mends it"


@dataclass(frozen=True, slots=True)
class Fixed:
    """What came of a fix. `id` names what it replaced, for the undo; empty where nothing was replaced."""

    findings: tuple[Finding, ...]
    applied: tuple[str, ...] = ()
    id: str = ""


def chosen(checks: Sequence[Check], only: Collection[str] = (), ids: Collection[str] = ()) -> tuple[Check, ...]:
    """The checks of those categories, and of those the ones of these ids. Raises UsageError for one there is not."""
    for wanted, there in ((only, [check.category for check in checks]), (ids, [check.id for check in checks])):
        if unknown := sorted({*wanted} - {*there}):
            what = "category" if wanted is only else "check"
            names = ", ".join(dict.fromkeys(there)) if wanted is only else "`finn doctor --format json` lists them"
            raise UsageError(f"there is no {what} {named(repr(name[:64]) for name in unknown)}", hint=names)
    only, ids = {*only}, {*ids}
    return tuple(one for one in checks if (not only or one.category in only) and (not ids or one.id in ids))


def examine(checks: Sequence[Check], site: Site, far_s: float = FAR_S) -> tuple[Finding, ...]:
    """A finding for each check, in their order. Changes nothing, raises nothing, and always ends."""
    checks = _begun(checks, site)
    far: dict[str, Finding] = {}

    def look_far() -> None:
        for check in checks:
            if check.far:
                far[check.id] = _finding(check, site)

    beside = threading.Thread(target=look_far, name="doctor-far", daemon=True)
    if any(check.far for check in checks):
        beside.start()
    near = {check.id: _finding(check, site) for check in checks if not check.far}
    if beside.ident is not None:
        beside.join(far_s)
    found = {**near, **far}
    return tuple(_once(found.get(check.id) or _silent(check, far_s) for check in checks))


def _begun(checks: Sequence[Check], site: Site) -> Sequence[Check]:
    """The same checks. Where there is much to read, what takes long goes on by now, begun before any thread is."""
    if not site.is_large:
        return checks
    begun = [_ahead(check, site) if check.apart else check for check in checks]
    if any(check.category == "sessions" for check in checks):
        site.begin()
    return begun


def _ahead(check: Check, site: Site) -> Check:
    """A check that looks by itself by now, and is only asked what it saw."""
    seen = apart(partial(check.look, site))
    return replace(check, look=lambda _: seen())


def _once(findings: Iterable[Finding]) -> Iterator[Finding]:
    """What keeps many checks from looking is told by the first of them."""
    told_by: dict[str, str] = {}
    for one in findings:
        first = told_by.setdefault(one.detail, one.id) if one.detail.startswith(UNSEEN) else one.id
        what = f"this could not be looked at either, see {first}"
        yield one if first == one.id else replace(one, severity="info", detail=what, remediation="")


def fix(checks: Sequence[Check], site: Site, new_id: Callable[[], str], far_s: float = FAR_S) -> Fixed:
    """Mends what can be mended. Raises FinnError where not even its notes can be written; nothing is changed then."""
    doing = Doing(site, new_id)
    findings = {finding.id: finding for finding in examine(checks, site, far_s)}
    tried: dict[str, str] = {}
    for _ in range(ROUNDS):
        due, mark = [one for one in checks if findings[one.id].fixability == "autofixable"], len(doing.applied)
        if not due:
            break
        tried |= {check.id: _mend(check, doing) for check in due}
        doing.end()
        findings = {finding.id: finding for finding in examine(checks, site.renew(), far_s)}
        if len(doing.applied) == mark:
            break
    after = (_after(findings[check.id], tried.get(check.id), site) for check in checks)
    return Fixed(tuple(after), tuple(told(doing.applied, site.redactor.text)), doing.id)


def _mend(check: Check, doing: Doing) -> str:
    """Takes the steps of a cure and looks whether they helped; if not, they are taken back, and this says why."""
    mark = len(doing.applied)
    site = doing.site.renew()
    try:
        seen = check.look(site)
        if seen.sound or check.mend is None:
            return ""
        for step in check.mend(site):
            doing.take(step, alone=check.alone)
        after = check.look(doing.site.renew())
        if after.sound:
            return ""
        if after.count < seen.count:
            return f"{seen.count - after.count} of {seen.count} were mended: {after.detail}"
        why = f"this did not help and was taken back: {after.detail}"
    except Exception as error:  # noqa: BLE001 - whatever it is, the finding tells it
        why = f"this could not be done: {_reason(error)}"
    try:
        doing.back(mark)
    except FinnError as error:
        return f"{why}; and it could not be taken back: {error}; `finn doctor --undo {doing.id}` does it"
    return why


def _after(finding: Finding, tried: str | None, site: Site) -> Finding:
    """A finding after the fix. `tried` is why it was not mended, empty where it was, None where nothing was done."""
    if finding.severity == "pass":
        return finding if tried is None else replace(finding, fixability="fixed")
    if tried:
        data = {**finding.data, "tried": told(tried, site.redactor.text)}
        return replace(finding, fixability="notfixable", data=data)
    return finding


# ---------------------------------------------------------------- one finding


def _finding(check: Check, site: Site) -> Finding:
    try:
        seen = check.look(site)
        fixability, more = _mendable(check, site, seen)
    except Exception as error:  # noqa: BLE001 - a check that fails is itself what is wrong
        seen = Seen("fail", f"{UNSEEN}: {_reason(error)}", _advice(error))
        fixability, more = False, {}
    return Finding(
        check.id,
        seen.severity,
        check.title,
        told(seen.detail, site.redactor.text),
        told(seen.remediation, site.redactor.text),
        "autofixable" if fixability else "notfixable",
        told({**seen.data, **more}, site.redactor.text),
    )


def _mendable(check: Check, site: Site, seen: Seen) -> tuple[bool, Mapping[str, Json]]:
    """Whether a fix would help, and by which steps; or what is in the way."""
    if seen.sound or check.mend is None:
        return False, {}
    steps = check.mend(site)
    if not steps:
        return False, {}
    if blocked := _blocked(check, site, steps):
        return False, {"blocked": blocked}
    return True, {"plan": [said(step, site.root) for step in steps]}


def _blocked(check: Check, site: Site, steps: Iterable[Step]) -> str:
    if check.alone and site.running is not None:
        return STOP_FIRST
    for step in steps:
        if isinstance(step, Ask) and step.act not in site.acts:
            return "start `finn serve`, then `finn doctor --fix` mends it"
        if isinstance(step, Change) and site.change is None:
            return "the beads cannot be changed from here"
        if why := barred(step, site.root):
            return why
    return ""


def _silent(check: Check, far_s: float) -> Finding:
    detail = f"no answer within {far_s:.0f} s"
    return Finding(check.id, "warn", check.title, detail, "look at the network, and at the other side")


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, FinnError) else f"{type(error).__name__}: {error}"


def _advice(error: Exception) -> str:
    return (
        error.hint if isinstance(error, FinnError) else ""
    ) or "look at what the detail names; if it is sound, report this"
