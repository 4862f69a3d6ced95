"""Other ways to read the same photos with the same networks, and how well each fits the known answers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from itertools import permutations, product
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..preprocess.photo import Photo, PhotoError
from ..preprocess.view import ViewError
from .local import LocalNetwork, Normalisation, read_label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from car_analyzer.heads import HeadSpec

    from ..preprocess.view import View
    from .asking import Answer
    from .tally import Tally

IMAGENET: Normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: Normalisation = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
NONE: Normalisation = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

# More photos would take minutes and not change the finding.
MOST_PHOTOS = 200
MOST_LABELS = 4
BATCH = 16


@dataclass(frozen=True)
class Reading:
    """One way to prepare photos for a network."""

    view: View
    channels: str
    normalisation: Normalisation


@dataclass
class Fit:
    """How well one reading, with one order of the labels, fits a head.

    Attributes:
        network: Whose reading it is.
        head: How its logits are read, with the labels in the order that is tried.
        reading: How photos are prepared.
        changes: In how many things this differs from what is served.
        right: For each photo, whether the answer is right.
        truths: For each photo, its label.
    """

    network: LocalNetwork
    head: HeadSpec
    reading: Reading
    changes: int
    right: list[bool] = field(default_factory=list)
    truths: list[str] = field(default_factory=list)

    @property
    def balanced(self) -> float:
        """The mean of each label's share of right answers: a network that always says the same gains nothing here."""
        by_truth: dict[str, list[bool]] = defaultdict(list)
        for truth, right in zip(self.truths, self.right, strict=True):
            by_truth[truth].append(right)
        return sum(sum(found) / len(found) for found in by_truth.values()) / len(by_truth)


class ServedDiffersError(Exception):
    """The server does not answer what the networks here answer."""


