"""metrics.py: what /metrics tells Prometheus; counts and times, nothing of any picture."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "forgemap_requests_total",
            "Requests that were answered.",
            ["method", "route", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "forgemap_request_seconds",
            "From a request's headers to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.picture_seconds = Histogram(
            "forgemap_picture_seconds",
            "What a worker took for a picture, without waiting.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.pictures = Counter(
            "forgemap_pictures_total",
            "Pictures by verdict; `unreadable` and `failed` are those without.",
            ["verdict"],
            registry=registry,
        )
        self.batches = Histogram(
            "forgemap_batch_size",
            "Pictures that a worker was given at once.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self.refused = Counter(
            "forgemap_refused_total",
            "Requests that were refused, by reason.",
            ["reason"],
            registry=registry,
        )
        self.gone = Counter(
            "forgemap_clients_gone_total",
            "Callers that went away before their answer.",
            registry=registry,
        )
        self.restarts = Counter(
            "forgemap_worker_restarts_total", "Workers that were lost.", registry=registry
        )

    def watch(self, name: str, value: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for."""
        gauge = Gauge(f"forgemap_{name}", _GAUGES[name], registry=self.registry)
        gauge.set_function(value)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)


_GAUGES = {
    "queue_waiting": "Pictures that wait for a worker, of callers who wait for the answer.",
    "queue_waiting_jobs": "Pictures of jobs that wait for a worker.",
    "workers_ready": "Workers whose models are loaded.",
    "upload_bytes": "Bytes of bodies that are held.",
    "result_bytes": "Bytes of outputs that are kept for a while.",
    "results": "Results that are kept for a while.",
    "jobs": "Jobs that run or are remembered.",
    "requests_now": "Requests that are being answered.",
}
