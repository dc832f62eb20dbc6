"""What is counted and measured, for whoever asks at /metrics.

    observe(name, value, **labels) ─▶ a number in memory ─┐
    records ─▶ Tally ─▶ observe                           ├▶ the text, when somebody asks
    facts, as health is told them ────────────────────────┘    (routes/metrics.py)

One table names everything: what is not in it cannot be told. Counters begin at 0 with the process. Who never asks pays
for a few additions only.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Literal

from starlette.types import Scope

from scheduler.health import Fact, Status

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]
Reading = tuple[str, float, Mapping[str, str]]  #: of a gauge: its name, its value, its labels

PREFIX = "finn_"
SYNC_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)
CALL_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
ANSWER_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0)
TURN_S = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
TASK_S = (0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of the table. `fact` names the fact of health that a gauge shows; without one it is told by itself."""

    name: str
    kind: Kind
    help: str
    labels: Labels = ()
    buckets: tuple[float, ...] = ()
    fact: str = ""

    @property
    def shown(self) -> str:
        """Its name as Prometheus has it."""
        return f"{PREFIX}{self.name}{'_total' if self.kind == 'counter' else ''}"


METRICS: tuple[Metric, ...] = (
    Metric("build_info", "gauge", "Always 1; its labels say what runs", ("version", "release")),
    Metric("health_status", "gauge", "1 for the status that health has now", ("status",)),
    # the log
    Metric("wal_records", "counter", "Records made durable on this disk"),
    Metric("wal_bytes", "counter", "Their bytes"),
    Metric("wal_failures", "counter", "Batches of records that the disk refused"),
    Metric("wal_sync_seconds", "histogram", "How long an fdatasync of the log takes", buckets=SYNC_S),
    Metric("wal_size_bytes", "gauge", "The log on this disk", fact="wal:bytes"),
    Metric("last_seq", "gauge", "The last record", fact="wal:lastSeq"),
    Metric("epoch", "gauge", "The reign that this process writes under", fact="epoch"),
    # the copies
    Metric("store_calls", "counter", "Calls of the store; outcome is ok or failed", ("call", "outcome")),
    Metric("store_call_seconds", "histogram", "How long the store takes to answer", ("call",), CALL_S),
    Metric("store_sent_bytes", "counter", "Bytes that the store took"),
    Metric("store_received_bytes", "counter", "Bytes that the store gave"),
    Metric("store_lag_records", "gauge", "Records that the store does not have yet", fact="store:lagSeq"),
    Metric("store_lag_seconds", "gauge", "For how long the oldest of them has waited", fact="store:lagSeconds"),
    Metric("git_lag_seconds", "gauge", "For how long git has been behind the log", fact="git:lagSeconds"),
    # the agent
    Metric("turns", "counter", "Turns that ended, by how", ("stop_reason",)),
    Metric("turn_seconds", "histogram", "From the beginning of a turn to its end", buckets=TURN_S),
    Metric("turns_running", "gauge", "Turns that run now", fact="turn:active"),
    Metric("tokens", "counter", "Tokens as the provider counted them", ("kind",)),
    Metric("cost_dollars", "counter", "US dollars, where a price is known"),
    Metric("model_failures", "counter", "Model calls that gave nothing that can be kept", ("code",)),
    Metric("tool_calls", "counter", "Tool calls that ended; outcome is ok or error", ("tool", "outcome")),
    Metric("tool_seconds", "histogram", "How long they took", ("tool",), TASK_S),
    # care
    Metric("task_runs", "counter", "Runs of the scheduler's tasks; outcome is ok or failed", ("task", "outcome")),
    Metric("task_seconds", "histogram", "How long they took", ("task",), TASK_S),
    Metric("breaker_state", "gauge", "1 for the state that the task's breaker has now", ("task", "state")),
    Metric("beads_stale", "gauge", "Beads in progress that lie still", fact="beads:stale"),
    # the gateway
    Metric("http_requests", "counter", "Answers, by route as it is written in the code", ("method", "route", "status")),
    Metric("http_request_seconds", "histogram", "How long answers took that are not streams", ("route",), ANSWER_S),
    Metric("sockets_open", "gauge", "Open WebSockets", fact="ws:connections"),
    Metric("streams_open", "gauge", "Open event streams"),
    Metric("disk_free_bytes", "gauge", "What is left on the disk of the data directory", fact="disk:free"),
)
SHOWN_AS: Mapping[str, str] = {metric.fact: metric.name for metric in METRICS if metric.fact}
STATUSES: tuple[Status, ...] = ("pass", "warn", "fail")
BREAKER_STATES = ("closed", "open", "half_open")
METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE", "WS")  #: any other is somebody's invention, and counted as such
STREAMS = (
    "/ws/{session}",
    "/api/sessions/{session}/events",
)  #: open for hours: their length says nothing of finn's speed
OTHER = "other"


