"""The network of a checkpoint is found, gives the same answers, and guesses are reported."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from car_analyzer_export.architectures import build, index
from car_analyzer_export.architectures.fit import fit
from car_analyzer_export.errors import NetworkError

from .networks import assert_same_answers, head, lively, small_head

pytestmark = pytest.mark.triton


@pytest.fixture(autouse=True)
def _same_weights_every_time() -> None:
    torch.manual_seed(0)


# name → (architecture, network from (torchvision.models, timm), parts of the expected notes and guesses)
Case = tuple[str, Callable[[Any, Any], nn.Module], tuple[str, ...]]
AS_BUILT: dict[str, Case] = {
    "resnet18": ("torchvision:resnet18", lambda tv, _: tv.resnet18(num_classes=2), ()),
    "resnet34": ("torchvision:resnet34", lambda tv, _: tv.resnet34(num_classes=4), ()),
    "mobilenet_v2": ("torchvision:mobilenet_v2", lambda tv, _: tv.mobilenet_v2(num_classes=2), ()),
    "mobilenet_v3_small": ("torchvision:mobilenet_v3_small", lambda tv, _: tv.mobilenet_v3_small(num_classes=2), ()),
    "efficientnet_b0": ("torchvision:efficientnet_b0", lambda tv, _: tv.efficientnet_b0(num_classes=3), ()),
    "squeezenet1_1": ("torchvision:squeezenet1_1", lambda tv, _: tv.squeezenet1_1(num_classes=2), ()),
    "shufflenet": ("torchvision:shufflenet_v2_x0_5", lambda tv, _: tv.shufflenet_v2_x0_5(num_classes=2), ()),
    "regnet": ("torchvision:regnet_y_400mf", lambda tv, _: tv.regnet_y_400mf(num_classes=2), ()),
    "mnasnet": ("torchvision:mnasnet0_5", lambda tv, _: tv.mnasnet0_5(num_classes=2), ()),
    "timm convnext": ("timm:convnext_nano", lambda _, timm: timm.create_model("convnext_nano", num_classes=2), ()),
    "timm vit of another size": (
        "timm:vit_tiny_patch16_224",
        lambda _, timm: timm.create_model("vit_tiny_patch16_224", num_classes=2, img_size=96),
        ("96 x 96 pixels", "mean 0.5/0.5/0.5"),
    ),
}

REPLACED: dict[str, Case] = {
    "dropout and linear": (
        "torchvision:mobilenet_v2",
        lambda tv, _: head(tv.mobilenet_v2(), "classifier", nn.Sequential(nn.Dropout(), nn.Linear(1280, 2))),
        (),
    ),
    "two linear": (
        "torchvision:shufflenet_v2_x0_5",
        lambda tv, _: head(tv.shufflenet_v2_x0_5(), "fc", small_head(1024)),
        ("dropout at fc.0; a ReLU between fc.1 and fc.4, at fc.2; dropout at fc.3",),
    ),
    "batch norm before the activation": (
        "torchvision:squeezenet1_1",
        lambda tv, _: head(
            tv.squeezenet1_1(),
            "classifier",
            nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(512, 32),
                nn.BatchNorm1d(32),
                nn.ReLU(),
                nn.Dropout(),
                nn.Linear(32, 2),
            ),
        ),
        ("the average over the photo and a Flatten before", "a ReLU between classifier.2 and classifier.6"),
    ),
    "batch norm behind the activation": (
        "torchvision:mobilenet_v2",
        lambda tv, _: head(
            tv.mobilenet_v2(),
            "classifier",
            nn.Sequential(
                nn.BatchNorm1d(1280),
                nn.Dropout(),
                nn.Linear(1280, 32),
                nn.ReLU(),
                nn.BatchNorm1d(32),
                nn.Dropout(),
                nn.Linear(32, 2),
            ),
        ),
        ("a ReLU between classifier.2 and classifier.4, at classifier.3",),
    ),
    "nested": (
        "torchvision:mobilenet_v2",
        lambda tv, _: head(tv.mobilenet_v2(), "classifier.1", nn.Sequential(nn.Dropout(), nn.Linear(1280, 2))),
        ("dropout at classifier.1.0",),
    ),
    "an activation that has no number": (
        "torchvision:mobilenet_v2",
        lambda tv, _: head(
            tv.mobilenet_v2(),
            "classifier",
            nn.Sequential(nn.Sequential(nn.Linear(1280, 32), nn.ReLU()), nn.Linear(32, 2)),
        ),
        ("a ReLU between classifier.0.0 and classifier.1",),
    ),
    "named layers": (
        "torchvision:mobilenet_v2",
        lambda tv, _: head(
            tv.mobilenet_v2(),
            "classifier",
            nn.Sequential(OrderedDict(fc1=nn.Linear(1280, 32), relu=nn.ReLU(), output=nn.Linear(32, 2))),
        ),
        ("a ReLU between classifier.fc1 and classifier.output",),
    ),
    "another hidden width": (
        "torchvision:mobilenet_v3_small",
        lambda tv, _: head(
            tv.mobilenet_v3_small(),
            "classifier",
            nn.Sequential(nn.Linear(576, 64), nn.Hardswish(), nn.Dropout(), nn.Linear(64, 2)),
        ),
        ("the original's Hardswish before classifier.3, at classifier.1",),
    ),
    "another structure": (
        "torchvision:mobilenet_v3_small",
        lambda tv, _: head(
            tv.mobilenet_v3_small(), "classifier", nn.Sequential(nn.Linear(576, 64), nn.ReLU(), nn.Linear(64, 2))
        ),
        ("a ReLU between classifier.0 and classifier.2, at classifier.1",),
    ),
    "a parametric activation": (
        "torchvision:mobilenet_v2",
        lambda tv, _: head(
            tv.mobilenet_v2(), "classifier", nn.Sequential(nn.Linear(1280, 32), nn.PReLU(), nn.Linear(32, 2))
        ),
        (),
    ),
    "a layer norm": (
        "torchvision:shufflenet_v2_x0_5",
        lambda tv, _: head(tv.shufflenet_v2_x0_5(), "fc", nn.Sequential(nn.LayerNorm(1024), nn.Linear(1024, 2))),
        ("a LayerNorm with PyTorch's own eps, 1e-5, at fc.0",),
    ),
    "a convolution": (
        "torchvision:squeezenet1_1",
        lambda tv, _: head(tv.squeezenet1_1(), "classifier.1", nn.Conv2d(512, 2, 1)),
        (),
    ),
    "timm, two linear": (
        "timm:convnext_atto",
        lambda _, timm: head(timm.create_model("convnext_atto"), "head.fc", small_head(320)),
        ("a ReLU between head.fc.1 and head.fc.4",),
    ),
}


@pytest.mark.parametrize("case", [*AS_BUILT, *REPLACED])
def test_a_checkpoint_finds_its_network(case: str, models: Any, timm: Any) -> None:
    architecture, make, sentences = (AS_BUILT | REPLACED)[case]
    network = lively(make(models, timm))
    built = build("auto", {}, network.state_dict())
    assert built.architecture == architecture
    assert_same_answers(built, network)
    assert built.guessed
    text = "; ".join((*built.notes, *built.assumed, *built.rivals))
    for sentence in sentences:
        assert sentence in text
    assert sentences or not built.assumed


@pytest.mark.parametrize("case", ["resnet34", "mobilenet_v3_small", "timm convnext"])
def test_a_named_architecture_loads_too(case: str, models: Any, timm: Any) -> None:
    architecture, make, _ = AS_BUILT[case]
    network = lively(make(models, timm))
    built = build(architecture, {}, {f"model.{name}": tensor for name, tensor in network.state_dict().items()})
    assert (built.architecture, built.notes) == (architecture, ("The prefix 'model.' was removed from every name.",))
    assert_same_answers(built, network)


# Large networks, by names and shapes alone: torchvision's name → (how its last layers are replaced)
LARGE: dict[str, tuple[str, Callable[[], nn.Module]] | None] = {
    "densenet121": ("classifier", lambda: small_head(1024)),
    "convnext_tiny": ("classifier.2", lambda: small_head(768)),
    "efficientnet_v2_s": ("classifier", lambda: small_head(1280)),
    "maxvit_t": ("classifier.5", lambda: nn.Linear(512, 2, bias=False)),
    "mobilenet_v3_large": ("classifier.3", lambda: nn.Linear(1280, 2)),
    "resnet50": ("fc", lambda: small_head(2048)),
    "resnext50_32x4d": None,
    "swin_t": ("head", lambda: nn.Linear(768, 2)),
    "swin_v2_t": None,
    "vgg11_bn": ("classifier", lambda: nn.Sequential(nn.Linear(25088, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 2))),
    "vgg16": ("classifier.6", lambda: small_head(4096)),
    "vit_b_16": ("heads", lambda: nn.Linear(768, 2)),
    "vit_b_32": ("heads.head", lambda: small_head(768)),
    "wide_resnet50_2": None,
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_network_is_found_by_names_and_shapes(name: str, models: Any) -> None:
    with torch.device("meta"):
        network = models.get_model(name, weights=None)
        if change := LARGE[name]:
            network.set_submodule(change[0], change[1]())
    weights = network.state_dict()
    assert f"torchvision:{name}" in [entry.architecture for entry in index.matching(weights)]
    found = fit("torchvision", name, weights, {})
    assert {key: value.shape for key, value in found.network.state_dict().items()} == {
        key: value.shape for key, value in weights.items()
    }
    assert found.classes == (2 if change else 1000)


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module.model.backbone.", "net.encoder."])
def test_prefixes_are_taken_off(prefix: str, models: Any) -> None:
    network = lively(models.squeezenet1_1(num_classes=2))
    built = build("auto", {}, {prefix + name: tensor for name, tensor in network.state_dict().items()})
    assert built.notes == tuple(f"The prefix '{part}.' was removed from every name." for part in prefix.split(".")[:-1])
    assert_same_answers(built, network)


@pytest.mark.parametrize("architecture", ["auto", "torchvision:squeezenet1_1"])
def test_what_training_left_beside_the_network_is_left_out(architecture: str, models: Any) -> None:
    network = lively(models.squeezenet1_1(num_classes=2))
    weights = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    weights |= {"criterion.weight": torch.ones(2), "train_acc.confmat": torch.ones(2, 2), "n_averaged": torch.tensor(3)}
    built = build(architecture, {}, weights)
    assert (
        "Left out, because they belong to the training and not to the network: criterion.weight, train_acc"
        in built.notes[0]
    )
    assert_same_answers(built, network)


def test_half_precision_and_old_checkpoints_load(models: Any) -> None:
    network = lively(models.mobilenet_v2(num_classes=2))
    whole = network.state_dict()
    old = {name: tensor for name, tensor in whole.items() if not name.endswith("num_batches_tracked")}
    assert_same_answers(build("auto", {}, old), network)
    halved = build("auto", {}, {name: tensor.half() for name, tensor in whole.items()})
    assert {tensor.dtype for tensor in halved.network.parameters()} == {torch.float32}
    torch.testing.assert_close(
        halved.network.state_dict()["classifier.1.weight"], whole["classifier.1.weight"].half().float()
    )


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
@pytest.mark.parametrize("aux", [True, False])
def test_heads_that_only_training_uses_are_left_out(name: str, aux: bool, models: Any) -> None:
    with torch.device("meta"):
        weights = models.get_model(name, weights=None, init_weights=False, aux_logits=aux, num_classes=2).state_dict()
    assert f"torchvision:{name}" in [entry.architecture for entry in index.matching(weights)]
    found = fit("torchvision", name, weights, {})
    assert any("only training uses them" in note for note in found.notes) == aux
    assert any("transform_input=True" in note for note in found.notes)
    assert found.network.transform_input
    assert not fit("torchvision", name, weights, {"transform_input": False}).network.transform_input


def test_googlenet_answers_as_it_did(models: Any) -> None:
    network = lively(models.googlenet(init_weights=False, num_classes=2))
    assert_same_answers(build("auto", {"transform_input": False}, network.state_dict()), network)


def test_a_vision_transformer_of_another_size_is_built_for_it(models: Any) -> None:
    with torch.device("meta"):
        weights = models.vit_b_16(image_size=384, num_classes=2).state_dict()
    found = fit("torchvision", "vit_b_16", weights, {})
    assert found.network.image_size == 384
    assert found.notes == ("The network takes photos of 384 x 384 pixels; the photo size must be the same.",)


def test_networks_that_fit_alike_and_answer_differently_are_refused(timm: Any) -> None:
    network = lively(timm.create_model("tf_efficientnet_b0", num_classes=2))
    weights = network.state_dict()
    with pytest.raises(NetworkError) as refused:
        build("auto", {}, weights)
    for part in ("timm:efficientnet_b0", "timm:tf_efficientnet_b0", "answer differently", 'architecture = "timm:'):
        assert part in str(refused.value)
    built = build("auto", {}, weights, hint="timm/tf_efficientnet_b0.ns_jft_in1k")
    assert built.architecture == "timm:tf_efficientnet_b0"
    assert_same_answers(built, network)


def test_a_hint_that_fits_none_is_mentioned(models: Any) -> None:
    built = build("auto", {}, models.squeezenet1_1(num_classes=2).state_dict(), hint="resnet18")
    assert built.architecture == "torchvision:squeezenet1_1"
    assert "names the network 'resnet18', which does not fit" in built.notes[0]


def test_a_hint_finds_what_the_index_lacks(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "entries", lambda: ())
    weights = models.squeezenet1_1(num_classes=2).state_dict()
    for hint in ("squeezenet1_1", "torchvision.models.squeezenet1_1", "SqueezeNet1-1"):
        assert build("auto", {}, weights, hint=hint).architecture == "torchvision:squeezenet1_1"
    with pytest.raises(NetworkError, match="The checkpoint names torchvision:resnet18, but: these weights are not"):
        build("auto", {}, weights, hint="resnet18")
    with pytest.raises(NetworkError, match="nor is one near"):
        build("auto", {}, weights, hint="mine")


def test_a_hint_outranks_torchvision(timm: Any) -> None:
    network = lively(timm.create_model("resnetblur18", num_classes=2))
    built = build("auto", {}, network.state_dict(), hint="resnetblur18")
    assert built.architecture == "timm:resnetblur18"
    assert_same_answers(built, network)
