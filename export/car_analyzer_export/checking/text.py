"""A check's outcome for a terminal."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING

from .tally import interval

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .outcome import Outcome
    from .tally import Tally

WORST = 10
LISTED = 10
WIDTH = 100
NO_BREAK = "\N{NO-BREAK SPACE}"
CORNER = "is \\ says"


def as_text(outcome: Outcome) -> str:
    """Formats the outcome."""
    lines: list[str] = []
    for advice in outcome.advice:
        sentence = advice.sentence
        for _, change in advice.changes:
            sentence = sentence.replace(change, change.replace(" ", NO_BREAK))  # so that it can be copied
        lines += [*_wrapped(f"WARNING  {sentence}"), ""]
    for tally in outcome.tallies.values():
        lines += [*_head(tally), ""]
    if mistakes := outcome.mistakes[:WORST]:
        lines.append("Most confident mistakes:")
        for one in mistakes:
            labels = f"says {one.label or 'none'}, is {one.truth or 'none'}"
            lines.append(f"  {one.confidence:6.1%}  {one.head}: {labels}  {one.answer.photo.name}")
        lines.append("")
    if outcome.failed:
        lines.append(f"{count(len(outcome.failed), 'photo')} could not be analysed:")
        lines += [f"  {answer.photo.name}: {answer.error}" for answer in outcome.failed[:LISTED]]
        lines += _more(len(outcome.failed))
    if outcome.unlabelled:
        lines.append("Left out:")
        lines += [f"  {number:5}  {reason}" for reason, number in outcome.unlabelled.most_common(LISTED)]
        lines += _more(len(outcome.unlabelled))
    for note in outcome.notes:
        lines += _wrapped(note)
    return "\n".join(lines).rstrip() + "\n"


def encodable(text: str) -> str:
    """Escapes the characters that this terminal cannot show."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def summary(tally: Tally) -> str:
    """One head's accuracy with its confidence interval."""
    low, high = interval(tally.right, tally.photos)
    return (
        f"{tally.accuracy:.1%} right ({tally.right} of {count(tally.photos, 'photo')}; "
        f"on more such photos, likely {low:.0%} to {high:.0%})"
    )


def count(number: int, noun: str) -> str:
    """`1 photo`, `2 photos`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _head(tally: Tally) -> Iterator[str]:
    yield f"{tally.head}: {summary(tally)}"
    names = [name or "none" for name in tally.truths]
    first = max(map(len, [*names, CORNER]))
    columns = [name or "none" for name in tally.answers]
    widths = [max(len(name), 6) for name in columns]
    titles = "  ".join(name.rjust(width) for name, width in zip(columns, widths, strict=True))
    yield f"  {CORNER.ljust(first)}  {titles}"
    for truth, name in zip(tally.truths, names, strict=True):
        cells = (
            str(tally.confusion[truth, answer]).rjust(width)
            for answer, width in zip(tally.answers, widths, strict=True)
        )
        yield f"  {name.ljust(first)}  {'  '.join(cells)}   {tally.recall(truth):6.1%}"


def _wrapped(text: str) -> list[str]:
    wrapped = textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
    return [line.replace(NO_BREAK, " ") for line in wrapped]


def _more(total: int) -> list[str]:
    return [f"  and {total - LISTED} more"] if total > LISTED else []
