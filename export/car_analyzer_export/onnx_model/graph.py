"""Exports a network to an ONNX model that takes the pixels of the preprocess step."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import onnx
import torch

from ..errors import ExportError, NetworkError, reason
from ..quiet import quiet

if TYPE_CHECKING:
    from pathlib import Path

    from ..spec import HeadPlan, NetworkPlan

# The oldest opset that PyTorch's exporter writes without converting, so that older servers load it, too.
OPSET = 18


class PixelsToLogits(torch.nn.Module):
    """A network with its normalisation, and with one output of logits for each head.

    Takes `pixels`, uint8 [batch, height, width, 3], RGB; returns float32 [batch, logits] for every head.

    Args:
        plan: The network.
        cast_first: For TensorRT, which can only cast uint8 to float. Otherwise pixels are transposed while they are
            uint8: on a CPU, a quarter of the memory traffic of transposing floats.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, plan: NetworkPlan, *, cast_first: bool = False) -> None:
        super().__init__()
        self._cast_first = cast_first
        self.network = plan.network
        self._heads = plan.heads
        self._bgr = plan.bgr
        mean, std = torch.tensor(plan.mean), torch.tensor(plan.std)
        # (pixels / 255 - mean) / std as one multiplication and one addition.
        self.register_buffer("scale", (1 / (255 * std)).reshape(3, 1, 1))
        self.register_buffer("shift", (-mean / std).reshape(3, 1, 1))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Normalises, runs the network, and reads each head's logits."""
        channels_first = (pixels.float() if self._cast_first else pixels).permute(0, 3, 1, 2)
        if self._bgr:
            channels_first = channels_first[:, [2, 1, 0]]
        # ONNX has no strides, so contiguous() adds no node; but view() in a network needs it.
        outputs = self.network(channels_first.contiguous().float() * self.scale + self.shift)
        return tuple(head.read(outputs).float() for head in self._heads)


def run_network(plan: NetworkPlan, images: torch.Tensor) -> object:
    """Runs the network, so that errors of the network differ from errors of the export.

    Args:
        plan: The network.
        images: Normalised, float32 [batch, 3, height, width].

    Raises:
        NetworkError: The network fails on photos of this size or number.
    """
    try:
        with torch.inference_mode():
            return plan.network(images.contiguous())
    except Exception as error:
        size = f"a batch of {len(images)} at {plan.view.width} x {plan.view.height} pixels"
        raise NetworkError(f"The network fails on {size}: {reason(error)}.") from error


def check_network(plan: NetworkPlan) -> None:
    """Makes sure that the network's outputs have the shapes that its heads need, for one photo and for two.

    Raises:
        NetworkError: They do not; the message names the head.
    """
    for batch in (1, 2):
        outputs = run_network(plan, torch.zeros(batch, 3, plan.view.height, plan.view.width))
        for head in plan.heads:
            _check_output(outputs, head, batch)


def _check_output(outputs: object, head: HeadPlan, batch: int) -> None:
    found = outputs
    if head.output is not None:
        try:
            found = outputs[head.output]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            raise NetworkError(
                f"The network has no output {head.output!r} for head '{head.name}'; it returns {_described(outputs)}."
            ) from None
    if not isinstance(found, torch.Tensor):
        raise NetworkError(
            f"The network returns {_described(found)}, not a tensor of logits; "
            f"if it has several outputs, select one with `output` in head '{head.name}'."
        )
    if found.shape == (batch,) and head.classes == 1:
        return
    if found.shape != (batch, head.classes):
        raise NetworkError(
            f"The network returns an output of shape {list(found.shape)} for a batch of {batch}, "
            f"but head '{head.name}' with its labels {list(head.labels)} needs [{batch}, {head.classes}]."
        )


def _described(outputs: object) -> str:
    if isinstance(outputs, Mapping):
        return f"a dict with the keys {', '.join(repr(key) for key in outputs)}"
    if isinstance(outputs, (tuple, list)):
        return f"a {type(outputs).__name__} of {len(outputs)}"
    return f"a {type(outputs).__name__}"


def write_onnx(plan: NetworkPlan, path: Path, *, cast_first: bool = False) -> None:
    """Exports to ONNX with a dynamic batch and the weights inside the file, and validates the file.

    Args:
        plan: The network.
        path: The file to write.
        cast_first: See `PixelsToLogits`.

    Raises:
        ExportError: PyTorch cannot export this network, or onnx.checker rejects the result.
        OSError: The file cannot be written.
    """
    # Two examples: with one, the exporter may turn the batch size into a constant.
    example = torch.zeros(2, plan.view.height, plan.view.width, 3, dtype=torch.uint8)
    model = PixelsToLogits(plan, cast_first=cast_first).eval()
    outputs = [plan.output_name(head) for head in plan.heads]
    try:
        # If the export fails, PyTorch prints the graph.
        with quiet(), contextlib.redirect_stderr(io.StringIO()):
            if any(isinstance(module, torch.jit.ScriptModule) for module in plan.network.modules()):
                _write_script(model, example, path, outputs)
            else:
                _write_exported(model, example, path, outputs)
        onnx.checker.check_model(path, full_check=True)
    except OSError:
        raise  # a problem of the disk, not of the network
    except Exception as error:
        raise ExportError(f"PyTorch cannot export this network to ONNX: {reason(error)}.") from error


def _write_exported(model: PixelsToLogits, example: torch.Tensor, path: Path, outputs: list[str]) -> None:
    program = torch.onnx.export(
        model,
        (example,),
        input_names=["pixels"],
        output_names=outputs,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=OPSET,
        verbose=False,
    )
    assert program is not None  # noqa: S101 - it is None only when a file is named
    # Each node carries a stack trace with paths of this machine.
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
    program.save(path, external_data=False)


def _write_script(model: PixelsToLogits, example: torch.Tensor, path: Path, outputs: list[str]) -> None:
    """Exports TorchScript, which only PyTorch's older exporter supports."""
    torch.onnx.export(
        torch.jit.trace(model, example),  # type: ignore[no-untyped-call]
        (example,),
        path,
        input_names=["pixels"],
        output_names=outputs,
        dynamo=False,
        dynamic_axes={name: {0: "batch"} for name in ("pixels", *outputs)},
        opset_version=OPSET,
    )
