"""A network for GPUs sees a few batch sizes only, and answers like PyTorch at every size."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from car_analyzer_export.checking.local import _load
from car_analyzer_export.errors import SpecError, VerificationError
from car_analyzer_export.onnx_model.fixed_batches import fix_batch_sizes
from car_analyzer_export.onnx_model.graph import write_onnx
from car_analyzer_export.onnx_model.precision import convert
from car_analyzer_export.onnx_model.verify import compare_padded, torch_logits, torch_outputs
from car_analyzer_export.pictures import comparison_pixels
from car_analyzer_export.preprocess.view import View
from car_analyzer_export.spec import HeadPlan, Limits, NetworkPlan, Spec

from .checkpoint_files import QUIET_WHILE_WRITING

pytestmark = QUIET_WHILE_WRITING

SIZES = (1, 8, 32)
VIEW = View(32, 32)
HEADS = (HeadPlan("cleanliness", ("clean", "dirty")), HeadPlan("condition", ("intact", "damaged", "unknown")))
PIXELS = comparison_pixels(VIEW, 40, None)


class Shuffling(torch.nn.Module):
    """Takes the batch size from its input, twice, and has enough weights to see them stored more than once."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.second = torch.nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.linear = torch.nn.Linear(8 * 8 * 8, 1024)
        self.last = torch.nn.Linear(1024, 5)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.first(images)
        batch, channels, height, width = features.shape
        shuffled = features.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(features.shape)
        logits = self.last(torch.relu(self.linear(torch.relu(self.second(shuffled)).view(batch, -1))))
        return logits[:, :2], logits[:, 2:]


