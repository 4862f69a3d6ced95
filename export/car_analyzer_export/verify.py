"""Compares an exported model with the network it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import torch

from .errors import VerificationError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from .spec import Head

BATCHES = (1, 2, 7, 32)
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Comparison:
    """What one batch size gave: the largest difference of a logit, and how many of the labels agree."""

    batch: int
    max_difference: float
    labels_agreeing: int


def compare(
    onnx_file: Path, network: torch.nn.Module, head: Head, pixels: npt.NDArray[np.uint8]
) -> tuple[Comparison, ...]:
    """Runs both on the same pictures, at every batch size in `BATCHES`.

    PyTorch's side is the recipe of training, not the graph that was exported: scale to 0..1, normalise, network.

    Args:
        onnx_file: The exported model.
        network: The network, in eval mode.
        head: For its mean and std.
        pixels: At least as many pictures as the largest batch, uint8 [count, height, width, 3].

    Raises:
        VerificationError: A logit differs by more than `TOLERANCE`, or a label differs.
    """
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    comparisons = []
    for batch in BATCHES:
        expected = torch_logits(network, head, pixels[:batch])
        (served,) = session.run(["logits"], {"pixels": pixels[:batch]})
        if served.shape != expected.shape:
            raise VerificationError(
                f"At batch {batch} ONNX Runtime gives logits of shape {served.shape}, PyTorch {expected.shape}."
            )
        difference = float(np.abs(served - expected).max())
        agreeing = int((served.argmax(axis=1) == expected.argmax(axis=1)).sum())
        # Not `difference > TOLERANCE`: NaN must fail, too.
        if not difference <= TOLERANCE or agreeing < batch:
            raise VerificationError(
                f"At batch {batch} ONNX Runtime and PyTorch differ by {difference:.2g} "
                f"(at most {TOLERANCE:g} is accepted), and {agreeing} of {batch} labels agree."
            )
        comparisons.append(Comparison(batch, difference, agreeing))
    return tuple(comparisons)


def torch_logits(network: torch.nn.Module, head: Head, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """What PyTorch says of pixels, uint8 [batch, height, width, 3]: float32 [batch, classes]."""
    images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(part).reshape(3, 1, 1) for part in (head.mean, head.std))
    with torch.inference_mode():
        logits: npt.NDArray[np.float32] = network((images - mean) / std).float().numpy()
    return logits
