"""A check's outcome as one self-contained HTML page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from ..preprocess.photo import FORMATS, MAX_PIXELS
from .advice import describe
from .page import write_page
from .text import count, summary

if TYPE_CHECKING:
    from pathlib import Path
    from typing import IO

    from .answers import Answer
    from .hypotheses import Hypothesis, Judgement
    from .outcome import Outcome

# A thousand thumbnails are about 10 MB, which a browser opens without delay.
MOST_PHOTOS = 1000
MOST_HYPOTHESES = 8
SIDE = 256
QUALITY = 72


@dataclass(frozen=True)
class Verdict:
    """One head's answer about one photo."""

    head: str
    label: str
    confidence: float
    truth: str | None

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


def write_report(outcome: Outcome, file: Path) -> None:
    """Writes the page.

    Raises:
        OSError: It cannot be written.
    """
    cards = sorted(map(_card, outcome.answers), key=lambda card: card.rank)
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


def _card(answer: Answer) -> Card:
    heads = {} if answer.analysis is None else answer.analysis.heads
    verdicts = [
        Verdict(name, head.label, head.confidence, answer.photo.truth.get(name)) for name, head in heads.items()
    ]
    return Card(answer.photo.name, answer.error, verdicts, answer.photo.path)


def thumbnail(photo: Path | IO[bytes]) -> str | None:
    """A small JPEG of a photo as a data URI; None where Pillow cannot make one."""
    try:
        with Image.open(photo, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                return None
            image.draft("RGB", (2 * SIDE, 2 * SIDE))  # decodes large JPEGs at a fraction of their size
            small = ImageOps.exif_transpose(image)
            small.thumbnail((SIDE, SIDE))
            content = io.BytesIO()
            small.convert("RGB").save(content, "JPEG", quality=QUALITY)
    except Exception:  # noqa: BLE001 - Pillow raises many types; the page then has no thumbnail
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
