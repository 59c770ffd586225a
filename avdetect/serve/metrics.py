"""What the server counts, for Prometheus. A registry of its own, so that one process may hold several servers."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from avdetect.serve.store import ENDED, Job

_SECONDS = (1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600)  # buckets of a job's time


class Metrics:
    """Counters of one server, and the process's own (memory, CPU, descriptors)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._ended = Counter("avdetect_jobs", "Jobs that ended, by state.", ["state"], registry=self.registry)
        self._seconds = Histogram(
            "avdetect_scoring_seconds", "From a job's start to its end.", buckets=_SECONDS, registry=self.registry
        )
        self.upload_bytes = Counter("avdetect_upload_bytes", "Bytes of videos received.", registry=self.registry)
        self._rejections = Counter(
            "avdetect_rejections", "Requests that were refused, by reason.", ["reason"], registry=self.registry
        )
        for state in ENDED:
            self._ended.labels(state)

    def watch(self, queued: Callable[[], float], running: Callable[[], float]) -> None:
        """Ask these for the two gauges, whenever somebody reads them."""
        for name, what, value in (
            ("avdetect_queued_jobs", "Jobs that wait.", queued),
            ("avdetect_running_jobs", "Jobs that are being scored.", running),
        ):
            Gauge(name, what, registry=self.registry).set_function(value)

    def ended(self, job: Job) -> None:
        """A job has reached its end."""
        self._ended.labels(job.status).inc()
        if job.status == "done" and job.began is not None and job.ended is not None:
            self._seconds.observe(job.ended - job.began)

    def rejected(self, reason: str) -> None:
        """A request was refused; `reason` is the class of its error."""
        self._rejections.labels(reason).inc()

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self.registry)
