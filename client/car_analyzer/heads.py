"""Turns logits into labels and confidences, with the description of the heads in the model's config.

The description is JSON in the ensemble's config. The client has no class order of its own, which could differ from the
server's.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._results import Head
from .errors import ConfigurationError, ServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

UNSURE = "unsure"
ADVICE = "update car-analyzer on this side, or export the model again"
# A logit that is divided by it stays finite.
LEAST_TEMPERATURE = 1e-6


@dataclass(frozen=True)
class Tensor:
    """An output: its shape with the batch axis first, and its values in row order; those of UINT8 are its bytes."""

    shape: tuple[int, ...]
    values: Sequence[float]


@dataclass(frozen=True)
class HeadSpec:
    """How to read one head's logits.

    Attributes:
        name: The head's name.
        output: The ensemble output that carries its logits.
        labels: Labels in logit order; the sigmoid of one logit is the probability of the second.
        activation: `softmax` (a logit for each label), `sigmoid` (one logit for two labels), or `multilabel` (a logit
            and a yes or no for each label).
        threshold: The probability from which the positive label is chosen; None: the most likely label is.
        positive: The label that `threshold` and `unsure` refer to.
        unsure: Between these probabilities of the positive label, the label is `UNSURE`.
        exif_rotation: Whether its network sees photos turned by their EXIF orientation; None for an older export.
        temperature: Calibrates the confidences: they are those of the logits divided by it. Labels do not depend on it;
            `threshold` and `unsure` refer to the probabilities without it.
        bias: Added to the one logit of `sigmoid` after that; 0 for other activations.
    """

    name: str
    output: str
    labels: tuple[str, ...]
    activation: str
    threshold: float | None
    positive: str
    unsure: tuple[float, float] | None = None
    exif_rotation: bool | None = None
    temperature: float = 1.0
    bias: float = 0.0

    @property
    def classes(self) -> int:
        """The number of logits."""
        return 1 if self.activation == "sigmoid" else len(self.labels)

    def read(self, tensor: Tensor | None) -> Head:
        """Turn this head's logits for one photo into its answer.

        Args:
            tensor: FP32 of shape [1, classes], or None if the answer had none.

        Raises:
            ServerError: The tensor is missing, has another shape, or holds a number that is not finite.
        """
        if tensor is None:
            raise ServerError(f"the answer has no output {self.output!r}")
        if tensor.shape != (1, self.classes) or len(tensor.values) != self.classes:
            raise ServerError(f"{self.output} has shape {list(tensor.shape)}; {self.name} needs [1, {self.classes}]")
        if not all(map(math.isfinite, tensor.values)):
            raise ServerError(f"{self.output} is not finite: {list(tensor.values)}")
        logits = tuple(tensor.values)
        chosen = self._probabilities(logits)
        calibrated = self._probabilities([logit / self.temperature + self.bias for logit in logits])
        if self.activation == "multilabel":
            threshold = 0.5 if self.threshold is None else self.threshold
            found = tuple(label for label, probability in chosen.items() if probability >= threshold)
            # The confidence in all yes/no decisions together is that of the least certain one.
            confidence = min(p if label in found else 1 - p for label, p in calibrated.items())
            return Head(", ".join(found), confidence, calibrated, logits, found)
        label = self._choose(chosen)
        confidence = max(calibrated.values()) if label == UNSURE else calibrated[label]
        return Head(label, confidence, calibrated, logits)

    def _probabilities(self, logits: Sequence[float]) -> dict[str, float]:
        match self.activation:
            case "softmax":
                probabilities = softmax(logits)
            case "sigmoid":
                probabilities = [sigmoid(-logits[0]), sigmoid(logits[0])]
            case _:
                probabilities = [sigmoid(logit) for logit in logits]
        return dict(zip(self.labels, probabilities, strict=True))

    def _choose(self, probabilities: dict[str, float]) -> str:
        positive = probabilities[self.positive]
        if self.unsure is not None and self.unsure[0] < positive < self.unsure[1]:
            return UNSURE
        if self.threshold is None:
            return max(probabilities, key=probabilities.__getitem__)
        if positive >= self.threshold:
            return self.positive
        (negative,) = (label for label in self.labels if label != self.positive)
        return negative


@dataclass(frozen=True)
class ServedModel:
    """The export that a server has, and how to read its answers.

    Attributes:
        export_id: The export's id; None for an older export, which has none.
        version: The ensemble's version; None if its config allows several.
        heads: Its heads, in display order.
        explain: How to explain their answers, as JSON; None for an older export.
    """

    export_id: str | None
    version: str | None
    heads: tuple[HeadSpec, ...]
    explain: str | None = None

    @property
    def exif_rotation(self) -> bool | None:
        """Whether all networks see photos turned by their EXIF orientation; None if that is unknown."""
        found = {head.exif_rotation for head in self.heads}
        return None if None in found else found == {True}


def softmax(logits: Sequence[float]) -> list[float]:
    """Probabilities of finite logits; the largest is subtracted first, so that none overflows."""
    top = max(logits)
    weights = [math.exp(logit - top) for logit in logits]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def sigmoid(logit: float) -> float:
    """The logistic function, without overflow on either side."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    weight = math.exp(logit)
    return weight / (1 + weight)


