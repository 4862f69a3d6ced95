"""Turns a network into an ONNX model that takes the pixels of the preprocess step."""

from __future__ import annotations

import contextlib
import logging
import warnings
from typing import TYPE_CHECKING

import onnx
import torch

from .errors import ExportError, NetworkError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .spec import Head

# The oldest opset that PyTorch's exporter writes without converting, so that older servers load it too.
OPSET = 18


class PixelsToLogits(torch.nn.Module):
    """A network with its normalisation in front.

    Takes `pixels`, uint8 [batch, height, width, 3], RGB; gives `logits`, float32 [batch, classes].
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, network: torch.nn.Module, head: Head) -> None:
        super().__init__()
        self.network = network
        mean, std = torch.tensor(head.mean), torch.tensor(head.std)
        # (pixels / 255 - mean) / std as one multiplication and one addition.
        self.register_buffer("scale", (1 / (255 * std)).reshape(3, 1, 1))
        self.register_buffer("shift", (-mean / std).reshape(3, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Transposes while the pixels are still uint8: a quarter of the memory traffic of transposing floats."""
        channels_first = pixels.permute(0, 3, 1, 2).float()
        logits: torch.Tensor = self.network(channels_first * self.scale + self.shift)
        return logits


def check_network(network: torch.nn.Module, classes: int, photo_size: tuple[int, int]) -> None:
    """Runs the network on one photo and on two, so that a wrong one is told apart from a failed export.

    Raises:
        NetworkError: It does not take photos of this size, or does not give [batch, classes].
    """
    width, height = photo_size
    for batch in (1, 2):
        try:
            with torch.inference_mode():
                output = network(torch.zeros(batch, 3, height, width))
        except Exception as error:
            raise NetworkError(
                f"The network fails on a batch of {batch} at {width} x {height} pixels: {_first_line(error)}"
            ) from error
        if not isinstance(output, torch.Tensor):
            raise NetworkError(f"The network gives a {type(output).__name__}, not a tensor of logits.")
        if output.shape != (batch, classes):
            raise NetworkError(
                f"The network gives an output of shape {list(output.shape)} for a batch of {batch}, "
                f"but {classes} labels need [{batch}, {classes}]."
            )


def write_onnx(model: PixelsToLogits, path: Path, photo_size: tuple[int, int]) -> None:
    """Exports to ONNX with a dynamic batch, weights inside the file, and checks what was written.

    Raises:
        ExportError: PyTorch cannot export this network, or onnx.checker rejects the result.
        OSError: The file cannot be written.
    """
    width, height = photo_size
    # Two examples: with one, the exporter may take the batch for a constant.
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    try:
        with _quiet():
            program = torch.onnx.export(
                model,
                (example,),
                input_names=["pixels"],
                output_names=["logits"],
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                verbose=False,
            )
            assert program is not None  # noqa: S101 - it is None only when a file is named
            # Each node carries the stack trace it came from, with the paths of this machine.
            for node in program.model.graph.all_nodes():
                node.metadata_props.clear()
            program.save(path, external_data=False)
        onnx.checker.check_model(path, full_check=True)
    except OSError:
        raise  # about the disk, not about the network
    except Exception as error:
        raise ExportError(f"PyTorch cannot export this network to ONNX: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    # PyTorch's errors run over pages, and some start with empty lines.
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's notes to its developers off the user's terminal; errors still come as exceptions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
