"""Sends labelled photos to the server."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image

from car_analyzer import UnreachableError
from car_analyzer.drift import Observation, Reference, given_answers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from car_analyzer import Analysis, CarAnalyzer, Head

    from .labelled import LabelledPhoto


@dataclass(frozen=True)
class Answer:
    """A photo and the server's answer.

    Attributes:
        photo: The photo.
        analysis: The answer; None if there is none.
        error: Why there is none.
        statistics: Of the photo, for drift; see `photo_statistics`. Empty if its pixels were not seen here.
    """

    photo: LabelledPhoto
    analysis: Analysis | None
    error: str | None = None
    statistics: Mapping[str, float] = field(default_factory=dict)


def fetch_heads(analyzer: CarAnalyzer) -> dict[str, Head]:
    """Fetches the heads and their labels from the server, with the answer to a grey picture.

    Raises:
        CarAnalyzerError: The server cannot be reached, or cannot answer.
    """
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), (128, 128, 128)).save(picture, "PNG")
    return dict(analyzer.analyze(picture.getvalue()).heads)


def analyze_all(
    analyzer: CarAnalyzer, photos: list[LabelledPhoto], concurrency: int, step: Callable[[], object]
) -> list[Answer]:
    """Analyses every photo; calls `step` after each.

    Raises:
        UnreachableError: The server is gone. Errors of single photos are in their answers.
    """
    answers: list[Answer] = []
    sent = analyzer.analyze_many((photo.path for photo in photos), concurrency=concurrency)
    try:
        for photo, outcome in zip(photos, sent, strict=True):
            if outcome.ok:
                answers.append(Answer(photo, outcome))
            elif isinstance(outcome.error, UnreachableError):
                raise outcome.error
            else:
                answers.append(Answer(photo, None, str(outcome.error)))
            step()
    finally:
        sent.close()
    return answers


def drift_reference(answers: Sequence[Answer]) -> Reference | None:
    """What a gateway compares later photos with; None if too few photos were seen and answered here."""
    # Photos that are listed twice do not make the statistics more certain.
    observations = {
        answer.photo.path: Observation(answer.statistics, given_answers(answer.analysis.heads))
        for answer in answers
        if answer.analysis is not None and answer.statistics
    }
    return Reference.of(list(observations.values()))
