"""Whether networks answer the same when they look at photos in another, faster way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from car_analyzer_server.cores import cores

from ..errors import ExportError
from ..preprocess.photo import Photo
from ..preprocess.view import least_side_for
from .verify import torch_logits, torch_outputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from ..preprocess.view import View
    from ..spec import HeadPlan, NetworkPlan

    Floats = npt.NDArray[np.float32]

MIN_AGREEMENT = 0.995
MAX_PIXEL_DIFFERENCE = 0.5
# From so many photos on, how near to a line between two answers they lie says how near others will.
ENOUGH_PHOTOS = 8
_BATCH = 16


@dataclass(frozen=True)
class Agreement:
    """How a network's answers in one view compare with those in another.

    Attributes:
        photos: On how many it was compared.
        changed: How many of them get another answer from some head.
        expected_change: The share of photos like these that can be expected to get another answer; see `_expected`.
        max_probability_change: The largest change of a label's probability.
        pixel_difference: The mean difference of the pixels, of 255.
    """

    photos: int
    changed: int
    expected_change: float
    max_probability_change: float
    pixel_difference: float

    @property
    def is_enough(self) -> bool:
        """Whether the views can stand for each other."""
        # Not `>`: NaN must not count as agreement.
        return (
            self.changed <= (1 - MIN_AGREEMENT) * self.photos
            and self.expected_change <= 1 - MIN_AGREEMENT
            and self.pixel_difference <= MAX_PIXEL_DIFFERENCE
        )


def compare_views(
    networks: Sequence[NetworkPlan],
    reference: Sequence[View],
    other: Sequence[View],
    photos: Sequence[bytes],
    *,
    distinct: int,
) -> list[Agreement]:
    """Compares what networks say of photos in two views, one of each kind for each network.

    Args:
        networks: The networks.
        reference: Network by network, the view that it was trained with.
        other: Network by network, the view that is to stand for it.
        photos: Files that can be decoded.
        distinct: How many of them, at least, are different photos of the kind that will come.

    Raises:
        NetworkError: A network fails on them; the message names it.
    """
    before, after = look(tuple(reference), tuple(photos)), look(tuple(other), tuple(photos))
    found = []
    for network, one, two in zip(networks, reference, other, strict=True):
        try:
            found.append(_compare(network, before[one], after[two], distinct))
        except ExportError as error:
            raise type(error)(f"{network.title}: {error}") from error
    return found


@lru_cache(maxsize=4)
def look(views: tuple[View, ...], photos: tuple[bytes, ...]) -> dict[View, npt.NDArray[np.uint8]]:
    """What each view sees of photos, uint8 [photos, height, width, 3], each decoded once for all, as it is served."""
    least = least_side_for(views)

    def see(content: bytes) -> list[npt.NDArray[np.uint8]]:
        photo = Photo(content, max_bytes=len(content), max_pixels=2**40, least_side=least)
        return [view.pixels(photo.upright() if view.exif_rotation else photo.rgb) for view in views]

    # Pillow works without Python's lock.
    with ThreadPoolExecutor(cores()) as pool:
        seen = zip(*pool.map(see, photos), strict=True)
    return {view: np.stack(pictures) for view, pictures in zip(views, seen, strict=True)}


def _compare(
    network: NetworkPlan, before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8], distinct: int
) -> Agreement:
    one, two = _logits(network, before), _logits(network, after)
    changed = np.zeros(len(before), bool)
    expected, largest = 0.0, 0.0
    with np.errstate(all="ignore"):  # a network that gives NaN is refused later, with more words
        for head in network.heads:
            distances = _distances(head, one[head.name], one[head.name])
            moved = _distances(head, two[head.name], one[head.name])
            changed |= ((distances >= 0) != (moved >= 0)).any(axis=1)
            expected += _expected(distances, moved, distinct)
            change = np.abs(_probabilities(head, two[head.name]) - _probabilities(head, one[head.name])).max()
            largest = max(largest, float(change))
    difference = np.abs(before.astype(np.int16) - after).mean()
    return Agreement(len(before), int(changed.sum()), float(expected), largest, float(difference))


def _expected(distances: Floats, moved: Floats, distinct: int) -> float:
    """The share of photos that can be expected to cross a line between two answers.

    That none of 24 photos does proves little: it happens to one network in three of which 5 % do. But all of them say
    by how much a distance changes, and how many come near the line. A photo crosses it if the change is larger than
    its distance, and points to the line, as half of them do. So the share is half of the mean change of photos on the
    line, times the density of distances there, 2 x the mean of a kernel over all photos.

    The kernel's width is Silverman's for the distances of the user's photos. Generated pictures say nothing of how many
    photos come near the line, only on which scale a network's logits are: it is as wide as that scale.
    """
    size, change = np.abs(distances), np.abs(moved - distances)
    if distinct >= ENOUGH_PHOTOS:
        width = 1.06 * distinct**-0.2 * size.std(axis=0)
    else:
        width = np.sqrt((size**2).mean(axis=0))
    width = np.maximum(width, np.finfo(np.float32).tiny)
    kernel = np.exp(-0.5 * (size / width) ** 2) / (width * np.sqrt(2 * np.pi))
    return float((change * kernel).mean(axis=0).sum())


def _distances(head: HeadPlan, logits: Floats, reference: Floats) -> Floats:
    """How far logits, [photos, logits], are from each line between two answers; the sign says on which side they are.

    Returns:
        [photos, lines]. For more than two labels that exclude each other, the line is that between the label which
        `reference` stands for and the likeliest other one.
    """
    if head.activation == "softmax" and len(head.labels) > 2:
        best = reference.argmax(axis=1)[:, None]
        others = logits.copy()
        np.put_along_axis(others, best, -np.inf, axis=1)
        ahead: Floats = np.take_along_axis(logits, best, axis=1) - others.max(axis=1, keepdims=True)
        return ahead
    positive = logits
    if head.activation == "softmax":
        index = head.labels.index(head.positive) if head.positive else 1
        positive = logits[:, [index]] - logits[:, [1 - index]]
    lines = head.unsure or (0.5 if head.threshold is None else head.threshold,)
    return np.concatenate([positive - np.log(line / (1 - line)) for line in lines], axis=1)


def _probabilities(head: HeadPlan, logits: Floats) -> Any:
    if head.activation != "softmax":
        return 1 / (1 + np.exp(-logits))
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def _logits(network: NetworkPlan, pixels: npt.NDArray[np.uint8]) -> dict[str, Floats]:
    parts = [torch_outputs(network, pixels[start : start + _BATCH]) for start in range(0, len(pixels), _BATCH)]
    return {head.name: np.concatenate([torch_logits(head, part) for part in parts]) for head in network.heads}
