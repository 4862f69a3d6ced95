"""Proposes a threshold, and a band of unsure answers, for a wished precision or recall."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..checking.tally import interval
from ..onnx_model.answers import read_answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from car_analyzer.heads import HeadSpec


# A precision on fewer photos is mostly luck.
LEAST_CHOSEN = 20


@dataclass(frozen=True)
class Wish:
    """At least this precision or recall, from 0 to 1, of a head's positive label."""

    of: Literal["precision", "recall"]
    share: float


@dataclass(frozen=True)
class Proposal:
    """What to write into the spec for a wish. It refers to probabilities before calibration, as the spec does.

    Attributes:
        wish: The wish.
        positive: The head's positive label.
        threshold: From which the positive label is chosen; None if none fulfils the wish, or the head has no threshold.
        right: How many photos with a probability from there have the positive label.
        chosen: How many photos have a probability from there.
        positives: How many photos have the positive label.
        unsure: The band in which neither label fulfils the wish; None if there is none.
        in_band: How many photos are in the band.
        photos: How many photos there are.
    """

    wish: Wish
    positive: str
    threshold: float | None = None
    right: int = 0
    chosen: int = 0
    positives: int = 0
    unsure: tuple[float, float] | None = None
    in_band: int = 0
    photos: int = 0

    @property
    def precision(self) -> tuple[float, float]:
        """The interval of the precision (95 %)."""
        return interval(self.right, self.chosen)

    @property
    def recall(self) -> tuple[float, float]:
        """The interval of the recall (95 %)."""
        return interval(self.right, self.positives)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        facts: dict[str, Any] = {"wish": {self.wish.of: self.wish.share}, "positive": self.positive}
        facts |= {"threshold": self.threshold, "unsure": self.unsure}
        if self.threshold is None:
            return facts
        return facts | {
            "precision": round(self.right / self.chosen, 4),
            "precisionInterval": [round(edge, 4) for edge in self.precision],
            "recall": round(self.right / self.positives, 4),
            "recallInterval": [round(edge, 4) for edge in self.recall],
            "inBand": self.in_band,
        }


def propose(head: HeadSpec, logits: npt.NDArray[np.float64], truths: Sequence[str], wish: Wish) -> Proposal:
    """Finds the threshold that fulfils a wish on these photos at the least cost.

    Args:
        head: The head.
        logits: [photos, logits].
        truths: The right labels.
        wish: For the precision, the lowest such threshold is chosen; for the recall, the highest.
    """
    if head.activation == "multilabel" or len(head.labels) != 2:
        return Proposal(wish, head.positive)
    answers = read_answers(replace(head, temperature=1.0, bias=0.0), logits)
    scores = np.array([answer.probabilities[head.positive] for answer in answers], np.float64)
    positive = np.array([truth == head.positive for truth in truths])
    threshold = _threshold(scores, positive, wish)
    if threshold is None:
        return Proposal(wish, head.positive, photos=len(scores))
    low = high = threshold
    if wish.of == "precision":
        negative = _threshold(1.0 - scores, ~positive, wish)
        low = threshold if negative is None else round(1 - negative, 15)
    else:
        high = 0.5 if head.threshold is None else head.threshold
    band = (low, high) if low < high else None
    return Proposal(
        wish,
        head.positive,
        threshold,
        int((positive & (scores >= threshold)).sum()),
        int((scores >= threshold).sum()),
        int(positive.sum()),
        band,
        int(((low < scores) & (scores < high)).sum()) if band else 0,
        len(scores),
    )


def _threshold(scores: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_], wish: Wish) -> float | None:
    """A short number between two neighbouring scores, or None."""
    order = np.argsort(scores)
    cuts, first = np.unique(scores[order], return_index=True)
    # How many photos have at least that score, and how many of them are positive.
    chosen = len(scores) - first
    found = np.cumsum(positive[order][::-1])[::-1][first]
    if wish.of == "precision":
        fulfilled = cuts[(found / chosen >= wish.share) & (chosen >= LEAST_CHOSEN)]
        cut = min(fulfilled, default=None)
    else:
        fulfilled = cuts[found / positive.sum() >= wish.share]
        cut = max(fulfilled, default=None)
    if cut is None:
        return None
    return _between(float(max(cuts[cuts < cut], default=0.0)), float(cut))


def _between(low: float, high: float) -> float:
    for digits in range(2, 17):
        middle = round((low + high) / 2, digits)
        if low < middle <= high:
            return middle
    return high
