"""Names and shapes do not prove how a network computes: one line says what is proven, and what is a guess."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from car_analyzer_export.architectures import Built
from car_analyzer_export.architectures.statistics import Statistics, examine
from car_analyzer_export.pictures import generated
from car_analyzer_export.planning import plan_export
from car_analyzer_export.planning.evidence import describe
from car_analyzer_export.spec import NetworkPlan, Spec, normalised
from tests.conftest import PINNED

from .networks import head, small_head

pytestmark = pytest.mark.triton

SIDE = 64
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
GUESS = "is a guess from names and shapes"


@pytest.fixture(autouse=True)
def _same_weights_every_time() -> None:
    torch.manual_seed(0)


def pictures(side: int, mean: tuple[float, ...], std: tuple[float, ...], first: int = 100) -> torch.Tensor:
    """Other pictures than those of the export, which start at 0."""
    pixels = np.stack([generated(seed, (side, side)) for seed in range(first, first + 24)])
    return normalised(pixels, mean, std, bgr=False)


def trained(
    network: nn.Module, side: int = SIDE, normalisation: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET
) -> nn.Module:
    """A network whose BatchNorm layers store what training on natural pictures gives."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain average
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.4)
    with torch.no_grad():
        network.train()(pictures(side, *normalisation))
    return network.eval()


def planned(folder: Path, checkpoint: object, side: int = SIDE, **network: Any) -> NetworkPlan:
    file = folder / "weights.pth"
    torch.save(checkpoint, file)
    values = {"weights": file, "labels": ["intact", "damaged"], **PINNED} | network
    spec = {"heads": {"condition": values}, "photo_size": side}
    (plan,) = plan_export(Spec.from_values(spec, "test")).networks
    return plan


def only(plan: NetworkPlan, text: str) -> str:
    """The one note with this text."""
    (found,) = [note for note in plan.notes if text in note]
    return found


def swapped(network: nn.Module, kind: type[nn.Module], other: nn.Module) -> nn.Module:
    for name, module in list(network.named_modules()):
        if type(module) is kind:
            network.set_submodule(name, other)
    return network


def without_residuals(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if hasattr(module, "use_res_connect"):
            module.use_res_connect = False
    return network


def normalised_last(network: nn.Module) -> nn.Module:
    """Each normalisation behind the activation; in torchvision it is in front."""

    def forward(self: Any, features: torch.Tensor) -> torch.Tensor:
        convolution, normalisation, activation = self
        return normalisation(activation(convolution(features)))

    for module in network.modules():
        if type(module).__name__ == "Conv2dNormActivation":
            module.forward = forward.__get__(module)
    return network


class OwnSqueezeNet(nn.Module):
    """The names and shapes of torchvision's, with another forward."""

    def __init__(self, models: Any) -> None:
        super().__init__()
        network = models.squeezenet1_1(num_classes=2)
        self.features, self.classifier = network.features, network.classifier

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.sigmoid(self.features(images))).flatten(1)


def test_a_look_alike_is_called_a_guess(models: Any, tmp_path: Path) -> None:
    plan = planned(tmp_path, OwnSqueezeNet(models).state_dict())
    line = only(plan, GUESS)
    assert line == (
        "Head 'condition': the architecture torchvision:squeezenet1_1 is a guess from names and shapes; another "
        "network may have the same. Confirm it: name FILE.py:FACTORY with the class used in training as the "
        "architecture, or compare on photos you know with --check labelled/ before publishing."
    )
    assert plan.describe()["batch_norm"]["outcome"] == "cannot tell"


def test_assumptions_about_the_head_are_in_the_same_line(models: Any, tmp_path: Path) -> None:
    network = head(models.squeezenet1_1(), "classifier", small_head(512, first=nn.AdaptiveAvgPool2d(1)))
    network.classifier.insert(1, nn.Flatten())
    line = only(planned(tmp_path, network.state_dict()), "a ReLU between")
    assert GUESS in line
    assert "So is: the average over the photo and a Flatten before classifier.3" in line
    named = planned(tmp_path, network.state_dict(), architecture="torchvision:squeezenet1_1")
    assert GUESS not in " ".join(named.notes)
    assert "is a guess, because layers without weights do not show" in only(named, "a ReLU between")


def test_who_is_named_is_no_guess(models: Any, tmp_path: Path) -> None:
    weights = models.squeezenet1_1(num_classes=2).state_dict()
    by_checkpoint = planned(tmp_path, {"state_dict": weights, "arch": "squeezenet1_1"})
    assert "arch squeezenet1_1 is from its checkpoint's 'arch'" in only(by_checkpoint, "squeezenet1_1")
    by_user = planned(tmp_path, weights, architecture="torchvision:squeezenet1_1")
    assert "squeezenet1_1" not in " ".join(by_user.notes)


def test_statistics_confirm_the_right_forward(models: Any, tmp_path: Path) -> None:
    plan = planned(tmp_path, trained(models.mobilenet_v2(num_classes=2)).state_dict())
    line = only(plan, "torchvision:mobilenet_v2 was found by names and shapes, and the statistics of")
    assert "little of strides, blurs and padding, and nothing of what follows" in line
    assert not [note for note in plan.notes if GUESS in note or "normalised differently" in note]
    record = plan.describe()["batch_norm"]
    assert record["outcome"] == "agree"
    assert record["layers"] > 30
    assert record["departs"] is None


