"""Is finn well? Facts that others hold in memory, judged by one table.

    source() ─▶ Fact(name, value, unit) ─ RULES ─▶ pass | warn | fail ─▶ report, live
                                                          └▶ Held, look by look ─▶ what the agent's bead says

`warn` means that finn works and a person should look; `fail` is only what a restart or a person must mend. Nothing here
waits for a disk or a network: a source gives what it knows already. docs/health.md shows the table.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

from persistence.clock import iso
from persistence.values import Json

Status = Literal["pass", "warn", "fail"]
ORDER: tuple[Status, ...] = ("pass", "warn", "fail")

MIB, GIB = 1 << 20, 1 << 30


class Fact(NamedTuple):
    """One thing that is so at this moment. `output` says what is wrong, where something is.

    `of` is what the value is measured by: the whole disk, the interval of a task. `at` is when it was measured, in
    seconds since 1970; 0 is now.
    """

    name: str
    value: Json
    unit: str = ""
    output: str = ""
    of: float = 0.0
    at: float = 0.0


Source = Callable[[], Iterable[Fact]]


# ---------------------------------------------------------------- the table


@dataclass(frozen=True, slots=True)
class When:
    """A condition of a fact, and its words in the table."""

    words: str
    holds: Callable[[Fact], bool]


NEVER = When("", lambda fact: False)


def told(words: str) -> When:
    """Of a fact that only speaks where something should be looked at."""
    return When(words, lambda fact: bool(fact.output))


def over(limit: float, unit: str = "") -> When:
    """More than so many."""
    return When(f"over {limit:g} {unit}".strip(), lambda fact: fact.value > limit)


def beyond(times: int, grace_s: int, interval: str) -> When:
    """Later than the fact's own interval allows."""
    words = f"over {times} × `{interval}` and {grace_s // 60} min"
    return When(words, lambda fact: fact.value > times * fact.of + grace_s)


def among(*values: Json) -> When:
    """One of these."""
    return When(", ".join(f"`{value}`" for value in values), lambda fact: fact.value in values)


def less(limit: int) -> When:
    """Fewer bytes than that are left."""
    return When(f"less than {limit // MIB} MiB left", lambda fact: fact.value < limit)


def scarce(limit: int, share: float, plenty: int) -> When:
    """The same, or a small share of a whole that is not so large that even that is plenty."""
    words = f"over {1 - share:.0%} used with less than {plenty // GIB} GiB left; less than {limit // MIB} MiB left"
    return When(words, lambda fact: fact.value < limit or fact.value < min(share * fact.of, plenty))


@dataclass(frozen=True, slots=True)
class Rule:
    """What a fact tells, when it is no good, and what is to be done then."""

    name: str
    tells: str
    warn: When = NEVER
    fail: When = NEVER
    do: str = ""

    def judge(self, fact: Fact) -> Status:
        """The status of such a fact."""
        if self.fail is not NEVER and self.fail.holds(fact):
            return "fail"
        return "warn" if self.warn is not NEVER and self.warn.holds(fact) else "pass"


PUT_BACK = "Put it back as it was, or restart finn. What is said until then may be lost with this process."

