"""Compares a network's answers in two views, to decide whether a faster view may replace the one of training."""

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
from .answers import head_spec, read_answers
from .verify import torch_logits, torch_outputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from ..preprocess.view import View
    from ..spec import HeadPlan, NetworkPlan

    Floats = npt.NDArray[np.floating[Any]]

MIN_AGREEMENT = 0.995
MAX_PIXEL_DIFFERENCE = 0.5
# With at least this many photos, their distances from the decision boundaries represent those of other photos.
ENOUGH_PHOTOS = 8
_BATCH = 16
_FLOAT = np.finfo(float)


@dataclass(frozen=True)
class Agreement:
    """How a network's answers in one view compare with those in another.

    Attributes:
        photos: How many photos were compared.
        changed: How many of them get another answer from some head.
        expected_change: The expected share of similar photos that get another answer; see `_expected`.
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
        """Whether one view may replace the other."""
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
    """Compares the answers of networks to photos in two views.

    Args:
        networks: The networks.
        reference: For each network, the view that it was trained with.
        other: For each network, the view that may replace it.
        photos: Files that can be decoded.
        distinct: How many of them, at least, are different photos like those in production.

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
    """Prepares photos for views: uint8 [photos, height, width, 3]. Decodes each photo once for all, as when served."""
    least = least_side_for(views)

    def prepare(content: bytes) -> list[npt.NDArray[np.uint8]]:
        photo = Photo(content, max_bytes=len(content), max_pixels=2**40, least_side=least)
        return [view.prepare(photo) for view in views]

    # Pillow releases the GIL.
    with ThreadPoolExecutor(cores()) as pool:
        prepared = zip(*pool.map(prepare, photos), strict=True)
    return {view: np.stack(pictures) for view, pictures in zip(views, prepared, strict=True)}


def _compare(
    network: NetworkPlan, before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8], distinct: int
) -> Agreement:
    difference = float(np.abs(before.astype(np.int16) - after).mean())
    one, two = _logits(network, before), _logits(network, after)
    if not all(np.isfinite(rows).all() for logits in (one, two) for rows in logits.values()):
        # No agreement. The verification of the ONNX model rejects such a network, with a better message.
        return Agreement(len(before), len(before), 1.0, 1.0, difference)
    changed = np.zeros(len(before), bool)
    expected, largest = 0.0, 0.0
    for head in network.heads:
        old, new = one[head.name], two[head.name]
        answers = (read_answers(head, logits) for logits in (old, new))
        changed |= [a.label != b.label for a, b in zip(*answers, strict=True)]
        expected += _expected(_distances(head, old, old), _distances(head, new, old), distinct)
        largest = max(largest, float(np.abs(_probabilities(head, new) - _probabilities(head, old)).max()))
    return Agreement(len(before), int(changed.sum()), expected, largest, difference)


def _expected(distances: Floats, moved: Floats, distinct: int) -> float:
    """The expected share of photos that cross a decision boundary.

    If none of 24 photos crosses one, that proves little: it happens to one network in three for which 5 % do. But all
    photos show how much a distance changes, and how many photos are near a boundary. A photo crosses it if the change
    is larger than its distance and towards the boundary, as half of the changes are. So the share is half of the mean
    change of photos on the boundary, times the density of distances there, 2 x the mean of a kernel over all photos.

    The kernel's width is Silverman's for the distances of the user's photos. Generated pictures do not show how many
    photos are near the boundary, only the scale of a network's logits, so this scale is the width.
    """
    size, change = np.abs(distances), np.abs(moved - distances)
    if distinct >= ENOUGH_PHOTOS:
        width = 1.06 * distinct**-0.2 * size.std(axis=0)
    else:
        width = np.sqrt((size**2).mean(axis=0))
    width = np.maximum(width, _FLOAT.tiny)
    kernel = np.exp(-0.5 * (size / width) ** 2) / (width * np.sqrt(2 * np.pi))
    return float((change * kernel).mean(axis=0).sum())


def _distances(head: HeadPlan, logits: Floats, reference: Floats) -> Floats:
    """The distance of logits, [photos, logits], from each decision boundary, in log-odds; the sign is the side.

    Returns:
        [photos, boundaries]. For more than two labels that exclude each other, the boundary is between the label that
        `reference` chooses and the most likely other one.
    """
    spec = head_spec(head)
    probabilities = _probabilities(head, logits)
    logs = np.log(np.maximum(probabilities, _FLOAT.tiny))
    if spec.activation == "softmax" and len(spec.labels) > 2:
        best = _probabilities(head, reference).argmax(axis=1)[:, None]
        others = logs.copy()
        np.put_along_axis(others, best, -np.inf, axis=1)
        ahead: Floats = np.take_along_axis(logs, best, axis=1) - others.max(axis=1, keepdims=True)
        return ahead
    if spec.activation == "multilabel":
        odds = logs - np.log(np.maximum(1 - probabilities, _FLOAT.eps))
    else:
        positive = spec.labels.index(spec.positive)
        odds = logs[:, [positive]] - logs[:, [1 - positive]]
    boundaries = spec.unsure or (0.5 if spec.threshold is None else spec.threshold,)
    return np.concatenate([odds - np.log(share / (1 - share)) for share in boundaries], axis=1)


def _probabilities(head: HeadPlan, logits: Floats) -> Floats:
    """The probability of each label, [photos, labels]."""
    return np.array([list(answer.probabilities.values()) for answer in read_answers(head, logits)])


def _logits(network: NetworkPlan, pixels: npt.NDArray[np.uint8]) -> dict[str, Floats]:
    parts = [torch_outputs(network, pixels[start : start + _BATCH]) for start in range(0, len(pixels), _BATCH)]
    return {head.name: np.concatenate([torch_logits(head, part) for part in parts]) for head in network.heads}
