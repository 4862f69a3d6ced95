"""Describes the preprocessing or label order that fits much better, and how to change the spec."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .alternatives import NONE

if TYPE_CHECKING:
    from .alternatives import Fit

LEAST_PHOTOS = 5
LEAST_GAIN = 0.15
# The minimum gain of a further change of the spec.
LEAST_EXTRA_GAIN = 0.05
# Fits this close to each other are equally likely.
CLOSE = 0.02
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Advice:
    """A change of the spec that fits one head much better.

    Attributes:
        head: The name of the head.
        sentence: The whole advice as text.
        changes: The changes of the spec: (table, line).
        photos: The number of photos.
        right_now: How many answers are right as served.
        right_then: How many would be right with the changes.
        sure: Significant, even though many alternatives were tried.
        also: Other changes that fit about as well.
    """

    head: str
    sentence: str
    changes: tuple[tuple[str, str], ...]
    photos: int
    right_now: int
    right_then: int
    sure: bool
    also: tuple[str, ...]


def advise(fits: list[Fit]) -> Advice | None:
    """Advises on one head, given its fits, of which the first is what is served; None if no other is clearly better."""
    served, *others = fits
    photos = len(served.right)
    if photos < LEAST_PHOTOS or len(set(served.truths)) < 2 or not others:
        return None
    best = _simplest_best(others)
    if best.balanced - served.balanced < LEAST_GAIN:
        return None
    chance = _chance(served, best)
    if chance >= SIGNIFICANT:
        return None
    sure = chance * len(others) < SIGNIFICANT
    also = tuple(
        describe(served, fit)
        for fit in others
        if fit is not best and fit.changes <= best.changes and fit.balanced > best.balanced - CLOSE
    )
    differences = _differences(served, best)
    right_now, right_then = sum(served.right), sum(best.right)
    tables: dict[str, list[str]] = {}
    for _, table, change in differences:
        tables.setdefault(table, []).append(change)
    edits = "; ".join(f"under {table}, {' and '.join(changes)}" for table, changes in tables.items())
    sentence = (
        f"{served.head.name}: it looks as if {describe(served, best)}. With this change {right_then} of {photos} "
        f"photos would be correct; now {right_now} {'is' if right_now == 1 else 'are'}. In the spec, {edits}; then "
        "export again."
    )
    if also:
        sentence += f" Equally likely with these photos: that {'; or that '.join(also[:3])}."
    if not sure:
        sentence += f" {photos} photos are few, and this may be chance: check with more."
    return Advice(
        head=served.head.name,
        sentence=sentence,
        changes=tuple((table, change) for _, table, change in differences),
        photos=photos,
        right_now=right_now,
        right_then=right_then,
        sure=sure,
        also=also,
    )


def describe(served: Fit, fit: Fit) -> str:
    """Describes how a fit differs from what is served."""
    return " and ".join(cause for cause, *_ in _differences(served, fit)) or "as served"


def _simplest_best(fits: list[Fit]) -> Fit:
    """The best fit with the fewest changes: each further change must gain significantly."""
    levels = sorted({fit.changes for fit in fits})
    best, *larger = (
        max((fit for fit in fits if fit.changes == level), key=lambda fit: fit.balanced) for level in levels
    )
    for fit in larger:
        if fit.balanced - best.balanced >= LEAST_EXTRA_GAIN and _chance(best, fit) < SIGNIFICANT:
            best = fit
    return best


def _chance(served: Fit, other: Fit) -> float:
    """The p-value of the exact sign test: how likely such a gain is if the other fit is no better than what is served.

    Only photos on which the two disagree count.
    """
    pairs = list(zip(served.right, other.right, strict=True))
    won, lost = pairs.count((False, True)), pairs.count((True, False))
    as_lucky = sum(math.comb(won + lost, count) for count in range(won, won + lost + 1))
    return as_lucky / int(2 ** (won + lost))


def _differences(served: Fit, fit: Fit) -> list[tuple[str, str, str]]:
    """The differences: (probable cause, table of the spec, change)."""
    network, head = fit.network, fit.head
    owner = (
        f"[heads.{network.name}]"
        if network.name in {one.name for one in network.heads}
        else f"[networks.{network.name}]"
    )
    found = []
    if head.labels != served.head.labels:
        order = _toml(head.labels)
        if head.name in network.combined:
            pairs = zip(head.labels, served.head.labels, strict=True)
            moved = " and ".join(f"{new} where the spec has {old}" for new, old in pairs if new != old)
            cause = f"the network's classes had another order in training: {moved}"
            found.append((cause, owner, "put classes into that order"))
        else:
            change = f"write labels = {order}"
            # At 0.5 it does not matter which of the two labels a threshold applies to.
            if head.activation != "multilabel" and (served.head.unsure or served.head.threshold not in (None, 0.5)):
                change += f' and positive = "{head.positive}"'
            found.append((f"the labels had the order {order} in training", f"[heads.{head.name}]", change))
    tried, before = fit.preprocessing, served.preprocessing

    def add(trained: str, change: str) -> None:
        found.append((f"the network was trained {trained}", owner, change))

    if tried.channels != before.channels:
        add(f"with {tried.channels} pictures", f'write channels = "{tried.channels}"')
    if tried.normalisation == NONE != before.normalisation:
        add("without normalisation", "write normalize = false")
    elif tried.normalisation != before.normalisation:
        mean, std = tried.normalisation
        values = f"mean = {_toml(mean)} and std = {_toml(std)}"
        instead = " in place of normalize = false" if before.normalisation == NONE else ""
        add(f"with the {values}", f"write {values}{instead}")
    if (edge := tried.view.shortest_edge) != before.view.shortest_edge:
        if edge:
            add(f"on center crops of photos scaled to {edge}, not squashed", f"write shortest_edge = {edge}")
        else:
            add("on squashed photos, not on center crops", "remove shortest_edge")
    if (rotation := tried.view.exif_rotation) != before.view.exif_rotation:
        orientation = "rotated by their EXIF orientation" if rotation else "as stored, without their EXIF orientation"
        add(f"with photos {orientation}", f"write exif_rotation = {str(rotation).lower()}")
    return found


def _toml(values: tuple[str, ...] | tuple[float, ...]) -> str:
    return json.dumps(values, ensure_ascii=False)
