"""How strongly labelled photos support one preprocessing or label order over another."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from .alternatives import Fit

FOLDS = 5
CONFIDENCE = 0.95
# Fits this close to each other are equally likely.
CLOSE = 0.02


@dataclass(frozen=True)
class Support:
    """What photos say about a fit, compared with another one.

    Attributes:
        photos: How many were compared.
        won: How many only this fit answers right.
        lost: How many only the other one answers right.
        interval: Of the gain, the difference of the two accuracies; adjusted for `tried`.
        tried: How many fits competed.
        folds: How many folds the photos have.
        folds_won: How many folds it wins while held out: the other folds choose it, and it gains on this one.
    """

    photos: int
    won: int
    lost: int
    interval: tuple[float, float]
    tried: int
    folds: int
    folds_won: int

    @property
    def holds(self) -> bool:
        """Whether the gain is more than chance: the interval is above 0, and at most one fold disagrees."""
        return self.interval[0] > 0 and self.folds_won >= max(2, self.folds - 1)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {
            "photos": self.photos,
            "won": self.won,
            "lost": self.lost,
            "gain": round((self.won - self.lost) / self.photos, 4),
            "interval": [round(edge, 4) for edge in self.interval],
            "tried": self.tried,
            "folds": self.folds,
            "foldsWon": self.folds_won,
        }

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"of {self.photos} photos, it corrects {self.won} and spoils {self.lost} ({CONFIDENCE:.0%} interval of "
            f"the gain: {low:+.0%} to {high:+.0%}), and it wins {self.folds_won} of {self.folds} held-out folds"
        )


class Comparison:
    """Compares fits on the same photos.

    Args:
        fits: All fits of a head.
    """

    def __init__(self, fits: Sequence[Fit]) -> None:
        truths = np.array(fits[0].truths)
        folds = folds_of(fits[0].truths)
        self._held_out = [folds == fold for fold in np.unique(folds)]
        self._right = {id(fit): np.array(fit.right, bool) for fit in fits}
        labels = [truths == label for label in np.unique(truths)]
        # For each fold, the balanced accuracy on all others.
        self._chosen_by = {
            key: np.array([_balanced(right, labels, ~held_out) for held_out in self._held_out])
            for key, right in self._right.items()
        }

    def support(self, fit: Fit, other: Fit, competing: Sequence[Fit], tried: int) -> Support:
        """Compares a fit with another one.

        Args:
            fit: The fit.
            other: What it should be better than.
            competing: The fits among which the other folds choose, with `fit`.
            tried: For how many fits the interval is adjusted.
        """
        one, two = self._right[id(fit)], self._right[id(other)]
        gains = one.astype(int) - two
        won, lost = int((gains > 0).sum()), int((gains < 0).sum())
        best = np.max([self._chosen_by[id(rival)] for rival in competing], axis=0)
        chosen = self._chosen_by[id(fit)] >= best - CLOSE
        gained = np.array([gains[held_out].sum() > 0 for held_out in self._held_out])
        return Support(
            photos=len(gains),
            won=won,
            lost=lost,
            interval=paired_interval(won, lost, len(gains), tried),
            tried=tried,
            folds=len(gained),
            folds_won=int((chosen & gained).sum()),
        )


def paired_interval(won: int, lost: int, photos: int, tried: int = 1) -> tuple[float, float]:
    """The confidence interval of the difference of two accuracies on the same photos.

    Wald's interval with one more photo won and one more lost: D. G. Bonett and R. M. Price, Adjusted Wald confidence
    interval for a difference of binomial proportions based on paired data, Journal of Educational and Behavioral
    Statistics 37 (2012), 479-488. Of several such differences, the largest is often chance, so Bonferroni's correction
    widens it.

    Args:
        won: How many photos only the first answers right.
        lost: How many photos only the second answers right.
        photos: How many photos there are.
        tried: How many differences are looked at.
    """
    z = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / (2 * tried))
    total = photos + 2
    gain, disagreeing = (won - lost) / total, (won + lost + 2) / total
    reach = z * math.sqrt((disagreeing - gain**2) / total)
    return max(-1.0, gain - reach), min(1.0, gain + reach)


def folds_of(truths: Sequence[str]) -> npt.NDArray[np.int_]:
    """The fold of each photo; each has photos of all labels.

    Neighbours are in the same fold, since they often show the same car.
    """
    totals, seen = Counter(truths), Counter[str]()
    folds = []
    for truth in truths:
        folds.append(seen[truth] * FOLDS // totals[truth])
        seen[truth] += 1
    return np.array(folds)


def _balanced(right: npt.NDArray[np.bool_], labels: list[npt.NDArray[np.bool_]], rows: npt.NDArray[np.bool_]) -> float:
    return float(np.mean([right[label & rows].mean() for label in labels if (label & rows).any()]))
