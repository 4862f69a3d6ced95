"""A comparison's outcome for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..checking.text import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .outcome import Outcome

LISTED = 10


def as_text(outcome: Outcome) -> str:
    """Formats the outcome."""
    return "\n".join(_lines(outcome))


def latencies(outcome: Outcome) -> str:
    """The latencies of both versions in a sentence."""
    served, candidate = (
        f"{outcome.latency(side, 50):.0f} ms (95 %: {outcome.latency(side, 95):.0f} ms)"
        for side in ("served", "candidate")
    )
    return f"median latency {candidate}, the served version's {served}"


def _lines(outcome: Outcome) -> Iterator[str]:
    skipped = outcome.counts["skipped"]
    left_out = f"; {skipped:,} more were left out, so that it takes no time from others" if skipped else ""
    yield f"the new version got {count(outcome.photos, 'photo')} of the gateway{left_out}"
    for head in outcome.heads.values():
        yield f"{head.name}: {head.summary}"
        changes = [(pair, number) for pair, number in head.confusion.most_common() if pair[0] != pair[1]]
        for (served, candidate), number in changes[:LISTED]:
            yield f"  {number:6,}  {served or 'none'} -> {candidate or 'none'}"
        yield f"  probabilities differ by {head.mean:.2g} on average, by {head.largest:.2g} at most"
    for code, number in outcome.errors.most_common():
        yield f"{count(number, 'photo')} got no answer from it: {code}"
    if outcome.milliseconds["candidate"]:
        yield latencies(outcome)
