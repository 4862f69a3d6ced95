"""A check's outcome as one self-contained HTML page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from car_analyzer import PhotoError

from ..preprocess.photo import FORMATS, MAX_PIXELS
from .advice import describe
from .page import write_page
from .text import count, summary

if TYPE_CHECKING:
    from pathlib import Path
    from typing import IO

    from car_analyzer import Explanation

    from .answers import Answer
    from .explain import Explanations
    from .hypotheses import Hypothesis, Judgement
    from .outcome import Outcome

# A thousand thumbnails are about 10 MB, which a browser opens without delay.
MOST_PHOTOS = 1000
MOST_HYPOTHESES = 8
SIDE = 256
QUALITY = 72


@dataclass(frozen=True)
class Verdict:
    """One head's answer about one photo, and where in the photo it comes from, if that is known."""

    head: str
    label: str
    confidence: float
    truth: str | None
    explanation: Explanation | None = None

    @property
    def wrong(self) -> bool:
        """Whether it differs from the label."""
        return self.truth is not None and self.truth != self.label


@dataclass(frozen=True)
class Card:
    """One photo on the page."""

    name: str
    error: str | None
    verdicts: list[Verdict]
    path: Path

    @property
    def wrong(self) -> bool:
        """Whether a head is wrong, or there is no answer."""
        return self.error is not None or any(verdict.wrong for verdict in self.verdicts)

    @property
    def rank(self) -> tuple[float, ...]:
        """The sort key: the most confident mistakes, then failures, then the least confident right answers."""
        if self.error is not None:
            return (1,)
        wrong = [verdict.confidence for verdict in self.verdicts if verdict.wrong]
        return (0, -max(wrong)) if wrong else (2, min(verdict.confidence for verdict in self.verdicts))

    @property
    def thumbnail(self) -> str | None:
        """A small JPEG as a data URI; None where Pillow cannot make one."""
        return thumbnail(self.path)

    @property
    def maps(self) -> list[tuple[Verdict, str]]:
        """The explained answers, each with a small JPEG of the photo and the map on it, as a data URI."""
        drawn = [(verdict, _map(verdict.explanation, self.path)) for verdict in self.verdicts]
        return [(verdict, picture) for verdict, picture in drawn if picture is not None]


def write_report(outcome: Outcome, file: Path, explanations: Explanations | None = None) -> None:
    """Writes the page.

    Args:
        outcome: The outcome.
        file: The HTML file.
        explanations: Of wrong answers.

    Raises:
        OSError: It cannot be written.
    """
    cards = sorted((_card(answer, explanations or {}) for answer in outcome.answers), key=lambda card: card.rank)
    values = {
        "outcome": outcome,
        "best": _best,
        "cards": cards[:MOST_PHOTOS],
        "left_out": max(0, len(cards) - MOST_PHOTOS),
        "wrong": sum(card.wrong for card in cards),
    }
    write_page(file, __package__, {"summary": summary, "count": count, "describe": describe}, values)


def _best(judgement: Judgement) -> list[Hypothesis]:
    """The best hypotheses, in the order in which they were judged."""
    best = sorted(judgement.hypotheses, key=lambda one: (not one.holds, -one.fit.balanced))[:MOST_HYPOTHESES]
    return [one for one in judgement.hypotheses if any(one is shown for shown in best)]


def _card(answer: Answer, explanations: Explanations) -> Card:
    heads = {} if answer.analysis is None else answer.analysis.heads
    photo = answer.photo
    verdicts = [
        Verdict(name, head.label, head.confidence, photo.truth.get(name), explanations.get((photo.path, name)))
        for name, head in heads.items()
    ]
    return Card(photo.name, answer.error, verdicts, photo.path)


def thumbnail(photo: Path | IO[bytes]) -> str | None:
    """A small JPEG of a photo as a data URI; None where Pillow cannot make one."""
    try:
        with Image.open(photo, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                return None
            image.draft("RGB", (2 * SIDE, 2 * SIDE))  # decodes large JPEGs at a fraction of their size
            small = ImageOps.exif_transpose(image)
            small.thumbnail((SIDE, SIDE))
            return _data_uri(small)
    except Exception:  # noqa: BLE001 - Pillow raises many types; the page then has no thumbnail
        return None


def _map(explanation: Explanation | None, path: Path) -> str | None:
    if explanation is None:
        return None
    try:
        with Image.open(io.BytesIO(explanation.on_photo(path, SIDE))) as picture:
            return _data_uri(picture)
    except PhotoError:
        return None


def _data_uri(picture: Image.Image) -> str:
    content = io.BytesIO()
    picture.convert("RGB").save(content, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
