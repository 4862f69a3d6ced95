"""Puts into words which preprocessing or label order labelled photos support, and how to change the spec."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .alternatives import NONE

if TYPE_CHECKING:
    from .alternatives import Fit
    from .hypotheses import Judgement
    from .support import Support


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
        support: For each change, what it is, and what the photos say about it.
        also: Other changes that the photos support and cannot exclude.
    """

    head: str
    sentence: str
    changes: tuple[tuple[str, str], ...]
    photos: int
    right_now: int
    right_then: int
    support: tuple[tuple[str, Support], ...]
    also: tuple[str, ...]


def advise(judgement: Judgement) -> Advice | None:
    """Advises on one head; None if the photos support no change."""
    served, best = judgement.served, judgement.proposal
    if best is None:
        return None
    photos = len(served.right)
    also = tuple(describe(served, fit) for fit in judgement.not_excluded)
    differences = _differences(served, best)
    right_now, right_then = sum(served.right), sum(best.right)
    tables: dict[str, list[str]] = {}
    for _, table, change in differences:
        tables.setdefault(table, []).append(change)
    edits = "; ".join(f"under {table}, {' and '.join(changes)}" for table, changes in tables.items())
    support = tuple((describe(one.without, one.proposal), one.support) for one in judgement.changes)
    sentence = (
        f"{served.head.name}: it looks as if {describe(served, best)}. With this change {right_then} of {photos} "
        f"photos would be correct; now {right_now} {'is' if right_now == 1 else 'are'}. In the spec, {edits}; then "
        "export again."
    )
    for cause, found in support:
        sentence += f" Support{f', that {cause}' if len(support) > 1 else ''}: {found}."
    if also:
        sentence += f" These photos cannot exclude that {'; or that '.join(also[:3])}."
    return Advice(
        head=served.head.name,
        sentence=sentence,
        changes=tuple((table, change) for _, table, change in differences),
        photos=photos,
        right_now=right_now,
        right_then=right_then,
        support=support,
        also=also,
    )


def too_few(judgement: Judgement) -> str | None:
    """Names the change that looks better without enough support; None if there is none."""
    one = judgement.undecided
    if one is None or one.support is None:
        return None
    also = " " if one.against is judgement.served else ", in addition, "
    return (
        f"{one.fit.head.name}: {one.support.photos} photos are too few to tell whether{also}"
        f"{describe(one.against, one.fit)}: {one.support}. Check with more before you change that."
    )


def describe(served: Fit, fit: Fit) -> str:
    """Describes how a fit differs from what is served."""
    return " and ".join(cause for cause, *_ in _differences(served, fit)) or "as served"


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

    if (rotation := tried.view.exif_rotation) != before.view.exif_rotation:
        orientation = "rotated by their EXIF orientation" if rotation else "as stored, without their EXIF orientation"
        add(f"with photos {orientation}", f"write exif_rotation = {str(rotation).lower()}")
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
    return found


def _toml(values: tuple[str, ...] | tuple[float, ...]) -> str:
    return json.dumps(values, ensure_ascii=False)
