"""Learns how to scale a head's logits, so that its confidences are the shares of right answers.

A temperature (C. Guo et al., On Calibration of Modern Neural Networks, arXiv:1706.04599), and for one logit also a bias
(J. Platt, Probabilistic Outputs for Support Vector Machines, 1999). The loss is convex in 1 / temperature and the bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from car_analyzer.heads import LEAST_TEMPERATURE

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    # At some parameters: the loss, its gradient and its Hessian.
    Loss = Callable[[Floats], tuple[float, Floats, Floats]]

MOST_STEPS = 100
ENOUGH = 1e-10


class NoFitError(Exception):
    """The logits say nothing about the labels."""


@dataclass(frozen=True)
class Scaling:
    """What a head's logits are divided by, and what is added to a single logit after that."""

    temperature: float = 1.0
    bias: float = 0.0

    def fields(self) -> dict[str, float]:
        """The keys for the description of a head; see `car_analyzer.heads`."""
        return {"temperature": self.temperature} | ({"bias": self.bias} if self.bias else {})


def fit(activation: str, logits: Floats, truth: npt.NDArray[np.bool_]) -> Scaling:
    """Finds the scaling with the lowest log loss.

    Args:
        activation: The head's; see `HeadSpec`.
        logits: [photos, logits].
        truth: Which labels are right, [photos, labels].

    Raises:
        NoFitError: Photos with a higher logit of a label do not have that label more often.
    """
    targets = _targets(truth, exclusive=activation != "multilabel")
    match activation:
        case "softmax":
            found = _minimise(_softmax_loss(logits, targets), 1)
        case "sigmoid":
            found = _minimise(_logistic_loss(np.column_stack([logits[:, 0], np.ones(len(logits))]), targets[:, 1]), 2)
        case _:
            found = _minimise(_logistic_loss(logits.reshape(-1, 1), targets.ravel()), 1)
    if not 0 < found[0] < 1 / LEAST_TEMPERATURE:
        raise NoFitError
    return Scaling(_rounded(1 / found[0]), _rounded(found[1]) if len(found) > 1 else 0.0)


def _targets(truth: npt.NDArray[np.bool_], *, exclusive: bool) -> Floats:
    """The probability to learn for each label.

    Not quite 0 and 1, but Platt's (photos + 1) / (photos + 2): where all photos are answered right, the loss would
    otherwise have no minimum, and the confidence would be 100 %.
    """
    photos = np.where(truth, truth.sum(axis=0), (~truth).sum(axis=0))
    if not exclusive:
        return np.asarray((1 + truth * photos) / (photos + 2), np.float64)
    photos = photos[truth][:, None]  # with the photo's own label
    return np.asarray(np.where(truth, photos + 1, 1 / (truth.shape[1] - 1)) / (photos + 2), np.float64)


def _softmax_loss(logits: Floats, targets: Floats) -> Loss:
    centred = logits - logits.max(axis=1, keepdims=True)

    def evaluate(parameters: Floats) -> tuple[float, Floats, Floats]:
        scaled = parameters[0] * centred
        scaled -= scaled.max(axis=1, keepdims=True)
        weights = np.exp(scaled)
        totals = weights.sum(axis=1, keepdims=True)
        probabilities = weights / totals
        mean = (probabilities * centred).sum(axis=1)
        loss = float((np.log(totals[:, 0]) - (targets * scaled).sum(axis=1)).mean())
        gradient = (mean - (targets * centred).sum(axis=1)).mean()
        curvature = ((probabilities * centred**2).sum(axis=1) - mean**2).mean()
        return loss, np.array([gradient]), np.array([[curvature]])

    return evaluate


def _logistic_loss(inputs: Floats, targets: Floats) -> Loss:
    def evaluate(parameters: Floats) -> tuple[float, Floats, Floats]:
        scaled = inputs @ parameters
        # The logistic function, without overflow.
        probabilities = np.exp(-np.logaddexp(0, -scaled))
        loss = float((np.logaddexp(0, scaled) - targets * scaled).mean())
        weights: Any = (probabilities * (1 - probabilities))[:, None]
        return loss, inputs.T @ (probabilities - targets) / len(inputs), inputs.T @ (weights * inputs) / len(inputs)

    return evaluate


def _minimise(evaluate: Loss, parameters: int) -> Floats:
    """Newton's method from 0, where no logit is saturated; halves steps that do not lower the loss."""
    point = np.zeros(parameters)
    loss, gradient, curvature = evaluate(point)
    for _ in range(MOST_STEPS):
        step = np.linalg.lstsq(curvature, gradient, rcond=None)[0]
        gain = float(step @ gradient)
        if gain < ENOUGH:
            break
        share = 1.0
        while (found := evaluate(point - share * step))[0] > loss - 0.1 * share * gain and share > ENOUGH:
            share /= 2
        point = point - share * step
        loss, gradient, curvature = found
    return point


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
