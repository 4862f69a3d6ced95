"""Compares a candidate's answers with those of the served version."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from car_analyzer import Analysis, Head

    from ._observers import AnsweredPhoto

# All of it is bounded: a comparison may run for hours.
MOST_DIFFERENCES = 200
MOST_PHOTOS = 50
MOST_PHOTO_BYTES = 20_000_000
MOST_LATENCIES = 5000
# A multilabel head has as many answers as its labels have combinations.
MOST_PAIRS = 400
OTHER_PAIR = ("…", "…")


@dataclass
class HeadCounts:
    """One head's counts.

    Attributes:
        agreed: How many photos got the same label from both.
        compared: How many photos both answered.
        confusion: (served label, candidate's label) → how many photos.
        largest: The largest difference of a probability.
        total: The sum of each photo's largest difference.
    """

    agreed: int = 0
    compared: int = 0
    confusion: Counter[tuple[str, str]] = field(default_factory=Counter)
    largest: float = 0.0
    total: float = 0.0

    def add(self, served: Head, candidate: Head) -> bool:
        """Count a photo; returns whether both gave the same label."""
        agreed = _agree(served, candidate)
        pair = (served.label, served.label if agreed else candidate.label)
        if pair not in self.confusion and len(self.confusion) >= MOST_PAIRS:
            pair = OTHER_PAIR
        self.confusion[pair] += 1
        common = served.probabilities.keys() & candidate.probabilities.keys()
        difference = max((abs(served.probabilities[one] - candidate.probabilities[one]) for one in common), default=0.0)
        self.largest = max(self.largest, difference)
        self.total += difference
        self.agreed += agreed
        self.compared += 1
        return agreed

    def body(self) -> dict[str, Any]:
        """The counts as JSON."""
        return {
            "agreed": self.agreed,
            "compared": self.compared,
            "confusion": [[*pair, number] for pair, number in self.confusion.most_common()],
            "largestDifference": self.largest,
            "meanDifference": self.total / self.compared if self.compared else 0.0,
        }


class Comparison:
    """What is known about a candidate.

    Attributes:
        outcomes: `agreed`, `differed`, `failed` or `skipped` → how many photos.
        photos: The first photos that got other labels.
    """

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.photos: list[bytes] = []
        self._heads: dict[str, HeadCounts] = {}
        self._errors: Counter[str] = Counter()
        self._differences: list[dict[str, Any]] = []
        self._milliseconds: deque[tuple[float, float]] = deque(maxlen=MOST_LATENCIES)

    @property
    def compared(self) -> int:
        """How many photos were sent to the candidate, and answered or not."""
        return self.outcomes.total() - self.outcomes["skipped"]

    def add(self, answered: AnsweredPhoto, candidate: Analysis) -> str:
        """Count the candidate's answer; returns the outcome."""
        served = answered.analysis
        heads = [name for name in served.heads if name in candidate.heads]
        agreed = [
            self._heads.setdefault(name, HeadCounts()).add(served.heads[name], candidate.heads[name]) for name in heads
        ]
        self._milliseconds.append((served.processing_time_ms, candidate.processing_time_ms))
        if not all(agreed):
            self._keep(answered, candidate, heads)
        return self._count("agreed" if all(agreed) else "differed")

    def fail(self, code: str) -> str:
        """Count an error of the candidate; returns the outcome."""
        self._errors[code] += 1
        return self._count("failed")

    def skip(self) -> str:
        """Count a photo that was not sent, or that a busy server rejected; returns the outcome."""
        return self._count("skipped")

    def body(self, *, is_full: bool) -> dict[str, Any]:
        """The comparison as JSON.

        Args:
            is_full: Whether to add the latencies, and the photos with other labels.
        """
        counts = {name: self.outcomes[name] for name in ("agreed", "differed", "failed", "skipped")}
        heads = {name: head.body() for name, head in self._heads.items()}
        body: dict[str, Any] = {"counts": counts, "heads": heads, "errors": dict(self._errors)}
        if is_full:
            served, candidate = zip(*self._milliseconds, strict=True) if self._milliseconds else ((), ())
            body["milliseconds"] = {"served": served, "candidate": candidate}
            body["differences"] = self._differences
        return body

    def _count(self, outcome: str) -> str:
        self.outcomes[outcome] += 1
        return outcome

    def _keep(self, answered: AnsweredPhoto, candidate: Analysis, heads: list[str]) -> None:
        if len(self._differences) >= MOST_DIFFERENCES:
            return
        number = None
        kept = sum(map(len, self.photos))
        if len(self.photos) < MOST_PHOTOS and kept + len(answered.photo) <= MOST_PHOTO_BYTES:
            number = len(self.photos)
            self.photos.append(answered.photo)
        self._differences.append(
            {
                "requestId": answered.request_id,
                "photo": number,
                "heads": {
                    name: {
                        "served": _answer(answered.analysis.heads[name]),
                        "candidate": _answer(candidate.heads[name]),
                    }
                    for name in heads
                },
            }
        )


def _agree(served: Head, candidate: Head) -> bool:
    if served.labels is None or candidate.labels is None:
        return served.label == candidate.label
    # In the order of each version's own labels.
    return set(served.labels) == set(candidate.labels)


def _answer(head: Head) -> dict[str, Any]:
    return {"label": head.label, "confidence": head.confidence}
