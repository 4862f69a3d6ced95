"""A comparison's outcome as one self-contained HTML page."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from ..checking.page import write_page
from ..checking.report import thumbnail
from ..checking.text import count
from .text import latencies

if TYPE_CHECKING:
    from pathlib import Path

    from .outcome import Difference, Outcome


def write_report(outcome: Outcome, verdict: str, file: Path) -> None:
    """Writes the page.

    Args:
        outcome: What to show.
        verdict: Whether the version is served, in a sentence.
        file: The HTML file.

    Raises:
        OSError: It cannot be written.
    """
    values = {"outcome": outcome, "verdict": verdict, "latencies": latencies(outcome)}
    write_page(file, __package__, {"count": count, "thumbnail": _thumbnail}, values)


def _thumbnail(difference: Difference) -> str | None:
    return None if difference.photo is None else thumbnail(io.BytesIO(difference.photo))
