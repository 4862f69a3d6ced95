"""A calibration's outcome as one self-contained HTML page, with a reliability diagram for each head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..checking.page import write_page
from ..checking.text import count
from .text import proposed, verdict

if TYPE_CHECKING:
    from pathlib import Path

    from .calibrate import Outcome
    from .figures import Figures

# The diagram's size, in units of its view box.
SIDE = 200
LARGEST_DOT = 11


def write_report(outcome: Outcome, file: Path) -> None:
    """Writes the page.

    Raises:
        OSError: It cannot be written.
    """
    values = {"outcome": outcome, "dots": dots, "side": SIDE, "verdict": verdict, "proposed": proposed}
    write_page(file, __package__, {"count": count}, values)


def dots(figures: Figures) -> list[tuple[float, float, float]]:
    """The diagram's dots: x, y and radius. A dot's area is the number of decisions in its bin."""
    most = max(one.decisions for one in figures.bins)
    return [
        (one.confidence * SIDE, (1 - one.accuracy) * SIDE, max(1.5, LARGEST_DOT * (one.decisions / most) ** 0.5))
        for one in figures.bins
    ]
