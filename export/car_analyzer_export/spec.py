"""What to export: heads, their weights and networks, and the photo they look at."""

from __future__ import annotations

import re
import sys
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .errors import SpecError
from .preprocess.photo import Preprocessing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENSEMBLE = "car_analyzer"
PREPROCESS = "preprocess"

# Labels in logit order for the two heads that everybody has.
WELL_KNOWN_LABELS = {"cleanliness": ("clean", "dirty"), "condition": ("intact", "damaged")}

_HEAD_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
# Taken by the other models of the repository, and by keys of the answer that belong to no head.
_RESERVED_NAMES = frozenset({ENSEMBLE, PREPROCESS, "processing_time_ms", "image", "error"})

_Side = Annotated[int, Field(ge=1, le=4096)]
_Label = Annotated[str, Field(pattern=r"^\S(.*\S)?$")]
_Mean = Annotated[float, Field(ge=0, le=1)]
_Std = Annotated[float, Field(gt=0, le=1)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Head(_Table):
    """One classifier.

    Attributes:
        weights: The checkpoint, a state_dict saved with `torch.save`.
        architecture: Where the network comes from: `path/to/file.py:factory` or `package.module:factory`.
        labels: In logit order.
        mean: Of the normalisation, for R, G and B, on a scale of 0 to 1. ImageNet's by default.
        std: Likewise.
    """

    weights: Path
    architecture: str | None = None
    labels: tuple[_Label, ...] = Field(min_length=2)
    mean: tuple[_Mean, _Mean, _Mean] = (0.485, 0.456, 0.406)
    std: tuple[_Std, _Std, _Std] = (0.229, 0.224, 0.225)

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) != len(labels):
            raise ValueError("a label is listed twice")
        return labels


class Limits(_Table):
    """What the service takes before it refuses.

    Attributes:
        max_bytes: Size of the largest accepted photo file.
        max_pixels: Width times height of the largest accepted photo.
        max_batch_size: The largest batch that Triton forms or accepts.
        max_queue_size: Requests waiting to be decoded; one more is refused as UNAVAILABLE (HTTP 503).
        max_queue_seconds: How long a request may wait for any one step before it is refused in the same way.
    """

    max_bytes: int = Field(default=Preprocessing.max_bytes, ge=1)
    max_pixels: int = Field(default=Preprocessing.max_pixels, ge=1)
    max_batch_size: int = Field(default=32, ge=1, le=1024)
    max_queue_size: int = Field(default=128, ge=1)
    max_queue_seconds: float = Field(default=10, gt=0, le=3600)


class Spec(_Table):
    """A whole export.

    Attributes:
        heads: The classifiers by name, in the order of the answer's keys. A name is also that of the Triton model,
            and of the ensemble's output `<name>_logits`.
        photo_size: Width and height in pixels of what the networks see.
        photos: A folder of photos to compare ONNX Runtime with PyTorch on; without it, generated pictures are used.
        limits: What the service takes before it refuses.
    """

    heads: dict[str, Head] = Field(min_length=1)
    photo_size: tuple[_Side, _Side] = (Preprocessing.width, Preprocessing.height)
    photos: Path | None = None
    limits: Limits = Limits()

    @model_validator(mode="before")
    @classmethod
    def _fill_in_shorthands(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        filled = dict(values)
        if isinstance(filled.get("photo_size"), int):
            filled["photo_size"] = [filled["photo_size"]] * 2
        if isinstance(filled.get("heads"), dict):
            filled["heads"] = {
                name: {"labels": WELL_KNOWN_LABELS[name], **head}
                if name in WELL_KNOWN_LABELS and isinstance(head, dict)
                else head
                for name, head in filled["heads"].items()
            }
        return filled

    @field_validator("heads")
    @classmethod
    def _names_are_usable(cls, heads: dict[str, Head]) -> dict[str, Head]:
        for name in heads:
            if not _HEAD_NAME.fullmatch(name):
                raise ValueError(f"'{name}' must start with a lower-case letter and hold only a-z, 0-9 and '_'")
            if name in _RESERVED_NAMES:
                raise ValueError(f"'{name}' is taken by another part of the service; choose another name")
        return heads

    @property
    def preprocessing(self) -> Preprocessing:
        """The step that all heads share."""
        width, height = self.photo_size
        return Preprocessing(width, height, self.limits.max_bytes, self.limits.max_pixels)

    @classmethod
    def from_values(cls, values: dict[str, Any], where: str, folder: Path | None = None) -> Spec:
        """Checks values as they come from TOML or flags; relative paths start at `folder`.

        Raises:
            SpecError: A key is unknown or missing, or a value makes no sense; the message starts with `where`.
        """
        try:
            spec = cls.model_validate(values)
        except ValidationError as error:
            raise SpecError("\n".join(f"{where}: {_sentence(dict(problem))}" for problem in error.errors())) from None
        return spec if folder is None else spec._anchored_at(folder)

    @classmethod
    def from_file(cls, path: Path) -> Spec:
        """Reads a TOML spec; relative paths in it start at its folder.

        Raises:
            SpecError: The file cannot be read, is no TOML, or describes no export.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SpecError(f"{path}: {error.strerror}.") from error
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SpecError(f"{path}: not valid TOML: {error}.") from error
        return cls.from_values(values, str(path), path.parent)

    def _anchored_at(self, folder: Path) -> Spec:
        heads = {
            name: head.model_copy(
                update={
                    "weights": folder / head.weights,
                    "architecture": _anchored_architecture(head.architecture, folder),
                }
            )
            for name, head in self.heads.items()
        }
        return self.model_copy(update={"heads": heads, "photos": folder / self.photos if self.photos else None})


def _anchored_architecture(architecture: str | None, folder: Path) -> str | None:
    """`file.py:factory` starts at the spec's folder; `package.module:factory` stays as it is."""
    file, colon, factory = (architecture or "").rpartition(":")
    return f"{folder / file}{colon}{factory}" if file.endswith(".py") else architecture


def _sentence(problem: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    match problem["type"]:
        case "missing":
            text = "is missing"
        case "extra_forbidden":
            text = "is not a key that a spec has; is it misspelt?"
        case _:
            text = f"{problem['msg'].removeprefix('Value error, ')} (it is {problem['input']!r})"
    return f"'{key}' {text}" if problem["type"] in ("missing", "extra_forbidden") else f"'{key}': {text}"