class Deciding(Shuffling):
    """As TorchScript, it is exported with an `If` of its own."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.first(images) if bool(images[0].mean() > 0) else self.first(2 * images)
        logits = self.last(self.linear(self.second(features).flatten(1)))
        return logits[:, :2], logits[:, 2:]


class Centering(Shuffling):
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super().forward(images - images.mean(0))


def plan_of(network: torch.nn.Module) -> NetworkPlan:
    heads = tuple(replace(head, output=position) for position, head in enumerate(HEADS))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return NetworkPlan("car", network.eval(), mean, std, False, VIEW, heads, Path("weights.pth"), "a test")


def plan_for(kind: type[Shuffling]) -> NetworkPlan:
    torch.manual_seed(0)
    return plan_of(torch.jit.script(kind()) if kind is Deciding else kind())


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("plain") / "model.onnx"
    write_onnx(plan_for(Shuffling), file)
    return file


def run(file: Path, batch: int) -> list[Any]:
    names = [f"{head.name}_logits" for head in HEADS]
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return list(session.run(names, {"pixels": PIXELS[:batch]}))


def assert_like_pytorch(file: Path, plan: NetworkPlan, share: float) -> None:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [plan.output_name(head) for head in plan.heads]
    # The last one is larger than all sizes.
    for batch in (1, 2, 7, 8, 9, 31, 32, 40):
        outputs = torch_outputs(plan, PIXELS[:batch])
        for head, served in zip(plan.heads, session.run(names, {"pixels": PIXELS[:batch]}), strict=True):
            expected = torch_logits(head, outputs)
            np.testing.assert_allclose(served, expected, rtol=0, atol=share * max(1, np.abs(expected).max()))


def convolved_batches(file: Path) -> Counter[int]:
    """How many convolutions see each batch size, by shape inference; 0 is an unknown one."""
    found: Counter[int] = Counter()

    def look(graph: onnx.GraphProto) -> None:
        batches = {
            value.name: value.type.tensor_type.shape.dim[0].dim_value
            for value in (*graph.value_info, *graph.input)
            if value.type.tensor_type.shape.dim
        }
        for node in graph.node:
            if node.op_type == "Conv":
                found[batches[node.input[0]]] += 1
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    look(attribute.g)

    look(onnx.shape_inference.infer_shapes(onnx.load(file), strict_mode=True, data_prop=True).graph)
    return found


@pytest.mark.parametrize(("precision", "share"), [("fp32", 1e-4), ("fp16", 0.01), ("int8", 0.1)])
def test_it_answers_like_pytorch_at_every_size(plain: Path, tmp_path: Path, precision: str, share: float) -> None:
    plan, source, file = plan_for(Shuffling), tmp_path / "source.onnx", tmp_path / "model.onnx"
    source.write_bytes(plain.read_bytes())
    if precision != "fp32":
        convert(source, precision, plan, PIXELS)
    fix_batch_sizes(source, file, SIZES)
    assert_like_pytorch(file, plan, share)
    # The one of unknown size runs only batches that are larger than all sizes.
    assert convolved_batches(file) == {0: 2, 1: 2, 8: 2, 32: 2}
    assert file.stat().st_size < 1.1 * source.stat().st_size
    assert onnx.load(file).opset_import == onnx.load(source).opset_import
    found = compare_padded(source, file, plan, PIXELS, SIZES, precision)
    assert found["batches"] == [1, 2, 7, 9, 31, 32]
    assert found["max_difference"] < 1e-4


def test_torchscript_with_a_branch_of_its_own(tmp_path: Path) -> None:
    plan, source, file = plan_for(Deciding), tmp_path / "source.onnx", tmp_path / "model.onnx"
    write_onnx(plan, source)
    assert "If" in {node.op_type for node in onnx.load(source).graph.node}
    fix_batch_sizes(source, file, SIZES)
    assert_like_pytorch(file, plan, 1e-4)
    assert file.stat().st_size < 1.2 * source.stat().st_size


def test_one_size(plain: Path, tmp_path: Path) -> None:
    fix_batch_sizes(plain, tmp_path / "model.onnx", [4])
    assert_like_pytorch(tmp_path / "model.onnx", plan_for(Shuffling), 1e-4)
    assert convolved_batches(tmp_path / "model.onnx") == {0: 2, 4: 2}


def test_the_normalisation_can_still_be_changed(plain: Path, tmp_path: Path) -> None:
    fix_batch_sizes(plain, tmp_path / "model.onnx", SIZES)
    plan = plan_for(Shuffling)
    std = np.array(plan.std, np.float32).reshape(3, 1, 1)
    scale, shift = 1 / (255 * std), -np.array(plan.mean, np.float32).reshape(3, 1, 1) / std
    session, adjustable = _load(tmp_path / "model.onnx", (scale, shift))
    assert adjustable
    found = session.run(["cleanliness_logits"], {"pixels": PIXELS[:3], "scale": scale, "shift": shift})[0]
    np.testing.assert_allclose(found, run(plain, 3)[0], atol=1e-5)
    assert not np.allclose(
        session.run(["cleanliness_logits"], {"pixels": PIXELS[:3], "scale": scale, "shift": 0 * shift})[0], found
    )


def test_a_network_that_compares_photos_cannot_be_padded(tmp_path: Path) -> None:
    plan, source, file = plan_for(Centering), tmp_path / "source.onnx", tmp_path / "model.onnx"
    write_onnx(plan, source)
    fix_batch_sizes(source, file, SIZES)
    with pytest.raises(VerificationError, match=r"depends on the other photos of its batch.*batch_sizes = \[\]"):
        compare_padded(source, file, plan, PIXELS, SIZES, "fp32")


@pytest.mark.parametrize(
    ("given", "target", "accelerator", "largest", "sizes"),
    [
        ({}, "any", "cuda", 32, ()),
        ({}, "gpu", "cuda", 32, (1, 8, 32)),
        ({}, "gpu", "tensorrt", 32, ()),
        ({"max_batch_size": 64}, "gpu", "cuda", 64, (1, 8, 32, 64)),
        ({"max_batch_size": 8}, "gpu", "cuda", 8, (1, 8)),
        ({"max_batch_size": 1}, "gpu", "cuda", 1, (1,)),
        ({"batch_sizes": [2, 16]}, "gpu", "cuda", 16, (2, 16)),
        ({"batch_sizes": [2, 16]}, "any", "cuda", 16, (2, 16)),
        ({"batch_sizes": [2, 16], "max_batch_size": 16}, "gpu", "tensorrt", 16, ()),
        ({"batch_sizes": []}, "gpu", "cuda", 32, ()),
        ({"batch_sizes": [], "max_batch_size": 64}, "gpu", "cuda", 64, ()),
    ],
)
def test_sizes_of_each_target(
    given: dict[str, Any], target: str, accelerator: str, largest: int, sizes: tuple[int, ...]
) -> None:
    found = Limits(**given).completed(target, accelerator, "pillow")
    assert (found.max_batch_size, found.batch_sizes) == (largest, sizes)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"batch_sizes": [8, 1]}, r"'limits': batch_sizes \[8, 1\] are not ascending"),
        ({"batch_sizes": [8, 8]}, "are not ascending"),
        ({"batch_sizes": [0, 8]}, "'limits.batch_sizes.0': Input should be greater than or equal to 1"),
        ({"batch_sizes": 8}, "'limits.batch_sizes'"),
        ({"batch_sizes": [1, 8], "max_batch_size": 32}, "batch_sizes end with 8, but max_batch_size is 32; leave out"),
    ],
)
def test_wrong_sizes(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Spec.from_values({"heads": {"cleanliness": {"weights": "a.pth"}}, "limits": limits}, "spec")