def parse_heads(text: str | None, model: str) -> tuple[HeadSpec, ...]:
    """Read the description that the ensemble's config carries.

    Args:
        text: JSON, head name → {output, labels, activation, threshold, …}, in display order; None if it is missing.
        model: The ensemble's name, for messages.

    Raises:
        ConfigurationError: It is missing, or has a format that this client does not know.
    """
    if text is None:
        raise ConfigurationError(
            f"model {model!r} does not describe its outputs; create one with `car-analyzer export`",
            code="model.unsuitable",
        )
    try:
        return _parse(json.loads(text))
    except (TypeError, ValueError, KeyError) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else error
        message = f"cannot read the heads of model {model!r}: {reason}; {ADVICE}"
        raise ConfigurationError(message, code="model.unsuitable") from error


def _parse(heads: Any) -> tuple[HeadSpec, ...]:
    if not isinstance(heads, dict) or not heads:
        raise TypeError("not an object of heads")
    return tuple(_parse_head(name, fields) for name, fields in heads.items())


def _parse_head(name: str, fields: Any) -> HeadSpec:
    if not isinstance(fields, dict):
        raise TypeError(f"{name} is not an object")
    output, labels, activation = fields["output"], fields["labels"], fields["activation"]
    threshold = fields.get("threshold")
    if not isinstance(output, str):
        raise TypeError(f"{name}: output is {output!r}")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise TypeError(f"{name}: labels are {labels!r}")
    if len(labels) < (1 if activation == "multilabel" else 2) or len(set(labels)) != len(labels):
        raise ValueError(f"{name}: labels are {labels!r}")
    if activation not in ("softmax", "sigmoid", "multilabel"):
        raise ValueError(f"{name}: unknown activation {activation!r}")
    if activation == "sigmoid" and len(labels) != 2:
        raise ValueError(f"{name}: sigmoid has two labels, not {len(labels)}")
    if threshold is not None:
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
            raise ValueError(f"{name}: threshold is {threshold!r}")
        if len(labels) != 2 and activation != "multilabel":
            raise ValueError(f"{name}: a threshold chooses between two labels, not {len(labels)}")
    elif activation == "sigmoid":
        threshold = 0.5
    positive = fields.get("positive", labels[-1])
    if not isinstance(positive, str) or positive not in labels:
        raise ValueError(f"{name}: positive is {positive!r}, which is not a label")
    return HeadSpec(
        name,
        output,
        tuple(labels),
        activation,
        None if threshold is None else float(threshold),
        positive,
        _parse_band(name, fields.get("unsure"), labels),
        fields.get("exif_rotation"),
        *_parse_calibration(name, fields, activation),
    )


def _parse_calibration(name: str, fields: Any, activation: str) -> tuple[float, float]:
    temperature, bias = fields.get("temperature", 1.0), fields.get("bias", 0.0)
    for key, value in (("temperature", temperature), ("bias", bias)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise TypeError(f"{name}: {key} is {value!r}")
    if temperature < LEAST_TEMPERATURE:
        raise ValueError(f"{name}: temperature is {temperature!r}")
    if bias and activation != "sigmoid":
        raise ValueError(f"{name}: bias is for one logit, not for {activation}")
    return float(temperature), float(bias)


def _parse_band(name: str, band: Any, labels: list[str]) -> tuple[float, float] | None:
    if band is None:
        return None
    if not isinstance(band, list) or len(band) != 2 or not all(isinstance(edge, int | float) for edge in band):
        raise TypeError(f"{name}: unsure is {band!r}")
    if len(labels) != 2:
        raise ValueError(f"{name}: unsure needs two labels, not {len(labels)}")
    return float(band[0]), float(band[1])
