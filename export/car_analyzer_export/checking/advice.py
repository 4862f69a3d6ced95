"""Says in words which other reading of the photos fits much better, and what to change in the spec."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .readings import NONE

if TYPE_CHECKING:
    from .readings import Fit

LEAST_PHOTOS = 5
LEAST_GAIN = 0.15
# What a further change of the spec has to gain.
LEAST_EXTRA_GAIN = 0.05
# Fits this close to each other cannot be told apart.
CLOSE = 0.02
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Advice:
    """Another reading that fits one head much better.

    Attributes:
        head: Its name.
        sentence: All of it, for people.
        changes: Lines of the spec: (table, line).
        photos: How many photos were tried.
        right_now: How many of them are right as served.
        right_then: How many would be right.
        sure: Too clear for chance, though many readings were tried.
        also: What fits about as well.
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
    """What fits one head clearly better than what is served, the first of its fits; None if nothing does."""
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
        " and ".join(what for what, *_ in _differences(served, fit))
        for fit in others
        if fit is not best and fit.changes <= best.changes and fit.balanced > best.balanced - CLOSE
    )
    differences = _differences(served, best)
    right_now, right_then = sum(served.right), sum(best.right)
    what = " and ".join(one for one, *_ in differences)
    tables: dict[str, list[str]] = {}
    for _, table, change in differences:
        tables.setdefault(table, []).append(change)
    todo = "; ".join(f"under {table}, {' and '.join(changes)}" for table, changes in tables.items())
    sentence = (
        f"{served.head.name}: it looks as if {what}. Read so, {right_then} of {photos} photos are right; as served, "
        f"{right_now} are. In the spec, {todo}; then export again."
    )
    if also:
        sentence += f" As likely by these photos: that {'; or that '.join(also[:3])}."
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
    """A fit in a few words."""
    return " and ".join(what for what, *_ in _differences(served, fit)) or "as served"


def _simplest_best(fits: list[Fit]) -> Fit:
    """The best fit with the fewest changes: one more has to show on more photos than chance explains."""
    levels = sorted({fit.changes for fit in fits})
    best, *larger = (
        max((fit for fit in fits if fit.changes == level), key=lambda fit: fit.balanced) for level in levels
    )
    for fit in larger:
        if fit.balanced - best.balanced >= LEAST_EXTRA_GAIN and _chance(best, fit) < SIGNIFICANT:
            best = fit
    return best


def _chance(served: Fit, other: Fit) -> float:
    """The probability that a reading no better than what is served wins by so much: the exact sign test.

    Only photos on which the two disagree tell them apart.
    """
    pairs = list(zip(served.right, other.right, strict=True))
    won, lost = pairs.count((False, True)), pairs.count((True, False))
    as_lucky = sum(math.comb(won + lost, count) for count in range(won, won + lost + 1))
    return as_lucky / int(2 ** (won + lost))


def _differences(served: Fit, fit: Fit) -> list[tuple[str, str, str]]:
    """What differs: (what seems to be the case, table of the spec, what to write there)."""
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
            meant = " and ".join(f"{new} where the spec says {old}" for new, old in pairs if new != old)
            what = f"the network's classes had another order in training: {meant}"
            found.append((what, owner, "put classes into that order"))
        else:
            change = f"write labels = {order}"
            # At one half it does not matter which of the two labels a threshold is about.
            if head.activation != "multilabel" and (served.head.unsure or served.head.threshold not in (None, 0.5)):
                change += f' and positive = "{head.positive}"'
            found.append((f"the labels had the order {order} in training", f"[heads.{head.name}]", change))
    reading, before = fit.reading, served.reading
    if reading.channels != before.channels:
        found.append(
            (
                f"the network was trained with {reading.channels} pictures",
                owner,
                f'write channels = "{reading.channels}"',
            )
        )
    if reading.normalisation != before.normalisation:
        mean, std = reading.normalisation
        if reading.normalisation == NONE:
            found.append(("the network was trained without normalisation", owner, "write normalize = false"))
        else:
            values = f"mean = {_toml(mean)} and std = {_toml(std)}"
            instead = " in place of normalize = false" if before.normalisation == NONE else ""
            found.append((f"the network was trained with the {values}", owner, f"write {values}{instead}"))
    if reading.view.shortest_edge != before.view.shortest_edge:
        if reading.view.shortest_edge:
            what = (
                f"the network was trained on the middle of photos scaled to {reading.view.shortest_edge}, not squashed"
            )
            found.append((what, owner, f"write shortest_edge = {reading.view.shortest_edge}"))
        else:
            found.append(
                ("the network was trained on squashed photos, not their middle", owner, "remove shortest_edge")
            )
    if reading.view.exif_rotation != before.view.exif_rotation:
        upright = (
            "turned upright by their EXIF data" if reading.view.exif_rotation else "as stored, without regard to EXIF"
        )
        change = f"write exif_rotation = {str(reading.view.exif_rotation).lower()}"
        found.append((f"the network was trained with photos {upright}", owner, change))
    return found


def _toml(values: tuple[str, ...] | tuple[float, ...]) -> str:
    return json.dumps(values, ensure_ascii=False)