#: A name that ends with NAME stands for one fact of each name. Facts that are not here always pass, and none is.
RULES: tuple[Rule, ...] = (
    Rule(
        "gateway:state",
        "what this process does: `serving`, or why it takes no prompts",
        warn=among("starting", "silent", "fenced", "draining"),
        do="Nothing, if it passes. `silent`: mend the store that the output names. `fenced`: another instance has the "
        "agent; stop one of the two.",
    ),
    Rule(
        "settings:problems",
        "settings that are odd",
        warn=over(0),
        do="Correct or remove what the output names, then restart finn.",
    ),
    Rule("wal:lastSeq", "the last record of the log"),
    Rule("wal:bytes", "the size of the log on this disk"),
    Rule(
        "wal:error",
        "why the log takes no records; absent while it does",
        fail=told("whenever it is there"),
        do="Make room, or mend the disk; finn goes on by itself. Where the output says so, restart finn.",
    ),
    Rule(
        "wal:upkeep",
        "why the last snapshot or sealing failed",
        warn=told("whenever it is there"),
        do="Make room, or mend the disk; it is tried again. Until then starts take longer.",
    ),
    Rule(
        "wal:held",
        "records of a kind that this release does not know",
        warn=told("whenever it is there"),
        do="Run the newer release that wrote them. They are kept meanwhile, and folded as nothing.",
    ),
    Rule("epoch", "the number of this writer's reign"),
    Rule(
        "recovery:source",
        "where this start had its state from: `local`, `store`, `git` or `template`",
        warn=told("something could not be recovered or read"),
        do="Run `finn verify`; what could not be used is in `quarantine/`, each with a note.",
    ),
    Rule("store:durability", "what an acknowledgement waits for: `local` or `store`"),
    Rule("store:lagSeq", "records that the store lacks"),
    Rule(
        "store:lagSeconds",
        "how long the oldest of them has waited",
        warn=over(90, "s"),
        do="See `store:lastError`; where it is absent, the store is slow.",
    ),
    Rule(
        "store:lastError",
        "why the store cannot be used; absent while it can",
        warn=told("whenever it is there"),
        do="Mend the network, the keys or the bucket that the output names; finn goes on by itself.",
    ),
    Rule("store:failingSeconds", "for how long that has been so"),
    Rule(
        "store:unfenced",
        "whether two instances at once would go unnoticed",
        warn=told("whenever it is there"),
        do="Run one instance only, or choose a store that knows `If-None-Match`.",
    ),
    Rule("store:toFetch", "chunks and blobs that this disk still fetches from the store"),
    Rule(
        "git:lagSeconds",
        "how long the remote has lacked something",
        warn=beyond(2, 600, "FINN_ARCHIVE_INTERVAL"),
        do="See `git:lastError` and `task:archive`.",
    ),
    Rule(
        "git:lastError",
        "why the last commit or push failed; absent where it worked",
        warn=told("whenever it is there"),
        do="Mend the remote, the credentials or what the output names; it is tried again with the next archive.",
    ),
    Rule(
        "identity:checksum",
        "the hash of the identity in force",
        warn=told("a file of the identity cannot be used"),
        do="Mend the file in `grimoires/` that the output names; the last good text is in force until then.",
    ),
    Rule(
        "model:state",
        "the model",
        warn=told("it has no key, or its last call failed"),
        do="Key refused or missing: set it and restart finn. Overloaded or unreachable: wait, it is asked again with "
        "the next prompt. Passes after the next answer.",
    ),
    Rule(
        "sandbox:rung",
        "where `bash` runs",
        warn=told("no sandbox works here, so `bash` is refused"),
        do="Install what the output names, allow user namespaces, or set `FINN_SANDBOX=none`.",
    ),
    Rule("turn:active", "turns that run now"),
    Rule("ws:connections", "open sockets"),
    Rule(
        "files:leftOut",
        "files that are not kept everywhere",
        warn=over(0),
        do="Make the files that the output names smaller, move them away, or live with it: `finn status` lists them.",
    ),
    Rule(
        "beads:stale",
        "beads in progress that nobody touched for long",
        warn=over(0),
        do="Go on with them, or close them: `finn beads stale`.",
    ),
    Rule(
        "beads:file",
        "what is wrong with `.beads/issues.jsonl`; absent where nothing is",
        warn=told("whenever it is there"),
        do="Mend the lines that the output names; the file as it was is in `quarantine/`.",
    ),
    Rule(
        "disk:free",
        "what is left of the disk",
        warn=scarce(256 * MIB, 0.2, 10 * GIB),
        fail=less(64 * MIB),
        do="Make room, or give it a larger disk.",
    ),
    Rule(
        "disk:error",
        "why the disk could not be looked at; absent where it could",
        fail=told("whenever it is there"),
        do="See what the machine says of its disk. On a sound one a store or a git remote gives everything back.",
    ),
    Rule(
        "disk:files",
        "how many files more the disk takes; absent where it does not count them",
        warn=When("less than 1,000", lambda fact: fact.value < 1000),
        do="Remove files from this disk, or make its file system anew with more inodes.",
    ),
    Rule(
        "dirs:data",
        "the data directory that this process opened",
        fail=among("gone", "replaced", "read-only"),
        do=PUT_BACK,
    ),
    Rule(
        "dirs:wal",
        "the folder of the log that this process opened",
        fail=among("gone", "replaced", "read-only"),
        do=PUT_BACK,
    ),
    Rule(
        "dirs:lock",
        "the lock that this process holds",
        warn=among("gone", "replaced"),
        do="Restart finn, and start no second one before: the lock no longer keeps it away.",
    ),
    Rule(
        "dirs:run",
        "`run.json`, by which commands find this process",
        warn=among("gone", "replaced"),
        do="Restart finn; where it is replaced, look for a second one on this directory.",
    ),
    Rule(
        "clock:jump",
        "how far the wall clock jumped within the last hour",
        warn=When("over 60 s, either way", lambda fact: abs(fact.value) > 60),
        do="Look at the machine's time synchronisation. What is due at a time may come too early or too late.",
    ),
    Rule(
        "owner:lastError",
        "why the owner could not be told; absent where that worked",
        warn=told("whenever it is there"),
        do="Mend `FINN_ALERT_URL` or `FINN_PING_URL`, or what they lead to.",
    ),
    Rule(
        "task:NAME",
        "the breaker of each task: `closed`, `open` or `half_open`",
        warn=When(
            "`open`, `half_open`, or the last run failed", lambda fact: fact.value != "closed" or bool(fact.output)
        ),
        do="Mend what the output names; it is tried again, or at once with `POST /api/tasks/NAME/run`.",
    ),
)

