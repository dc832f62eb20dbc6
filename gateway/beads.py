"""`finn beads`: br's verbs, flags, JSON and exit codes, so that programs made for br or bd work with finn.

    a finn runs on the data directory ─▶ its HTTP
    none runs ─────────────────────────▶ the log itself, under its lock (gateway/desk.py)

Here is what may be typed, and how an error is told; bead_verbs.py does the work.

Errors go to stderr: `finn: WHAT (HINT)`, with --json br's error object and the problem of HTTP in one. Exit codes are
br's: 0, 1 a fault of ours, 2 locked or not there, 3 no such bead, 4 a wrong value, 5 a dependency, 7 a setting, 8 the
disk.
"""

import argparse
import json
import sys
from functools import partial
from typing import Any

from persistence.errors import Ambiguous, FinnError

LIST_LIMIT, READY_LIMIT, STALE_DAYS = 50, 20, 30
ACTOR = "owner"
LABEL = "label "  #: before the verbs of labels, in VERBS

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


# ---------------------------------------------------------------- the command line


def add_beads(beads: argparse.ArgumentParser) -> None:
    """Every verb, with br's flags."""
    verbs = beads.add_subparsers(required=True, metavar="VERB")
    _list(_verb(verbs, "list", "the beads that are not closed", "finn beads list --status open --json"))
    shown = _verb(verbs, "show", "beads with all that is around them", "finn beads show bd-4k2")
    shown.add_argument("ids", nargs="+", metavar="ID")
    _ready(_verb(verbs, "ready", "what can be worked on", "finn beads ready --limit 5"))
    _create(_verb(verbs, "create", "a new bead", 'finn beads create "Water the plants" -p 1 -l home'))
    _update(_verb(verbs, "update", "change beads", "finn beads update bd-4k2 --status in_progress"))
    _close(_verb(verbs, "close", "close beads", 'finn beads close bd-4k2 --reason "it works"'))
    _label(verbs.add_parser("label", help="labels of beads", epilog="example: finn beads label add bd-4k2 home"))
    stale = _verb(verbs, "stale", "what was not touched for long", "finn beads stale --days 1")
    stale.add_argument("--days", type=int, default=STALE_DAYS)
    stale.add_argument("--status", "-s", action="append", default=[])
    version = verbs.add_parser("version", help="as bd prints it", epilog="example: finn beads version")
    version.add_argument("--json", "--robot", action="store_true", help="for programs")
    version.add_argument("--short", "-s", action="store_true", help="the number alone")
    version.set_defaults(run=_version)


def _verb(verbs: Any, name: str, does: str, example: str, group: str = "") -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = verbs.add_parser(
        name, help=does, description=does, epilog=f"example: {example}", allow_abbrev=False
    )
    made.set_defaults(run=partial(run, f"{group}{name}"))
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
    verb.add_argument("--force", action="store_true", help="also begins what waits for another one")
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
    for name in ("add", "remove"):
        made = _verb(verbs, name, f"{name} labels", f"finn beads label {name} bd-4k2 home", LABEL)
        made.add_argument("names", nargs="+", metavar="ID… LABEL")
        _many(made, "--label", "-l", help="then all else are ids")
    listed = _verb(verbs, "list", "the labels of a bead, or of all", "finn beads label list bd-4k2", LABEL)
    listed.add_argument("id", nargs="?")
    _verb(verbs, "list-all", "every label and how many have it", "finn beads label list-all", LABEL)
    renamed = _verb(verbs, "rename", "another name for a label", "finn beads label rename home house", LABEL)
    renamed.add_argument("old")
    renamed.add_argument("new")


# ---------------------------------------------------------------- running


def run(verb: str, args: argparse.Namespace) -> int:
    """Runs a verb on the beads, wherever they are, and returns br's exit code."""
    from gateway import settings
    from gateway.bead_verbs import VERBS
    from gateway.desk import open_desk

    try:
        found = settings.read(flags={"FINN_DATA_DIR": args.data_dir})
        with open_desk(found, args.url, args.actor) as desk:
            return VERBS[verb](args, desk)
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


def _version(args: argparse.Namespace) -> int:
    from importlib.metadata import version

    number = version("finn")
    if args.json:
        print(json.dumps({"version": number, "build": "release"}, indent=2))
    else:
        print(number if args.short else f"bd version {number}")
    return 0
