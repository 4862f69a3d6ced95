"""A calibration's outcome for a terminal."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from ..checking.text import WIDTH, count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .calibrate import Calibration, Outcome
    from .thresholds import Proposal

LISTED = 10


def as_text(outcome: Outcome) -> str:
    """Formats the outcome."""
    lines: list[str] = []
    for found in outcome.heads.values():
        lines += [*_head(found), ""]
    lines += [line for sentence in [*outcome.refused.values(), *outcome.notes] for line in _wrapped(sentence)]
    if failed := [answer for answer in outcome.answers if answer.analysis is None]:
        lines.append(f"{count(len(failed), 'photo')} could not be analysed:")
        lines += [f"  {answer.photo.name}: {answer.error}" for answer in failed[:LISTED]]
        lines += [f"  and {len(failed) - LISTED} more"] if len(failed) > LISTED else []
    return "\n".join(lines).rstrip() + "\n"


def verdict(found: Calibration) -> str:
    """Whether the calibration helps, in a sentence."""
    if found.helps:
        return "Calibrated confidences are closer to the truth on held-out photos; its labels stay the same."
    if found.before.error <= found.before.by_chance[1]:
        return "It is calibrated already, as far as these photos can tell, and keeps its confidences."
    return "On held-out photos, a temperature does not make it clearly better, so it keeps its confidences."


def proposed(head: str, proposal: Proposal) -> list[str]:
    """A proposal in sentences."""
    wish = f"{head}, for a {proposal.wish.of} of {proposal.wish.share:.0%} of '{proposal.positive}'"
    if proposal.threshold is None:
        return [f"{wish}: no threshold reaches it on these photos, or the head has more than two labels."]
    (low, high), (least, most) = proposal.precision, proposal.recall
    settings = f"threshold = {proposal.threshold}"
    precision, recall = proposal.right / proposal.chosen, proposal.right / proposal.positives
    sentences = [
        f"{wish}: under [heads.{head}] in the spec, write {settings}; then export again. On these photos, the "
        f"precision is {precision:.1%} (on more such photos, likely {low:.0%} to {high:.0%}), the recall {recall:.1%} "
        f"(likely {least:.0%} to {most:.0%})."
    ]
    if proposal.unsure:
        lower, upper = proposal.unsure
        sentences.append(
            f"To leave doubtful photos to a person, write unsure = [{lower}, {upper}], too: "
            f"{proposal.in_band} of {count(proposal.photos, 'photo')} are in this band."
        )
    return sentences


def _head(found: Calibration) -> Iterator[str]:
    before, after = found.before, found.after
    bias = f", bias {found.scaling.bias:g}" if found.scaling.bias else ""
    yield f"{found.head.name}: temperature {found.scaling.temperature:g}{bias}, from {count(found.photos, 'photo')}"
    yield f"  {'':26}  {'as served':>10}  {'calibrated, on held-out photos':>10}"
    yield f"  {'average confidence':26}  {before.confidence:10.1%}  {after.confidence:10.1%}"
    yield f"  {'right':26}  {before.accuracy:10.1%}  {after.accuracy:10.1%}"
    yield f"  {'calibration error (ECE)':26}  {before.error:10.3f}  {after.error:10.3f}"
    ranges = ["{:.3f}-{:.3f}".format(*figures.by_chance) for figures in (before, after)]
    yield f"  {'  by chance, if calibrated':26}  {ranges[0]:>10}  {ranges[1]:>10}"
    yield f"  {'log loss':26}  {before.loss:10.3f}  {after.loss:10.3f}"
    for sentence in [verdict(found), *(line for one in found.proposals for line in proposed(found.head.name, one))]:
        yield from (f"  {line}" for line in _wrapped(sentence))


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
