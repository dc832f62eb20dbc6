"""What is well, what a person should look at, and what a restart or a person must mend."""

from collections.abc import Iterable
from itertools import product

import pytest

from scheduler.health import ORDER, RULES, Fact, Held, Status, judge, rule_of, status

MIB, GIB = 1 << 20, 1 << 30

#: Everything that the contract names.
CONTRACT = (
    "wal:lastSeq",
    "wal:bytes",
    "wal:error",
    "store:lagSeq",
    "store:lagSeconds",
    "store:lastError",
    "git:lagSeconds",
    "git:lastError",
    "epoch",
    "recovery:source",
    "identity:checksum",
    "model:state",
    "turn:active",
    "ws:connections",
    "disk:free",
    "beads:stale",
    "task:NAME",
)

#: What is just well, just not, and beyond repair. Each rule that judges is here, from both sides of each limit.
CASES: tuple[tuple[Fact, Status], ...] = (
    (Fact("gateway:state", "serving"), "pass"),
    (Fact("gateway:state", "starting"), "warn"),
    (Fact("gateway:state", "silent"), "warn"),
    (Fact("gateway:state", "fenced"), "warn"),
    (Fact("gateway:state", "draining"), "warn"),
    (Fact("settings:problems", 0), "pass"),
    (Fact("settings:problems", 1), "warn"),
    (Fact("wal:error", "no room", output="no room"), "fail"),
    (Fact("wal:upkeep", "no room", output="no room"), "warn"),
    (Fact("wal:held", 2, output="two are held"), "warn"),
    (Fact("recovery:source", "store"), "pass"),
    (Fact("recovery:source", "local", output="3 were lost"), "warn"),
    (Fact("store:lagSeconds", 90.0, "s"), "pass"),
    (Fact("store:lagSeconds", 90.1, "s"), "warn"),
    (Fact("store:lastError", "refused", output="refused"), "warn"),
    (Fact("store:unfenced", True, output="one only"), "warn"),
    (Fact("git:lagSeconds", 7800.0, "s", of=3600.0), "pass"),
    (Fact("git:lagSeconds", 7801.0, "s", of=3600.0), "warn"),
    (Fact("git:lagSeconds", 7801.0, "s", of=86_400.0), "pass"),
    (Fact("git:lastError", "gone", output="gone"), "warn"),
    (Fact("identity:checksum", "aa"), "pass"),
    (Fact("identity:checksum", "aa", output="it is empty"), "warn"),
    (Fact("model:state", "openai:x"), "pass"),
    (Fact("model:state", "openai:x", output="no key"), "warn"),
    (Fact("sandbox:rung", "bwrap"), "pass"),
    (Fact("sandbox:rung", "none", output="nothing works"), "warn"),
    (Fact("files:leftOut", 0), "pass"),
    (Fact("files:leftOut", 1), "warn"),
    (Fact("beads:stale", 0), "pass"),
    (Fact("beads:stale", 1), "warn"),
    (Fact("beads:file", "issues.jsonl", output="line 2"), "warn"),
    (Fact("disk:free", 64 * MIB - 1, "bytes", of=100 * MIB), "fail"),
    (Fact("disk:free", 64 * MIB, "bytes", of=100 * MIB), "warn"),
    (Fact("disk:free", 256 * MIB - 1, "bytes", of=300 * MIB), "warn"),
    (Fact("disk:free", 256 * MIB, "bytes", of=300 * MIB), "pass"),
    (Fact("disk:free", 5 * GIB, "bytes", of=30 * GIB), "warn"),
    (Fact("disk:free", 6 * GIB, "bytes", of=30 * GIB), "pass"),
    (Fact("disk:free", 10 * GIB, "bytes", of=500 * GIB), "pass"),
    (Fact("disk:error", "silent", output="silent"), "fail"),
    (Fact("disk:files", 999), "warn"),
    (Fact("disk:files", 1000), "pass"),
    (Fact("dirs:data", "there"), "pass"),
    (Fact("dirs:data", "gone"), "fail"),
    (Fact("dirs:data", "read-only"), "fail"),
    (Fact("dirs:wal", "there"), "pass"),
    (Fact("dirs:wal", "replaced"), "fail"),
    (Fact("dirs:lock", "there"), "pass"),
    (Fact("dirs:lock", "replaced"), "warn"),
    (Fact("dirs:run", "there"), "pass"),
    (Fact("dirs:run", "gone"), "warn"),
    (Fact("clock:jump", -60.0, "s"), "pass"),
    (Fact("clock:jump", 60.1, "s"), "warn"),
    (Fact("clock:jump", -60.1, "s"), "warn"),
    (Fact("owner:lastError", "404", output="404"), "warn"),
    (Fact("task:archive", "closed"), "pass"),
    (Fact("task:archive", "open"), "warn"),
    (Fact("task:archive", "half_open"), "warn"),
    (Fact("task:archive", "closed", output="it did not end"), "warn"),
)


