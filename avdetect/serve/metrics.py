"""What the server counts, for Prometheus. A registry of its own, so that one process may hold several servers."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

from avdetect.serve.store import ENDED, Job

_SECONDS = (1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600)  # buckets of a job's time


class Metrics:
    """Counters of one server, and the process's own (memory, CPU, descriptors)."""

    def __init__(self) -> None:
        self._registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        self.upload_bytes = Counter("avdetect_upload_bytes", "Bytes of videos received.", registry=own)
        self._ended = Counter("avdetect_jobs", "Jobs that ended, by state.", ["state"], registry=own)
        self._rejections = Counter("avdetect_rejections", "Refused requests, by reason.", ["reason"], registry=own)
        self._seconds = Histogram(
            "avdetect_scoring_seconds", "From a job's start to its end.", buckets=_SECONDS, registry=own
        )
        for state in ENDED:
            self._ended.labels(state)

    def watch(self, queued: Callable[[], float], running: Callable[[], float]) -> None:
        """Ask these for the two gauges, whenever somebody reads them."""
        Gauge("avdetect_queued_jobs", "Jobs that wait.", registry=self._registry).set_function(queued)
        Gauge("avdetect_running_jobs", "Jobs being scored.", registry=self._registry).set_function(running)

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
        return generate_latest(self._registry)
