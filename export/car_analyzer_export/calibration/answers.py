"""Answers labelled photos with the networks of a repository, without a server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from car_analyzer import Analysis
from car_analyzer.drift import photo_statistics

from ..checking.answers import Answer
from ..checking.local import LocalError, open_networks
from ..errors import CheckError
from ..onnx_model.answers import read_answers
from ..preprocess.photo import InvalidPhotoError, Photo
from ..preprocess.view import ViewError, least_side_for
from ..repository.versions import config_on_disk
from ..spec import PREPROCESS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from car_analyzer.heads import HeadSpec

    from ..checking.labelled import LabelledPhoto
    from ..checking.local import LocalNetwork
    from ..preprocess.view import View


class LocalModel:
    """The version that a repository's configurations name, in this process.

    Args:
        repository: The model repository.
        heads: The heads to answer for.

    Raises:
        CheckError: The networks cannot be loaded.
        PublishError: The configuration of the preprocess step cannot be read.
    """

    def __init__(self, repository: Path, heads: tuple[HeadSpec, ...]) -> None:
        try:
            self._networks = open_networks(repository, None, {head.name for head in heads})
        except LocalError as error:
            raise CheckError(f"The networks cannot be run here: {error}. Run `car-analyzer export` first.") from error
        self._heads = heads
        parameters = config_on_disk(repository, PREPROCESS).parameters
        self._max_bytes, self._max_pixels = (
            json.loads(parameters[name].string_value) for name in ("max_bytes", "max_pixels")
        )

    def analyze_all(self, photos: list[LabelledPhoto], step: Callable[[], object]) -> list[Answer]:
        """Analyses every photo; calls `step` after each. Errors of single photos are in their answers."""
        answers = []
        for photo in photos:
            answers.append(self._analyze(photo))
            step()
        return answers

    def _analyze(self, photo: LabelledPhoto) -> Answer:
        views = {network.view for network in self._networks}
        try:
            content = photo.path.read_bytes()
            decoded = Photo(content, self._max_bytes, self._max_pixels, least_side=least_side_for(views))
            pixels = {view: view.prepare(decoded) for view in views}
        except OSError as error:
            return Answer(photo, None, f"cannot read it: {error.strerror}")
        except (InvalidPhotoError, ViewError) as error:
            return Answer(photo, None, str(error))
        logits = {head: row for network in self._networks for head, row in _logits(network, pixels).items()}
        heads = {head.name: read_answers(head, logits[head.name])[0] for head in self._heads}
        statistics = photo_statistics(pixels[self._networks[0].view], content)
        return Answer(photo, Analysis(heads, 0.0), statistics=statistics)


def _logits(network: LocalNetwork, pixels: dict[View, Any]) -> dict[str, npt.NDArray[np.float32]]:
    return network.logits(pixels[network.view][None], network.channels, network.normalisation)
