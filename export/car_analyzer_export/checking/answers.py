"""Sends labelled photos to the server."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from car_analyzer import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from car_analyzer import Analysis, CarAnalyzer, Head

    from .labelled import LabelledPhoto


@dataclass(frozen=True)
class Answer:
    """A photo and the server's answer.

    Attributes:
        photo: The photo.
        analysis: The answer; None if there is none.
        error: Why there is none.
    """

    photo: LabelledPhoto
    analysis: Analysis | None
    error: str | None = None


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
