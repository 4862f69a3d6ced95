"""The calibration, from photos to temperatures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking.check import none_answered, unchecked
from ..checking.labelled import find_labelled, printable
from ..checking.support import folds_of
from ..errors import CheckError
from ..onnx_model.answers import read_answers
from .figures import decide, gain, measure
from .fit import NoFitError, Scaling, fit
from .thresholds import propose

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from car_analyzer import Head
    from car_analyzer.heads import HeadSpec

    from ..checking.answers import Answer
    from ..checking.labelled import LabelledPhoto
    from .figures import Figures
    from .thresholds import Proposal, Wish

# With fewer, even a very overconfident head can often not be distinguished from a calibrated one; see `figures.gain`.
LEAST_PHOTOS = 100
LEAST_OF_LABEL = 20


@dataclass(frozen=True)
class Calibration:
    """The calibration of one head.

    Attributes:
        head: The head as it is served.
        scaling: Learned from all photos.
        photos: How many there were.
        before: As it is served.
        after: Calibrated; each photo with the scaling learned from the other folds.
        gain: The interval of the reduction of the log loss on held-out photos (95 %).
        proposals: Thresholds for the wished precision and recall.
    """

    head: HeadSpec
    scaling: Scaling
    photos: int
    before: Figures
    after: Figures
    gain: tuple[float, float]
    proposals: tuple[Proposal, ...]

    @property
    def helps(self) -> bool:
        """Whether it is more than chance: the ECE is lower, and the whole interval of the gain is above 0."""
        return self.after.error < self.before.error and self.gain[0] > 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {
            "photos": self.photos,
            **self.scaling.fields(),
            "helps": self.helps,
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "logLossGain": [round(edge, 4) for edge in self.gain],
            "proposals": [proposal.to_dict() for proposal in self.proposals],
        }


@dataclass(frozen=True)
class Outcome:
    """The outcome for all heads.

    Attributes:
        source: The folder or CSV file.
        answers: For every photo with a label.
        heads: Head → its calibration.
        refused: Head → why it could not be calibrated, in a sentence.
        notes: Sentences for the user.
    """

    source: str
    answers: list[Answer]
    heads: dict[str, Calibration]
    refused: dict[str, str]
    notes: list[str]

    @property
    def helpful(self) -> dict[str, Calibration]:
        """The heads whose calibration helps."""
        return {name: found for name, found in self.heads.items() if found.helps}

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {
            "source": self.source,
            "photos": len(self.answers),
            "heads": {name: found.to_dict() for name, found in self.heads.items()},
            "refused": self.refused,
            "failed": [{"image": one.photo.name, "error": one.error} for one in self.answers if one.analysis is None],
            "notes": self.notes,
        }


def calibrate(
    source: Path,
    heads: Sequence[HeadSpec],
    analyze: Callable[[list[LabelledPhoto]], list[Answer]],
    wishes: Sequence[Wish] = (),
) -> Outcome:
    """Learns the temperature of each head, and measures what it changes on held-out photos.

    Args:
        source: A folder or a CSV file.
        heads: The model's heads.
        analyze: Answers photos, in their order.
        wishes: The precision or recall to propose thresholds for.

    Raises:
        CheckError: No head can be calibrated: there are too few photos, or none.
        CarAnalyzerError: From `analyze`.
    """
    labels = {head.name: head.labels for head in heads}
    found = find_labelled(source, labels, frozenset(head.name for head in heads if head.activation == "multilabel"))
    answers = analyze(found.photos)
    if all(answer.analysis is None for answer in answers):
        raise none_answered(answers)
    done: dict[str, Calibration] = {}
    refused: dict[str, str] = {}
    notes = [f"{number} left out: {reason}" for reason, number in found.unlabelled.most_common()]
    for head in heads:
        logits, truths = _labelled(head.name, answers)
        if not truths:
            notes.append(unchecked(head.name, labels).replace("checked", "calibrated"))
        elif reason := _too_few(head, truths):
            refused[head.name] = reason
        else:
            try:
                done[head.name] = calibrate_head(head, np.array(logits), truths, wishes)
            except NoFitError:
                refused[head.name] = (
                    f"{head.name}: its answers on these photos are no better than guessing, so no temperature fits. "
                    "Run `car-analyzer check` first: its labels may be in the wrong order."
                )
    if not done:
        raise CheckError("\n".join([*refused.values(), "Nothing was published."]))
    return Outcome(printable(str(source)), answers, done, refused, notes)


def calibrate_head(
    head: HeadSpec, logits: npt.NDArray[np.float64], truths: Sequence[str], wishes: Sequence[Wish] = ()
) -> Calibration:
    """Calibrates one head.

    Args:
        head: The head as it is served.
        logits: [photos, logits].
        truths: The right labels; of a multilabel head joined by commas.
        wishes: See `calibrate`.

    Raises:
        NoFitError: The logits say nothing about the labels.
    """
    truth = np.array([[label in _true(head, one) for label in head.labels] for one in truths])
    folds = folds_of(truths)
    held_out: dict[int, Head] = {}
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        scaled = scaled_head(head, fit(head.activation, logits[folds != fold], truth[folds != fold]))
        held_out |= zip(map(int, rows), read_answers(scaled, logits[rows]), strict=True)
    before = decide(read_answers(head, logits), truths)
    after = decide([held_out[row] for row in range(len(truths))], truths)
    return Calibration(
        head,
        fit(head.activation, logits, truth),
        len(truths),
        measure(before),
        measure(after),
        gain(before, after),
        tuple(propose(head, logits, truths, wish) for wish in wishes),
    )


def scaled_head(head: HeadSpec, scaling: Scaling) -> HeadSpec:
    """The head with another scaling of its confidences."""
    return replace(head, temperature=scaling.temperature, bias=scaling.bias)


def _labelled(head: str, answers: list[Answer]) -> tuple[list[tuple[float, ...]], list[str]]:
    found = [one for one in answers if one.analysis is not None and head in one.photo.truth]
    return [one.analysis.heads[head].logits for one in found if one.analysis], [one.photo.truth[head] for one in found]


def _true(head: HeadSpec, truth: str) -> set[str]:
    return set(truth.split(", ")) if head.activation == "multilabel" else {truth}


def _too_few(head: HeadSpec, truths: list[str]) -> str | None:
    """The sentence if there are too few photos."""
    numbers = Counter(label for truth in truths for label in _true(head, truth))
    missing = [
        f"{numbers[label]} of '{label}' ({LEAST_OF_LABEL} are needed)"
        for label in head.labels
        if numbers[label] < LEAST_OF_LABEL
    ]
    if head.activation == "multilabel":
        without = {label: len(truths) - numbers[label] for label in head.labels}
        missing += [
            f"{number} without '{label}' ({LEAST_OF_LABEL} are needed)"
            for label, number in without.items()
            if number < LEAST_OF_LABEL
        ]
    if len(truths) < LEAST_PHOTOS:
        missing.insert(0, f"{len(truths)} with a label of this head ({LEAST_PHOTOS} are needed)")
    return f"{head.name}: too few photos to calibrate it: {', '.join(missing)}." if missing else None
