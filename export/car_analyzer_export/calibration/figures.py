"""How far confidences are from the shares of right answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from car_analyzer.heads import UNSURE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from car_analyzer import Head

BINS = 15
RESAMPLES = 1000
INTERVAL = 0.025, 0.975
# Of what is right; a photo with less would outweigh all others.
LEAST_PROBABILITY = 1e-12
_EDGES = np.linspace(0, 1, BINS + 1)


@dataclass(frozen=True)
class Decisions:
    """What a head decided about photos: one label each, or a yes or no for each label of a multilabel head.

    Attributes:
        confidence: [photos, decisions].
        right: Likewise.
        loss: The log loss of each photo: minus the logarithm of the probability of what is right.
    """

    confidence: npt.NDArray[np.float64]
    right: npt.NDArray[np.bool_]
    loss: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """The decisions whose confidence is in one interval: how many, and their averages."""

    decisions: int
    confidence: float
    accuracy: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {
            "decisions": self.decisions,
            "confidence": round(self.confidence, 4),
            "accuracy": round(self.accuracy, 4),
        }


@dataclass(frozen=True)
class Figures:
    """How well confidences are calibrated.

    Attributes:
        error: The expected calibration error (ECE): the average distance of a bin's confidence from its accuracy.
        by_chance: The interval of the ECE for as many photos, if these confidences were right (95 %).
        loss: The average log loss.
        confidence: The average confidence.
        accuracy: The share of right decisions.
        bins: The reliability diagram, without empty bins.
    """

    error: float
    by_chance: tuple[float, float]
    loss: float
    confidence: float
    accuracy: float
    bins: tuple[Bin, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {
            "ece": round(self.error, 4),
            "eceByChance": [round(edge, 4) for edge in self.by_chance],
            "logLoss": round(self.loss, 4),
            "confidence": round(self.confidence, 4),
            "accuracy": round(self.accuracy, 4),
            "bins": [one.to_dict() for one in self.bins],
        }


def decide(answers: Sequence[Head], truths: Sequence[str]) -> Decisions:
    """Compares answers with the right labels. In place of `unsure`, the more likely label counts."""
    rows = [_decisions(answer, truth) for answer, truth in zip(answers, truths, strict=True)]
    confidence, right, loss = zip(*rows, strict=True)
    return Decisions(np.array(confidence, np.float64), np.array(right, np.bool_), np.array(loss, np.float64))


def _decisions(answer: Head, truth: str) -> tuple[list[float], list[bool], float]:
    shares = answer.probabilities
    if answer.labels is None:
        label = max(shares, key=shares.__getitem__) if answer.label == UNSURE else answer.label
        return [shares[label]], [label == truth], _log_loss(shares[truth])
    given, true = set(answer.labels), set(truth.split(", "))
    confidences = [share if label in given else 1 - share for label, share in shares.items()]
    loss = sum(_log_loss(share if label in true else 1 - share) for label, share in shares.items())
    return confidences, [(label in given) == (label in true) for label in shares], loss


def _log_loss(probability: float) -> float:
    return -math.log(max(probability, LEAST_PROBABILITY))


def measure(decisions: Decisions) -> Figures:
    """Measures the calibration."""
    confidence, right = decisions.confidence.ravel(), decisions.right.ravel()
    places = np.clip(np.digitize(confidence, _EDGES) - 1, 0, BINS - 1)

    def error(right: npt.NDArray[np.bool_]) -> float:
        return float(np.abs(np.bincount(places, confidence - right)).sum()) / len(right)

    bins = [
        Bin(int(inside.sum()), float(confidence[inside].mean()), float(right[inside].mean()))
        for place in range(BINS)
        if (inside := places == place).any()
    ]
    random = np.random.default_rng(0)
    # Consistency resampling: J. Broecker and L. A. Smith, Increasing the Reliability of Reliability Diagrams (2007).
    low, high = np.quantile([error(random.random(len(right)) < confidence) for _ in range(RESAMPLES)], INTERVAL)
    return Figures(
        error(right),
        (float(low), float(high)),
        float(decisions.loss.mean()),
        float(confidence.mean()),
        float(right.mean()),
        tuple(bins),
    )


def gain(before: Decisions, after: Decisions) -> tuple[float, float]:
    """The 95 % interval of the reduction of the log loss.

    It decides whether calibration helps. The ECE cannot: with few photos it is too high, most of all where it should be
    0. In simulations with 100 to 400 photos, this found no gain for calibrated heads; for those with a temperature of 4
    in 7 to 10 of 10 cases, and of 2 with 400 photos in 9 of 10. The Brier score found half of them.
    """
    differences = before.loss - after.loss
    reach = 1.96 * differences.std(ddof=1) / np.sqrt(len(differences))
    return float(differences.mean() - reach), float(differences.mean() + reach)
