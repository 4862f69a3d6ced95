"""The outcome of a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .advice import advise, describe
from .tally import interval

if TYPE_CHECKING:
    from collections import Counter

    from car_analyzer.drift import Reference

    from .advice import Advice
    from .alternatives import Fit
    from .answers import Answer
    from .hypotheses import Judgement
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
        drift: Statistics of the photos, for the gateway; None if there are too few.
    """

    text: str
    facts: dict[str, Any]
    heads: dict[str, dict[str, int]]
    refused: list[str]
    drift: Reference | None = None


@dataclass(frozen=True)
class Outcome:
    """The outcome of a check.

    Attributes:
        source: The folder or CSV file.
        url: The server; None for a check before publishing.
        answers: For every photo with a label.
        unlabelled: Why photos were left out → how many.
        tallies: Head → counts.
        judgements: Head → the alternatives that were tried.
        notes: Sentences for the user.
    """

    source: str
    url: str | None
    answers: list[Answer]
    unlabelled: Counter[str]
    tallies: dict[str, Tally]
    judgements: dict[str, Judgement]
    notes: list[str]

    @property
    def advice(self) -> list[Advice]:
        """Changes of the spec that the photos support."""
        return [advice for judgement in self.judgements.values() if (advice := advise(judgement))]

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
                    "sure": True,  # what the photos do not support is not here
                    "asLikely": list(one.also),
                    "support": [{"change": cause, **support.to_dict()} for cause, support in one.support],
                }
                for one in self.advice
            ],
            "readings": {head: _readings(judgement) for head, judgement in self.judgements.items()},
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


def _readings(judgement: Judgement) -> list[dict[str, Any]]:
    served = judgement.served
    return [
        _reading(served, served),
        *(
            _reading(served, one.fit)
            | {
                "supported": one.holds,
                "comparedWith": describe(served, one.against),
                "support": one.support.to_dict() if one.support else None,
            }
            for one in judgement.hypotheses
        ),
    ]


def _reading(served: Fit, fit: Fit) -> dict[str, Any]:
    return {
        "reading": describe(served, fit),
        "photos": len(fit.right),
        "accuracy": round(sum(fit.right) / len(fit.right), 4),
        "balancedAccuracy": round(fit.balanced, 4),
    }
