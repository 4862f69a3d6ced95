"""Compares an exported model with the network it came from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import torch

from car_analyzer.heads import Tensor, parse_heads

from ..errors import NetworkError, VerificationError, reason
from ..spec import ENSEMBLE, describe_head, normalised
from .graph import run_network

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from car_analyzer import Head

    from ..spec import HeadPlan, NetworkPlan

BATCHES = (1, 2, 7, 32)
TOLERANCE = 1e-4
# Enough pictures for a part that is rarely dropped.
_REPEATED = 7


@dataclass(frozen=True)
class Comparison:
    """What one batch size gave: the largest difference, and how many of the answers agree.

    The difference is of a logit or, where the network gives probabilities, of a probability as the client reads it.
    """

    batch: int
    max_difference: float
    answers_agreeing: int


def check_repeats(plan: NetworkPlan) -> None:
    """Makes sure that the network gives the same pictures the same logits twice.

    Raises:
        NetworkError: It does not.
    """
    shape = (_REPEATED, plan.view.height, plan.view.width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    first, second = (torch_outputs(plan, pixels) for _ in range(2))
    difference = max(float(np.abs(torch_logits(head, first) - torch_logits(head, second)).max()) for head in plan.heads)
    if difference > TOLERANCE:
        raise NetworkError(
            f"The network itself is random: its logits for the same pictures differ by {difference:.2g} from run to "
            "run. The usual cause is F.dropout(x) without training=self.training, which drops even after eval(); add "
            "it, or use nn.Dropout."
        )


def compare(onnx_file: Path, plan: NetworkPlan, pixels: npt.NDArray[np.uint8]) -> dict[str, tuple[Comparison, ...]]:
    """Runs both on the same pictures, at every batch size in `BATCHES`.

    Args:
        onnx_file: The exported model.
        plan: Its network.
        pixels: At least as many pictures as the largest batch, uint8 [count, height, width, 3].

    Returns:
        Head name → one comparison for each batch size.

    Raises:
        VerificationError: ONNX Runtime fails, a logit or probability differs by more than `TOLERANCE`, or an answer
            differs.
        NetworkError: PyTorch fails.
    """
    names = [plan.output_name(head) for head in plan.heads]
    comparisons: dict[str, list[Comparison]] = {head.name: [] for head in plan.heads}
    expected = {batch: torch_outputs(plan, pixels[:batch]) for batch in BATCHES}
    try:
        session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
        served = {batch: session.run(names, {"pixels": pixels[:batch]}) for batch in BATCHES}
    except Exception as error:
        raise VerificationError(f"ONNX Runtime cannot run the exported model: {reason(error)}.") from error
    for batch, outputs in served.items():
        for head, logits in zip(plan.heads, outputs, strict=True):
            comparisons[head.name].append(_compare(head, logits, expected[batch]))
    return {name: tuple(found) for name, found in comparisons.items()}


def torch_outputs(plan: NetworkPlan, pixels: npt.NDArray[np.uint8]) -> object:
    """What PyTorch says of pixels by the recipe of training, not by the graph that was exported.

    Args:
        plan: The network.
        pixels: uint8 [batch, height, width, 3], RGB.

    Returns:
        What the network gives.

    Raises:
        NetworkError: The network fails on them.
    """
    return run_network(plan, normalised(pixels, plan.mean, plan.std, bgr=plan.bgr))


def torch_logits(head: HeadPlan, outputs: object) -> npt.NDArray[np.float32]:
    """A head's logits, float32 [batch, logits], of what PyTorch says."""
    with torch.inference_mode():
        logits: npt.NDArray[np.float32] = head.read(outputs).float().numpy()
        return logits


def read_answers(head: HeadPlan, logits: npt.NDArray[np.float32]) -> list[Head]:
    """What the client makes of finite logits, float32 [batch, logits]."""
    (spec,) = parse_heads(json.dumps({head.name: describe_head(head)}), ENSEMBLE)
    return [spec.read(Tensor((1, len(row)), tuple(map(float, row)))) for row in logits]


def _compare(head: HeadPlan, served: npt.NDArray[np.float32], outputs: object) -> Comparison:
    expected = torch_logits(head, outputs)
    batch = len(expected)
    if served.shape != expected.shape:
        raise VerificationError(
            f"At batch {batch} ONNX Runtime gives logits of shape {served.shape}, PyTorch {expected.shape}."
        )
    difference, agreeing = float(np.abs(served - expected).max()), 0
    if np.isfinite(difference):
        answers = read_answers(head, served)
        pairs = zip(answers, read_answers(head, expected), strict=True)
        agreeing = sum(one.label == other.label for one, other in pairs)
        if head.probabilities:
            # By what the network itself says: not by its logits, which both sides could have made wrongly.
            read = np.array([list(answer.probabilities.values()) for answer in answers])
            difference = float(np.abs(read - _own_probabilities(head, outputs)).max())
    # Not `difference > TOLERANCE`: NaN must fail, too.
    if not difference <= TOLERANCE or agreeing < batch:
        raise VerificationError(
            f"At batch {batch} ONNX Runtime and PyTorch differ by {difference:.2g} "
            f"(at most {TOLERANCE:g} is accepted), and {agreeing} of {batch} answers agree."
        )
    return Comparison(batch, difference, agreeing)


def _own_probabilities(head: HeadPlan, outputs: object) -> npt.NDArray[np.float64]:
    """A probability for each label, [batch, labels], from a network that gives probabilities."""
    given = head.pick(outputs).double().numpy()
    if head.groups:
        given = np.stack([given[:, group].sum(axis=1) for group in head.groups], axis=1)
    if head.activation == "sigmoid":
        given = np.hstack([1 - given, given])
    shares: npt.NDArray[np.float64] = (
        given / given.sum(axis=1, keepdims=True) if head.activation == "softmax" else given
    )
    return shares
