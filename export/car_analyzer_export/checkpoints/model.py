"""The result of reading a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

StateDict = dict[str, "torch.Tensor"]
Three = tuple[float, float, float]


@dataclass(frozen=True)
class Facts:
    """What a checkpoint, or a JSON file beside it, says about its network. None where it says nothing.

    Attributes:
        labels: In logit order, in their original spelling.
        arch: The network's name, such as `resnet18`.
        image_size: Width and height in pixels.
        mean: Of the normalisation, for R, G and B, on a scale of 0 to 1.
        std: Likewise.
        resize_mode: The interpolation, such as `bilinear`.
        threshold: Of the decision between two classes, between 0 and 1.
        positive: The class whose probability the threshold, or the sigmoid of one logit, applies to.
        positive_index: Its position, where the document names no classes.
        sources: Fact → where it came from.
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
    """A checkpoint, read and validated.

    Attributes:
        weights: Names and tensors on the CPU, in their stored dtype; those of `module`, if there is one.
        module: The network itself, where a trusted file holds one.
        container: The kind of file, for people.
        facts: What it says about its network.
        notes: For the user: what was chosen, ignored or assumed.
    """

    weights: StateDict | None
    module: torch.nn.Module | None
    container: str
    facts: Facts
    notes: tuple[str, ...]
