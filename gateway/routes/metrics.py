"""GET /metrics: what was counted and measured, as Prometheus reads it.

Answered from memory, also while finn is fenced or still looks for its past: that is when somebody wants to know. The
library that writes the text is loaded by whoever asks first.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.doors import GuardFor
from gateway.metrics import METRICS, PREFIX, Heap, Metric, Metrics, Reading

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric as Family

Read = Callable[[], Iterable[Reading]]  #: the gauges as they stand


def metrics_routes(metrics: Metrics, read: Read, guard: GuardFor) -> Sequence[BaseRoute]:
    """/metrics. Everything here is this finn's own: the library's global registry is not used."""
    text = Text(metrics, read)

    async def show(_: Request) -> Response:
        registry = await asyncio.to_thread(text.registry)
        from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    return (Route("/metrics", show, methods=["GET"], middleware=guard("probe")),)


class Text:
    """Everything that was observed, what `read` gives at this moment, and the process itself."""

    def __init__(self, metrics: Metrics, read: Read) -> None:
        self._metrics = metrics
        self._read = read
        self._registry: CollectorRegistry | None = None

    def registry(self) -> "CollectorRegistry":
        """Loads the library with the first call, which takes a moment: call it in a thread."""
        if self._registry is None:
            from prometheus_client import CollectorRegistry, ProcessCollector

            registry = CollectorRegistry(auto_describe=False)
            registry.register(self)
            ProcessCollector(registry=registry)
            self._registry = registry
        return self._registry

    def collect(self) -> "Iterator[Family]":
        """Everything, in the order of the table."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        gauges: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for name, value, labels in self._read():
            gauges.setdefault(name, []).append((labels, value))
        for metric in METRICS:
            told = (PREFIX + metric.name, metric.help)
            if metric.kind == "counter":
                counter = CounterMetricFamily(*told, labels=metric.labels)
                for of, count in self._metrics.counted(metric.name).items():
                    counter.add_metric(of, count)
                yield counter
            elif metric.kind == "gauge":
                gauge = GaugeMetricFamily(*told, labels=metric.labels)
                for labels, value in gauges.get(metric.name, ()):
                    gauge.add_metric([labels[label] for label in metric.labels], value)
                yield gauge
            else:
                histogram = HistogramMetricFamily(*told, labels=metric.labels)
                for of, heap in self._metrics.heaped(metric.name).items():
                    histogram.add_metric(of, _buckets(metric, heap), heap.sum)
                yield histogram


def _buckets(metric: Metric, heap: Heap) -> list[tuple[str, float]]:
    """Each bound with how many were at most that, as Prometheus wants them."""
    so_far, found = 0, list[tuple[str, float]]()
    for bound, count in zip((*map(str, metric.buckets), "+Inf"), heap.counts, strict=True):
        so_far += count
        found.append((bound, so_far))
    return found
