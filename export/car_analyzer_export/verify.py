"""Compares an exported model with the network it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import torch

from .errors import VerificationError
from .plan import normalised

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from .plan import HeadPlan, NetworkPlan

BATCHES = (1, 2, 7, 32)
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Comparison:
    """What one batch size gave: the largest difference of a logit, and how many of the answers agree."""

    batch: int
    max_difference: float
    answers_agreeing: int


def compare(onnx_file: Path, plan: NetworkPlan, pixels: npt.NDArray[np.uint8]) -> dict[str, tuple[Comparison, ...]]:
    """Runs both on the same pictures, at every batch size in `BATCHES`.

    Args:
        onnx_file: The exported model.
        plan: Its network.
        pixels: At least as many pictures as the largest batch, uint8 [count, height, width, 3].

    Returns:
        Head name → one comparison for each batch size.

    Raises:
        VerificationError: A logit differs by more than `TOLERANCE`, or an answer differs.
    """
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    names = [plan.output_name(head) for head in plan.heads]
    comparisons: dict[str, list[Comparison]] = {head.name: [] for head in plan.heads}
    for batch in BATCHES:
        expected = torch_logits(plan, pixels[:batch])
        served = session.run(names, {"pixels": pixels[:batch]})
        for head, logits in zip(plan.heads, served, strict=True):
            comparisons[head.name].append(_compare(head, logits, expected[head.name]))
    return {name: tuple(found) for name, found in comparisons.items()}


def torch_logits(plan: NetworkPlan, pixels: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
    """What PyTorch says of pixels by the recipe of training, not by the graph that was exported.

    Args:
        plan: The network.
        pixels: uint8 [batch, height, width, 3], RGB.

    Returns:
        Head name → float32 [batch, logits].
    """
    with torch.inference_mode():
        outputs = plan.network(normalised(pixels, plan.mean, plan.std, bgr=plan.bgr))
        return {head.name: head.read(outputs).float().numpy() for head in plan.heads}


def answers(head: HeadPlan, logits: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """The label that logits, float32 [batch, logits], stand for, as a number or, multilabel, a row of truth values."""
    if head.activation == "softmax":
        likeliest: npt.NDArray[Any] = logits.argmax(axis=1)
        return likeliest
    threshold = 0.5 if head.threshold is None else head.threshold
    # The probability is above the threshold where the logit is above the threshold's own logit.
    decided: npt.NDArray[Any] = logits >= np.log(threshold / (1 - threshold))
    return decided


def _compare(head: HeadPlan, served: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> Comparison:
    batch = len(expected)
    if served.shape != expected.shape:
        raise VerificationError(
            f"At batch {batch} ONNX Runtime gives logits of shape {served.shape}, PyTorch {expected.shape}."
        )
    difference = float(np.abs(served - expected).max())
    same = answers(head, served) == answers(head, expected)
    agreeing = int(same.reshape(batch, -1).all(axis=1).sum())
    # Not `difference > TOLERANCE`: NaN must fail, too.
    if not difference <= TOLERANCE or agreeing < batch:
        raise VerificationError(
            f"At batch {batch} ONNX Runtime and PyTorch differ by {difference:.2g} "
            f"(at most {TOLERANCE:g} is accepted), and {agreeing} of {batch} answers agree."
        )
    return Comparison(batch, difference, agreeing)
