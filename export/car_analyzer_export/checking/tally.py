"""Counts right and wrong answers."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from car_analyzer.heads import UNSURE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from car_analyzer import Head

    from .answers import Answer


# With more labels than this, a confusion table leaves out those that never occur.
WIDEST_FULL_TABLE = 8


@dataclass(frozen=True)
class Mistake:
    """A wrong answer."""

    answer: Answer
    head: str
    truth: str
    label: str
    confidence: float


@dataclass(frozen=True)
class Tally:
    """The counts of one head.

    Attributes:
        head: Its name.
        confusion: (truth, answer) → how many photos.
        truths: The labels that occur as truth, in the model's order.
        answers: The columns of the confusion table, in the model's order; `unsure` at the end.
        mistakes: The most confident ones first.
        labels: How many labels the head has.
    """

    head: str
    confusion: Counter[tuple[str, str]]
    truths: list[str]
    answers: list[str]
    mistakes: list[Mistake]
    labels: int

    @property
    def photos(self) -> int:
        """How many photos have a truth and an answer."""
        return self.confusion.total()

    @property
    def right(self) -> int:
        """How many answers were right. `unsure` is not."""
        return sum(count for (truth, answer), count in self.confusion.items() if truth == answer)

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return self.right / self.photos

    @property
    def balanced(self) -> float:
        """The balanced accuracy: the mean of the labels' recalls."""
        return sum(map(self.recall, self.truths)) / len(self.truths)

    @property
    def chance(self) -> float:
        """The balanced accuracy of guessing."""
        return 1 / (len(self.truths) if len(self.truths) > 1 else max(self.labels, 2))

    @property
    def commonest(self) -> float:
        """The accuracy of always giving the most common label; of guessing if all photos have the same label."""
        return max(map(self.total, self.truths)) / self.photos if len(self.truths) > 1 else self.chance

    def recall(self, truth: str) -> float:
        """The share of right answers among the photos with the label `truth`."""
        return self.confusion[truth, truth] / self.total(truth)

    def total(self, truth: str) -> int:
        """The number of photos with the label `truth`."""
        return sum(count for (one, _), count in self.confusion.items() if one == truth)


def tally(answers: Iterable[Answer], heads: dict[str, Head]) -> dict[str, Tally]:
    """Counts the answers of every head that has photos."""
    answered = [answer for answer in answers if answer.analysis is not None]
    return {
        head: _tally_head(head, described, relevant)
        for head, described in heads.items()
        if (relevant := [answer for answer in answered if head in answer.photo.truth])
    }


def _tally_head(head: str, described: Head, answers: list[Answer]) -> Tally:
    confusion: Counter[tuple[str, str]] = Counter()
    mistakes = []
    for answer in answers:
        assert answer.analysis is not None  # noqa: S101 - left out before
        truth, given = answer.photo.truth[head], answer.analysis.heads[head]
        confusion[truth, given.label] += 1
        if truth != given.label:
            mistakes.append(Mistake(answer, head, truth, given.label, given.confidence))
    labels = list(described.probabilities)
    shown = {name for pair in confusion for name in pair}
    if described.labels is None and len(labels) <= WIDEST_FULL_TABLE:
        shown |= set(labels)
    # `unsure` is not a confident mistake.
    mistakes.sort(key=lambda mistake: (mistake.label == UNSURE, -mistake.confidence))
    return Tally(
        head,
        confusion,
        _ordered({truth for truth, _ in confusion}, labels),
        _ordered(shown, labels),
        mistakes,
        len(labels),
    )


def _ordered(found: set[str], labels: list[str]) -> list[str]:
    positions = {label: position for position, label in enumerate(labels)}
    return sorted(found, key=lambda name: (positions.get(name, len(positions)), name))


def interval(right: int, photos: int) -> tuple[float, float]:
    """The 95 % confidence interval of the accuracy, after Wilson."""
    z, share = 1.96, right / photos
    middle = (share + z * z / (2 * photos)) / (1 + z * z / photos)
    reach = z / (1 + z * z / photos) * math.sqrt(share * (1 - share) / photos + z * z / (4 * photos * photos))
    return max(0.0, middle - reach), min(1.0, middle + reach)
