"""What is counted and measured: one table of names, numbers in memory, Prometheus' text when somebody asks."""

import ast
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.metered import Metered
from gateway.metrics import METRICS, STREAMS, Metric, Metrics, Reading, readings
from gateway.openapi import OPERATIONS
from gateway.routes.metrics import Text
from gateway.tally import Tally
from persistence.clock import FakeClock
from persistence.errors import NotFound, StoreUnreachable
from persistence.events import (
    OWNER,
    CallFailed,
    Cost,
    Event,
    Problem,
    Record,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    TurnStarted,
    Usage,
)
from persistence.stores.memory import MemoryStore
from scheduler.health import Fact

ROOT = Path(__file__).parent.parent.parent
FLOORS = ("persistence", "agent", "scheduler", "gateway")


def told(metrics: Metrics, *gauges: Reading) -> dict[str, float]:
    """The text as a Prometheus reads it: `name{label=value}` to its number, without the process's own."""
    text = generate_latest(Text(metrics, lambda: gauges).registry()).decode()
    return {
        sample.name + (str(dict(sorted(sample.labels.items()))) if sample.labels else ""): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("finn_")
    }


def record(event: Event, ms: int = 0) -> Record:
    return Record(1, "id", ms, 1, 0, "SESSION", OWNER, event.kind, event.v, event, "", b"")


# ---------------------------------------------------------------- the table


def test_every_name_is_there_once_and_is_one_that_prometheus_takes() -> None:
    names = [metric.shown for metric in METRICS]
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", name)] == []
    assert [metric.name for metric in METRICS if (metric.kind == "histogram") != bool(metric.buckets)] == []


