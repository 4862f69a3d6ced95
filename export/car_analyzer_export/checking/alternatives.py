"""Alternatives to the preprocessing and label order of a network, and how well each fits labelled photos."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from itertools import permutations, product
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..onnx_model.answers import read_answers
from ..preprocess.photo import InvalidPhotoError, Photo, is_turned
from ..preprocess.view import ViewError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from car_analyzer.heads import HeadSpec

    from ..preprocess.view import View
    from .answers import Answer
    from .local import LocalNetwork, Normalisation
    from .tally import Tally

IMAGENET: Normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: Normalisation = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
NONE: Normalisation = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

# More photos would take minutes and not change the result.
MOST_PHOTOS = 200
MOST_LABELS = 4
# A network for GPUs pads batches to 32 by default.
BATCH = 32


@dataclass(frozen=True)
class Preprocessing:
    """One way to prepare photos for a network."""

    view: View
    channels: str
    normalisation: Normalisation


@dataclass
class Fit:
    """How well one preprocessing, with one label order, fits a head.

    Attributes:
        network: The network.
        head: The head, with the labels in the order that is tried.
        preprocessing: How photos are prepared.
        changes: The number of differences from what is served.
        right: For each photo, whether the answer is right.
        truths: For each photo, its label.
    """

    network: LocalNetwork
    head: HeadSpec
    preprocessing: Preprocessing
    changes: int
    right: list[bool] = field(default_factory=list)
    truths: list[str] = field(default_factory=list)

    @property
    def balanced(self) -> float:
        """The balanced accuracy: the mean of the labels' recalls."""
        by_truth: dict[str, list[bool]] = defaultdict(list)
        for truth, right in zip(self.truths, self.right, strict=True):
            by_truth[truth].append(right)
        return sum(sum(found) / len(found) for found in by_truth.values()) / len(by_truth)


class ServedDiffersError(Exception):
    """The server's answers differ from those of the networks here."""


