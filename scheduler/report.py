"""Findings, as programs and people read them. Pure: findings in, text out.

finn doctor: WARN                                    as_text: calm, a sound subject is one line

  config      well (6)
  dirs        WARN
    warn  whether nobody but finn's user sees into the data directory
          2 others can get at: wal (0755), auth (0755)
          `chmod go=` what is named, or `finn doctor --fix` does
          --fix would: set the mode of wal to 0700
                       set the mode of auth to 0700

as_json is the contract's object, as_markdown the same in a form that can be pasted into an issue.
"""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from persistence.values import Json
from scheduler.check import Check
from scheduler.doctor import Fixed
from scheduler.finding import ORDER, SOUND, Finding, Severity, overall

MARGIN = 10  #: of what is told of a finding
LEAST_WIDTH, MOST_WIDTH = 40, 110
SHOWN_STEPS = 6  #: of a plan; the rest is counted
COLOURS: Mapping[Severity, str] = {"pass": "32", "info": "36", "warn": "33", "fail": "31"}
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def as_json(findings: Sequence[Finding], version: str, fixed: Fixed | None = None) -> Json:
    """The contract's object. `fix` is null where nothing was changed."""
    fix = None
    if fixed is not None and fixed.applied:
        fix = {"id": fixed.id, "applied": list(fixed.applied), "undo": undoing(fixed.id) if fixed.id else ""}
    return {
        "version": version,
        "overall": overall(findings),
        "summary": {severity: sum(one.severity == severity for one in findings) for severity in ORDER},
        "findings": [_object(finding) for finding in findings],
        "fix": fix,
    }


def undoing(name: str) -> str:
    """What takes a fix back."""
    return f"finn doctor --undo {name}"


def _object(finding: Finding) -> Json:
    return {
        "id": finding.id,
        "category": finding.category,
        "severity": finding.severity,
        "title": finding.title,
        "detail": finding.detail,
        "remediation": finding.remediation,
        "fixability": finding.fixability,
        "data": dict(finding.data),
    }


# ---------------------------------------------------------------- for a terminal


def as_text(report: Json, width: int = 80, *, colour: bool = False) -> str:
    """The object of `as_json`, for a terminal so many columns wide."""
    width = max(LEAST_WIDTH, min(width, MOST_WIDTH))
    head = f"finn doctor: {_painted(report['overall'], report['overall'].upper(), colour=colour)}"
    lines = [head, ""]
    for category, findings in _by_category(report):
        lines += _category(category, findings, width, colour=colour)
    foot = (line for told in _foot(report) for line in textwrap.wrap(told, width, break_on_hyphens=False))
    return "\n".join([*lines, "", *foot])


def _by_category(report: Json) -> Iterator[tuple[str, list[Json]]]:
    for category, findings in groupby(report["findings"], key=lambda one: one["category"]):
        yield category, list(findings)


def _category(category: str, findings: Sequence[Json], width: int, *, colour: bool) -> Iterator[str]:
    worst: Severity = max((one["severity"] for one in findings), key=ORDER.index)
    told = [one for one in findings if one["severity"] != "pass" or one["fixability"] == "fixed"]
    if worst in SOUND:
        yield f"  {category:<11} {_painted('pass', 'well', colour=colour)} ({len(findings)})"
    else:
        yield f"  {category:<11} {_painted(worst, worst.upper(), colour=colour)}"
    for _, alike in groupby(told, key=_said):
        first, *others = alike
        yield from _finding(first, width, colour=colour)
        if others:
            yield f"{' ' * MARGIN}(so say {len(others)} more)"


def _said(finding: Json) -> tuple[Json, ...]:
    """What people read of it; several in a row that say the same are one to them."""
    return (*(finding[key] for key in ("severity", "detail", "remediation", "fixability")), str(finding["data"]))