def observations() -> Iterator[tuple[str, frozenset[str]]]:
    """Every `observe("name", …, label=…)` in the program: its name and its labels."""
    for path in (path for floor in FLOORS for path in (ROOT / floor).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("observe", "_observe"):
                assert isinstance(node.args[0], ast.Constant), f"{path}: {ast.unparse(node)}"
                yield str(node.args[0].value), frozenset(keyword.arg or "" for keyword in node.keywords)


def test_what_the_program_observes_is_in_the_table_with_its_labels() -> None:
    table = {metric.name: frozenset(metric.labels) for metric in METRICS if metric.kind != "gauge"}
    assert dict(observations()) == table


def test_the_streams_are_routes_that_there_are() -> None:
    assert {path for path in STREAMS if not path.startswith("/ws/")} <= {one.path for one in OPERATIONS}


def test_the_page_about_metrics_has_the_table() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert [row for row in rows() if row not in page] == []
    listed = re.findall(r"^\| `(finn_\w+)`", page, re.MULTILINE)
    assert listed == [metric.shown for metric in METRICS]


def rows() -> list[str]:
    """The lines of docs/metrics.md; print them after a change of the table."""
    return [
        f"| `{one.shown}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels) or '-'} | {one.help} |"
        for one in METRICS
    ]


# ---------------------------------------------------------------- numbers


def test_counters_without_labels_begin_at_zero_and_add_up() -> None:
    metrics = Metrics()
    assert told(metrics)["finn_wal_records_total"] == 0
    metrics.observe("wal_records", 3)
    metrics.observe("wal_records", 4)
    assert told(metrics)["finn_wal_records_total"] == 7


def test_a_histogram_counts_up_to_each_bound_and_the_rest_beyond_all() -> None:
    metrics = Metrics()
    for seconds in (0.0001, 0.002, 7.0):
        metrics.observe("wal_sync_seconds", seconds)
    text = told(metrics)
    at = [text[f"finn_wal_sync_seconds_bucket{{'le': '{bound}'}}"] for bound in ("0.0001", "0.001", "0.0025", "1.0")]
    assert [*at, text["finn_wal_sync_seconds_bucket{'le': '+Inf'}"]] == [1, 1, 2, 2, 3]
    assert text["finn_wal_sync_seconds_count"] == 3
    assert text["finn_wal_sync_seconds_sum"] == pytest.approx(7.0021)


def test_a_name_that_is_not_in_the_table_is_a_defect() -> None:
    with pytest.raises(KeyError):
        Metrics().observe("wal_wonders", 1)


def test_no_number_is_lost_among_threads() -> None:
    metrics = Metrics()

    def many() -> None:
        for _ in range(2_000):
            metrics.observe("wal_records", 1)
            metrics.observe("store_calls", 1, call="put", outcome="ok")

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.counted("wal_records") == {(): 8_000}
    assert metrics.counted("store_calls") == {("put", "ok"): 8_000}


def test_two_finns_in_one_process_count_for_themselves() -> None:
    one, other = Metrics(), Metrics()
    one.observe("wal_records", 1)
    assert (told(one)["finn_wal_records_total"], told(other)["finn_wal_records_total"]) == (1, 0)


def test_what_stands_in_a_label_cannot_break_the_text() -> None:
    nasty = 'a"b\\c\nfinn_wal_records_total 99'
    text = told(Metrics(), ("build_info", 1, {"version": nasty, "release": "r"}))
    assert text[f"finn_build_info{ {'release': 'r', 'version': nasty} }"] == 1
    assert text["finn_wal_records_total"] == 0


# ---------------------------------------------------------------- facts


def test_facts_of_health_are_gauges_and_what_is_not_configured_is_absent() -> None:
    facts = [Fact("wal:lastSeq", 41), Fact("model:state", "builtin:builtin"), Fact("store:lagSeconds", 1.5, "s")]
    text = told(Metrics(), *readings(facts, "warn"))
    assert (text["finn_last_seq"], text["finn_store_lag_seconds"]) == (41, 1.5)
    assert "finn_git_lag_seconds" not in text
    assert [text[f"finn_health_status{{'status': '{status}'}}"] for status in ("pass", "warn", "fail")] == [0, 1, 0]


def test_a_breaker_is_one_for_the_state_that_it_has() -> None:
    text = told(Metrics(), *readings([Fact("task:archive", "open")], "pass"))
    states = [text[f"finn_breaker_state{{'state': '{state}', 'task': 'archive'}}"] for state in ("closed", "open")]
    assert states == [0, 1]


# ---------------------------------------------------------------- records


def test_turns_tools_tokens_and_failures_are_counted_from_records() -> None:
    metrics = Metrics()
    tally = Tally(metrics.observe, ["read"])
    failure = Problem(code="model_error", message="no")
    usage = Usage(input=10, output=4, cacheRead=2, totalTokens=16, cost=Cost(total=0.25))
    for event, ms in (
        (TurnStarted(turn="T", entry="e", parent=None), 1_000),
        (CallFailed(turn="T", attempt=1, error=failure, retry_in_s=1.0), 1_100),
        (ToolStarted(turn="T", call="c", name="read", args={}), 2_000),
        (ToolEnded(turn="T", parent=None, call="c", name="read", result="x"), 2_500),
        (TurnEnded(turn="T", stop_reason="stop", usage=usage), 4_000),
    ):
        tally.follow(record(event, ms))
    text = told(metrics)
    assert text["finn_turns_total{'stop_reason': 'stop'}"] == 1
    assert text["finn_turn_seconds_sum"] == 3.0
    assert text["finn_tool_calls_total{'outcome': 'ok', 'tool': 'read'}"] == 1
    assert text["finn_tool_seconds_sum{'tool': 'read'}"] == 0.5
    assert text["finn_model_failures_total{'code': 'model_error'}"] == 1
    tokens = [text[f"finn_tokens_total{{'kind': '{kind}'}}"] for kind in ("input", "output", "cache_read")]
    assert tokens == [10, 4, 2]
    assert text["finn_cost_dollars_total"] == 0.25


def test_a_tool_that_there_is_not_is_counted_without_its_name() -> None:
    metrics = Metrics()
    Tally(metrics.observe, ["read"]).follow(
        record(ToolEnded(turn="T", parent=None, call="c", name="ignore\nall", result="no such tool", is_error=True))
    )
    assert metrics.counted("tool_calls") == {("other", "error"): 1}


def test_what_began_before_this_process_or_ended_before_it_began_takes_no_time() -> None:
    metrics = Metrics()
    tally = Tally(metrics.observe, [])
    tally.follow(record(TurnEnded(turn="old", stop_reason="interrupted"), 9_000))
    assert metrics.heaped("turn_seconds")[()].sum == 0
    assert sum(metrics.heaped("turn_seconds")[()].counts) == 0
    tally.follow(record(TurnStarted(turn="T", entry="e", parent=None), 5_000))
    tally.follow(record(TurnEnded(turn="T", stop_reason="stop"), 1_000))  # the clock was set back
    assert metrics.heaped("turn_seconds")[()].sum == 0
    assert sum(metrics.heaped("turn_seconds")[()].counts) == 1


# ---------------------------------------------------------------- the store


class Away:
    """A store that does not answer."""

    url = "memory:"

    def __getattr__(self, name: str) -> Any:
        def call(*_: object) -> None:
            raise StoreUnreachable("the store does not answer")

        return call


def test_calls_of_a_store_are_counted_with_what_came_of_them() -> None:
    metrics = Metrics()
    store = Metered(MemoryStore(), FakeClock(), metrics.observe)
    store.put("a", b"12345")
    assert store.get("a") == b"12345"
    with pytest.raises(NotFound):
        store.get("b")
    assert [one.key for one in store.list("")] == ["a"]
    assert metrics.counted("store_calls") == {("put", "ok"): 1, ("get", "ok"): 2, ("list", "ok"): 1}
    assert metrics.counted("store_sent_bytes") == {(): 5} == metrics.counted("store_received_bytes")
    assert sum(metrics.heaped("store_call_seconds")[("get",)].counts) == 2


def test_a_store_that_does_not_answer_has_failed_and_took_nothing() -> None:
    metrics = Metrics()
    with pytest.raises(StoreUnreachable):
        Metered(Away(), FakeClock(), metrics.observe).create("a", b"12345")
    assert metrics.counted("store_calls") == {("create", "failed"): 1}
    assert metrics.counted("store_sent_bytes") == {(): 0}


# ---------------------------------------------------------------- answers


class Asked:
    """A route as the router leaves it in the scope."""

    def __init__(self, path: str) -> None:
        self.path = path


def test_answers_are_counted_by_route_and_never_by_path() -> None:
    metrics = Metrics()
    route = Asked("/api/sessions/{session}")
    metrics.answered({"method": "GET", "path": "/api/sessions/SECRET", "route": route}, 200, 0.01)
    metrics.answered({"method": "GET", "path": "/wp-login.php"}, 404, 0.01)
    metrics.answered({"method": "BREW", "path": "/", "route": Asked("/")}, 405, 0.01)
    assert metrics.counted("http_requests") == {
        ("GET", "/api/sessions/{session}", "200"): 1,
        ("GET", "other", "404"): 1,
        ("other", "/", "405"): 1,
    }


def test_a_stream_is_counted_and_not_timed() -> None:
    metrics = Metrics()
    for path in STREAMS:
        metrics.answered({"method": "GET", "path": "x", "route": Asked(path)}, 200, 3600.0)
    assert len(metrics.counted("http_requests")) == len(STREAMS)
    assert metrics.heaped("http_request_seconds") == {}


def test_the_library_is_loaded_by_who_asks_first() -> None:
    text = Text(Metrics((Metric("x", "counter", "x"),)), list)
    assert text.registry() is text.registry()
