"""`finn beads`: br's verbs, flags, JSON and exit codes, so that programs made for br or bd work with finn.

    a finn runs on the data directory ─▶ its HTTP
    none runs ─────────────────────────▶ the log itself, under its lock (gateway/desk.py)

Errors go to stderr: `finn: WHAT (HINT)`, with --json br's error object and the problem of HTTP in one. Exit codes are
br's: 0, 1 a fault of ours, 2 locked or not there, 3 no such bead, 4 a wrong value, 5 a dependency, 7 a setting, 8 the
disk.
"""

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from persistence.errors import Ambiguous, FinnError, Invalid

if TYPE_CHECKING:
    from gateway.desk import Desk
    from persistence.bead import Bead
    from persistence.events import Json
    from persistence.ready import Query

LIST_LIMIT, READY_LIMIT, STALE_DAYS = 50, 20, 30
ACTOR = "owner"
NOTHING_TO_DO = 3
CSV_FIELDS = ("id", "title", "status", "priority", "issue_type", "assignee", "created_at", "updated_at")

#: code of an error ─▶ exit code and name of it in br
CODES: dict[str, tuple[int, str]] = {
    "not_found": (3, "ISSUE_NOT_FOUND"),
    "invalid_body": (4, "VALIDATION_FAILED"),
    "conflict": (4, "VALIDATION_FAILED"),
    "illegal_transition": (4, "VALIDATION_FAILED"),
    "invalid_dependency": (5, "DEPENDENCY_NOT_FOUND"),
    "usage": (7, "CONFIG_ERROR"),
    "damaged": (2, "DATABASE_ERROR"),
    **dict.fromkeys(("locked", "starting", "draining", "fenced", "store_unavailable"), (2, "DATABASE_LOCKED")),
    "unreachable": (2, "NOT_INITIALIZED"),
    **dict.fromkeys(("storage_full", "storage_failed"), (8, "IO_ERROR")),
}
INTERNAL = (1, "INTERNAL_ERROR")

Verb = Callable[[argparse.Namespace, "Desk"], int]


# ---------------------------------------------------------------- the command line


def add_beads(beads: argparse.ArgumentParser) -> None:
    """Every verb, with br's flags."""
    verbs = beads.add_subparsers(required=True, metavar="VERB")
    _list(_verb(verbs, "list", _listed, "the beads that are not closed", "finn beads list --status open --json"))
    shown = _verb(verbs, "show", _shown, "beads with all that is around them", "finn beads show bd-4k2")
    shown.add_argument("ids", nargs="+", metavar="ID")
    _ready(_verb(verbs, "ready", _found_ready, "what can be worked on", "finn beads ready --limit 5"))
    _create(_verb(verbs, "create", _created, "a new bead", 'finn beads create "Water the plants" -p 1 -l home'))
    _update(_verb(verbs, "update", _updated, "change beads", "finn beads update bd-4k2 --status in_progress"))
    _close(_verb(verbs, "close", _closed, "close beads", 'finn beads close bd-4k2 --reason "it works"'))
    _label(verbs.add_parser("label", help="labels of beads", epilog="example: finn beads label add bd-4k2 home"))
    stale = _verb(verbs, "stale", _found_stale, "what was not touched for long", "finn beads stale --days 1")
    stale.add_argument("--days", type=int, default=STALE_DAYS)
    stale.add_argument("--status", "-s", action="append", default=[])
    version = verbs.add_parser("version", help="as bd prints it", epilog="example: finn beads version")
    version.add_argument("--json", "--robot", action="store_true", help="for programs")
    version.add_argument("--short", "-s", action="store_true", help="the number alone")
    version.set_defaults(run=_version)


