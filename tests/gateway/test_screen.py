"""What `finn status` prints."""

from typing import Any

import pytest

from gateway.screen import screen, span
from persistence.clock import iso

NOW = 1_800_000_000.0


def check(value: Any, status: str = "pass", output: str = "", unit: str = "") -> list[dict[str, Any]]:
    return [
        {
            "observedValue": value,
            "status": status,
            **({"output": output} if output else {}),
            **({"observedUnit": unit} if unit else {}),
        }
    ]


def health(status: str = "pass", **more: Any) -> dict[str, Any]:
    checks = {
        "wal:lastSeq": check(1042),
        "wal:bytes": check(12, unit="bytes"),
        "epoch": check(3),
        "recovery:source": check("local"),
        "model:state": check("builtin:finn"),
        "sandbox:rung": check("bwrap"),
        "dirs:data": check("there"),
        "disk:free": check(83 << 30, unit="bytes"),
        **more,
    }
    return {"status": status, "serviceId": "main", "releaseId": "0.1.0", "uptime": 185.2, "checks": checks}


def tier(name: str, **more: Any) -> dict[str, Any]:
    plain = {"state": "saved", "last_seq": 1042, "at": iso(NOW - 2), "bytes": None, "lag_seq": 0, "lag_s": 0.0}
    return {"name": name, **plain, "error": None, "since": None, "place": f"{name}://", **more}


def storage(*tiers: dict[str, Any], left_out: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
    files = [{"path": "workspace/a", "bytes": 1024}, {"path": "workspace/b", "bytes": 512}]
    return {
        "tiers": list(tiers),
        "inventory": files,
        "left_out": [{"path": path, "why": why} for path, why in left_out],
    }


def test_where_all_is_well_each_tier_is_a_line() -> None:
    here = tier("local", bytes=12_900_000, place="/home/me/.finn")
    store = tier("store", bytes=3_300_000, place="s3://bucket/main")
    git = tier("git", state="behind", lag_seq=12, lag_s=2040.0, place="https://host/state.git")
    assert screen(health(), storage(here, store, git), None, NOW).splitlines() == [
        "PASS  main 0.1.0, up 3 min",
        "  log     record 1042 of reign 3, from local",
        "  here    everything                           12.3 MB  /home/me/.finn",
        "  store   everything, 2 s ago                  3.15 MB  s3://bucket/main",
        "  git     12 records behind for 34 min                  https://host/state.git",
        "  files   2 kept, 1.5 KB",
        "  agent   builtin:finn, bash in bwrap",
        "  disk    83 GB free",
    ]


def test_a_tier_that_fails_says_since_when_and_why() -> None:
    failing = tier("store", state="failing", since=iso(NOW - 200), lag_seq=1, error="connection refused")
    lines = screen(health(), storage(failing), None, NOW).splitlines()
    assert lines[2:4] == [
        "  store   failing for 3 min, 1 record behind            store://",
        "            connection refused",
    ]


def test_a_tier_that_was_never_heard_of_says_so() -> None:
    silent = tier("store", state="unknown", last_seq=None, at=None)
    assert "has not answered yet" in screen(health(), storage(silent), None, NOW)


def test_what_is_left_out_is_named_but_for_caches() -> None:
    left_out = (("workspace/big", "larger than 8 MB"), ("workspace/.git", "a folder of caches or dependencies"))
    lines = screen(health(), storage(left_out=left_out), None, NOW).splitlines()
    assert lines[2:4] == [
        "  files   2 kept, 1.5 KB, 1 on this disk only:",
        "            workspace/big: larger than 8 MB",
    ]
    assert "workspace/.git" not in "\n".join(lines)


def test_a_long_list_is_cut() -> None:
    left_out = tuple((f"workspace/{number}", "larger than 8 MB") for number in range(30))
    lines = screen(health(), storage(left_out=left_out), None, NOW).splitlines()
    assert "            and 22 more" in lines
    assert len(lines) < 24


def test_whatever_is_not_well_is_shown_with_what_to_do() -> None:
    warned = health("warn", **{"store:lastError": check("no answer", "warn", "look at the store")})
    lines = screen(warned, None, None, NOW).splitlines()
    assert lines[0].startswith("WARN")
    assert lines[-2:] == ["  warn    store:lastError      no answer", "            look at the store"]


def test_what_a_copy_said_is_not_said_again_by_all_that_need_it() -> None:
    why = "the store gives no answer (look at the network)"
    failing = tier("store", state="failing", since=iso(NOW - 200), error=why)
    ill: dict[str, Any] = {
        "store:lastError": check(why[:30], "warn", why),
        "task:replicate": check("open", "warn", why),
        "task:drill": check("closed", "warn", "there is no room"),
        "task:prune": check("closed", "warn", "there is no room"),
    }
    lines = screen(health("warn", **ill), storage(failing), None, NOW).splitlines()
    assert [line.strip() for line in lines if why in line] == [why]
    assert lines[-5:] == [
        "  warn    store:lastError      as said above",
        "  warn    task:replicate       open, as said above",
        "  warn    task:drill           closed",
        "            there is no room",
        "  warn    task:prune           closed, as said above",
    ]


def test_a_finn_that_is_not_open_has_a_screen_too() -> None:
    closed = {"status": "warn", "serviceId": "main", "releaseId": "0.1.0", "uptime": 1.0}
    assert screen(closed, None, None, NOW) == "WARN  main 0.1.0, up 1 s"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "0 s"), (2.4, "2 s"), (119, "119 s"), (185, "3 min"), (7199, "120 min"), (7200, "2 h"), (3 * 86400, "3 d")],
)
def test_a_time_reads_as_people_say_it(seconds: float, said: str) -> None:
    assert span(seconds) == said


def task(name: str, after_s: float, *, running: bool = False) -> dict[str, Any]:
    return {"name": name, "next_run": iso(NOW + after_s), "running": running}


def test_the_tasks_are_one_line_with_what_comes_next() -> None:
    tasks = [task("archive", 300), task("replicate", 20), task("health", -5, running=True)]
    assert screen(health(), None, tasks, NOW).splitlines()[2:] == [
        "  tasks   3 work; next replicate in 20 s",
        "  agent   builtin:finn, bash in bwrap",
        "  disk    83 GB free",
    ]


def test_a_task_that_does_not_work_says_why() -> None:
    ill: dict[str, Any] = {"task:archive": check("open", "warn", "no route to host"), "task:replicate": check("closed")}
    lines = screen(health("warn", **ill), None, [task("archive", 280), task("replicate", 20)], NOW).splitlines()
    assert lines[2] == "  tasks   1 of 2 work; next replicate in 20 s"
    assert lines[-2:] == ["  warn    task:archive         open", "            no route to host"]


def test_turns_that_run_are_counted() -> None:
    busy: dict[str, Any] = {"turn:active": check(1)}
    assert "  agent   builtin:finn, bash in bwrap, 1 turn running" in screen(health(**busy), None, None, NOW)
