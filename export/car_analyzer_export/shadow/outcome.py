"""How a candidate's answers compare with those of the served version."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checking.tally import interval
from ..checking.text import count

if TYPE_CHECKING:
    from collections.abc import Sequence

SIDES = ("served", "candidate")


@dataclass(frozen=True)
class HeadOutcome:
    """One head.

    Attributes:
        name: Its name.
        agreed: How many photos got the same label from both versions.
        photos: How many photos the candidate got. Without an answer from it, nothing agrees.
        confusion: (served label, candidate's label) → how many photos.
        largest: The largest difference of a probability.
        mean: The mean over photos of the largest difference.
    """

    name: str
    agreed: int
    photos: int
    confusion: Counter[tuple[str, str]]
    largest: float
    mean: float

    @property
    def agreement(self) -> float:
        """The share of photos that got the same label."""
        return self.agreed / self.photos

    @property
    def summary(self) -> str:
        """The agreement with its confidence interval."""
        low, high = interval(self.agreed, self.photos)
        return (
            f"{self.agreement:.1%} agree ({self.agreed:,} of {count(self.photos, 'photo')}; on more such photos, "
            f"likely {low:.1%} to {high:.1%})"
        )

    @property
    def labels(self) -> tuple[list[str], list[str]]:
        """The labels that the served version gave, and those that the candidate gave; the most frequent ones first."""
        sides: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        for pair, number in self.confusion.items():
            for side, label in zip(sides, pair, strict=True):
                side[label] += number
        served, candidate = ([label for label, _ in side.most_common()] for side in sides)
        # In the same order, so that the diagonal is where both agree.
        first = [label for label in served if label in candidate]
        return first + [one for one in served if one not in first], first + [
            one for one in candidate if one not in first
        ]


@dataclass(frozen=True)
class Difference:
    """A photo that got different labels.

    Attributes:
        request_id: The id of its request.
        heads: Head → side (`served`, `candidate`) → `label` and `confidence`.
        photo: Its bytes, if they were kept.
    """

    request_id: str
    heads: dict[str, dict[str, dict[str, Any]]]
    photo: bytes | None


@dataclass(frozen=True)
class Outcome:
    """A comparison, of all gateways together.

    Attributes:
        counts: `agreed`, `differed`, `failed` or `skipped` → how many photos.
        heads: By name.
        errors: Code of the candidate's error → how many photos.
        milliseconds: Side → latencies of the last photos.
        differences: The first photos that got different labels.
    """

    counts: Counter[str]
    heads: dict[str, HeadOutcome]
    errors: Counter[str]
    milliseconds: dict[str, list[float]]
    differences: list[Difference]

    @property
    def photos(self) -> int:
        """How many photos the candidate got."""
        return self.counts.total() - self.counts["skipped"]

    def misses(self) -> int:
        """How many photos did not get the same label, or none: of the head where these are most."""
        return max((head.photos - head.agreed for head in self.heads.values()), default=self.counts["failed"])

    def latency(self, side: str, share: int) -> float:
        """A percentile of the latencies in milliseconds; NaN without any."""
        values = self.milliseconds[side]
        return float(np.percentile(values, share)) if values else float("nan")

    @property
    def facts(self) -> dict[str, Any]:
        """All of it but the photos, for `--json`."""
        latencies = {
            side: {f"p{share}": round(self.latency(side, share), 1) for share in (50, 95)}
            for side in SIDES
            if self.milliseconds[side]
        }
        return {
            "photos": self.photos,
            "counts": dict(self.counts),
            "heads": {name: _facts(head) for name, head in self.heads.items()},
            "errors": dict(self.errors),
            "milliseconds": latencies,
            "differences": [{"requestId": one.request_id, "heads": one.heads} for one in self.differences],
        }


def merge(states: Sequence[dict[str, Any]], photos: Sequence[dict[int, bytes]] = ()) -> Outcome:
    """Adds the counts of several gateways.

    Args:
        states: What each returned.
        photos: For each, number → the photo.
    """
    counts: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for state in states:
        counts.update(state["counts"])
        errors.update(state["errors"])
    compared = counts.total() - counts["skipped"]
    names = dict.fromkeys(name for state in states for name in state["heads"])
    kept = photos or [{} for _ in states]
    differences = [
        Difference(one["requestId"], one["heads"], pictures.get(one["photo"]))
        for state, pictures in zip(states, kept, strict=True)
        for one in state.get("differences", ())
    ]
    return Outcome(
        counts,
        {
            name: _merge_head(name, [state["heads"][name] for state in states if name in state["heads"]], compared)
            for name in names
        },
        errors,
        {side: [value for state in states for value in state.get("milliseconds", {}).get(side, ())] for side in SIDES},
        differences,
    )


def _merge_head(name: str, found: list[dict[str, Any]], photos: int) -> HeadOutcome:
    confusion: Counter[tuple[str, str]] = Counter()
    for one in found:
        for served, candidate, number in one["confusion"]:
            confusion[served, candidate] += number
    compared = sum(one["compared"] for one in found)
    return HeadOutcome(
        name,
        sum(one["agreed"] for one in found),
        photos,
        confusion,
        max(one["largestDifference"] for one in found),
        sum(one["meanDifference"] * one["compared"] for one in found) / compared,
    )


def _facts(head: HeadOutcome) -> dict[str, Any]:
    return {
        "agreed": head.agreed,
        "agreement": head.agreement,
        "interval": list(interval(head.agreed, head.photos)),
        "confusion": [[*pair, number] for pair, number in head.confusion.most_common()],
        "largestDifference": head.largest,
        "meanDifference": head.mean,
    }
