"""Prometheus metrics of the server. Several worker processes are added up."""

import os
from typing import Any

from perceivers.optional import require

MULTIPROCESS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable that prometheus-client reads on import: folder shared by the workers."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Metrics of one worker: requests rejected by a full queue, and the samples in a forward pass."""

    def __init__(self) -> None:
        client: Any = require("prometheus_client", "serve")
        self._client = client
        self._registry = client.CollectorRegistry()
        common = {"registry": self._registry}
        self._requests = client.Counter(
            "perceivers_requests", "Answered requests.", ["route", "status"], **common
        )
        self._seconds = client.Histogram(
            "perceivers_request_seconds",
            "From the first byte of a request to its response.",
            ["route"],
            buckets=_SECONDS,
            **common,
        )
        self.batch_size = client.Histogram(
            "perceivers_batch_size", "Samples in a forward pass.", buckets=_SIZES, **common
        )
        self.rejected = client.Counter(
            "perceivers_rejected", "Requests rejected because the queue was full.", **common
        )
        self._closed = client.Counter(
            "perceivers_closed_connections",
            "Connections closed because their client was idle or slow, or there were too many.",
            ["reason"],
            **common,
        )
        self._restarts = client.Counter(
            "perceivers_decoder_restarts", "Restarts of decoding processes.", **common
        )
        self._counted_restarts = 0
        self._queue = client.Gauge(
            "perceivers_queue",
            "Requests in progress or waiting.",
            multiprocess_mode="livesum",
            **common,
        )

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_closed(self, reason: str) -> None:
        """Count a connection that was closed: `idle`, `head`, `slow`, `full` or `refused`."""
        self._closed.labels(reason).inc()

    def text(self, *, queue: int, restarts: int) -> bytes:
        """Return all metrics in Prometheus' text format, of all workers together."""
        self._queue.set(queue)
        self._restarts.inc(restarts - self._counted_restarts)
        self._counted_restarts = restarts
        if MULTIPROCESS_FOLDER not in os.environ:
            return self._client.generate_latest(self._registry)
        from prometheus_client import multiprocess

        registry = self._client.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        return self._client.generate_latest(registry)
