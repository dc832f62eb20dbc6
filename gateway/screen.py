"""`finn status`: how finn is and what is kept where, on one screen. Pure: answers in, text out.

PASS  main 0.1.0, up 3 min
  log     record 1042 of reign 3, from local
  here    everything                          12.3 MB  /home/me/.finn
  store   everything, 2 s ago                  3.1 MB  s3://bucket/finn/main
  git     12 records behind for 34 min                 https://host/me/state.git
  files   24 kept, 1.2 MB
  tasks   8 work; next replicate in 20 s
  agent   anthropic:…, bash in bwrap, 1 turn running
  disk    83 GB free
  warn    beads:stale          1
            bd-4k2 lies still since Monday

What is well is said as a person would say it, or not at all: `--json` has every check. What is not, is a line each.
"""

from collections.abc import Iterator, Set
from datetime import datetime

from persistence.events import Json
from persistence.limits import CACHE, amount

NAMES = {"local": "here", "store": "store", "git": "git"}
SHOWN = 8  #: files that are named; the rest is counted
VALUE_CHARS = 60
SAID = "as said above"  #: of what would be the same text again
NOTHING: Set[str] = frozenset()


def screen(health: Json, storage: Json | None, tasks: Json | None, now: float) -> str:
    """The whole screen. `storage` and `tasks` None: finn is not open, and nobody can say."""
    checks = {name: check for name, (check,) in health.get("checks", {}).items()}
    parts = [_head(health), _log(checks)]
    if storage is not None:
        parts += [*_tiers(storage, now), *_files(storage)]
    if tasks is not None:
        parts += [_tasks(tasks, checks, now)]
    parts += [_agent(checks), _disk(checks)]
    told = frozenset(tier["error"] for tier in storage["tiers"]) if storage is not None else NOTHING
    return "\n".join([*(part for part in parts if part), *_checks(checks, told)])


def _head(health: Json) -> str:
    release = f"{health['serviceId']} {health['releaseId']}"
    return f"{health['status'].upper()}  {release}, up {span(health['uptime'])}"


def _log(checks: Json) -> str:
    seq, epoch, source = (_observed(checks, name) for name in ("wal:lastSeq", "epoch", "recovery:source"))
    return f"  log     record {seq} of reign {epoch}, from {source}" if seq is not None else ""


def _tiers(storage: Json, now: float) -> Iterator[str]:
    for tier in storage["tiers"]:
        size = amount(tier["bytes"]) if tier["bytes"] is not None else ""
        yield f"  {NAMES[tier['name']]:<6}  {_having(tier, now):<34} {size:>9}  {tier['place']}".rstrip()
        if tier["error"]:
            yield f"            {tier['error']}"


def _having(tier: Json, now: float) -> str:
    """What a tier has, in words."""
    behind = f"{tier['lag_seq']} {'record' if tier['lag_seq'] == 1 else 'records'} behind"
    match tier["state"]:
        case "failing":
            since = f" for {span(now - _seconds(tier['since']))}" if tier["since"] else ""
            return f"failing{since}" + (f", {behind}" if tier["lag_seq"] else "")
        case "unknown":
            return "has not answered yet"
        case "behind":
            return f"{behind} for {span(tier['lag_s'])}"
    ago = f", {span(now - _seconds(tier['at']))} ago" if tier["at"] and tier["name"] != "local" else ""
    return f"everything{ago}"


def _files(storage: Json) -> Iterator[str]:
    inventory = storage["inventory"]
    left_out = [one for one in storage["left_out"] if one["why"] != CACHE]
    only = f", {len(left_out)} on this disk only:" if left_out else ""
    yield f"  files   {len(inventory)} kept, {amount(sum(one['bytes'] for one in inventory))}{only}"
    for one in left_out[:SHOWN]:
        yield f"            {one['path']}: {one['why']}"
    if len(left_out) > SHOWN:
        yield f"            and {len(left_out) - SHOWN} more"


def _tasks(tasks: Json, checks: Json, now: float) -> str:
    """How many work, and what comes next; those that do not are told below, each with what it said."""
    names = [task["name"] for task in tasks]
    failing = sum(checks.get(f"task:{name}", {}).get("status", "pass") != "pass" for name in names)
    working = f"{len(names) - failing} of {len(names)} work" if failing else f"{len(names)} work"
    waiting = [(task["next_run"], task["name"]) for task in tasks if not task["running"]]
    if not waiting:
        return f"  tasks   {working}"
    at, name = min(waiting)
    return f"  tasks   {working}; next {name} in {span(_seconds(at) - now)}"


def _agent(checks: Json) -> str:
    model, rung, turns = (_observed(checks, name) for name in ("model:state", "sandbox:rung", "turn:active"))
    if model is None:
        return ""
    running = f", {turns} {'turn' if turns == 1 else 'turns'} running" if turns else ""
    return f"  agent   {model}, bash in {rung}{running}"


def _disk(checks: Json) -> str:
    free = _observed(checks, "disk:free")
    return "" if free is None else f"  disk    {amount(free)} free"


def _checks(checks: Json, told: Set[str]) -> Iterator[str]:
    """Everything that is not well; what a tier or a line before has `told` already is not said again."""
    for name, check in checks.items():
        if check["status"] != "pass":
            value, output = _value(check), check.get("output", "")
            words = ["" if output.startswith(value) else value[:VALUE_CHARS], SAID if output in told else ""]
            yield f"  {check['status']:<6}  {name:<20} {', '.join(filter(None, words))}".rstrip()
            if output and output not in told:
                yield f"            {output}"
            told |= {output}


def _observed(checks: Json, name: str) -> Json:
    return checks.get(name, {}).get("observedValue")


def _value(check: Json) -> str:
    value, unit = check["observedValue"], check.get("observedUnit", "")
    return amount(value) if unit == "bytes" else f"{value} {unit}".strip()


def span(seconds: float) -> str:
    """A time as people say it."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _seconds(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()
