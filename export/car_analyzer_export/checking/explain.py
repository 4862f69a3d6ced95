"""Where in a photo a wrong answer comes from, for the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from car_analyzer import CarAnalyzerError, PhotoError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from car_analyzer import CarAnalyzer, Explanation

    from .tally import Mistake

    Explanations = dict[tuple[Path, str], Explanation]


def explain_mistakes(
    analyzer: CarAnalyzer, mistakes: list[Mistake], step: Callable[[], object] = lambda: None
) -> tuple[Explanations, str | None]:
    """Explains wrong answers, one photo after the other: some take a network's time for 65 photos.

    Args:
        analyzer: A client of the server that gave the answers.
        mistakes: The wrong answers.
        step: Called after each mistake.

    Returns:
        The file and head of each mistake to its explanation, and why some or all have none. A photo that only the
        server can decode has none.
    """
    found: Explanations = {}
    wrong = {(mistake.answer.photo.path, mistake.head): mistake.label for mistake in mistakes}
    for path, head in wrong:
        if (path, head) not in found:
            try:
                heads = analyzer.analyze(path, explain=True).heads
            except PhotoError:
                heads = {}
            except CarAnalyzerError as error:
                return found, f"Not every wrong answer in the report has a map of where it comes from: {error}."
            for name, answer in heads.items():
                # Another label is the answer of a model that was published meanwhile.
                if answer.explanation is not None and wrong.get((path, name)) == answer.label:
                    found[path, name] = answer.explanation
        step()
    return found, None
