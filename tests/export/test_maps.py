"""Class activation maps: the layer that makes the logits, applied to each place of the last feature map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from car_analyzer_export.onnx_model.fixed_batches import fix_batch_sizes
from car_analyzer_export.onnx_model.graph import write_onnx
from car_analyzer_export.onnx_model.maps import add_maps
from car_analyzer_export.onnx_model.precision import convert
from car_analyzer_export.pictures import comparison_pixels
from car_analyzer_export.preprocess.view import View
from car_analyzer_export.spec import HeadPlan, NetworkPlan, normalised

from . import zoo
from .checkpoint_files import QUIET_WHILE_WRITING
from .networks import lively

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = QUIET_WHILE_WRITING

VIEW = View(64, 64)
PIXELS = comparison_pixels(VIEW, 32, None)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CONDITION = HeadPlan("condition", ("intact", "damaged"))
TIRES = HeadPlan("tires", ("good", "worn", "flat"))


def plan_of(network: nn.Module, *heads: HeadPlan, bgr: bool = False) -> NetworkPlan:
    heads = heads or (CONDITION,)
    return NetworkPlan("car", network.eval(), MEAN, STD, bgr, VIEW, heads, Path("weights.pth"), "a test")


def run(file: Path, *names: str, batch: int = 7) -> list[Any]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return list(session.run(list(names), {"pixels": PIXELS[:batch]}))


def exported(plan: NetworkPlan, folder: Path) -> tuple[Path, list[Any], dict[str, list[int]]]:
    """The model with its maps, the logits before it had them, and the maps' shapes."""
    file = folder / "model.onnx"
    write_onnx(plan, file)
    before = run(file, *(plan.output_name(head) for head in plan.heads))
    return file, before, add_maps(file, plan, PIXELS)


def feature_maps(plan: NetworkPlan, name: str) -> torch.Tensor:
    """What a part of the network gives."""
    found: list[torch.Tensor] = []
    layer = plan.network.get_submodule(name)
    hook = layer.register_forward_hook(lambda _layer, _inputs, output: found.append(output))
    with torch.inference_mode():
        plan.network(normalised(PIXELS[:7], plan.mean, plan.std, bgr=plan.bgr))
    hook.remove()
    return found[0]


def applied(layer: Any, features: torch.Tensor) -> Any:
    with torch.inference_mode():
        return nn.functional.conv2d(features, layer.weight[:, :, None, None]).numpy()


def assert_map(found: Any, logits: Any, layer: Any, features: torch.Tensor) -> None:
    np.testing.assert_allclose(found, applied(layer, features), atol=1e-3)
    np.testing.assert_allclose(found.mean((2, 3)) + layer.bias.detach().numpy(), logits, atol=1e-3)


def torchvision_networks(models: Any) -> dict[str, Callable[[], nn.Module]]:
    """Small networks of torchvision's families."""
    blocks = models.efficientnet
    return {
        "resnet": lambda: models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=2),
        "densenet": lambda: models.DenseNet(8, (1, 1, 1, 1), 16, num_classes=2),
        "efficientnet": lambda: blocks.EfficientNet(
            [blocks.MBConvConfig(4, 3, 2, 32, 24, 1, 1.0, 1.0)], 0.2, num_classes=2
        ),
        "mobilenet_v2": lambda: models.MobileNetV2(2, 0.25, [[1, 16, 1, 2], [4, 24, 1, 2]]),
        "shufflenet": lambda: models.ShuffleNetV2([1, 1, 1], [8, 16, 32, 64, 128], num_classes=2),
        "regnet": lambda: models.RegNet(
            models.regnet.BlockParams([1, 1], [16, 32], [8, 8], [1.0, 1.0], [2, 2], 0.25), num_classes=2
        ),
    }


