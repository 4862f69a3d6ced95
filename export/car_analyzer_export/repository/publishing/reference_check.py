"""Checks a server against the reference photos that the export recorded with a version."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import PublishError, TritonRequestError
from ...spec import ENSEMBLE
from ..versions import RECORD, REFERENCES

if TYPE_CHECKING:
    from pathlib import Path

    from .control import Triton


@dataclass(frozen=True)
class ReferencePhoto:
    """A photo and the recorded answer: head → logits."""

    name: str
    content: bytes
    logits: dict[str, list[float]]


@dataclass(frozen=True)
class References:
    """The reference photos of one version.

    Attributes:
        version: Its number.
        photos: At least one.
        tolerance: Head → accepted difference of a logit.
    """

    version: int
    photos: tuple[ReferencePhoto, ...]
    tolerance: dict[str, float]

    def check(self, triton: Triton, model: str) -> float:
        """Sends every photo to an ensemble and compares the answers.

        Returns:
            The largest difference of a logit.

        Raises:
            PublishError: An answer is missing, comes from another version, or differs from the recorded one.
        """
        outputs = {head: f"{head}_logits" for head in self.tolerance}
        largest = 0.0
        for photo in self.photos:
            try:
                version, answer = triton.infer(model, photo.content, list(outputs.values()))
            except TritonRequestError as error:
                raise type(error)(f"The reference photo {photo.name} got no answer. {error}") from error
            if version != self.version:
                raise PublishError(f"Version {version} answered instead of version {self.version}.")
            for head, output in outputs.items():
                expected = np.array([photo.logits[head]])
                found = answer[output]
                difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
                # Not `difference > tolerance`: NaN must fail, too.
                if not difference <= self.tolerance[head]:
                    raise PublishError(
                        f"Version {version} does not answer as it did when it was exported: for the reference photo "
                        f"{photo.name}, {head} is {_rounded(found)}, but {_rounded(expected)} was recorded (at most "
                        f"{self.tolerance[head]:.2g} of difference is accepted)."
                    )
                largest = max(largest, difference)
        return largest


def read_references(repository: Path, version: int) -> References:
    """Reads a version's reference photos.

    Raises:
        PublishError: They are missing or were changed.
    """
    folder = repository / ENSEMBLE / str(version)
    try:
        facts = json.loads((folder / f"{REFERENCES}.json").read_text(encoding="utf-8"))
        photos = []
        for one in facts["photos"]:
            content = (folder / one["file"]).read_bytes()
            _check_digest(folder / one["file"], content, one["sha256"])
            photos.append(ReferencePhoto(one["file"], content, one["logits"]))
        tolerance = {head: float(value) for head, value in facts["tolerance"].items()}
        return References(version, tuple(photos), tolerance)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PublishError(
            f"The reference photos of version {version} in {folder} cannot be read ({error}), so the version cannot be "
            "checked and is not served. Export it again."
        ) from error


def check_files(repository: Path, version: int) -> None:
    """Makes sure that a version's networks are the files that were exported.

    Raises:
        PublishError: One is missing or was changed.
    """
    record = repository / ENSEMBLE / str(version) / RECORD
    try:
        digests = json.loads(record.read_text(encoding="utf-8")).get("models", {})
    except (OSError, ValueError) as error:
        raise PublishError(f"{record} cannot be read: {error}. Export again.") from error
    for model, digest in digests.items():
        file = repository / model / str(version) / "model.onnx"
        try:
            content = file.read_bytes()
        except OSError as error:
            raise PublishError(f"{file} cannot be read: {error.strerror}. Export again.") from error
        _check_digest(file, content, digest)


def _check_digest(file: Path, content: bytes, digest: str) -> None:
    if hashlib.sha256(content).hexdigest() != digest:
        raise PublishError(f"{file} is not the file that was exported: its SHA-256 differs. Export again.")


def _rounded(logits: Any) -> list[float]:
    return [round(float(value), 4) for value in np.ravel(logits)]
