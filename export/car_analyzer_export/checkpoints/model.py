"""What is read from a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

StateDict = dict[str, "torch.Tensor"]
Three = tuple[float, float, float]


@dataclass(frozen=True)
class Facts:
    """What a checkpoint, or a JSON file beside it, says about its network. None: it does not say.

    Attributes:
        labels: In logit order, as they are spelled there.
        arch: The network's name, such as `resnet18`.
        image_size: Width and height in pixels.
        mean: Of the normalisation, for R, G and B, on a scale of 0 to 1.
        std: Likewise.
        resize_mode: The interpolation, such as `bilinear`.
        threshold: Of the decision between two classes, between 0 and 1.
        positive: The class that the threshold, or the sigmoid of one logit, is about.
        positive_index: The same by its position, where the document names no classes.
        sources: Fact → where it was found.
    """

    labels: tuple[str, ...] | None = None
    arch: str | None = None
    image_size: tuple[int, int] | None = None
    mean: Three | None = None
    std: Three | None = None
    resize_mode: str | None = None
    threshold: float | None = None
    positive: str | None = None
    positive_index: int | None = None
    sources: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, read and checked.

    Attributes:
        weights: Names and tensors on the CPU, in the dtype they were stored in. Beside a `module` these are its own.
        module: The network itself, where a trusted file holds one.
        container: What kind of file it was, for people.
        facts: What it says about its network.
        notes: What a person should know: what was chosen, ignored or assumed.
    """

    weights: StateDict | None
    module: torch.nn.Module | None
    container: str
    facts: Facts
    notes: tuple[str, ...]
