"""What is exported, with everything decided: the spec, what the checkpoints know, and the defaults put together."""

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

# Of probabilities, where logits are made of them; float32 holds numbers as small as this exactly enough.
_LEAST = 1e-30
# float32 tells numbers just below 1 apart in steps of 6e-8. Closer to 1 than this, a step would move a logit further
# than another processor's answer may be off.
_MARGIN = 1e-6


@dataclass(frozen=True)
class HeadPlan:
    """One question, and how to read its answer out of what a network says.

    Attributes:
        name: Names the keys of the JSON answer.
        labels: In logit order; the sigmoid of one logit is the probability of the second.
        activation: See `spec.Head`.
        probabilities: The network gives probabilities; the logits that are served are made of them.
        positive: The label that `threshold` and `unsure` are about, where it is not the second one.
        threshold: From which probability on the positive label is given; None: the likeliest label wins.
        unsure: Between these probabilities of the positive label the answer is `unsure`.
        output: Which of several outputs of the network.
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
        """How many logits answer the question."""
        return 1 if self.activation == "sigmoid" else len(self.labels)

    @property
    def classes(self) -> int:
        """How many classes the network's output has."""
        return sum(len(group) for group in self.groups) if self.groups else self.logits

    def pick(self, outputs: object) -> torch.Tensor:
        """Picks what answers this head, [batch, classes], out of what the network gives."""
        import torch  # here, since a plan is also read where no network runs

        found = outputs if self.output is None else outputs[self.output]  # type: ignore[index]
        assert isinstance(found, torch.Tensor)  # noqa: S101 - checked before anything is exported
        return found.reshape(-1, 1) if self.classes == 1 else found

    def read(self, outputs: object) -> torch.Tensor:
        """This head's logits, [batch, logits], of what the network gives."""
        import torch

        found = self.pick(outputs)
        if self.probabilities:
            found = self._logits_of(found)
        if self.groups:
            # The logit of a union of exclusive classes: softmax over these adds their probabilities up.
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
    """What a network gets of pixels, uint8 RGB [batch, height, width, 3]: float32 [batch, 3, height, width]."""
    import numpy as np
    import torch

    images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255
    means, stds = (torch.tensor(part).reshape(3, 1, 1) for part in (mean, std))
    return ((images.flip(1) if bgr else images) - means) / stds


@dataclass(frozen=True)
class NetworkPlan:
    """One network, ready to be exported.

    Attributes:
        name: Of the Triton model.
        network: In eval mode, float32, on the CPU; takes normalised images, float32 [batch, 3, height, width]. It stays
            in its process: in a plan that comes from another one it is None.
        mean: Of the normalisation, in the order in which the network expects the channels.
        std: Likewise.
        bgr: The network expects blue first.
        view: How it looks at a photo.
        heads: The questions that it answers.
        weights: Its checkpoint.
        architecture: What the network was found to be.
        batch_norm: What its batch-norm layers say of the architecture, JSON-ready; see `Statistics`.
        notes: What was assumed, in sentences for the user.
        decoding: Where the spec left it open: how large JPEGs are decoded, and what was compared to decide it.
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
    decoding: Mapping[str, Any] | None = None

    @property
    def title(self) -> str:
        """What messages call it: by its head, if it has one."""
        return f"{'Head' if len(self.heads) == 1 else 'Network'} '{self.name}'"

    def output_name(self, head: HeadPlan) -> str:
        """The model's output for a head: `logits`, unless one network answers several questions."""
        return "logits" if len(self.heads) == 1 else f"{head.name}_logits"

    def describe(self) -> dict[str, Any]:
        """The plan as JSON-ready values."""
        return {
            "heads": {head.name: _without_defaults(asdict(head)) for head in self.heads},
            # Without the folder of a factory's file: it is one of this machine.
            "architecture": self.architecture.rpartition("/")[2],
            "view": asdict(self.view),
            "decoding": self.decoding or {"chosen": self.view.decoding},
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
        skipped: Files of the folder of photos that could not be read → why; see `PhotoFolder`.
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


def describe_head(head: HeadPlan) -> dict[str, Any]:
    """What a client needs to turn logits into an answer."""
    optional = {"positive": head.positive, "unsure": head.unsure}
    return {
        "output": f"{head.name}_logits",
        "labels": head.labels,
        "activation": head.activation,
        "threshold": head.threshold,
        **{name: value for name, value in optional.items() if value is not None},
    }
