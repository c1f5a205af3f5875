"""What a server counts, in the form that Prometheus reads. Several processes count together."""

import os
from collections.abc import Callable
from typing import Any

from perceivers.data.base import require

__all__ = ["FOLDER", "Metrics"]

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Where the processes of one server count together: prometheus-client reads this when it is imported."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one application.

    Args:
        waiting: Returns how many requests are worked on or wait.
        restarts: Returns how often a decoding process was started again.
    """

    def __init__(self, waiting: Callable[[], int], restarts: Callable[[], int]) -> None:
        client: Any = require("prometheus_client", "serve")
        self._client = client
        self._registry = registry = client.CollectorRegistry()
        self._waiting, self._restarts, self._told = waiting, restarts, 0
        self._requests = client.Counter(
            "perceivers_requests", "Answered requests.", ["route", "status"], registry=registry
        )
        self._seconds = client.Histogram(
            "perceivers_request_seconds",
            "From the first byte of a request to its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._sizes = client.Histogram(
            "perceivers_batch_size",
            "Samples that went through the model together.",
            buckets=_SIZES,
            registry=registry,
        )
        self._rejected = client.Counter(
            "perceivers_rejected", "Requests beyond the queue's bound.", registry=registry
        )
        self._died = client.Counter(
            "perceivers_decoder_restarts", "Decoding processes started again.", registry=registry
        )
        self._queue = client.Gauge(
            "perceivers_queue",
            "Requests that are worked on or wait.",
            registry=registry,
            multiprocess_mode="livesum",
        )

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            route: Its path, or `other`.
            status: Of the answer.
            seconds: That it took.
        """
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, size: int) -> None:
        """Count a batch of the model."""
        self._sizes.observe(size)

    def rejected(self) -> None:
        """Count a request that found no place."""
        self._rejected.inc()

    def update(self) -> None:
        """Take over what is counted elsewhere."""
        self._queue.set(self._waiting())
        restarts = self._restarts()
        self._died.inc(restarts - self._told)
        self._told = restarts

    def text(self) -> bytes:
        """Return all of it as text, of all processes where there are several."""
        self.update()
        if FOLDER not in os.environ:
            return self._client.generate_latest(self._registry)
        from prometheus_client import multiprocess

        together = self._client.CollectorRegistry()
        multiprocess.MultiProcessCollector(together)
        return self._client.generate_latest(together)
