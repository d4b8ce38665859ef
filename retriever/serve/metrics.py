"""What Prometheus reads at /metrics."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from retriever.serve.indexes.opened import Indexes

__all__ = ["FOLDER", "TYPE", "Metrics"]

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable of the folder in which several processes put their figures together."""
TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The figures of one application."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "retriever_requests_total", "Requests answered.", ("method", "route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "retriever_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ("route",),
            buckets=SECONDS,
            registry=self._registry,
        )

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self, indexes: Indexes) -> bytes:
        """Return the figures of all processes, and those of the indexes as this one sees them."""
        registry = self._registry
        if FOLDER in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        of_indexes = CollectorRegistry()
        of_indexes.register(_OfIndexes(indexes))
        return generate_latest(registry) + generate_latest(of_indexes)

    @staticmethod
    def leave() -> None:
        """Take this process's gauges out of the figures, before it ends."""
        if FOLDER in os.environ:
            mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]


class _OfIndexes:
    """Asks the indexes when it is read."""

    def __init__(self, indexes: Indexes) -> None:
        self._indexes = indexes

    def collect(self) -> Iterator[Metric]:
        documents = GaugeMetricFamily(
            "retriever_index_documents", "Documents of the commit that is searched.", labels=["index"]
        )
        commit = GaugeMetricFamily("retriever_index_commit", "Number of the commit that is searched.", labels=["index"])
        late = GaugeMetricFamily("retriever_index_late", "1 where the last commit cannot be opened.", labels=["index"])
        for index in self._indexes:
            with index.use() as retriever:
                data = retriever.reader.commit_data
            documents.add_metric([index.name], data.documents)
            commit.add_metric([index.name], data.number)
            late.add_metric([index.name], bool(index.error))
        yield from (documents, commit, late)