def choose_photos(answers: list[Answer], tallies: dict[str, Tally]) -> list[Answer]:
    """At most `MOST_PHOTOS` of those answered, evenly from all labels."""
    groups: dict[tuple[str, ...], list[Answer]] = defaultdict(list)
    for answer in answers:
        if answer.analysis is not None:
            groups[tuple(answer.photo.truth.get(head, "") for head in tallies)].append(answer)
    chosen: list[Answer] = []
    left = MOST_PHOTOS
    for remaining, group in zip(range(len(groups), 0, -1), sorted(groups.values(), key=len), strict=True):
        count = min(len(group), left // remaining)
        chosen += [group[index * len(group) // count] for index in range(count)]
        left -= count
    return chosen


def count_steps(networks: list[LocalNetwork], photos: list[Answer]) -> int:
    """How often `fit_all` calls `step`."""
    return len(networks) * len(photos)


def fit_all(networks: list[LocalNetwork], photos: list[Answer], step: Callable[[], object]) -> dict[str, list[Fit]]:
    """Tries every reading: head → its fits, that of what is served first.

    Raises:
        ServedDiffersError: These are not the networks that are served.
    """
    turned = any(_is_turned(answer) for answer in photos)
    fits: dict[str, list[Fit]] = {}
    for network in networks:
        for reading, logits in _logits(network, list(readings(network, turned=turned)), photos, step).items():
            changes = _changes(network, reading)
            if not changes:
                _compare_with_served(logits, photos)
            for head in network.heads:
                fits.setdefault(head.name, []).extend(_fits(network, head, reading, changes, logits[head.name], photos))
    return fits


def readings(network: LocalNetwork, *, turned: bool) -> Iterator[Reading]:
    """What is tried for a network; what is served comes first. `turned`: some photos have an EXIF orientation."""
    served = Reading(network.view, network.channels, network.normalisation)
    yield served
    if network.adjustable:
        known = [one for one in (IMAGENET, HALF, NONE) if not _same(one, network.normalisation)]
        other = "BGR" if network.channels == "RGB" else "RGB"
        for channels, normalisation in product((network.channels, other), (network.normalisation, *known)):
            if (channels, normalisation) != (served.channels, served.normalisation):
                yield replace(served, channels=channels, normalisation=normalisation)
    view = network.view
    # 256 for 224, as everybody has it.
    edge = None if view.shortest_edge else round(max(view.width, view.height) * 256 / 224)
    yield replace(served, view=replace(view, shortest_edge=edge))
    if turned:
        yield replace(served, view=replace(view, exif_rotation=not view.exif_rotation))


def _same(one: Normalisation, other: Normalisation) -> bool:
    return bool(np.allclose(one, other, atol=0.01))


def _changes(network: LocalNetwork, reading: Reading) -> int:
    return sum(
        (
            reading.view != network.view,
            reading.channels != network.channels,
            reading.normalisation != network.normalisation,
        )
    )


def _is_turned(answer: Answer) -> bool:
    try:
        with Image.open(answer.photo.path) as image:
            return bool(image.getexif().get(0x0112, 1) != 1)
    except Exception:  # noqa: BLE001 - Pillow's errors are many, and such a photo is left as it is
        return False


def _logits(
    network: LocalNetwork, tried: list[Reading], photos: list[Answer], step: Callable[[], object]
) -> dict[Reading, dict[str, npt.NDArray[np.float32]]]:
    found: dict[Reading, dict[str, list[npt.NDArray[np.float32]]]] = {
        reading: {head.name: [] for head in network.heads} for reading in tried
    }
    views = {reading.view for reading in tried}
    for start in range(0, len(photos), BATCH):
        batch = photos[start : start + BATCH]
        pixels: dict[View, list[npt.NDArray[np.uint8]]] = {view: [] for view in views}
        for answer in batch:
            photo = _decode(answer)
            for view in views:
                pixels[view].append(view.pixels(photo.upright() if view.exif_rotation else photo.rgb))
            step()
        stacked = {view: np.stack(parts) for view, parts in pixels.items()}
        for reading in tried:
            rows = network.logits(stacked[reading.view], reading.channels, reading.normalisation)
            for head, values in rows.items():
                found[reading][head].append(values)
    return {reading: {head: np.concatenate(parts) for head, parts in heads.items()} for reading, heads in found.items()}


def _decode(answer: Answer) -> Photo:
    try:
        # The server took it, so it is within the server's limits, whatever these are.
        return Photo(answer.photo.path.read_bytes(), max_bytes=2**40, max_pixels=2**40)
    except (OSError, PhotoError, ViewError) as error:
        raise ServedDiffersError(
            f"{answer.photo.name} was answered by the server and cannot be read here: {error}"
        ) from error


def _compare_with_served(logits: dict[str, npt.NDArray[np.float32]], photos: list[Answer]) -> None:
    for head, rows in logits.items():
        served = np.array([answer.analysis.heads[head].logits for answer in photos if answer.analysis], np.float32)
        # Loose enough for other hardware and lower precision; another network is further off on most photos.
        near = np.abs(rows - served).max(axis=1) <= 0.1 + 0.05 * np.abs(served).max(axis=1)
        if near.mean() < 0.9:
            raise ServedDiffersError(
                f"the newest '{head}' there answers otherwise than the server, so it is another model"
            )


def _fits(
    network: LocalNetwork,
    head: HeadSpec,
    reading: Reading,
    changes: int,
    logits: npt.NDArray[np.float32],
    photos: list[Answer],
) -> Iterator[Fit]:
    known = [
        (row, answer.photo.truth[head.name])
        for row, answer in zip(logits, photos, strict=True)
        if head.name in answer.photo.truth
    ]
    truths = [truth for _, truth in known]
    seen = {label for truth in truths for label in (truth.split(", ") if head.activation == "multilabel" else [truth])}
    for labels in permutations(head.labels) if len(head.labels) <= MOST_LABELS else [head.labels]:
        moved = {label for label, before in zip(labels, head.labels, strict=True) if label != before}
        # Of labels that no photo has, nothing can be said.
        if moved <= seen:
            ordered = replace(head, labels=labels)
            # As sets: several labels are joined in the order that is tried.
            right = [set(read_label(ordered, row).split(", ")) == set(truth.split(", ")) for row, truth in known]
            yield Fit(network, ordered, reading, changes + bool(moved), right, truths)
