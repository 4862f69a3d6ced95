"""Judges which changes of the spec labelled photos support: one change at a time, label orders first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .support import Comparison

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .alternatives import Fit
    from .support import Support

LEAST_PHOTOS = 5
# Of the balanced accuracy, over what is served, and over the same fit with one change less.
LEAST_GAIN = 0.15
LEAST_EXTRA_GAIN = 0.05


@dataclass(frozen=True)
class Hypothesis:
    """A fit that may be how the network was trained.

    Attributes:
        fit: The fit.
        against: Of all that it has to be better than, the fit that it is least surely better than.
        support: The comparison with that one; None if photos are too few, or all have one label.
        holds: Whether the photos support it.
    """

    fit: Fit
    against: Fit
    support: Support | None
    holds: bool


@dataclass(frozen=True)
class Change:
    """One of the changes that a proposal makes.

    Attributes:
        without: The proposal without this change.
        proposal: The proposal.
        support: The comparison of the two.
    """

    without: Fit
    proposal: Fit
    support: Support


@dataclass(frozen=True)
class Judgement:
    """What labelled photos say about one head.

    Attributes:
        served: The fit that is served.
        hypotheses: All other fits, in the order in which they were judged: label orders first, then EXIF rotation.
        proposal: The fit that the photos support; None if it is what is served.
        changes: Its changes, in the same order.
        not_excluded: Fits that the photos support, too, and that the proposal is not surely better than.
        undecided: A fit that looks better than the proposal, or than what is served, without enough support.
    """

    served: Fit
    hypotheses: Sequence[Hypothesis]
    proposal: Fit | None = None
    changes: Sequence[Change] = ()
    not_excluded: Sequence[Fit] = ()
    undecided: Hypothesis | None = None


def judge(fits: Sequence[Fit]) -> Judgement:
    """Judges the fits of a head, of which the first is what is served.

    Label orders are judged first, with the preprocessing that is served. Another preprocessing has to be better than
    the label order that was found, and than itself with fewer changes.
    """
    served, *others = fits
    if len(served.right) < LEAST_PHOTOS or len(set(served.truths)) < 2 or not others:
        return Judgement(served, [Hypothesis(fit, served, None, holds=False) for fit in others])
    judging = _Judging(fits)
    labels = [fit for fit in others if fit.preprocessing == served.preprocessing]
    judging.stage(labels)
    found = judging.best.head.labels
    known = (found, served.head.labels)
    rest = [fit for fit in others if fit.preprocessing != served.preprocessing]
    judging.stage([fit for fit in rest if fit.head.labels in known and _turns(served, fit)])
    judging.stage([fit for fit in rest if fit.head.labels in known and not _turns(served, fit)])
    judging.stage([fit for fit in rest if fit.head.labels not in known])
    return judging.judgement()


def _turns(served: Fit, fit: Fit) -> bool:
    return fit.preprocessing.view.exif_rotation != served.preprocessing.view.exif_rotation


class _Judging:
    """The best fit so far, and everything that was judged."""

    def __init__(self, fits: Sequence[Fit]) -> None:
        self._fits = fits
        self._comparison = Comparison(fits)
        self._judged: list[Hypothesis] = []
        self._served = fits[0]
        self.best = fits[0]
        self._competing: Sequence[Fit] = fits
        self._tried = len(fits) - 1

    def stage(self, candidates: Sequence[Fit]) -> None:
        """Judges candidates, those with fewer changes first, and takes the best that the photos support."""
        for changes in sorted({fit.changes for fit in candidates}):
            level = sorted((fit for fit in candidates if fit.changes == changes), key=lambda fit: -fit.balanced)
            before = self.best
            judged = [self._judge(fit, before, level, len(candidates)) for fit in level]
            self._judged += judged
            supported = [one.fit for one in judged if one.holds]
            if supported:
                self.best, self._competing, self._tried = supported[0], level, len(candidates)

    def judgement(self) -> Judgement:
        proposal = self.best if self.best is not self._served else None
        return Judgement(
            self._served,
            self._judged,
            proposal,
            self._changes() if proposal else (),
            self._not_excluded() if proposal else (),
            self._undecided(),
        )

    def _judge(self, fit: Fit, best: Fit, level: Sequence[Fit], tried: int) -> Hypothesis:
        simpler = [*self._simpler(fit), best]
        supports = [(self._comparison.support(fit, other, level, tried), other) for other in simpler]
        support, against = min(supports, key=lambda pair: pair[0].interval[0])
        gains = fit.balanced - self._served.balanced >= LEAST_GAIN and all(
            fit.balanced - other.balanced >= LEAST_EXTRA_GAIN for other in simpler
        )
        return Hypothesis(fit, against, support, gains and all(support.holds for support, _ in supports))

    def _simpler(self, fit: Fit) -> Iterable[Fit]:
        """The fits that have only some of a fit's changes, what is served among them."""
        return (
            other
            for other in self._fits
            if other.changes < fit.changes
            and all(
                mine in (served, theirs)
                for served, mine, theirs in zip(*map(_parts, (self._served, other, fit)), strict=True)
            )
        )

    def _changes(self) -> list[Change]:
        found = [
            Change(one, self.best, self._comparison.support(self.best, one, self._competing, self._tried))
            for one in self._simpler(self.best)
            if one.changes == self.best.changes - 1
        ]
        labels = self.best.head.labels
        return sorted(found, key=lambda one: one.without.head.labels == labels)

    def _not_excluded(self) -> list[Fit]:
        return [
            fit
            for fit in self._fits[1:]
            if fit is not self.best
            and fit.changes <= self.best.changes
            and self._judge(fit, self._served, [fit], self._tried).holds
            and not self._comparison.support(self.best, fit, [self.best], 1).interval[0] > 0
        ]

    def _undecided(self) -> Hypothesis | None:
        least = LEAST_GAIN if self.best is self._served else LEAST_EXTRA_GAIN
        promising = [one for one in self._judged if not one.holds and one.fit.balanced - self.best.balanced >= least]
        return min(promising, key=lambda one: (one.fit.changes, -one.fit.balanced), default=None)


def _parts(fit: Fit) -> tuple[object, ...]:
    tried = fit.preprocessing
    return fit.head.labels, tried.channels, tried.normalisation, tried.view
