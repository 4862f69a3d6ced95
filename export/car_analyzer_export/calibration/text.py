"""A calibration's outcome for a terminal."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from ..checking.text import NO_BREAK, WIDTH, count
from .thresholds import LEAST_CHOSEN

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
        return [f"{wish}: there is no threshold for it, {_why_none(proposal)}."]
    (low, high), (least, most) = proposal.precision, proposal.recall
    precision, recall = proposal.right / proposal.chosen, proposal.right / proposal.positives
    settings = f"threshold = {proposal.threshold}".replace(" ", NO_BREAK)  # so that it can be copied
    sentences = [
        f"{wish}: under [heads.{head}] in the spec, write {settings}; then export again. On these photos, the "
        f"precision is {precision:.1%} (on more such photos, likely {low:.0%} to {high:.0%}), the recall {recall:.1%} "
        f"(likely {least:.0%} to {most:.0%})."
    ]
    if proposal.unsure:
        band = f"unsure = {list(proposal.unsure)}".replace(" ", NO_BREAK)
        sentences.append(
            f"To leave doubtful photos to a person, write {band}, too: {proposal.in_band} of "
            f"{count(proposal.photos, 'photo')} are in this band."
        )
    return sentences


def _why_none(proposal: Proposal) -> str:
    if not proposal.photos:
        return "since the head does not choose between two labels"
    return f"with at least {LEAST_CHOSEN} photos above it" if proposal.wish.of == "precision" else "on these photos"


def _head(found: Calibration) -> Iterator[str]:
    before, after = found.before, found.after
    bias = f", bias {found.scaling.bias:g}" if found.scaling.bias else ""
    yield f"{found.head.name}: temperature {found.scaling.temperature:g}{bias}, from {count(found.photos, 'photo')}"
    chance = [f"{low:.3f}-{high:.3f}" for low, high in (before.by_chance, after.by_chance)]
    for row, served, calibrated in [
        ("", "as served", "calibrated, on held-out photos"),
        ("average confidence", f"{before.confidence:.1%}", f"{after.confidence:.1%}"),
        ("right", f"{before.accuracy:.1%}", f"{after.accuracy:.1%}"),
        ("calibration error (ECE)", f"{before.error:.3f}", f"{after.error:.3f}"),
        ("  by chance, if calibrated", *chance),
        ("log loss", f"{before.loss:.3f}", f"{after.loss:.3f}"),
    ]:
        yield f"  {row:26}  {served:>11}  {calibrated:>11}"
    for sentence in [verdict(found), *(line for one in found.proposals for line in proposed(found.head.name, one))]:
        yield from (f"  {line}" for line in _wrapped(sentence))


def _wrapped(text: str) -> list[str]:
    wrapped = textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
    return [line.replace(NO_BREAK, " ") for line in wrapped]