@pytest.mark.parametrize(
    ("family", "features", "last"),
    [
        ("resnet", "layer4", "fc"),
        ("densenet", "features", "classifier"),
        ("efficientnet", "features", "classifier.1"),
        ("mobilenet_v2", "features", "classifier.1"),
        ("shufflenet", "conv5", "fc"),
        ("regnet", "trunk_output", "fc"),
    ],
)
def test_networks_of_torchvision(models: Any, tmp_path: Path, family: str, features: str, last: str) -> None:
    plan = plan_of(lively(torchvision_networks(models)[family]()))
    file, before, shapes = exported(plan, tmp_path)
    logits, found = run(file, "logits", "map")
    assert np.array_equal(logits, before[0])
    assert shapes == {"condition": list(found.shape[1:])}
    maps = feature_maps(plan, features)
    assert_map(found, logits, plan.network.get_submodule(last), maps.relu() if family == "densenet" else maps)


TWO = (replace(CONDITION, output=0), replace(TIRES, output=1, activation="multilabel"))


def test_two_heads_of_one_network(tmp_path: Path) -> None:
    plan = plan_of(zoo.seeded(zoo.TupleOfTwo, 1), *TWO, bgr=True)
    file, before, shapes = exported(plan, tmp_path)
    names = ["condition_logits", "tires_logits", "condition_map", "tires_map"]
    *logits, condition, tires = run(file, *names)
    assert all(map(np.array_equal, logits, before))
    assert shapes == {"condition": [2, 9, 9], "tires": [3, 9, 9]}
    maps = 20 * feature_maps(plan, "features")  # the network multiplies the average
    assert_map(condition, logits[0], plan.network.head, maps)
    assert_map(tires, logits[1], plan.network.second, maps)


@pytest.mark.parametrize("scripted", [False, True])
def test_one_logit(tmp_path: Path, scripted: bool) -> None:
    network = zoo.seeded(zoo.OneLogit, 2)
    plan = plan_of(network, replace(CONDITION, activation="sigmoid"))
    exporting = replace(plan, network=torch.jit.trace(network, torch.zeros(2, 3, 64, 64))) if scripted else plan
    file, before, shapes = exported(exporting, tmp_path)
    logits, found = run(file, "logits", "map")
    assert np.array_equal(logits, before[0])
    assert shapes == {"condition": [1, 9, 9]}
    assert_map(found, logits, network.head, 20 * feature_maps(plan, "features"))


JOINT = (
    HeadPlan("cleanliness", ("clean", "dirty"), groups=((0, 1), (2, 3))),
    HeadPlan("condition", ("intact", "damaged"), groups=((0, 2), (1, 3))),
)


def test_heads_that_join_classes(tmp_path: Path) -> None:
    network = zoo.seeded(lambda: zoo.Small(4), 7)
    plan = plan_of(network, *JOINT)
    file, before, shapes = exported(plan, tmp_path)
    *logits, cleanliness, condition = run(
        file, "cleanliness_logits", "condition_logits", "cleanliness_map", "condition_map"
    )
    assert all(map(np.array_equal, logits, before))
    assert shapes == {"cleanliness": [2, 9, 9], "condition": [2, 9, 9]}
    classes = 20 * applied(network.head, feature_maps(plan, "features"))
    outputs = torch.from_numpy(classes.mean((2, 3)) + network.head.bias.detach().numpy())
    for found, head in ((cleanliness, JOINT[0]), (condition, JOINT[1])):
        for label, group in enumerate(head.groups or ()):
            shares = outputs[:, list(group)].softmax(dim=1).numpy()
            expected = (classes[:, list(group)] * shares[:, :, None, None]).sum(1)
            np.testing.assert_allclose(found[:, label], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("head", "last"),
    [
        (replace(CONDITION, probabilities=True), nn.Softmax(dim=1)),
        (replace(CONDITION, probabilities=True, activation="multilabel"), nn.Sigmoid()),
    ],
)
def test_networks_that_give_probabilities(tmp_path: Path, head: HeadPlan, last: nn.Module) -> None:
    network = zoo.seeded(lambda: nn.Sequential(zoo.Small(), last), 8)
    plan = plan_of(network, head)
    file, before, shapes = exported(plan, tmp_path)
    logits, found = run(file, "logits", "map")
    assert np.array_equal(logits, before[0])
    assert shapes == {"condition": [2, 9, 9]}
    np.testing.assert_allclose(found, 20 * applied(network[0].head, feature_maps(plan, "0.features")), atol=1e-3)


