"""What Prometheus is told: how much is asked, how it went, and what the answers were, so that drift can be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from car_analyzer import Analysis

    from ._room import Room

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BYTES = (10_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 20_000_000)
CONFIDENCES = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99, 1)
METHODS = {"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"}


class Metrics:
    """The gateway's metrics, in a registry of their own."""

    def __init__(self, room: Room) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.requests = Counter(
            "car_analyzer_requests", "Requests answered.", ("path", "method", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "car_analyzer_request_seconds",
            "From a request's head to the end of its answer, the upload included.",
            ("path",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge("car_analyzer_requests_in_flight", "Requests not answered yet.", registry=self.registry)
        self.errors = Counter("car_analyzer_errors", "Errors by kind.", ("kind",), registry=self.registry)
        self.photos = Histogram(
            "car_analyzer_photo_bytes", "Sizes of the photos received.", buckets=BYTES, registry=self.registry
        )
        self.analyses = Histogram(
            "car_analyzer_analysis_seconds", "Triton's share of an analysis.", buckets=SECONDS, registry=self.registry
        )
        self.answers = Counter(
            "car_analyzer_answers", "Answers by head and label.", ("head", "label"), registry=self.registry
        )
        self.confidence = Histogram(
            "car_analyzer_confidence",
            "Confidence in the label given, by head.",
            ("head",),
            buckets=CONFIDENCES,
            registry=self.registry,
        )
        held = Gauge("car_analyzer_held_bytes", "Bytes set aside for photos in flight.", registry=self.registry)
        held.set_function(lambda: room.used)

    def count_request(self, path: str, method: str, status: int, seconds: float) -> None:
        """Note a request that is over.

        Args:
            path: One of few: a route's, or `other`.
            method: As it was sent.
            status: Of the answer; 499 when the caller did not wait for it.
            seconds: How long it took.
        """
        self.requests.labels(path, method if method in METHODS else "other", str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def count_analysis(self, analysis: Analysis) -> None:
        """Note what a photo was found to be."""
        self.analyses.observe(analysis.processing_time_ms / 1000)
        for name, head in analysis.heads.items():
            # One by one, or n labels that do not exclude each other would make 2^n series.
            for label in (head.label,) if head.labels is None else head.labels or ("none",):
                self.answers.labels(name, label).inc()
            self.confidence.labels(name).observe(head.confidence)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The metrics as text, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
