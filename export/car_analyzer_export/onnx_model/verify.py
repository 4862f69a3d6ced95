"""Compares an exported model with its PyTorch network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import torch

from ..errors import NetworkError, VerificationError, reason
from ..spec import normalised
from .answers import read_answers
from .graph import run_network

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from ..spec import HeadPlan, NetworkPlan

BATCHES = (1, 2, 7, 32)
TOLERANCE = 1e-4
# Enough pictures to notice even a low dropout rate.
_REPEATED = 7


@dataclass(frozen=True)
class Comparison:
    """The result for one batch size: the largest difference, and how many answers agree.

    The difference is that of a logit or, if the network returns probabilities, of a probability as the client reads it.
    """

    batch: int
    max_difference: float
    answers_agreeing: int


def check_repeats(plan: NetworkPlan) -> None:
    """Makes sure that the network is deterministic: the same pictures give the same logits twice.

    Raises:
        NetworkError: It is not.
    """
    shape = (_REPEATED, plan.view.height, plan.view.width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    first, second = (torch_outputs(plan, pixels) for _ in range(2))
    difference = max(float(np.abs(torch_logits(head, first) - torch_logits(head, second)).max()) for head in plan.heads)
    if difference > TOLERANCE:
        raise NetworkError(
            f"The network itself is random: its logits for the same pictures differ by {difference:.2g} from run to "
            "run. The usual cause is F.dropout(x) without training=self.training, which is active even after eval(); "
            "add it, or use nn.Dropout."
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
    """Runs the network with PyTorch and the preprocessing of training, not with the exported graph.

    Args:
        plan: The network.
        pixels: uint8 [batch, height, width, 3], RGB.

    Returns:
        The output of the network.

    Raises:
        NetworkError: The network fails.
    """
    return run_network(plan, normalised(pixels, plan.mean, plan.std, bgr=plan.bgr))


def torch_logits(head: HeadPlan, outputs: object) -> npt.NDArray[np.float32]:
    """A head's logits, float32 [batch, logits], from the network's output."""
    with torch.inference_mode():
        logits: npt.NDArray[np.float32] = head.read(outputs).float().numpy()
        return logits


def _compare(head: HeadPlan, served: npt.NDArray[np.float32], outputs: object) -> Comparison:
    expected = torch_logits(head, outputs)
    batch = len(expected)
    if served.shape != expected.shape:
        raise VerificationError(
            f"At batch {batch} ONNX Runtime gives logits of shape {served.shape}, PyTorch {expected.shape}."
        )
    difference, agreeing = float(np.abs(served - expected).max()), 0
    if np.isfinite(difference):
        answers, others = (read_answers(head, logits) for logits in (served, expected))
        agreeing = sum(one.label == other.label for one, other in zip(answers, others, strict=True))
        if head.probabilities:
            # With the network's own probabilities: the logits made of them could be wrong on both sides.
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
    """The probability of each label, [batch, labels], from a network that returns probabilities."""
    given = head.pick(outputs).double().numpy()
    if head.groups:
        given = np.stack([given[:, group].sum(axis=1) for group in head.groups], axis=1)
    if head.activation == "sigmoid":
        given = np.hstack([1 - given, given])
    shares: npt.NDArray[np.float64] = (
        given / given.sum(axis=1, keepdims=True) if head.activation == "softmax" else given
    )
    return shares
