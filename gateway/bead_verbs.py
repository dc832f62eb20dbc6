"""The verbs of `finn beads`, each over a Desk: what is looked at, what is changed, and how it is printed.

VERBS: name ─▶ verb(args, desk) ─▶ exit code
"""

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from gateway.desk import Desk
from persistence.bead import ID, Bead
from persistence.changes import instant
from persistence.edges import EDGES, find
from persistence.errors import Invalid
from persistence.events import Json
from persistence.labels import checked
from persistence.ready import ACTIVE, DAY, SORTS, Query, below, blocked, is_among, ready, select, untouched, waits_for
from persistence.show import CLOSED, READY, STALE, counted, detailed, some

NOTHING_TO_DO = 3
CSV_FIELDS = ("id", "title", "status", "priority", "issue_type", "assignee", "created_at", "updated_at")

Verb = Callable[[argparse.Namespace, Desk], int]


def _print(value: Json) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _each(values: Iterable[str]) -> list[str]:
    """The values of a flag that may be said several times, or once with commas."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def _priority(text: str) -> int:
    digit = text.strip().upper().removeprefix("P")
    if digit not in ("0", "1", "2", "3", "4"):
        raise Invalid(f"{text[:32]!r} is no priority", hint="0 to 4 or P0 to P4, where 0 is the most urgent")
    return int(digit)


# ---------------------------------------------------------------- looking


def _query(args: argparse.Namespace) -> Query:
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


def _limited(found: list[Bead], limit: int) -> list[Bead]:
    if limit < 0:
        raise Invalid(f"a limit is not {limit}", hint="0 is all of them")
    return found[: limit or None]


def _listed(args: argparse.Namespace, desk: Desk) -> int:
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


def _shown(args: argparse.Namespace, desk: Desk) -> int:
    beads = desk.beads()
    found = [find(beads, name) for name in args.ids]
    if args.json:
        _print([detailed(bead, beads) for bead in found])
    else:
        print("\n\n".join(_whole(bead) for bead in found))
    return 0


def _found_ready(args: argparse.Namespace, desk: Desk) -> int:
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


def _found_stale(args: argparse.Namespace, desk: Desk) -> int:
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


def _line(bead: Bead) -> str:
    return f"{bead.id} [● P{bead.priority}] [{bead.type}] [{bead.status}] {bead.title}"


def _whole(bead: Bead) -> str:
    facts = [f"{key}: {bead.data[key]}" for key in ("assignee", "created_at", "updated_at") if bead.data.get(key)]
    facts += [f"labels: {', '.join(bead.labels)}"] if bead.labels else []
    facts += [f"{edge['type']}: {edge['depends_on_id']}" for edge in bead.edges]
    texts = [bead.text(key) for key in ("description", "design", "acceptance_criteria", "notes", "close_reason")]
    said = [f"{one['author']}, {one['created_at']}: {one['text']}" for one in bead.comments]
    return "\n".join([_line(bead), *facts, *(f"\n{text}" for text in (*texts, *said) if text)])


# ---------------------------------------------------------------- changing


def _fields(args: argparse.Namespace, now: int, *names: str) -> dict[str, Json]:
    """What was said of these fields, in the words of persistence/changes.py."""
    fields = {name: value for name in names if (value := getattr(args, name)) is not None}
    if "priority" in fields:
        fields["priority"] = _priority(fields["priority"])
    for name in ("due_at", "defer_until"):
        if fields.get(name):
            fields[name] = instant(fields[name], now)
    return fields


WRITTEN = ("description", "design", "acceptance_criteria", "notes", "status", "priority", "issue_type", "assignee")
PLANNED = ("owner", "due_at", "defer_until", "estimated_minutes", "external_ref", "parent")


def _created(args: argparse.Namespace, desk: Desk) -> int:
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


def _edge(text: str) -> Json:
    kind, _, name = text.partition(":")
    return {"type": kind, "depends_on_id": name} if kind in EDGES else {"type": "blocks", "depends_on_id": text}


def _updated(args: argparse.Namespace, desk: Desk) -> int:
    fields = _fields(args, desk.now, "title", *WRITTEN, *PLANNED, "closed_by_session")
    fields |= {"add_labels": _each(args.add_label)} if args.add_label else {}
    fields |= {"remove_labels": _each(args.remove_label)} if args.remove_label else {}
    fields |= {"labels": _each(args.set_labels)} if args.set_labels else {}
    fields |= {"claim": True} if args.claim else {}
    fields |= {"force": True} if args.force else {}
    beads = desk.beads()
    found = [desk.update(bead.id, fields) for bead in [find(beads, name) for name in args.ids]]
    if args.json:
        _print([dict(bead.data) for bead in found])
    else:
        for bead in found:
            print(f"Updated {bead.id}: {bead.title}")
    return 0


def _closed(args: argparse.Namespace, desk: Desk) -> int:
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
    labels = _each(args.label)
    if labels:
        return args.names, labels
    if len(args.names) < 2:
        raise Invalid("a bead and a label are needed", hint="finn beads label add ID LABEL")
    split = len(args.names) - 1
    while split > 1 and not ID.fullmatch(args.names[split - 1]):
        split -= 1
    return args.names[:split], args.names[split:]


def _label_added(args: argparse.Namespace, desk: Desk) -> int:
    return _relabelled(args, desk, "add_labels", lambda had: "exists" if had else "added")


def _label_removed(args: argparse.Namespace, desk: Desk) -> int:
    return _relabelled(args, desk, "remove_labels", lambda had: "removed" if had else "not_found")


def _relabelled(args: argparse.Namespace, desk: Desk, field: str, word: Callable[[bool], str]) -> int:
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


def _labels_listed(args: argparse.Namespace, desk: Desk) -> int:
    beads = desk.beads()
    found: Sequence[str] = sorted({label for bead in beads.values() for label in bead.labels})
    if args.id:
        found = find(beads, args.id).labels
    if args.json:
        _print(list(found))
    else:
        print("\n".join(found) if found else "no labels")
    return 0


def _labels_counted(args: argparse.Namespace, desk: Desk) -> int:
    counted = Counter(label for bead in desk.beads().values() for label in bead.labels)
    if args.json:
        _print([{"label": label, "count": counted[label]} for label in sorted(counted)])
    else:
        for label in sorted(counted):
            print(f"{counted[label]:>5}  {label}")
    return 0


def _label_renamed(args: argparse.Namespace, desk: Desk) -> int:
    checked(args.new)
    having = [bead for bead in desk.beads().values() if args.old in bead.labels and bead.status != "tombstone"]
    for bead in having:
        desk.update(bead.id, {"remove_labels": [args.old], "add_labels": [args.new]})
    if args.json:
        _print({"old_name": args.old, "new_name": args.new, "affected_issues": len(having)})
    else:
        print(f"✓ {args.old} is {args.new} now on {len(having)}")
    return 0


VERBS: Mapping[str, Verb] = {
    "list": _listed,
    "show": _shown,
    "ready": _found_ready,
    "create": _created,
    "update": _updated,
    "close": _closed,
    "stale": _found_stale,
    "label add": _label_added,
    "label remove": _label_removed,
    "label list": _labels_listed,
    "label list-all": _labels_counted,
    "label rename": _label_renamed,
}
