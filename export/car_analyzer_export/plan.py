"""What is exported, with everything decided: the spec, what the checkpoints know, and the defaults put together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from .architectures.statistics import Statistics
    from .preprocess.view import View
    from .spec import Limits

Activation = Literal["softmax", "sigmoid", "multilabel"]


@dataclass(frozen=True)
class HeadPlan:
    """One question, and how to read its answer out of what a network says.

    Attributes:
        name: Names the keys of the JSON answer.
        labels: In logit order; with one logit, the negative label and the positive one.
        activation: See `spec.Head`.
        positive: The label that `threshold` and `unsure` are about, where it is not the second one.
        threshold: From which probability on the positive label is given; None: the likeliest label wins.
        unsure: Between these probabilities of the positive label the answer is `unsure`.
        output: Which of several outputs of the network.
        groups: For a network whose classes combine several questions: for each label the classes that have it.
    """

    name: str
    labels: tuple[str, ...]
    activation: Activation = "softmax"
    positive: str | None = None
    threshold: float | None = None
    unsure: tuple[float, float] | None = None
    output: int | str | None = None
    groups: tuple[tuple[int, ...], ...] | None = None

    @property
    def logits(self) -> int:
        """How many logits answer the question."""
        return 1 if self.activation == "sigmoid" else len(self.labels)

    @property
    def classes(self) -> int:
        """How many classes the network's output has."""
        return sum(len(group) for group in self.groups) if self.groups else self.logits

    def read(self, outputs: object) -> torch.Tensor:
        """Picks this head's logits, float32 [batch, logits], out of what the network gives."""
        found = outputs if self.output is None else outputs[self.output]  # type: ignore[index]
        assert isinstance(found, torch.Tensor)  # noqa: S101 - checked before anything is exported
        if self.groups:
            # The logit of a union of exclusive classes: softmax over these adds their probabilities up.
            parts = [torch.logsumexp(found[:, list(group)], dim=1) for group in self.groups]
            return torch.stack(parts, dim=1)
        return found.reshape(-1, 1) if self.logits == 1 else found


def normalised(
    pixels: npt.NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...], *, bgr: bool
) -> torch.Tensor:
    """What a network gets of pixels, uint8 RGB [batch, height, width, 3]: float32 [batch, 3, height, width]."""
    images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255
    means, stds = (torch.tensor(part).reshape(3, 1, 1) for part in (mean, std))
    return ((images.flip(1) if bgr else images) - means) / stds


@dataclass(frozen=True)
class NetworkPlan:
    """One network, ready to be exported.

    Attributes:
        name: Of the Triton model.
        network: In eval mode, float32, on the CPU; takes normalised images, float32 [batch, 3, height, width].
        mean: Of the normalisation, in the order in which the network expects the channels.
        std: Likewise.
        bgr: The network expects blue first.
        view: How it looks at a photo.
        heads: The questions that it answers.
        weights: Its checkpoint.
        architecture: What the network was found to be.
        statistics: What its batch-norm layers say of the architecture.
        notes: What was assumed, in sentences for the user.
    """

    name: str
    network: torch.nn.Module
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool
    view: View
    heads: tuple[HeadPlan, ...]
    weights: Path
    architecture: str
    statistics: Statistics | None = None
    notes: tuple[str, ...] = ()

    def output_name(self, head: HeadPlan) -> str:
        """The model's output for a head: `logits`, unless one network answers several questions."""
        return "logits" if len(self.heads) == 1 else f"{head.name}_logits"


@dataclass(frozen=True)
class Plan:
    """A whole export.

    Attributes:
        networks: In the order of the spec.
        head_order: The heads' names in the order of the answer's keys.
        limits: See `spec.Limits`.
        photos: See `spec.Spec`.
        precision: See `spec.Spec`.
        target: See `spec.Spec`.
        accelerator: See `spec.Spec`.
        engine_cache: See `spec.Spec`.
        preprocess: See `spec.Spec`.
    """

    networks: tuple[NetworkPlan, ...]
    head_order: tuple[str, ...]
    limits: Limits
    photos: Path | None = None
    precision: str = "fp32"
    target: str = "any"
    accelerator: str = "cuda"
    engine_cache: str = ""
    preprocess: str = "pillow"
    views: dict[View, str] = field(init=False)

    def __post_init__(self) -> None:
        views: dict[View, str] = {}
        for network in self.networks:
            views.setdefault(network.view, f"pixels_{network.name}" if views else "pixels")
        object.__setattr__(self, "views", views)

    def heads(self) -> list[tuple[HeadPlan, NetworkPlan]]:
        """Every head with its network, in the order of the answer's keys."""
        found = {head.name: (head, network) for network in self.networks for head in network.heads}
        return [found[name] for name in self.head_order]