def _verb(verbs: Any, name: str, verb: Verb, does: str, example: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = verbs.add_parser(
        name, help=does, description=does, epilog=f"example: {example}", allow_abbrev=False
    )
    made.set_defaults(run=lambda args: run(args, verb))
    made.add_argument("--json", "--robot", action="store_true", help="for programs")
    made.add_argument("--data-dir", metavar="DIR", help="where everything is kept (~/.finn)")
    made.add_argument("--url", help="where finn is; taken from the data directory otherwise")
    made.add_argument("--actor", default=ACTOR, help="who it is that asks, as beads say it (owner)")
    return made


def _many(verb: argparse.ArgumentParser, *names: str, **more: Any) -> None:
    verb.add_argument(*names, action="append", default=[], **more)


def _filters(verb: argparse.ArgumentParser) -> None:
    _many(verb, "--type", "-t")
    _many(verb, "--priority", "-p", help="0 to 4, or P0 to P4")
    _many(verb, "--label", "-l", help="has this one, and every other that is named")
    _many(verb, "--label-any", help="has one of them")
    verb.add_argument("--assignee")
    verb.add_argument("--unassigned", action="store_true")
    verb.add_argument("--no-wrap", action="store_true", help=argparse.SUPPRESS)
    verb.add_argument("--stats", action="store_true", help=argparse.SUPPRESS)


def _list(verb: argparse.ArgumentParser) -> None:
    _filters(verb)
    _many(verb, "--status", "-s")
    _many(verb, "--id")
    verb.add_argument("--priority-min", type=int, default=0)
    verb.add_argument("--priority-max", type=int, default=4)
    for what in ("title", "desc", "notes"):
        verb.add_argument(f"--{what}-contains", default="")
    verb.add_argument("--all", "-a", action="store_true", help="the closed ones too")
    verb.add_argument("--limit", type=int, default=LIST_LIMIT, help="0 for all")
    verb.add_argument("--sort", default="", help="priority, created_at, updated_at or title")
    verb.add_argument("--reverse", "-r", action="store_true")
    verb.add_argument("--deferred", action="store_true", help="the deferred ones too, whatever the status")
    verb.add_argument("--overdue", action="store_true")
    verb.add_argument("--long", action="store_true", help=argparse.SUPPRESS)
    verb.add_argument("--pretty", action="store_true", help=argparse.SUPPRESS)
    verb.add_argument("--format", choices=("text", "json", "csv"), default="text")
    verb.add_argument("--fields", default="", help="of csv")


def _ready(verb: argparse.ArgumentParser) -> None:
    _filters(verb)
    verb.add_argument("--limit", type=int, default=READY_LIMIT, help="0 for all")
    verb.add_argument("--sort", choices=("hybrid", "priority", "oldest"), default="hybrid")
    verb.add_argument("--include-deferred", action="store_true")
    verb.add_argument("--parent", help="only what is below this bead")
    verb.add_argument("--recursive", "-r", action="store_true", help="with --parent: at any depth")
    verb.add_argument("--format", choices=("text", "json"), default="text")


def _create(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("title", nargs="?")
    verb.add_argument("--title", dest="title_flag")
    verb.add_argument("--type", "-t", dest="issue_type", default="task")
    verb.add_argument("--priority", "-p", default="2", help="0 to 4, or P0 to P4")
    verb.add_argument("--description", "--body", "-d")
    verb.add_argument("--design")
    verb.add_argument("--acceptance-criteria", "--acceptance")
    verb.add_argument("--notes")
    verb.add_argument("--assignee", "-a")
    verb.add_argument("--owner")
    _many(verb, "--labels", "-l", help="with commas between them")
    verb.add_argument("--parent")
    _many(verb, "--deps", help="type:id, with commas between them")
    verb.add_argument("--estimate", "-e", type=int, dest="estimated_minutes", help="in minutes")
    verb.add_argument("--due", dest="due_at")
    verb.add_argument("--defer", dest="defer_until")
    verb.add_argument("--external-ref")
    verb.add_argument("--ephemeral", action="store_true", help="not kept in the file")
    verb.add_argument("--status", "-s")
    verb.add_argument("--dry-run", action="store_true")
    verb.add_argument("--silent", action="store_true", help="prints the id alone")


def _update(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("ids", nargs="+", metavar="ID")
    verb.add_argument("--title")
    verb.add_argument("--description", "--body")
    verb.add_argument("--design")
    verb.add_argument("--acceptance-criteria", "--acceptance")
    verb.add_argument("--notes")
    verb.add_argument("--status", "-s")
    verb.add_argument("--priority", "-p")
    verb.add_argument("--type", "-t", dest="issue_type")
    verb.add_argument("--assignee")
    verb.add_argument("--owner")
    verb.add_argument("--claim", action="store_true", help="yours from now on, unless it is somebody's")
    verb.add_argument("--force", action="store_true", help=argparse.SUPPRESS)
    verb.add_argument("--due", dest="due_at")
    verb.add_argument("--defer", dest="defer_until")
    verb.add_argument("--estimate", type=int, dest="estimated_minutes")
    _many(verb, "--add-label")
    _many(verb, "--remove-label")
    _many(verb, "--set-labels", help="all of them, with commas between them")
    verb.add_argument("--parent")
    verb.add_argument("--external-ref")
    verb.add_argument("--session", dest="closed_by_session")


def _close(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("ids", nargs="+", metavar="ID")
    verb.add_argument("--reason", "-r", default="done")
    verb.add_argument("--force", "-f", action="store_true", help="also where it waits for another one")
    verb.add_argument("--suggest-next", action="store_true", help="says what waits no longer")
    verb.add_argument("--session")


def _label(label: argparse.ArgumentParser) -> None:
    verbs = label.add_subparsers(required=True, metavar="VERB")
    for name, verb in (("add", _label_added), ("remove", _label_removed)):
        made = _verb(verbs, name, verb, f"{name} labels", f"finn beads label {name} bd-4k2 home")
        made.add_argument("names", nargs="+", metavar="ID… LABEL")
        _many(made, "--label", "-l", help="then all else are ids")
    listed = _verb(verbs, "list", _labels_listed, "the labels of a bead, or of all", "finn beads label list bd-4k2")
    listed.add_argument("id", nargs="?")
    _verb(verbs, "list-all", _labels_counted, "every label and how many have it", "finn beads label list-all")
    renamed = _verb(verbs, "rename", _label_renamed, "another name for a label", "finn beads label rename home house")
    renamed.add_argument("old")
    renamed.add_argument("new")


# ---------------------------------------------------------------- running


def run(args: argparse.Namespace, verb: Verb) -> int:
    """Runs a verb on the beads, wherever they are, and returns br's exit code."""
    from gateway import settings
    from gateway.desk import open_desk

    try:
        found = settings.read(flags={"FINN_DATA_DIR": args.data_dir})
        with open_desk(found, args.url, args.actor) as desk:
            return verb(args, desk)
    except FinnError as error:
        return _tell(error, as_json=args.json)
    except BrokenPipeError:
        raise  # whoever read this is gone
    except OSError as error:
        return _tell(Refused("storage_failed", f"the disk did not do what it should: {error}"), as_json=args.json)


class Refused(FinnError):
    """An error of the operating system, told like the others."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message, hint="look at the disk")
        self.code = code


def _tell(error: FinnError, *, as_json: bool) -> int:
    code, name = CODES.get(error.code, INTERNAL)
    name = "AMBIGUOUS_ID" if isinstance(error, Ambiguous) else name
    if not as_json:
        print(f"finn: {error}", file=sys.stderr)
        return code
    from gateway.problem import describe

    problem = describe(error)
    told = {"code": name, "message": error.message, "hint": error.hint or None, "retryable": error.retryable}
    print(json.dumps({"error": {**told, "context": {"code": error.code}}, **problem}), file=sys.stderr)
    return code


def _print(value: "Json") -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _each(values: Iterable[str]) -> list[str]:
    """The values of a flag that may be said several times, or once with commas."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def _priority(text: str) -> int:
    digit = text.strip().upper().removeprefix("P")
    if digit not in ("0", "1", "2", "3", "4"):
        raise Invalid(f"{text[:32]!r} is no priority", hint="0 to 4 or P0 to P4, where 0 is the most urgent")
    return int(digit)


def _version(args: argparse.Namespace) -> int:
    from importlib.metadata import version

    number = version("finn")
    if args.json:
        _print({"version": number, "build": "release"})
    else:
        print(number if args.short else f"bd version {number}")
    return 0


# ---------------------------------------------------------------- looking


def _query(args: argparse.Namespace) -> "Query":
    from persistence.ready import SORTS, Query

    sort = getattr(args, "sort", "")
    if "status" in args and sort not in SORTS:
        raise Invalid(f"beads are not sorted by {sort[:32]!r}", hint="priority, created_at, updated_at or title")
    return Query(
        statuses=tuple(_each(getattr(args, "status", []))),
        types=tuple(_each(args.type)),
        priorities=tuple(map(_priority, _each(args.priority))),
        labels=tuple(_each(args.label)),
        labels_any=tuple(_each(args.label_any)),
        assignee=args.assignee or "",
        unassigned=args.unassigned,
        sort=sort,
    )


def _limited(found: "list[Bead]", limit: int) -> "list[Bead]":
    if limit < 0:
        raise Invalid(f"a limit is not {limit}", hint="0 is all of them")
    return found[: limit or None]


def _listed(args: argparse.Namespace, desk: "Desk") -> int:
    from dataclasses import replace

    from persistence.ready import select
    from persistence.show import counted

    query = _query(args)
    statuses = (*query.statuses, *(("deferred",) if args.deferred and query.statuses else ()))
    query = replace(
        query,
        statuses=statuses,
        ids=tuple(_each(args.id)),
        priority_min=args.priority_min,
        priority_max=args.priority_max,
        title_contains=args.title_contains,
        desc_contains=args.desc_contains,
        notes_contains=args.notes_contains,
        everything=args.all,
        overdue=args.overdue,
        reverse=args.reverse,
    )
    beads = desk.beads()
    found = _limited(select(beads.values(), query, desk.now), args.limit)
    if args.json or args.format == "json":
        _print(counted(found, beads))
    elif args.format == "csv":
        fields = _each([args.fields]) or list(CSV_FIELDS)
        rows = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerows([fields, *([bead.data.get(field, "") for field in fields] for bead in found)])
    else:
        for bead in found:
            print(_line(bead))
    return 0


def _shown(args: argparse.Namespace, desk: "Desk") -> int:
    from persistence.changes import find
    from persistence.show import detailed

    beads = desk.beads()
    found = [find(beads, name) for name in args.ids]
    if args.json:
        _print([detailed(bead, beads) for bead in found])
    else:
        print("\n\n".join(_whole(bead) for bead in found))
    return 0


def _found_ready(args: argparse.Namespace, desk: "Desk") -> int:
    from persistence.changes import find
    from persistence.ready import below, is_among, ready
    from persistence.show import READY, some

    beads, query = desk.beads(), _query(args)
    among = below(beads, find(beads, args.parent).id, deep=args.recursive) if args.parent else set(beads)
    every = ready(beads, desk.now, args.sort, deferred=args.include_deferred)
    found = _limited([bead for bead in every if bead.id in among and is_among(bead, query)], args.limit)
    if args.json or args.format == "json":
        _print([some(bead, READY) for bead in found])
    elif not found:
        print("✨ No open issues")
    else:
        print(f"📋 Ready work ({len(found)} issue{'' if len(found) == 1 else 's'} with no blockers):\n")
        for number, bead in enumerate(found, 1):
            print(f"{number}. [● P{bead.priority}] [{bead.type}] {bead.id}: {bead.title}")
    return 0


def _found_stale(args: argparse.Namespace, desk: "Desk") -> int:
    from persistence.ready import ACTIVE, DAY, untouched
    from persistence.show import STALE, some

    if args.days < 0:
        raise Invalid(f"{args.days} days are none", hint="0 or more")
    found = untouched(desk.beads(), desk.now - args.days * DAY, _each(args.status) or ACTIVE)
    if args.json:
        _print([some(bead, STALE) for bead in found])
    else:
        print(f"Stale issues ({len(found)} not updated in {args.days}+ days):")
        for number, bead in enumerate(found, 1):
            days = max(0, desk.now - bead.updated) // DAY
            print(f"{number}. [{bead.status}] {days}d {bead.id} {bead.title}")
    return 0


def _line(bead: "Bead") -> str:
    return f"{bead.id} [● P{bead.priority}] [{bead.type}] [{bead.status}] {bead.title}"


def _whole(bead: "Bead") -> str:
    facts = [f"{key}: {bead.data[key]}" for key in ("assignee", "created_at", "updated_at") if bead.data.get(key)]
    facts += [f"labels: {', '.join(bead.labels)}"] if bead.labels else []
    facts += [f"{edge['type']}: {edge['depends_on_id']}" for edge in bead.edges]
    texts = [bead.text(key) for key in ("description", "design", "acceptance_criteria", "notes", "close_reason")]
    said = [f"{one['author']}, {one['created_at']}: {one['text']}" for one in bead.comments]
    return "\n".join([_line(bead), *facts, *(f"\n{text}" for text in (*texts, *said) if text)])


# ---------------------------------------------------------------- changing


def _fields(args: argparse.Namespace, now: int, *names: str) -> "dict[str, Json]":
    """What was said of these fields, in the words of persistence/changes.py."""
    from persistence.changes import instant

    fields = {name: value for name in names if (value := getattr(args, name)) is not None}
    if "priority" in fields:
        fields["priority"] = _priority(fields["priority"])
    for name in ("due_at", "defer_until"):
        if fields.get(name):
            fields[name] = instant(fields[name], now)
    return fields


WRITTEN = ("description", "design", "acceptance_criteria", "notes", "status", "priority", "issue_type", "assignee")
PLANNED = ("owner", "due_at", "defer_until", "estimated_minutes", "external_ref", "parent")


def _created(args: argparse.Namespace, desk: "Desk") -> int:
    fields = _fields(args, desk.now, *WRITTEN, *PLANNED)
    fields |= {"title": args.title_flag or args.title or "", "labels": _each(args.labels)}
    fields |= {"ephemeral": True} if args.ephemeral else {}
    fields |= {"dependencies": [_edge(one) for one in _each(args.deps)]} if args.deps else {}
    bead = desk.create({**fields, "created_by": args.actor}, dry=args.dry_run)
    if args.silent:
        print(bead.id)
    elif args.json:
        _print(dict(bead.data))
    else:
        print(f"{'Would create' if args.dry_run else '✓ Created'} {bead.id}: {bead.title}")
    return 0


def _edge(text: str) -> "Json":
    from persistence.changes import EDGES

    kind, _, name = text.partition(":")
    return {"type": kind, "depends_on_id": name} if kind in EDGES else {"type": "blocks", "depends_on_id": text}


def _updated(args: argparse.Namespace, desk: "Desk") -> int:
    from persistence.changes import find

    fields = _fields(args, desk.now, "title", *WRITTEN, *PLANNED, "closed_by_session")
    fields |= {"add_labels": _each(args.add_label)} if args.add_label else {}
    fields |= {"remove_labels": _each(args.remove_label)} if args.remove_label else {}
    fields |= {"labels": _each(args.set_labels)} if args.set_labels else {}
    fields |= {"claim": True} if args.claim else {}
    beads = desk.beads()
    found = [desk.update(bead.id, fields) for bead in [find(beads, name) for name in args.ids]]
    if args.json:
        _print([dict(bead.data) for bead in found])
    else:
        for bead in found:
            print(f"Updated {bead.id}: {bead.title}")
    return 0


def _closed(args: argparse.Namespace, desk: "Desk") -> int:
    from persistence.changes import find
    from persistence.ready import blocked, waits_for
    from persistence.show import CLOSED, some

    if args.suggest_next and len(args.ids) > 1:
        raise Invalid("--suggest-next goes with a single bead", hint="name one")
    closed: list[Bead] = []
    skipped: list[dict[str, str]] = []
    before = desk.beads()
    for found in [find(before, name) for name in args.ids]:
        beads = desk.beads()
        bead = beads[found.id]
        if bead.ended:
            skipped.append({"id": bead.id, "reason": f"already {bead.status}"})
        elif not args.force and bead.id in blocked(beads):
            by = ", ".join(waits_for(bead, beads))
            skipped.append({"id": bead.id, "reason": f"blocked by: {by}" if by else "blocked by dependencies"})
        else:
            session = {"closed_by_session": args.session} if args.session else {}
            closed.append(desk.update(bead.id, {"status": "closed", "close_reason": args.reason, **session}))
    freed = [desk.beads()[name] for name in sorted(blocked(before) - blocked(desk.beads()))]
    freed = [bead for bead in freed if not bead.ended] if args.suggest_next else []
    if args.json:
        told: Json = [some(bead, CLOSED) for bead in closed]
        if args.suggest_next:
            told = {"closed": told, **({"skipped": skipped} if skipped else {})}
            told["unblocked"] = [{"id": bead.id, "title": bead.title, "priority": bead.priority} for bead in freed]
        _print(told)
    else:
        for bead in closed:
            print(f"Closed {bead.id}: {bead.title} ({bead.text('close_reason')})")
        for one in skipped:
            print(f"Skipped {one['id']}: {one['reason']}")
        for bead in freed:
            print(f"Unblocked {bead.id}: {bead.title}")
    if skipped and not closed:
        print(f"finn: all {len(skipped)} were skipped, there is nothing to do", file=sys.stderr)
        return NOTHING_TO_DO
    return 0


# ---------------------------------------------------------------- labels


def _ids_and_labels(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """With --label all names are ids. Without it the last is a label, and so are those before it that are no ids."""
    from persistence.bead import ID

    labels = _each(args.label)
    if labels:
        return args.names, labels
    if len(args.names) < 2:
        raise Invalid("a bead and a label are needed", hint="finn beads label add ID LABEL")
    split = len(args.names) - 1
    while split > 1 and not ID.fullmatch(args.names[split - 1]):
        split -= 1
    return args.names[:split], args.names[split:]


def _label_added(args: argparse.Namespace, desk: "Desk") -> int:
    return _relabelled(args, desk, "add_labels", lambda had: "exists" if had else "added")


def _label_removed(args: argparse.Namespace, desk: "Desk") -> int:
    return _relabelled(args, desk, "remove_labels", lambda had: "removed" if had else "not_found")


def _relabelled(args: argparse.Namespace, desk: "Desk", field: str, word: Callable[[bool], str]) -> int:
    from persistence.changes import find
    from persistence.labels import checked

    ids, labels = _ids_and_labels(args)
    for label in labels:
        checked(label)
    beads, told = desk.beads(), []
    for bead in [find(beads, name) for name in ids]:
        desk.update(bead.id, {field: labels})
        told += [{"status": word(label in bead.labels), "issue_id": bead.id, "label": label} for label in labels]
    if args.json:
        _print(told)
    else:
        for one in told:
            print(f"✓ {one['label']} {one['status'].replace('_', ' ')}: {one['issue_id']}")
    return 0


def _labels_listed(args: argparse.Namespace, desk: "Desk") -> int:
    from persistence.changes import find

    beads = desk.beads()
    found: Sequence[str] = sorted({label for bead in beads.values() for label in bead.labels})
    if args.id:
        found = find(beads, args.id).labels
    if args.json:
        _print(list(found))
    else:
        print("\n".join(found) if found else "no labels")
    return 0


def _labels_counted(args: argparse.Namespace, desk: "Desk") -> int:
    counted = Counter(label for bead in desk.beads().values() for label in bead.labels)
    if args.json:
        _print([{"label": label, "count": counted[label]} for label in sorted(counted)])
    else:
        for label in sorted(counted):
            print(f"{counted[label]:>5}  {label}")
    return 0


def _label_renamed(args: argparse.Namespace, desk: "Desk") -> int:
    from persistence.labels import checked

    checked(args.new)
    having = [bead for bead in desk.beads().values() if args.old in bead.labels and bead.status != "tombstone"]
    for bead in having:
        desk.update(bead.id, {"remove_labels": [args.old], "add_labels": [args.new]})
    if args.json:
        _print({"old_name": args.old, "new_name": args.new, "affected_issues": len(having)})
    else:
        print(f"✓ {args.old} is {args.new} now on {len(having)}")
    return 0
