"""Whether photos are like those that a model was checked with: statistics of photos, and the comparison of many.

The statistics are of the pixels that a network sees, and of the file. Their distribution in a window of photos is
compared with the recorded one by the two-sample Kolmogorov-Smirnov test, and the share of each label by a test of two
proportions. Nothing here decodes photos.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from ._geometry import read_frame
from .errors import ConfigurationError, PhotoError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from ._results import Head

_SWAPPED = "of other colours (red and blue may be swapped)"
# Statistic → what photos are when it falls, and when it rises. Colours are of 0 to 1.
STATISTICS = {
    "brightness": ("darker", "brighter"),
    "contrast": ("lower in contrast", "higher in contrast"),
    "sharpness": ("blurrier", "sharper or noisier"),
    "red_blue": ("bluer", "redder"),
    "red_blue_skew": (_SWAPPED, _SWAPPED),
    "green": ("less green", "greener"),
    "saturation": ("paler", "more colourful"),
    "megapixels": ("smaller", "larger"),
    "bytes_per_pixel": ("more compressed", "less compressed"),
}
# With fewer recorded photos, only extreme changes would differ from chance.
LEAST_PHOTOS = 100
# The probability that any statistic of photos like the recorded ones raises an alarm within so many windows.
FALSE_ALARMS, WINDOWS = 0.01, 40
# What is kept of a sorted sample. The distance of the kept values from the whole sample is at most 1/400.
MOST_VALUES = 200
_DIGITS = 4
# The difference of red and blue of a grey photo is only rounding, and has no skew.
_LEAST_SPREAD = 1e-3


@dataclass(frozen=True)
class Observation:
    """What is compared of one photo.

    Attributes:
        statistics: Statistic → its value; see `photo_statistics`.
        answers: Head → the labels it gave: one, or those of a multilabel head.
    """

    statistics: Mapping[str, float]
    answers: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Comparison:
    """One statistic of a window of photos, compared with the recorded photos.

    Attributes:
        statistic: A key of `STATISTICS`, or `answers_` and a head.
        score: The distance of the two distributions, divided by the largest that chance explains. From 1 on, it is an
            alarm.
        rises: Whether the window's values are higher.
        sentence: What changed, in words.
        head: The head, for answers.
        label: Its label whose share rises most; None if no share rises.
    """

    statistic: str
    score: float
    rises: bool
    sentence: str
    head: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Reference:
    """What was recorded of the photos that a model was checked with.

    Attributes:
        photos: Their number.
        values: Statistic → its sorted values; of many photos, `MOST_VALUES` quantiles.
        shares: Head → label → the share of photos that got it.
    """

    photos: int
    values: Mapping[str, Sequence[float]]
    shares: Mapping[str, Mapping[str, float]]

    @classmethod
    def of(cls, observations: Sequence[Observation]) -> Reference | None:
        """Record photos; None if there are fewer than `LEAST_PHOTOS`."""
        count = len(observations)
        if count < LEAST_PHOTOS:
            return None
        columns = {name: _column(observations, name) for name in STATISTICS}
        return cls(
            count,
            {name: _thinned(values) for name, values in columns.items() if len(values) >= LEAST_PHOTOS},
            {
                head: {label: number / count for label, number in _count(observations, head).items()}
                for head in observations[0].answers
            },
        )

    @classmethod
    def from_json(cls, text: str) -> Reference:
        """Read what `to_json` wrote.

        Raises:
            ConfigurationError: It has another format.
        """
        try:
            found = json.loads(text)
            values = {name: [float(value) for value in found["statistics"][name]] for name in found["statistics"]}
            shares = {head: {str(k): float(v) for k, v in labels.items()} for head, labels in found["answers"].items()}
            return cls(int(found["photos"]), {name: values[name] for name in STATISTICS if values.get(name)}, shares)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"cannot read the recorded statistics of photos: {error!r}") from error

    def to_json(self) -> str:
        """As JSON, about 10 kB."""
        return json.dumps({"photos": self.photos, "statistics": self.values, "answers": self.shares})

    def describe(self) -> dict[str, Any]:
        """JSON-ready figures for people: of each statistic the 5th, 50th and 95th percentile."""
        return {
            "photos": self.photos,
            "statistics": {name: list(self.percentiles(name)) for name in self.values},
            "answers": self.shares,
        }

    def percentiles(self, statistic: str) -> tuple[float, float, float]:
        """The 5th, 50th and 95th percentile of a statistic."""
        low, middle, high = (_rounded(value) for value in np.quantile(self.values[statistic], (0.05, 0.5, 0.95)))
        return low, middle, high

    def compare(self, window: Sequence[Observation]) -> list[Comparison]:
        """Compare a window of photos with the recorded ones, the highest score first.

        A statistic that fewer than half of the photos have is left out.
        """
        level = FALSE_ALARMS / (WINDOWS * (len(self.values) + len(self.shares)))
        found = []
        for name in self.values:
            values = _column(window, name)
            if len(values) and len(values) >= len(window) / 2:
                found.append(self._compare_values(name, values, level))
        found += [self._compare_answers(head, window, level) for head in self.shares]
        return sorted(found, key=lambda one: -one.score)

    def _compare_values(self, name: str, values: npt.NDArray[np.float64], level: float) -> Comparison:
        distance = _distance(np.array(self.values[name]), np.sort(values))
        critical = math.sqrt(-math.log(level / 2) / 2 * (1 / len(values) + 1 / self.photos))
        low, middle, high = self.percentiles(name)
        now = _rounded(float(np.median(values)))
        sentence = (
            f"photos are {STATISTICS[name][distance > 0]}: median {name} {now:g}, recorded {middle:g} "
            f"(5 to 95 %: {low:g} to {high:g})"
        )
        return Comparison(name, abs(distance) / critical, distance > 0, sentence)

    def _compare_answers(self, head: str, window: Sequence[Observation], level: float) -> Comparison:
        shares, counts = self.shares[head], _count(window, head)
        labels = sorted({*shares, *counts})
        # Bonferroni, as for the statistics. For two labels that exclude each other, it is the same test twice.
        limit = NormalDist().inv_cdf(1 - level / (2 * len(labels)))
        now = {label: counts[label] / len(window) for label in labels}
        recorded = {label: shares.get(label, 0.0) for label in labels}
        scores = {
            label: _proportion_z(recorded[label], self.photos, now[label], len(window)) / limit for label in labels
        }
        label = max(labels, key=lambda one: (scores[one], now[one] - recorded[one]))
        rises = now[label] > recorded[label]
        sentence = (
            f"{head} is {label} {'more' if rises else 'less'} often: {now[label]:.0%} of the photos, "
            f"recorded {recorded[label]:.0%}"
        )
        risen = max(labels, key=lambda one: now[one] - recorded[one])
        named = risen if now[risen] > recorded[risen] else None
        return Comparison(f"answers_{head}", scores[label], rises, sentence, head, named)

    def deviation(self, statistic: str, value: float) -> float:
        """How far a value is from the recorded median, in widths of the recorded range (5th to 95th percentile)."""
        low, middle, high = self.percentiles(statistic)
        return (value - middle) / ((high - low) or abs(middle) or 1.0)


def photo_statistics(pixels: npt.NDArray[np.uint8], photo: bytes) -> dict[str, float]:
    """The statistics of one photo.

    Args:
        pixels: What the network sees: uint8 RGB, [height, width, 3].
        photo: The bytes of the image file. Only its header is read; if that fails, what is about the file is missing.
    """
    # One plane a colour: numpy is several times faster with it.
    red, green, blue = pixels.transpose(2, 0, 1).astype(np.float32, order="C") / 255
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    red_blue = red - blue
    saturation = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    found = {
        "brightness": luminance.mean(),
        "contrast": luminance.std(),
        "sharpness": _laplacian(luminance).std() if min(luminance.shape) > 2 else 0.0,
        "red_blue": red_blue.mean(),
        "red_blue_skew": _skew(red_blue),
        "green": (green - (red + blue) / 2).mean(),
        "saturation": saturation.mean(),
    }
    try:
        frame = read_frame(photo)
    except PhotoError:
        pass  # a format that only the server can read
    else:
        size = frame.width * frame.height
        found |= {"megapixels": size / 1e6, "bytes_per_pixel": len(photo) / size}
    # Rounded like the recorded values, so that equal ones stay equal.
    return {name: _rounded(float(value)) for name, value in found.items()}


def given_answers(heads: Mapping[str, Head]) -> dict[str, tuple[str, ...]]:
    """Head → the labels that it gave; `none` if a multilabel head found none."""
    return {name: (head.label,) if head.labels is None else head.labels or ("none",) for name, head in heads.items()}


def _laplacian(luminance: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    inner = 4 * luminance[1:-1, 1:-1]
    found: npt.NDArray[np.float32] = (
        inner - luminance[:-2, 1:-1] - luminance[2:, 1:-1] - luminance[1:-1, :-2] - luminance[1:-1, 2:]
    )
    return found


def _skew(values: npt.NDArray[np.float32]) -> float:
    """Third standardised moment. Its sign changes when red and blue are swapped, however weak the colours are."""
    centred = values - values.mean()
    spread = float(values.std())
    return 0.0 if spread < _LEAST_SPREAD else float((centred * centred * centred).mean()) / spread**3


def _distance(recorded: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> float:
    """The Kolmogorov-Smirnov distance of two sorted samples; positive if `values` are higher where it is largest."""
    points = np.concatenate([recorded, values])
    before = np.searchsorted(recorded, points, side="right") / len(recorded)
    differences = before - np.searchsorted(values, points, side="right") / len(values)
    return float(differences[np.abs(differences).argmax()])


def _proportion_z(recorded: float, recorded_count: int, now: float, count: int) -> float:
    """The z score of the difference of two shares, with a continuity correction."""
    weight = 1 / recorded_count + 1 / count
    pooled = (recorded * recorded_count + now * count) / (recorded_count + count)
    difference = abs(now - recorded) - weight / 2
    deviation = math.sqrt(pooled * (1 - pooled) * weight)
    return max(0.0, difference) / deviation if deviation else 0.0


def _column(observations: Iterable[Observation], name: str) -> npt.NDArray[np.float64]:
    return np.array([one.statistics[name] for one in observations if name in one.statistics])


def _count(observations: Iterable[Observation], head: str) -> Counter[str]:
    return Counter(label for one in observations for label in one.answers.get(head, ()))


def _thinned(values: npt.NDArray[np.float64]) -> list[float]:
    """The sorted values, or so many of them, evenly spaced."""
    kept = min(len(values), MOST_VALUES)
    ranks = ((np.arange(kept) + 0.5) * len(values) / kept).astype(int)
    return [float(value) for value in np.sort(values)[ranks]]


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