def _finding(finding: Json, width: int, *, colour: bool) -> Iterator[str]:
    word = "fixed" if finding["fixability"] == "fixed" else finding["severity"]
    yield f"    {_painted(finding['severity'], f'{word:<5}', colour=colour)} {_title(finding)}"
    paragraphs = [finding["detail"], finding["remediation"] if finding["severity"] != "pass" else "", *_more(finding)]
    for paragraph in paragraphs:
        yield from textwrap.wrap(
            _line(paragraph), width, initial_indent=" " * MARGIN, subsequent_indent=" " * MARGIN, break_on_hyphens=False
        )


def _title(finding: Json) -> str:
    """What was looked at; a title says how it should be, so it is no heading for what is not so."""
    return ("" if finding["severity"] == "pass" else "whether ") + _line(finding["title"])


def _more(finding: Json) -> Iterator[str]:
    data = finding["data"]
    if finding["fixability"] == "autofixable":
        plan = data.get("plan", [])
        rest = f"; and {len(plan) - SHOWN_STEPS} steps more" if len(plan) > SHOWN_STEPS else ""
        yield f"--fix would {'; '.join(plan[:SHOWN_STEPS])}{rest}"
    yield from (f"{data[key]}" for key in ("tried", "blocked") if key in data)


def _foot(report: Json) -> Iterator[str]:
    yield ", ".join(f"{count} {severity}" for severity, count in report["summary"].items() if count) or "nothing to see"
    if report["fix"]:
        yield from (f"done: {_line(step)}" for step in report["fix"]["applied"])
        if report["fix"]["undo"]:
            yield f"to take it back: {report['fix']['undo']}"
    elif any(one["fixability"] == "autofixable" for one in report["findings"]):
        yield "finn doctor --fix mends what it can, and keeps what it replaces"


def _painted(severity: Severity, text: str, *, colour: bool) -> str:
    return f"\x1b[{COLOURS[severity]}m{text}\x1b[0m" if colour else text


def _line(text: str) -> str:
    """Text of a file's or a person's making, on one line and without what steers a terminal."""
    return CONTROL.sub(" ", text)


# ---------------------------------------------------------------- for an issue


def as_markdown(report: Json) -> str:
    """The same, to be pasted where people write to one another."""
    lines = [f"# finn doctor: {report['overall']}", ""]
    for category, findings in _by_category(report):
        lines += [f"## {category}", "", *(_item(one) for one in findings), ""]
    lines.append(", ".join(f"{count} {severity}" for severity, count in report["summary"].items()))
    if report["fix"]:
        lines += ["", *(f"- done: {_plain(step)}" for step in report["fix"]["applied"])]
        lines += ["", f"To take it back: `{report['fix']['undo']}`"] if report["fix"]["undo"] else []
    return "\n".join(lines)


def _item(finding: Json) -> str:
    word = "fixed" if finding["fixability"] == "fixed" else finding["severity"]
    head = f"- **{word}** `{finding['id']}` {_plain(_title(finding))}: {_plain(finding['detail'])}"
    more = [finding["remediation"] if finding["severity"] not in SOUND else "", *_more(finding)]
    return "\n".join([head, *(f"  - {_plain(one)}" for one in more if one)])


def _plain(text: str) -> str:
    """Text that means nothing to markdown."""
    return re.sub(r"([\\*_\[\]<>#|])", r"\\\1", _line(text))


# ---------------------------------------------------------------- documentation


def table(checks: Sequence[Check]) -> str:
    """The checks as docs/doctor.md lists them. Each test is named by its check, in the file of its subject."""
    rows = (f"| `{one.id}` | {one.title} | {_mends(one)} | {_test(one)} |" for one in checks)
    return "\n".join(("| check | looks whether | mended by `--fix` | test |", "|---|---|---|---|", *rows)) + "\n"


def _mends(check: Check) -> str:
    if check.mend is None:
        return "by a person"
    return "yes, while finn is stopped" if check.alone else "yes"


def _test(check: Check) -> str:
    name = f"test_checks_{check.category}.py"
    return f"[`{breaking_test(check)}`](../tests/scheduler/{name})"


def breaking_test(check: Check) -> str:
    """The test that breaks what a check looks at."""
    return f"test_{check.id.replace('.', '_')}"