MUTATIONS = {
    "no activation": lambda network: swapped(network, nn.ReLU6, nn.Identity()),
    "GELU": lambda network: swapped(network, nn.ReLU6, nn.GELU()),
    "LeakyReLU": lambda network: swapped(network, nn.ReLU6, nn.LeakyReLU(0.1)),
    "activation in front of the normalisation": normalised_last,
    "no residuals": without_residuals,
}
GROSS = {"no activation", "activation in front of the normalisation"}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_statistics_never_confirm_another_forward(mutation: str, models: Any) -> None:
    weights = trained(MUTATIONS[mutation](models.mobilenet_v2(num_classes=2))).state_dict()
    taken_for = models.mobilenet_v2(num_classes=2)
    taken_for.load_state_dict(weights)
    found = examine(taken_for.eval(), pictures(SIDE, *IMAGENET, first=0))
    assert found.outcome == ("contradict" if mutation in GROSS else "cannot tell")
    assert (found.departs is not None) == (mutation in GROSS)


@pytest.mark.parametrize("smooth", [nn.Hardswish, nn.SiLU])
def test_activations_that_are_nearly_alike_are_told_apart(smooth: type[nn.Module], models: Any) -> None:
    weights = trained(swapped(models.mobilenet_v3_small(num_classes=2), nn.Hardswish, smooth()), 96).state_dict()
    taken_for = models.mobilenet_v3_small(num_classes=2)
    taken_for.load_state_dict(weights)
    found = examine(taken_for.eval(), pictures(96, *IMAGENET, first=0))
    assert found.outcome == ("agree" if smooth is nn.Hardswish else "cannot tell")


@pytest.mark.parametrize("architecture", ["auto", "torchvision:mobilenet_v2"])
def test_a_contradiction_is_a_warning(architecture: str, models: Any, tmp_path: Path) -> None:
    network = trained(MUTATIONS["no activation"](models.mobilenet_v2(num_classes=2)))
    plan = planned(tmp_path, network.state_dict(), architecture=architecture)
    line = only(plan, "the batch-norm statistics contradict torchvision:mobilenet_v2, from the layer features.")
    assert line.startswith("Warning: Head 'condition'")
    assert "FILE.py:FACTORY" in line
    assert GUESS not in " ".join(plan.notes)


def test_statistics_of_an_untrained_network_say_nothing(models: Any, tmp_path: Path) -> None:
    plan = planned(tmp_path, models.mobilenet_v2(num_classes=2).state_dict())
    assert "its batch-norm layers look never trained" in only(plan, GUESS)
    assert plan.describe()["batch_norm"]["outcome"] == "cannot tell"


@pytest.mark.parametrize(
    ("normalisation", "spec", "advice"),
    [
        (IMAGENET, {"normalize": False}, "mean = [0.485, 0.456, 0.406] and std = [0.229, 0.224, 0.225] would fit"),
        (((0.0,) * 3, (1.0,) * 3), {}, "normalize = false would fit"),
        (((0.0,) * 3, (1 / 255,) * 3), {}, "mean = [0, 0, 0] and std = [0.00392157, 0.00392157, 0.00392157] would"),
    ],
)
def test_another_normalisation_shows_in_the_first_layer(
    normalisation: Any, spec: dict[str, Any], advice: str, models: Any, tmp_path: Path
) -> None:
    network = trained(models.mobilenet_v2(num_classes=2), normalisation=normalisation)
    assert advice in only(planned(tmp_path, network.state_dict(), **spec), "normalised differently")


@pytest.mark.parametrize("blurred", [False, True])
def test_statistics_choose_between_networks_of_the_same_shapes(
    blurred: bool, models: Any, timm: Any, tmp_path: Path
) -> None:
    names = ["torchvision:resnet18", "timm:resnetblur18"]
    network = timm.create_model("resnetblur18", num_classes=2) if blurred else models.resnet18(num_classes=2)
    plan = planned(tmp_path, trained(network, 128).state_dict(), 128)
    assert plan.architecture == names[blurred]
    assert f"(less with {names[not blurred]})" in only(plan, "resnet18")


@pytest.mark.usefixtures("timm")
def test_another_network_is_named_where_something_points_to_it(models: Any, tmp_path: Path) -> None:
    weights = models.resnet18(num_classes=2).state_dict()
    line = only(planned(tmp_path, weights), "torchvision:resnet18")
    assert GUESS in line
    assert "another network may have the same" in line
    assert "resnetblur18" not in line
    line = only(planned(tmp_path, {"state_dict": weights, "arch": "my_blurred_resnet"}), "torchvision:resnet18")
    assert "timm:resnetblur18 has the same and would answer differently" in line


def test_which_statistics_are_nearer() -> None:
    chosen, other = (Statistics(misfits={"a": off, "b": 0.2}) for off in (0.2, 0.1))
    assert other.is_nearer(chosen)
    assert not chosen.is_nearer(other)
    assert not Statistics().is_nearer(Statistics())
    rivals = Built(nn.Flatten(), "torchvision:resnet18", guessed=True, rivals=("timm:resnetblur18",))
    line = describe("Head 'condition'", rivals, Statistics("contradict"))
    assert line is not None
    assert "timm:resnetblur18 has the same names and shapes." in line


def test_a_network_is_left_as_it_was(models: Any) -> None:
    network = trained(models.mobilenet_v2(num_classes=2))
    images = pictures(64, *IMAGENET)[:2]
    before = network(images)
    assert examine(network, images).layers
    assert torch.equal(network(images), before)
    assert examine(nn.Flatten(), images) == Statistics()
