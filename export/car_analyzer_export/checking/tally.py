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

    from .asking import Answer


# With more labels than these, a confusion table leaves out those that never occur.
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
    """How one head did.

    Attributes:
        head: Its name.
        confusion: (truth, answer) → how many photos.
        truths: What occurs as truth, in the model's order.
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
        """The mean of each label's share of right answers: a network that always says the same gains nothing here."""
        return sum(map(self.recall, self.truths)) / len(self.truths)

    @property
    def chance(self) -> float:
        """What a network that knows nothing reaches of `balanced`."""
        return 1 / (len(self.truths) if len(self.truths) > 1 else max(self.labels, 2))

    @property
    def commonest(self) -> float:
        """The accuracy of always giving the commonest label; of guessing where all photos have the same."""
        return max(map(self.total, self.truths)) / self.photos if len(self.truths) > 1 else self.chance

    def recall(self, truth: str) -> float:
        """The share of right answers among the photos of which `truth` is true."""
        return self.confusion[truth, truth] / self.total(truth)

    def total(self, truth: str) -> int:
        """How many photos there are of which `truth` is true."""
        return sum(count for (one, _), count in self.confusion.items() if one == truth)


def tally(answers: Iterable[Answer], heads: dict[str, Head]) -> dict[str, Tally]:
    """Counts for every head that has photos."""
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
    # `unsure` admits that it does not know, so it is no confident mistake.
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
    known = {label: position for position, label in enumerate(labels)}
    return sorted(found, key=lambda name: (known.get(name, len(known)), name))


def interval(right: int, photos: int) -> tuple[float, float]:
    """Where the accuracy on all such photos lies with 95 % confidence, after Wilson."""
    z, share = 1.96, right / photos
    middle = (share + z * z / (2 * photos)) / (1 + z * z / photos)
    reach = z / (1 + z * z / photos) * math.sqrt(share * (1 - share) / photos + z * z / (4 * photos * photos))
    return max(0.0, middle - reach), min(1.0, middle + reach)
