"""Class activation maps: the layer that makes the logits, applied to each place of the last feature map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
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


def feature_maps(plan: NetworkPlan, pooled: str) -> torch.Tensor:
    """What comes into a network's pooling layer."""
    found: list[torch.Tensor] = []
    layer = plan.network.get_submodule(pooled)
    hook = layer.register_forward_pre_hook(lambda _layer, inputs: found.append(inputs[0]))
    with torch.inference_mode():
        plan.network(normalised(PIXELS[:7], plan.mean, plan.std, bgr=plan.bgr))
    hook.remove()
    return found[0]


def applied(layer: nn.Linear, features: torch.Tensor) -> Any:
    with torch.inference_mode():
        return nn.functional.conv2d(features, layer.weight[:, :, None, None]).numpy()


def assert_map(found: Any, logits: Any, layer: nn.Linear, features: torch.Tensor) -> None:
    np.testing.assert_allclose(found, applied(layer, features), atol=1e-3)
    np.testing.assert_allclose(found.mean((2, 3)) + layer.bias.detach().numpy(), logits, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "pooled", "last"),
    [
        ("resnet18", "avgpool", "fc"),
        ("densenet121", "features", "classifier"),
        ("efficientnet_b0", "avgpool", "classifier.1"),
        ("mobilenet_v2", "features", "classifier.1"),
        ("shufflenet_v2_x0_5", "conv5", "fc"),
        ("regnet_y_400mf", "avgpool", "fc"),
        ("swin_t", "avgpool", "head"),
    ],
)
def test_networks_of_torchvision(models: Any, tmp_path: Path, name: str, pooled: str, last: str) -> None:
    plan = plan_of(lively(models.get_model(name, weights=None, num_classes=2)))
    file, before, shapes = exported(plan, tmp_path)
    logits, found = run(file, "logits", "map")
    assert np.array_equal(logits, before[0])
    assert shapes == {"condition": list(found.shape[1:])}
    layer = plan.network.get_submodule(last)
    assert isinstance(layer, nn.Linear)
    features = feature_maps(plan, pooled)
    if pooled in ("features", "conv5"):  # pooled by a function, not by a layer
        with torch.inference_mode():
            features = plan.network.get_submodule(pooled)(features)
            features = features.relu() if name == "densenet121" else features
    assert_map(found, logits, layer, features)