def choose_photos(answers: list[Answer], tallies: dict[str, Tally]) -> list[Answer]:
    """At most `MOST_PHOTOS` of the answered photos, evenly from all labels."""
    groups: dict[tuple[str, ...], list[Answer]] = defaultdict(list)
    for answer in answers:
        if answer.analysis is not None:
            groups[tuple(answer.photo.truth.get(head, "") for head in tallies)].append(answer)
    chosen: list[Answer] = []
    remaining = MOST_PHOTOS
    for groups_left, group in zip(range(len(groups), 0, -1), sorted(groups.values(), key=len), strict=True):
        count = min(len(group), remaining // groups_left)
        chosen += [group[index * len(group) // count] for index in range(count)]
        remaining -= count
    return chosen


def fit_all(networks: list[LocalNetwork], photos: list[Answer], step: Callable[[], object]) -> dict[str, list[Fit]]:
    """Tries every alternative: head → its fits, starting with what is served. Calls `step` per network and photo.

    Raises:
        ServedDiffersError: These are not the networks that are served.
    """
    rotated = any(_is_rotated(answer) for answer in photos)
    fits: dict[str, list[Fit]] = {}
    for network in networks:
        for tried, logits in _logits(network, list(alternatives(network, rotated=rotated)), photos, step).items():
            changes = sum(
                (
                    tried.view != network.view,
                    tried.channels != network.channels,
                    tried.normalisation != network.normalisation,
                )
            )
            if not changes:
                _compare_with_served(logits, photos)
            for head in network.heads:
                fits.setdefault(head.name, []).extend(_fits(network, head, tried, changes, logits[head.name], photos))
    return fits


def alternatives(network: LocalNetwork, *, rotated: bool) -> Iterator[Preprocessing]:
    """The preprocessings to try, starting with the one that is served. `rotated`: some photos have an orientation."""
    served = Preprocessing(network.view, network.channels, network.normalisation)
    yield served
    # First, since the first of equally good fits is advised, and phones turn their photos.
    if rotated:
        yield replace(served, view=replace(network.view, exif_rotation=not network.view.exif_rotation))
    if network.adjustable:
        others = [one for one in (IMAGENET, HALF, NONE) if not np.allclose(one, network.normalisation, atol=0.01)]
        swapped = "BGR" if network.channels == "RGB" else "RGB"
        for channels, normalisation in product((network.channels, swapped), (network.normalisation, *others)):
            if (channels, normalisation) != (served.channels, served.normalisation):
                yield replace(served, channels=channels, normalisation=normalisation)
    view = network.view
    # The usual 256 for 224.
    edge = None if view.shortest_edge else round(max(view.width, view.height) * 256 / 224)
    yield replace(served, view=replace(view, shortest_edge=edge))


def _is_rotated(answer: Answer) -> bool:
    try:
        with Image.open(answer.photo.path) as image:
            return is_turned(image)
    except Exception:  # noqa: BLE001 - Pillow raises many types, and such a photo is used as it is
        return False


def _logits(
    network: LocalNetwork, tried: list[Preprocessing], photos: list[Answer], step: Callable[[], object]
) -> dict[Preprocessing, dict[str, npt.NDArray[np.float32]]]:
    found: dict[Preprocessing, dict[str, list[npt.NDArray[np.float32]]]] = {
        one: {head.name: [] for head in network.heads} for one in tried
    }
    views = {one.view for one in tried}
    for start in range(0, len(photos), BATCH):
        pixels: dict[View, list[npt.NDArray[np.uint8]]] = {view: [] for view in views}
        for answer in photos[start : start + BATCH]:
            for view, prepared in _prepare(answer, views).items():
                pixels[view].append(prepared)
            step()
        stacked = {view: np.stack(parts) for view, parts in pixels.items()}
        for one in tried:
            for head, rows in network.logits(stacked[one.view], one.channels, one.normalisation).items():
                found[one][head].append(rows)
    return {one: {head: np.concatenate(parts) for head, parts in heads.items()} for one, heads in found.items()}


def _prepare(answer: Answer, views: set[View]) -> dict[View, npt.NDArray[np.uint8]]:
    try:
        # The server accepted it, so it is within the server's limits.
        photo = Photo(answer.photo.path.read_bytes(), max_bytes=2**40, max_pixels=2**40)
        return {view: view.prepare(photo) for view in views}
    except (OSError, InvalidPhotoError, ViewError) as error:
        name = answer.photo.name
        raise ServedDiffersError(f"the server answered {name}, but it cannot be prepared here: {error}") from error


def _compare_with_served(logits: dict[str, npt.NDArray[np.float32]], photos: list[Answer]) -> None:
    for head, rows in logits.items():
        served = np.array([answer.analysis.heads[head].logits for answer in photos if answer.analysis], np.float32)
        # Loose enough for other hardware and lower precision; another network differs by more on most photos.
        close = np.abs(rows - served).max(axis=1) <= 0.1 + 0.05 * np.abs(served).max(axis=1)
        if close.mean() < 0.9:
            raise ServedDiffersError(f"the newest '{head}' there is another model: the server's answers differ")


def _fits(
    network: LocalNetwork,
    head: HeadSpec,
    preprocessing: Preprocessing,
    changes: int,
    logits: npt.NDArray[np.float32],
    photos: list[Answer],
) -> Iterator[Fit]:
    labelled = [position for position, answer in enumerate(photos) if head.name in answer.photo.truth]
    rows, truths = logits[labelled], [photos[position].photo.truth[head.name] for position in labelled]
    occurring = {
        label for truth in truths for label in (truth.split(", ") if head.activation == "multilabel" else [truth])
    }
    for labels in permutations(head.labels) if len(head.labels) <= MOST_LABELS else [head.labels]:
        moved = {label for label, before in zip(labels, head.labels, strict=True) if label != before}
        # The photos cannot confirm the position of a label that none of them has.
        if moved <= occurring:
            ordered = replace(head, labels=labels)
            # As sets: several labels are joined in the order that is tried.
            given = [set(answer.label.split(", ")) for answer in read_answers(ordered, rows)]
            right = [answer == set(truth.split(", ")) for answer, truth in zip(given, truths, strict=True)]
            yield Fit(network, ordered, preprocessing, changes + bool(moved), right, truths)
