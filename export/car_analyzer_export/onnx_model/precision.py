"""Converts models to half precision or 8-bit integers, if they still give the same answers."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from ..errors import ExportError, VerificationError, reason
from ..quiet import quiet
from .agreement import MIN_AGREEMENT
from .answers import read_answers

if TYPE_CHECKING:
    import numpy.typing as npt

    from ..spec import NetworkPlan

# More photos hardly change the agreement or the calibration.
MAX_PICTURES = 1000
_MAX_CALIBRATION = 200
_BATCH = 16
_LAYERS = ["Conv", "Gemm", "MatMul"]
_SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}


@dataclass(frozen=True)
class Agreement:
    """How a converted model compares with the fp32 model.

    Attributes:
        precision: `fp16` or `int8`.
        pictures: How many pictures were compared.
        answers_agreeing: The share of pictures with the same answer; the smallest over all heads.
        max_difference: The largest difference of a logit.
        fp32_bytes: The size of the fp32 model.
    """

    precision: str
    pictures: int
    answers_agreeing: float
    max_difference: float
    fp32_bytes: int


def convert(
    file: Path, precision: str, plan: NetworkPlan, pixels: npt.NDArray[np.uint8], *, symmetric: bool = False
) -> dict[str, Any]:
    """Replaces a model by one of lower precision; its inputs and outputs keep their types.

    Args:
        file: The fp32 model.
        precision: `fp16` or `int8`.
        plan: Its network.
        pixels: Pictures to compare, and to calibrate int8 with: uint8 [count, height, width, 3].
        symmetric: Write int8 for TensorRT: without zero points, and with float32 biases.

    Returns:
        The agreement, JSON-ready.

    Raises:
        VerificationError: Fewer than `MIN_AGREEMENT` of the answers agree; the file is unchanged.
        ExportError: The conversion failed.
    """
    with tempfile.TemporaryDirectory(dir=file.parent) as folder, quiet():
        converted = Path(folder) / "converted.onnx"
        try:
            if precision == "fp16":
                onnx.save(_halved(onnx.load(file), plan), converted)
            else:
                _quantize(file, converted, pixels[:_MAX_CALIBRATION], symmetric=symmetric)
            found = _compare(file, converted, precision, plan, pixels)
        except (OSError, ExportError):
            raise
        except Exception as error:
            raise ExportError(f"ONNX Runtime cannot convert this network to {precision}: {reason(error)}.") from error
        if found.answers_agreeing < MIN_AGREEMENT:
            raise VerificationError(
                f"In {precision} only {found.answers_agreeing:.1%} of the answers on {found.pictures} pictures are "
                f"those of fp32 (at least {MIN_AGREEMENT:.1%} is accepted); nothing was published."
            )
        converted.replace(file)
    return asdict(found)


def _halved(model: onnx.ModelProto, plan: NetworkPlan) -> onnx.ModelProto:
    kept = _probability_nodes(model, plan)
    halved: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True, node_block_list=kept)
    # Between two nodes that stay in fp32, the converter inserts casts to half precision and back.
    makers = {output: node for node in halved.graph.node for output in node.output}
    for node in halved.graph.node:
        for position, name in enumerate(node.input if node.name in kept else ()):
            if _is_cast(up := makers.get(name), onnx.TensorProto.FLOAT) and _is_cast(
                down := makers.get(up.input[0]), onnx.TensorProto.FLOAT16
            ):
                node.input[position] = down.input[0]
    return halved


def _is_cast(node: onnx.NodeProto | None, to: int) -> TypeGuard[onnx.NodeProto]:
    return node is not None and node.op_type == "Cast" and node.attribute[0].i == to


def _probability_nodes(model: onnx.ModelProto, plan: NetworkPlan) -> list[str]:
    """The nodes that compute probabilities, and logits from them: half precision rounds 0.9998 to 1."""
    makers = {output: node for node in model.graph.node for output in node.output}
    wanted = [plan.output_name(head) for head in plan.heads if head.probabilities]
    kept: dict[str, None] = {}
    while wanted:
        node = makers.get(wanted.pop())
        if node is not None and node.op_type not in _LAYERS and node.name not in kept:
            kept[node.name] = None
            wanted += node.input
    return list(kept)


def _quantize(file: Path, converted: Path, pixels: npt.NDArray[np.uint8], *, symmetric: bool) -> None:
    prepared = converted.with_name("prepared.onnx")
    quant_pre_process(file, prepared, skip_symbolic_shape=True)  # made for transformers, it fails on others
    quantize_static(
        prepared,
        converted,
        _Pictures(pixels),
        quant_format=QuantFormat.QDQ,
        # The normalisation is cheap, and everything after it depends on its precision.
        op_types_to_quantize=_LAYERS,
        per_channel=True,
        extra_options=_SYMMETRIC if symmetric else {},
    )


class _Pictures(CalibrationDataReader):  # type: ignore[misc]
    """Feeds pictures to the calibration, batch by batch."""

    def __init__(self, pixels: npt.NDArray[np.uint8]) -> None:
        self._batches = iter([pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH)])

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"pixels": batch}


def _compare(
    file: Path, converted: Path, precision: str, plan: NetworkPlan, pixels: npt.NDArray[np.uint8]
) -> Agreement:
    names = [plan.output_name(head) for head in plan.heads]
    before, after = _run(file, names, pixels), _run(converted, names, pixels)
    differences = [np.abs(one - other).max() for one, other in zip(before, after, strict=True)]
    # NaN must not count as agreement; half precision overflows above 65504.
    if not np.isfinite(differences).all():
        raise VerificationError(f"In {precision} the network overflows: a logit is not finite.")
    shares = []
    for head, *logits in zip(plan.heads, before, after, strict=True):
        pairs = zip(*(read_answers(head, rows) for rows in logits), strict=True)
        shares.append(sum(one.label == other.label for one, other in pairs) / len(pixels))
    return Agreement(precision, len(pixels), min(shares), float(max(differences)), file.stat().st_size)


def _run(file: Path, names: list[str], pixels: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    parts = [session.run(names, {"pixels": pixels[start : start + _BATCH]}) for start in range(0, len(pixels), _BATCH)]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]
