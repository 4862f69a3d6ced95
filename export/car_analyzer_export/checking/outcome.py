"""The outcome of a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .advice import describe
from .tally import interval

if TYPE_CHECKING:
    from collections import Counter

    from .advice import Advice
    from .alternatives import Fit
    from .answers import Answer
    from .tally import Mistake, Tally

LISTED_MISTAKES = 20


@dataclass(frozen=True)
class Checked:
    """The outcome of a check before publishing, for the command's process, which has no networks.

    Attributes:
        text: For the terminal.
        facts: JSON-ready; see `Outcome.to_dict`.
        heads: Head → how many `photos` were checked, and how many answers were `right`.
        refused: A sentence for each head whose accuracy is too low.
    """

    text: str
    facts: dict[str, Any]
    heads: dict[str, dict[str, int]]
    refused: list[str]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a check.

    Attributes:
        source: The folder or CSV file.
        url: The server; None for a check before publishing.
        answers: For every photo with a label.
        unlabelled: Why photos were left out → how many.
        tallies: Head → counts.
        fits: Head → the alternatives that were tried.
        advice: Changes of the spec that fit much better.
        notes: Sentences for the user.
    """

    source: str
    url: str | None
    answers: list[Answer]
    unlabelled: Counter[str]
    tallies: dict[str, Tally]
    fits: dict[str, list[Fit]]
    advice: list[Advice]
    notes: list[str]

    @property
    def failed(self) -> list[Answer]:
        """Photos without an answer."""
        return [answer for answer in self.answers if answer.analysis is None]

    @property
    def mistakes(self) -> list[Mistake]:
        """The mistakes of all heads, the most confident ones first."""
        return sorted(
            (one for tally in self.tallies.values() for one in tally.mistakes), key=lambda one: -one.confidence
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {
            "source": self.source,
            "url": self.url,
            "photos": len(self.answers),
            "heads": {name: _head(tally) for name, tally in self.tallies.items()},
            "warnings": [
                {
                    "head": one.head,
                    "sentence": one.sentence,
                    "changes": [{"table": table, "change": change} for table, change in one.changes],
                    "photos": one.photos,
                    "rightNow": one.right_now,
                    "rightThen": one.right_then,
                    "sure": one.sure,
                    "asLikely": list(one.also),
                }
                for one in self.advice
            ],
            "readings": {
                head: [
                    {
                        "reading": describe(fits[0], fit),
                        "photos": len(fit.right),
                        "accuracy": round(sum(fit.right) / len(fit.right), 4),
                        "balancedAccuracy": round(fit.balanced, 4),
                    }
                    for fit in fits
                ]
                for head, fits in self.fits.items()
            },
            "failed": [{"image": answer.photo.name, "error": answer.error} for answer in self.failed],
            "skipped": [{"reason": reason, "photos": count} for reason, count in self.unlabelled.most_common()],
            "notes": self.notes,
        }


def _head(tally: Tally) -> dict[str, Any]:
    return {
        "photos": tally.photos,
        "right": tally.right,
        "accuracy": round(tally.accuracy, 4),
        "interval": [round(edge, 4) for edge in interval(tally.right, tally.photos)],
        "confusion": {
            truth: {answer: tally.confusion[truth, answer] for answer in tally.answers} for truth in tally.truths
        },
        "mistakes": [
            {
                "image": one.answer.photo.name,
                "truth": one.truth,
                "label": one.label,
                "confidence": round(one.confidence, 4),
            }
            for one in tally.mistakes[:LISTED_MISTAKES]
        ],
    }