NUMBER = Rule("", "")
BY_NAME: Mapping[str, Rule] = {rule.name: rule for rule in RULES}


@cache
def rule_of(name: str) -> Rule:
    """The rule for a fact of that name."""
    return BY_NAME.get(name) or BY_NAME.get(f"{name.partition(':')[0]}:NAME") or NUMBER


def table() -> str:
    """The rules as docs/health.md shows them, for people."""
    rows = ((f"`{rule.name}`", rule.tells, rule.warn.words, rule.fail.words, rule.do) for rule in RULES)
    lines = (("check", "says", "`warn`", "`fail`", "what to do"), ("---",) * 5, *rows)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


# ---------------------------------------------------------------- judging


@dataclass(frozen=True, slots=True)
class Report:
    """The judgement of all facts: the worst status, and each check as the draft has it."""

    status: Status
    checks: Mapping[str, list[Json]]


def judge(sources: Iterable[Source], now: float) -> Report:
    """The state of everything, at `now` seconds since 1970."""
    time = iso(now)
    judged = [(fact, rule_of(fact.name).judge(fact)) for source in sources for fact in source()]
    checks = {fact.name: [_check(fact, status, time)] for fact, status in judged}
    return Report(_worst({status for _, status in judged}), checks)


def status(sources: Iterable[Source]) -> Status:
    """The worst of everything, for whoever may not see the rest."""
    return _worst({rule_of(fact.name).judge(fact) for source in sources for fact in source()})


def _worst(found: Collection[Status]) -> Status:
    return next((one for one in reversed(ORDER) if one in found), "pass")


def _check(fact: Fact, status: Status, time: str) -> Json:
    output = fact.output or (rule_of(fact.name).do if status != "pass" else "")
    return {
        "observedValue": fact.value,
        **({"observedUnit": fact.unit} if fact.unit else {}),
        "status": status,
        "time": iso(fact.at) if fact.at else time,
        **({"output": output} if output else {}),
    }


# ---------------------------------------------------------------- what counts


@dataclass(frozen=True, slots=True)
class Held:
    """The last two looks: what was seen once does not count. What did count is kept by the agent's bead."""

    before: Status | None = None
    last: Status | None = None

    def seen(self, status: Status) -> "Held":
        """After one more look."""
        return Held(self.last, status)

    @property
    def degraded(self) -> bool | None:
        """Whether finn is, where both looks say the same of it; else None: leave it as it was."""
        if self.before is None or (self.before == "pass") != (self.last == "pass"):
            return None
        return self.last != "pass"