def of(*facts: Fact) -> list[Iterable[Fact]]:
    return [facts]


@pytest.mark.parametrize(
    ("fact", "expected"),
    CASES,
    ids=lambda case: f"{case.name}={case.value}{case.output and '!'}" if isinstance(case, Fact) else case,
)
def test_each_fact_is_judged_by_its_own_rule(fact: Fact, expected: Status) -> None:
    report = judge([lambda: [fact]], 0.0)
    assert (report.status, report.checks[fact.name][0]["status"]) == (expected, expected)
    assert status([lambda: [fact]]) == expected


def test_every_fact_of_the_contract_has_its_rule_and_each_name_is_there_once() -> None:
    names = [rule.name for rule in RULES]
    assert [name for name in CONTRACT if name not in names] == []
    assert len(set(names)) == len(names)


def test_every_rule_that_can_warn_or_fail_is_tried_here_and_says_what_to_do() -> None:
    judging = [rule for rule in RULES if rule.warn.words or rule.fail.words]
    tried = {(rule_of(fact.name).name, expected) for fact, expected in CASES}
    wanted = {(rule.name, "warn") for rule in judging if rule.warn.words}
    wanted |= {(rule.name, "fail") for rule in judging if rule.fail.words}
    assert wanted - tried == set()
    assert [rule.name for rule in judging if not rule.do] == []


def test_the_worst_decides_whatever_stands_before_or_behind_it() -> None:
    well, odd, broken = Fact("epoch", 1), Fact("beads:stale", 1), Fact("wal:error", "e", output="e")
    for three in ([well, odd, broken], [broken, odd, well], [odd, broken, well]):
        assert judge([lambda three=three: three], 0.0).status == "fail"  # type: ignore[misc]
    assert judge([lambda: [well], lambda: [odd, well]], 0.0).status == "warn"
    assert judge([], 0.0).status == "pass"


def test_what_says_nothing_about_itself_says_what_to_do() -> None:
    report = judge(
        [lambda: [Fact("store:lagSeconds", 100.0, "s"), Fact("epoch", 3), Fact("beads:stale", 1, output="one")]], 0.0
    )
    assert report.checks["store:lagSeconds"] == [
        {
            "observedValue": 100.0,
            "observedUnit": "s",
            "status": "warn",
            "time": "1970-01-01T00:00:00.000Z",
            "output": rule_of("store:lagSeconds").do,
        }
    ]
    assert report.checks["epoch"] == [{"observedValue": 3, "status": "pass", "time": "1970-01-01T00:00:00.000Z"}]
    assert report.checks["beads:stale"][0]["output"] == "one"


def test_what_was_measured_says_when() -> None:
    report = judge([lambda: [Fact("disk:files", 5000, at=60.0), Fact("epoch", 3)]], 90.0)
    times = {name: check["time"] for name, (check,) in report.checks.items()}
    assert times == {"disk:files": "1970-01-01T00:01:00.000Z", "epoch": "1970-01-01T00:01:30.000Z"}


def test_two_looks_decide_and_one_that_differs_decides_nothing() -> None:
    held = Held()
    assert held.degraded is None
    assert held.seen("warn").degraded is None
    for first, second in product(ORDER, ORDER):
        expected = None if (first == "pass") != (second == "pass") else first != "pass"
        assert Held().seen("warn").seen(first).seen(second).degraded is expected
