"""The plan of an export: the spec, completed with facts from the checkpoints and with defaults."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    import torch

    from ..preprocess.view import View
    from .tables import Limits

Activation = Literal["softmax", "sigmoid", "multilabel"]

# The smallest probability that is converted to a logit; float32 is precise enough there.
_LEAST = 1e-30
# Just below 1, float32 has steps of 6e-8. Closer to 1 than this, one step would change the logit by more than the
# accepted difference between processors.
_MARGIN = 1e-6


@dataclass(frozen=True)
class HeadPlan:
    """One head, and how to read its logits from the output of a network.

    Attributes:
        name: Used in the keys of the JSON answer.
        labels: In logit order; the sigmoid of one logit is the probability of the second.
        activation: See `spec.Head`.
        probabilities: The network returns probabilities; the served logits are computed from them.
        positive: The label that `threshold` and `unsure` apply to, if it is not the second one.
        threshold: The minimum probability of the positive label; None: the most likely label wins.
        unsure: Between these probabilities of the positive label the answer is `unsure`.
        output: The output to read, if the network has several.
        groups: For a network whose classes combine several questions: for each label the classes that have it.
    """

    name: str
    labels: tuple[str, ...]
    activation: Activation = "softmax"
    probabilities: bool = False
    positive: str | None = None
    threshold: float | None = None
    unsure: tuple[float, float] | None = None
    output: int | str | None = None
    groups: tuple[tuple[int, ...], ...] | None = None

    @property
    def logits(self) -> int:
        """The number of logits."""
        return 1 if self.activation == "sigmoid" else len(self.labels)

    @property
    def classes(self) -> int:
        """The number of classes of the network's output."""
        return sum(len(group) for group in self.groups) if self.groups else self.logits

    def pick(self, outputs: object) -> torch.Tensor:
        """Selects this head's output, [batch, classes], from the network's output."""
        import torch  # not at the top: the command reads plans without PyTorch

        found = outputs if self.output is None else outputs[self.output]  # type: ignore[index]
        assert isinstance(found, torch.Tensor)  # noqa: S101 - checked before anything is exported
        return found.reshape(-1, 1) if self.classes == 1 else found

    def read(self, outputs: object) -> torch.Tensor:
        """Computes this head's logits, [batch, logits], from the network's output."""
        import torch

        found = self.pick(outputs)
        if self.probabilities:
            found = self._logits_of(found)
        if self.groups:
            # The logit of a union of exclusive classes: their softmax is the sum of the probabilities.
            parts = [torch.logsumexp(found[:, list(group)], dim=1) for group in self.groups]
            return torch.stack(parts, dim=1)
        return found

    def _logits_of(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Finite logits whose softmax, or sigmoids, are the probabilities."""
        import torch

        if self.activation == "softmax":
            return torch.log(probabilities.clamp(min=_LEAST))
        certain = probabilities.clamp(_MARGIN, 1 - _MARGIN)
        return torch.log(certain / (1 - certain))


def normalised(
    pixels: npt.NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...], *, bgr: bool
) -> torch.Tensor:
    """Normalises pixels, uint8 RGB [batch, height, width, 3], for a network: float32 [batch, 3, height, width]."""
    import numpy as np
    import torch

    images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255
    means, stds = (torch.tensor(part).reshape(3, 1, 1) for part in (mean, std))
    return ((images.flip(1) if bgr else images) - means) / stds


@dataclass(frozen=True)
class NetworkPlan:
    """One network, ready to be exported.

    Attributes:
        name: The name of the Triton model.
        network: In eval mode, float32, on the CPU; takes normalised images, float32 [batch, 3, height, width]. It is
            not pickled: in a plan from another process it is None.
        mean: Of the normalisation, in the network's channel order.
        std: Likewise.
        bgr: The network expects blue first.
        view: How photos are prepared for it.
        heads: Its heads.
        weights: Its checkpoint.
        architecture: The detected or given architecture.
        batch_norm: How its batch-norm statistics fit the architecture, JSON-ready; see `Statistics`.
        notes: Assumptions, in sentences for the user.
        shortcuts: What was decided about `decoding` and `resampling` if they were `auto`, and the comparison behind it.
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
    batch_norm: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    shortcuts: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Its name in messages: that of its head, if it has only one."""
        return f"{'Head' if len(self.heads) == 1 else 'Network'} '{self.name}'"

    def output_name(self, head: HeadPlan) -> str:
        """The model's output for a head: `logits`, unless the network has several heads."""
        return "logits" if len(self.heads) == 1 else f"{head.name}_logits"

    def map_name(self, head: HeadPlan) -> str:
        """The model's output for a head's class activation map, if it has one."""
        return "map" if len(self.heads) == 1 else f"{head.name}_map"

    def describe(self) -> dict[str, Any]:
        """The plan as JSON-ready values."""
        return {
            "heads": {head.name: _without_defaults(asdict(head)) for head in self.heads},
            # Without the folder of a factory's file, which is a path of this machine.
            "architecture": self.architecture.rpartition("/")[2],
            "view": asdict(self.view),
            "decoding": {"chosen": self.view.decoding},
            "resampling": {"chosen": self.view.resampling},
            **self.shortcuts,
            "mean": self.mean,
            "std": self.std,
            "channels": "BGR" if self.bgr else "RGB",
            "batch_norm": self.batch_norm,
            "notes": self.notes,
        }

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"network": None}


def _without_defaults(head: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in head.items() if key != "name" and value is not None}


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
        description: See `spec.Spec`.
        demo: See `spec.Spec`.
        explain: See `spec.Spec`.
        skipped: Unreadable files in the folder of photos → the reason; see `PhotoFolder`.
        views: View → the output of the preprocess step that has its pixels.
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
    skipped: Mapping[str, str] = field(default_factory=dict)
    description: str | None = None
    demo: bool = False
    explain: bool = False
    views: dict[View, str] = field(init=False)

    def __post_init__(self) -> None:
        views: dict[View, str] = {}
        for network in self.networks:
            views.setdefault(network.view, f"pixels_{network.name}" if views else "pixels")
        object.__setattr__(self, "views", views)

    @property
    def about(self) -> dict[str, Any]:
        """What is known about the models as a whole, JSON-ready."""
        return ({"description": self.description} if self.description else {}) | ({"demo": True} if self.demo else {})

    def heads(self) -> list[tuple[HeadPlan, NetworkPlan]]:
        """Every head with its network, in the order of the answer's keys."""
        found = {head.name: (head, network) for network in self.networks for head in network.heads}
        return [found[name] for name in self.head_order]


def describe_head(head: HeadPlan) -> dict[str, Any]:
    """The head's contract for clients: how to turn its logits into an answer."""
    optional = {"positive": head.positive, "unsure": head.unsure}
    return {
        "output": f"{head.name}_logits",
        "labels": head.labels,
        "activation": head.activation,
        "threshold": head.threshold,
        **{name: value for name, value in optional.items() if value is not None},
    }
