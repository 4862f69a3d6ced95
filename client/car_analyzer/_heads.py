"""From a model's own description of its heads and its logits to labels and confidences.

The description travels with the model, as JSON in the ensemble's config, so that the client holds no class order
of its own that could be another one than the server's.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from ._results import Head
from .errors import ConfigurationError, ServerError

ADVICE = "update car-analyzer on this side, or export the model again"


@dataclass(frozen=True)
class Tensor:
    """An output for one photo: its shape with the batch axis first, and its values in row order."""

    shape: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class HeadSpec:
    """How to read one head's logits.

    Attributes:
        name: The head's name.
        output: The ensemble output that carries its logits.
        labels: Labels in logit order; for `sigmoid` the negative one and the positive one.
        activation: `softmax` (a logit for each label) or `sigmoid` (one logit for two labels).
        threshold: From which probability on the second of two labels is chosen; None for the likelier one.
    """

    name: str
    output: str
    labels: tuple[str, ...]
    activation: str
    threshold: float | None

    @property
    def classes(self) -> int:
        """How many logits there are."""
        return 1 if self.activation == "sigmoid" else len(self.labels)

    def read(self, tensor: Tensor | None) -> Head:
        """Turn this head's logits for one photo into its answer.

        Args:
            tensor: FP32 of shape [1, classes], or None where the answer had none.

        Raises:
            ServerError: The tensor is missing, has another shape, or holds a number that is not finite.
        """
        if tensor is None:
            raise ServerError(f"the answer has no output {self.output!r}")
        if tensor.shape != (1, self.classes) or len(tensor.values) != self.classes:
            raise ServerError(f"{self.output} has shape {list(tensor.shape)}; {self.name} needs [1, {self.classes}]")
        if not all(map(math.isfinite, tensor.values)):
            raise ServerError(f"{self.output} is not finite: {list(tensor.values)}")
        if self.activation == "sigmoid":
            positive = sigmoid(tensor.values[0])
            probabilities = [sigmoid(-tensor.values[0]), positive]
        else:
            probabilities = softmax(tensor.values)
        chosen = self._choose(probabilities)
        named = dict(zip(self.labels, probabilities, strict=True))
        return Head(self.labels[chosen], probabilities[chosen], named, tensor.values)

    def _choose(self, probabilities: list[float]) -> int:
        if self.activation == "sigmoid" or self.threshold is not None:
            return int(probabilities[1] >= (0.5 if self.threshold is None else self.threshold))
        return probabilities.index(max(probabilities))


def softmax(logits: tuple[float, ...]) -> list[float]:
    """Probabilities of finite logits; the largest is taken off first, so that none overflows."""
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
        text: JSON, head name → {output, labels, activation, threshold}, in display order; None if there is none.
        model: The ensemble's name, for messages.

    Raises:
        ConfigurationError: It is missing, or not what this client understands.
    """
    if text is None:
        raise ConfigurationError(f"model {model!r} does not say what its outputs mean; `car-analyzer export` makes one")
    try:
        return _parse(json.loads(text))
    except (TypeError, ValueError, KeyError) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else error
        raise ConfigurationError(f"cannot read the heads of model {model!r}: {reason}; {ADVICE}") from error


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
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise ValueError(f"{name}: labels are {labels!r}")
    if activation not in ("softmax", "sigmoid"):
        raise ValueError(f"{name}: unknown activation {activation!r}")
    if activation == "sigmoid" and len(labels) != 2:
        raise ValueError(f"{name}: sigmoid has two labels, not {len(labels)}")
    if threshold is not None:
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
            raise ValueError(f"{name}: threshold is {threshold!r}")
        if len(labels) != 2:
            raise ValueError(f"{name}: a threshold chooses between two labels, not {len(labels)}")
    return HeadSpec(name, output, tuple(labels), activation, None if threshold is None else float(threshold))