class Pooled(zoo.Small):
    """Pools, or makes logits of what it pooled, in another way."""

    def __init__(self, pool: Callable[[torch.Tensor], torch.Tensor], *between: nn.Module) -> None:
        super().__init__()
        self.pool, self.between = pool, nn.Sequential(*between)

    def forward(self, images: torch.Tensor) -> Any:
        return self.head(self.between(self.pool(self.features(images))))


WAYS: dict[str, Callable[[], nn.Module]] = {
    "average pooling of the size of the map": lambda: Pooled(lambda maps: nn.functional.avg_pool2d(maps, 9).flatten(1)),
    "an average over flattened places": lambda: Pooled(lambda maps: maps.flatten(2).mean(2)),
    "classes in another order": lambda: nn.Sequential(Pooled(lambda maps: maps.mean((-1, -2))), Reordered()),
    "a convolution for each class": lambda: nn.Sequential(
        nn.Conv2d(3, 2, 7, stride=8), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ),
}
WITHOUT: dict[str, Callable[[], nn.Module]] = {
    "a hidden layer": lambda: Pooled(lambda maps: maps.mean((2, 3)), nn.Linear(16, 16), nn.ReLU()),
    "the maximum": lambda: Pooled(lambda maps: maps.amax((2, 3))),
    "the average of rows": lambda: nn.Sequential(nn.Conv2d(3, 1, 1), nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten()),
    "a map of one place": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    ),
}


class Reordered(nn.Module):
    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits[:, [1, 0]]


@pytest.mark.parametrize("way", WAYS)
def test_other_ways_to_pool(tmp_path: Path, way: str) -> None:
    torch.manual_seed(3)
    file, before, shapes = exported(plan_of(WAYS[way]()), tmp_path)
    logits, found = run(file, "logits", "map")
    assert np.array_equal(logits, before[0])
    assert shapes == {"condition": list(found.shape[1:])}
    np.testing.assert_allclose(np.ptp(logits - found.mean((2, 3)), axis=0), 0, atol=1e-4)
    assert found.std((2, 3)).min() > 1e-3


@pytest.mark.parametrize("way", WITHOUT)
def test_networks_without_a_map(tmp_path: Path, way: str) -> None:
    torch.manual_seed(4)
    file, before, shapes = exported(plan_of(WITHOUT[way]()), tmp_path)
    assert shapes == {}
    assert [output.name for output in onnx.load(file).graph.output] == ["logits"]
    assert np.array_equal(run(file, "logits")[0], before[0])
    assert not file.with_name("maps.onnx").exists()


@pytest.mark.parametrize(("precision", "share"), [("fp32", 1e-4), ("fp16", 0.02), ("int8", 0.2)])
def test_precisions_and_fixed_batch_sizes(tmp_path: Path, precision: str, share: float) -> None:
    plan, file = plan_of(zoo.seeded(zoo.TupleOfTwo, 6), *TWO), tmp_path / "model.onnx"
    write_onnx(plan, file)
    names = ["condition_map", "tires_map"]
    if precision != "fp32":
        convert(file, precision, plan, PIXELS)
    before, size = run(file, "condition_logits", "tires_logits"), file.stat().st_size
    assert add_maps(file, plan, PIXELS, precision) == {"condition": [2, 9, 9], "tires": [3, 9, 9]}
    assert file.stat().st_size < size + 4000  # the weights are not stored again
    *logits, condition, tires = run(file, "condition_logits", "tires_logits", *names)
    for one, other in zip(logits, before, strict=True):
        # In half precision, ONNX Runtime on a CPU leaves out roundings.
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-3 * np.abs(other).max() if precision == "fp16" else 0)
    maps = 20 * feature_maps(plan, "features")
    for found, layer in ((condition, plan.network.head), (tires, plan.network.second)):
        assert found.dtype == np.float32
        expected = applied(layer, maps)
        np.testing.assert_allclose(found, expected, rtol=0, atol=share * np.abs(expected).max())
    fix_batch_sizes(file, tmp_path / "padded.onnx", [1, 8])
    for batch in (1, 7, 8, 9):
        expected = run(file, *names, batch=batch)
        for one, other in zip(run(tmp_path / "padded.onnx", *names, batch=batch), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max())