@dataclass(slots=True)
class Heap:
    """What one histogram has seen: how many in each bucket (the last is beyond all bounds), and their sum."""

    counts: list[int]
    sum: float = 0.0


class Metrics:
    """The numbers of one process. `observe` may be called in any thread."""

    def __init__(self, table: Sequence[Metric] = METRICS) -> None:
        self._table = {metric.name: metric for metric in table}
        self._lock = Lock()
        self._counts: dict[str, dict[Labels, float]] = {}
        self._heaps: dict[str, dict[Labels, Heap]] = {}
        for metric in table:
            if metric.kind == "counter":
                self._counts[metric.name] = {} if metric.labels else {(): 0.0}
            if metric.kind == "histogram":
                self._heaps[metric.name] = {} if metric.labels else {(): _empty(metric)}

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Adds to a counter, or to a histogram. Raises KeyError for what is not in the table: a defect of ours."""
        metric = self._table[name]
        of = tuple(labels[label] for label in metric.labels) if metric.labels else ()
        with self._lock:
            if metric.kind == "counter":
                counts = self._counts[name]
                counts[of] = counts.get(of, 0.0) + value
            else:
                heap = self._heaps[name].setdefault(of, _empty(metric)) if of else self._heaps[name][()]
                heap.counts[bisect_left(metric.buckets, value)] += 1
                heap.sum += value

    def counted(self, name: str) -> Mapping[Labels, float]:
        """A counter as it stands."""
        with self._lock:
            return dict(self._counts[name])

    def heaped(self, name: str) -> Mapping[Labels, Heap]:
        """A histogram as it stands."""
        with self._lock:
            return {labels: Heap(list(heap.counts), heap.sum) for labels, heap in self._heaps[name].items()}

    def answered(self, scope: Scope, status: int, seconds: float) -> None:
        """Counts an answer by the route that gave it, and never by the path that was asked for."""
        route = getattr(scope.get("route"), "path", "") or OTHER
        method = scope.get("method", "WS")
        self.observe("http_requests", 1, method=method if method in METHODS else OTHER, route=route, status=str(status))
        if route not in STREAMS:
            self.observe("http_request_seconds", seconds, route=route)


def _empty(metric: Metric) -> Heap:
    return Heap([0] * (len(metric.buckets) + 1))


# ---------------------------------------------------------------- facts as gauges


def readings(facts: Iterable[Fact], status: Status) -> Iterator[Reading]:
    """What health is told, as far as the table has a gauge for it, and what it makes of all that."""
    for each in STATUSES:
        yield "health_status", float(each == status), {"status": each}
    for fact in facts:
        kind, _, task = fact.name.partition(":")
        if kind == "task":
            for state in BREAKER_STATES:
                yield "breaker_state", float(fact.value == state), {"task": task, "state": state}
        elif fact.name in SHOWN_AS:
            yield SHOWN_AS[fact.name], float(fact.value), {}
