"""What a service tells Prometheus: requests, films, seconds, what is open. No name, no UID."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest

from clinic.serve.answer import Answer
from clinic.serve.gate import Gate

SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """Counters of one service, in a registry of their own."""

    def __init__(self, gate: Gate) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._requests = Counter("mammosearch_requests", "Requests by status", ["status"], registry=self._registry)
        self._films = Counter("mammosearch_films", "Films by what became of them", ["outcome"], registry=self._registry)
        self._lesions = Counter("mammosearch_lesions", "Regions marked", registry=self._registry)
        self.seconds = Histogram(
            "mammosearch_request_seconds",
            "From a body's arrival to its answer",
            buckets=SECONDS,
            registry=self._registry,
        )
        open_requests = Gauge("mammosearch_open_requests", "Requests received or waiting", registry=self._registry)
        open_requests.set_function(lambda: gate.open_requests)
        body_bytes = Gauge("mammosearch_body_bytes", "Bytes of open requests", registry=self._registry)
        body_bytes.set_function(lambda: gate.body_bytes)

    def count_request(self, status: int) -> None:
        """Count an answer."""
        self._requests.labels(str(status)).inc()

    def count_films(self, answers: list[Answer]) -> None:
        """Count films."""
        for answer in answers:
            self._films.labels(answer.code or "segmented").inc()
            self._lesions.inc(answer.lesions)

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self._registry)
