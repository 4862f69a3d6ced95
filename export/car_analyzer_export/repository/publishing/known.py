"""Whether a server answers as a version was recorded to answer when it was exported."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ControlError, PublishError
from ...spec import ENSEMBLE
from ..versions import KNOWN, RECORD

if TYPE_CHECKING:
    from pathlib import Path

    from .control import Triton


@dataclass(frozen=True)
class KnownPhoto:
    """A photo and what a version says of it: head → logits."""

    name: str
    content: bytes
    logits: dict[str, list[float]]


@dataclass(frozen=True)
class Known:
    """The photos of one version.

    Attributes:
        version: Its number.
        photos: At least one.
        tolerance: Head → how far a logit may be off.
    """

    version: int
    photos: tuple[KnownPhoto, ...]
    tolerance: dict[str, float]

    def ask(self, triton: Triton, model: str) -> float:
        """Sends every photo to an ensemble.

        Returns:
            The largest difference of a logit.

        Raises:
            PublishError: An answer is missing, of another version, or not the recorded one.
        """
        outputs = {head: f"{head}_logits" for head in self.tolerance}
        largest = 0.0
        for photo in self.photos:
            try:
                version, answer = triton.infer(model, photo.content, list(outputs.values()))
            except ControlError as error:
                raise type(error)(f"The known photo {photo.name} got no answer. {error}") from error
            if version != self.version:
                raise PublishError(f"Version {version} answered in the place of version {self.version}.")
            for head, output in outputs.items():
                expected = np.array([photo.logits[head]])
                found = answer[output]
                difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
                # Not `difference > tolerance`: NaN must fail, too.
                if not difference <= self.tolerance[head]:
                    raise PublishError(
                        f"Version {version} does not answer as it did when it was exported: for the known photo "
                        f"{photo.name}, {head} is {_rounded(found)}, and {_rounded(expected)} was recorded (at most "
                        f"{self.tolerance[head]:.2g} of difference is accepted)."
                    )
                largest = max(largest, difference)
        return largest


def read_known(repository: Path, version: int) -> Known:
    """Reads a version's photos.

    Raises:
        PublishError: They are not there, or not what was written.
    """
    folder = repository / ENSEMBLE / str(version)
    try:
        facts = json.loads((folder / f"{KNOWN}.json").read_text(encoding="utf-8"))
        photos = []
        for one in facts["photos"]:
            content = (folder / one["file"]).read_bytes()
            _check(folder / one["file"], content, one["sha256"])
            photos.append(KnownPhoto(one["file"], content, one["logits"]))
        return Known(version, tuple(photos), {head: float(value) for head, value in facts["tolerance"].items()})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PublishError(
            f"The known photos of version {version} in {folder} cannot be read ({error}), and a version is only "
            "switched to if they can be. Export it again."
        ) from error


def check_files(repository: Path, version: int) -> None:
    """Makes sure that a version's networks are the files that were exported.

    Raises:
        PublishError: One is missing or another one.
    """
    record = _read(repository / ENSEMBLE / str(version) / RECORD)
    for model, digest in record.get("models", {}).items():
        file = repository / model / str(version) / "model.onnx"
        try:
            content = file.read_bytes()
        except OSError as error:
            raise PublishError(f"{file} cannot be read: {error.strerror}. Export again.") from error
        _check(file, content, digest)


def _check(file: Path, content: bytes, digest: str) -> None:
    if hashlib.sha256(content).hexdigest() != digest:
        raise PublishError(f"{file} is not the file that was exported: its SHA-256 is another one. Export again.")


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PublishError(f"{file} cannot be read: {error}. Export again.") from error


def _rounded(logits: Any) -> list[float]:
    return [round(float(value), 4) for value in np.ravel(logits)]
