"""Metrics for Prometheus: requests, errors, and the distribution of answers, which shows drift."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from car_analyzer import Analysis

    from ._byte_budget import ByteBudget

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BYTES = (10_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 20_000_000)
CONFIDENCES = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99, 1)
METHODS = {"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"}


class Metrics:
    """The gateway's metrics, in a registry of their own."""

    def __init__(self, budget: ByteBudget) -> None:
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
        self.shadow = Counter(
            "car_analyzer_shadow_photos", "Photos for a candidate, by outcome.", ("outcome",), registry=self.registry
        )
        held = Gauge("car_analyzer_held_bytes", "Bytes set aside for photos in flight.", registry=self.registry)
        held.set_function(lambda: budget.used)

    def count_request(self, path: str, method: str, status: int, seconds: float) -> None:
        """Count a completed request.

        Args:
            path: A route's path, or `other`.
            method: The HTTP method.
            status: The response's status; 499 if the client disconnected.
            seconds: Its duration.
        """
        self.requests.labels(path, method if method in METHODS else "other", str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def count_analysis(self, analysis: Analysis) -> None:
        """Count the answer for a photo."""
        self.analyses.observe(analysis.processing_time_ms / 1000)
        for name, head in analysis.heads.items():
            # Each label on its own: combinations of n labels would create 2^n series.
            for label in (head.label,) if head.labels is None else head.labels or ("none",):
                self.answers.labels(name, label).inc()
            self.confidence.labels(name).observe(head.confidence)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The metrics as text, and their content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
