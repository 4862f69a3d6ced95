"""Metrics of the collection for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

from .names import REASONS

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from .keeper import Keeper
    from .records import Labels, Record

CAUSES = ("queue", "quota", "format", "error")


class CollectionMetrics:
    """What is kept, what is dropped, and what people say.

    Args:
        registry: The gateway's registry.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.collected = Counter(
            "car_analyzer_collected_photos", "Photos that the collection kept.", ("reason",), registry=registry
        )
        self.dropped = Counter(
            "car_analyzer_collection_dropped",
            "Photos that were to be kept, and were not.",
            ("cause",),
            registry=registry,
        )
        self.feedback = Counter(
            "car_analyzer_feedback",
            "Labels that people gave, by head and answer.",
            ("head", "answer", "label"),
            registry=registry,
        )
        for reason in REASONS:
            self.collected.labels(reason)
        for cause in CAUSES:
            self.dropped.labels(cause)

    def watch(self, keeper: Keeper) -> None:
        """Show how many photos there are."""
        photos = Gauge("car_analyzer_collection_photos", "Photos in the collection.", registry=self._registry)
        photos.set_function(lambda: len(keeper.index))
        size = Gauge("car_analyzer_collection_bytes", "Bytes in the collection.", registry=self._registry)
        size.set_function(lambda: keeper.index.bytes)

    def count_feedback(self, record: Record, labels: Labels) -> None:
        """Count the labels that were given for a photo."""
        for head, label in labels.items():
            answer = record.answer[head]
            if isinstance(answer, str):
                self.feedback.labels(head, answer, label).inc()
                continue
            # Each label on its own: combinations of n labels would create 4^n series.
            for one in sorted({*answer, *label}) or ["none"]:
                given = (one if one in found or one == "none" else "none" for found in (answer, label))
                self.feedback.labels(head, *given).inc()
