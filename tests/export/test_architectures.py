"""A checkpoint finds its network, answers as it did there, and says what had to be assumed; or is refused."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from car_analyzer_export.architectures import Built, build, index, zoo
from car_analyzer_export.architectures.fit import fit
from car_analyzer_export.errors import NetworkError
from tests.export.zoo import import_torchvision

StateDict = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def libraries() -> tuple[Any, Any]:
    """torchvision.models and timm."""
    return import_torchvision("torchvision.models"), pytest.importorskip("timm", reason="timm is not installed")


@pytest.fixture(scope="module")
def models(libraries: tuple[Any, Any]) -> Any:
    return libraries[0]


@pytest.fixture(scope="module")
def timm(libraries: tuple[Any, Any]) -> Any:
    return libraries[1]


@pytest.fixture(autouse=True)
def _same_weights_every_time() -> None:
    torch.manual_seed(0)


def lively(network: nn.Module) -> nn.Module:
    """Gives a fresh network statistics that fit its layers, as training does; without, some answer all photos alike."""
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.momentum = None  # the plain average
    torch.manual_seed(1)
    with torch.no_grad():
        network.train()(torch.randn(4, 3, 96, 96))
        for name, value in network.named_parameters():
            if name.endswith("bias"):
                value.add_(0.1 * torch.randn(value.shape))
    return network.eval()


def assert_same_answers(built: Built, network: nn.Module, side: int = 96) -> None:
    photos = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected, answer = network(photos), built.network.eval()(photos)
    assert (expected[0] - expected[1]).abs().max() > 1e-4
    torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-6)
    assert not any(tensor.is_meta for tensor in built.network.state_dict().values())
    assert {tensor.dtype for tensor in built.network.parameters()} == {torch.float32}
    assert built.classes == expected.shape[1]


def head(network: nn.Module, path: str, module: nn.Module) -> nn.Module:
    network.set_submodule(path, module)
    return network


def small_head(features: int, *, first: nn.Module | None = None) -> nn.Sequential:
    layers = [nn.Dropout(0.3), nn.Linear(features, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 2)]
    return nn.Sequential(*([first] if first else []), *layers)


# name → (architecture, network from (torchvision.models, timm), sentences expected in the notes)
Case = tuple[str, Callable[[Any, Any], nn.Module], tuple[str, ...]]
AS_BUILT: dict[str, Case] = {
    "resnet18": ("torchvision:resnet18", lambda tv, _: tv.resnet18(num_classes=2), ("timm:resnetblur18, with",)),
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
        (
            "fc.0 is taken for dropout. Between fc.1 and fc.4 a ReLU is assumed, at fc.2. fc.3 is taken for dropout.",
            "if one of them is another, name the network as FILE.py:FACTORY.",
        ),
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
        ("averaged over the photo and flattened", "Between classifier.2 and classifier.6 a ReLU is assumed"),
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
        ("Between classifier.2 and classifier.4 a ReLU is assumed, at classifier.3.",),
    ),
    "nested": (
        "torchvision:mobilenet_v2",
        lambda tv, _: head(tv.mobilenet_v2(), "classifier.1", nn.Sequential(nn.Dropout(), nn.Linear(1280, 2))),
        ("classifier.1.0 is taken for dropout.",),
    ),
    "an activation that has no number": (
        "torchvision:mobilenet_v2",
        lambda tv, _: head(
            tv.mobilenet_v2(),
            "classifier",
            nn.Sequential(nn.Sequential(nn.Linear(1280, 32), nn.ReLU()), nn.Linear(32, 2)),
        ),
        ("Between classifier.0.0 and classifier.1 a ReLU is assumed.",),
    ),
    "named layers": (
        "torchvision:mobilenet_v2",
        lambda tv, _: head(
            tv.mobilenet_v2(),
            "classifier",
            nn.Sequential(OrderedDict(fc1=nn.Linear(1280, 32), relu=nn.ReLU(), output=nn.Linear(32, 2))),
        ),
        ("Between classifier.fc1 and classifier.output a ReLU is assumed.",),
    ),
    "another hidden width": (
        "torchvision:mobilenet_v3_small",
        lambda tv, _: head(
            tv.mobilenet_v3_small(),
            "classifier",
            nn.Sequential(nn.Linear(576, 64), nn.Hardswish(), nn.Dropout(), nn.Linear(64, 2)),
        ),
        ("the original's Hardswish, at classifier.1, is assumed",),
    ),
    "another structure": (
        "torchvision:mobilenet_v3_small",
        lambda tv, _: head(
            tv.mobilenet_v3_small(), "classifier", nn.Sequential(nn.Linear(576, 64), nn.ReLU(), nn.Linear(64, 2))
        ),
        ("Between classifier.0 and classifier.2 a ReLU is assumed, at classifier.1.",),
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
        ("fc.0 is taken for a LayerNorm with PyTorch's own eps",),
    ),
    "a convolution": (
        "torchvision:squeezenet1_1",
        lambda tv, _: head(tv.squeezenet1_1(), "classifier.1", nn.Conv2d(512, 2, 1)),
        (),
    ),
    "timm, two linear": (
        "timm:convnext_atto",
        lambda _, timm: head(timm.create_model("convnext_atto"), "head.fc", small_head(320)),
        ("Between head.fc.1 and head.fc.4 a ReLU is assumed",),
    ),
}


@pytest.mark.parametrize("case", [*AS_BUILT, *REPLACED])
def test_a_checkpoint_finds_its_network(case: str, models: Any, timm: Any) -> None:
    architecture, make, sentences = (AS_BUILT | REPLACED)[case]
    network = lively(make(models, timm))
    built = build("auto", {}, network.state_dict())
    assert built.architecture == architecture
    assert_same_answers(built, network)
    text = " ".join(built.notes)
    for sentence in sentences:
        assert sentence in text
    assert sentences or not any(word in text for word in ("assumed", "taken for"))


@pytest.mark.parametrize("case", ["resnet34", "mobilenet_v3_small", "timm convnext"])
def test_a_named_architecture_loads_too(case: str, models: Any, timm: Any) -> None:
    architecture, make, _ = AS_BUILT[case]
    network = lively(make(models, timm))
    built = build(architecture, {}, {f"model.{name}": tensor for name, tensor in network.state_dict().items()})
    assert (built.architecture, built.notes) == (architecture, ("The prefix 'model.' was taken off every name.",))
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
    assert built.notes == tuple(f"The prefix '{part}.' was taken off every name." for part in prefix.split(".")[:-1])
    assert_same_answers(built, network)


@pytest.mark.parametrize("architecture", ["auto", "torchvision:squeezenet1_1"])
def test_what_training_left_beside_the_network_is_left_out(architecture: str, models: Any) -> None:
    network = lively(models.squeezenet1_1(num_classes=2))
    weights = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    weights |= {"criterion.weight": torch.ones(2), "train_acc.confmat": torch.ones(2, 2), "n_averaged": torch.tensor(3)}
    built = build(architecture, {}, weights)
    assert "Left out, as part of the training and not of the network: criterion.weight, train_acc" in built.notes[0]
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
    assert found.notes == ("The network looks at photos of 384 x 384 pixels; the photo size must be the same.",)


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


def fresh(network: nn.Module) -> StateDict:
    return network.state_dict()


def wrapped(models: Any) -> StateDict:
    body = {
        f"backbone.{name}": tensor for name, tensor in fresh(models.squeezenet1_1()).items() if "classif" not in name
    }
    return body | {"head.weight": torch.ones(2, 512)}


def beside(models: Any) -> StateDict:
    whole = {f"model.{name}": tensor for name, tensor in fresh(models.squeezenet1_1()).items()}
    return whole | {"teacher.weight": torch.ones(2, 512)}


def headless(models: Any) -> StateDict:
    return {name: tensor for name, tensor in fresh(models.squeezenet1_1()).items() if "classifier" not in name}


def with_head(module: nn.Module) -> Callable[[Any], StateDict]:
    return lambda models: fresh(head(models.squeezenet1_1(), "classifier", module))


def names(*given: str) -> Callable[[Any], StateDict]:
    return lambda _: {name: torch.ones(4, 3, 3, 3) for name in given}


REFUSED: dict[str, tuple[Callable[[Any], StateDict], str]] = {
    "LSTM": (lambda _: fresh(nn.LSTM(3, 4)), r"recurrent network.*'weight_ih_l0'"),
    "table": (lambda _: fresh(nn.Sequential(nn.Linear(30, 5), nn.ReLU(), nn.Linear(5, 2))), "tables, with 30 numbers"),
    "text": (lambda _: fresh(nn.ModuleDict({"embedding": nn.Embedding(9, 4), "out": nn.Linear(4, 2)})), "for text"),
    "sound": (lambda _: fresh(nn.Sequential(nn.Conv1d(1, 4, 3), nn.Linear(4, 2))), "sequences or signals"),
    "video": (lambda _: fresh(nn.Sequential(nn.Conv3d(3, 4, 3), nn.Linear(4, 2))), "video or volumes"),
    "grey": (lambda _: fresh(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Linear(4, 2))), "pictures of 1 channel, where"),
    "YOLO": (names("model.0.conv.weight", "model.2.cv1.conv.weight"), "a YOLO network"),
    "Faster R-CNN": (names("backbone.body.conv1.weight", "rpn.head.conv.0.0.weight"), "a detector"),
    "Mask R-CNN": (names("conv1.weight", "roi_heads.mask_head.mask_fcn1.weight"), "Mask R-CNN"),
    "segmentation": (names("backbone.conv1.weight", "aux_classifier.0.weight"), "a segmentation network"),
    "U-Net": (names("inc.double_conv.0.weight", "up1.conv.double_conv.0.weight"), "U-Net"),
    "transformers": (names("vit.embeddings.patch_embeddings.projection.weight"), "Hugging Face transformers"),
    "quantised": (names("conv1.weight", "fc._packed_params._packed_params"), "a quantised network"),
    "own": (lambda _: fresh(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(8, 2))), "nor is one near.*FILE.py:FACTORY"),
    "another stem": (
        lambda models: fresh(head(models.squeezenet1_1(), "features.0", nn.Conv2d(3, 64, 5))),
        r"The nearest: torchvision:squeezenet1_1 \(of another shape: features.0.weight",
    ),
    "wrapped": (wrapped, r"Below 'backbone.' is the body of torchvision:squeezenet1_1, and beside it head.weight"),
    "beside": (beside, r"Below 'model.' is torchvision:squeezenet1_1; save only that part, without teacher.weight"),
    "headless": (headless, r"like those of torchvision:squeezenet1_1, but: .* without its head \(classifier\)"),
    "wrong features": (
        with_head(nn.Sequential(nn.Linear(1024, 32), nn.ReLU(), nn.Linear(64, 2))),
        "at classifier.0, it takes numbers, where the network gives feature maps",
    ),
    "unknown layer": (
        with_head(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Bilinear(2, 3, 4), nn.Linear(4, 2))),
        "at classifier.2, no layer is known that has weight",
    ),
    "a head that fills the memory": (
        lambda models: headless(models) | {"classifier.999999999999.weight": torch.ones(2, 512)},
        "at classifier.999999999999, too many layers",
    ),
    "a head with an endless number": (
        lambda models: headless(models) | {f"classifier.{'9' * 5000}.weight": torch.ones(2, 512)},
        "at classifier.99999999999999999999, too many layers",
    ),
    "a head that is a number": (
        lambda models: headless(models) | {"classifier": torch.ones(2, 512)},
        "unknown to the network: classifier",
    ),
    "a head that goes on below": (
        lambda models: headless(models) | {"classifier." + "0." * 2000 + "weight": torch.ones(2, 512)},
        "the names of its layers are not those of a Sequential",
    ),
    "a head with names of methods": (
        lambda models: headless(models) | {"classifier.forward.weight": torch.ones(2, 512)},
        "the names of its layers are not those of a Sequential",
    ),
    "a head of weights and layers": (
        lambda models: (
            headless(models) | {"classifier.a.weight": torch.ones(2), "classifier.a.weight.b": torch.ones(2)}
        ),
        "it lies below weights",
    ),
    "endless prefixes": (
        lambda models: {"a." * 2000 + name: tensor for name, tensor in headless(models).items()},
        "nor is one near",
    ),
    "a number that is none": (
        lambda models: headless(models) | {"classifier.\u00b2.weight": torch.ones(2, 512)},
        "it takes numbers, where the network gives feature maps",
    ),
    "broken chain": (
        lambda models: fresh(head(models.mobilenet_v2(), "classifier", nn.Sequential(nn.Linear(640, 2)))),
        "it takes 640 features, where 1280 come in",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_weights_are_refused_with_the_reason(case: str, models: Any) -> None:
    make, message = REFUSED[case]
    with pytest.raises(NetworkError, match=message):
        build("auto", {}, make(models))


@pytest.mark.parametrize(
    ("architecture", "kwargs", "message"),
    [
        ("torchvision:resnet-34", {}, "no image classifier 'resnet-34'; the nearest names: resnet34"),
        ("torchvision:fasterrcnn_resnet50_fpn", {}, "is no image classifier"),
        ("torchvision:quantized_resnet18", {}, "is quantised"),
        ("timm:efficientnetb0", {}, "no image classifier 'efficientnetb0'; the nearest names: .*efficientnet_b0"),
        ("timm:hf-hub:timm/resnet18", {}, "no image classifier 'hf-hub:timm/resnet18'"),
        ("timm:resnet18.no_such_tag", {}, "cannot be built"),
        ("torchvision:resnet18", {}, "missing from the checkpoint: bn1.*those of torchvision:squeezenet1_1"),
        ("torchvision:squeezenet1_1", {"num_classes": 3}, "has 2 classes, not num_classes=3"),
        ("torchvision:squeezenet1_1", {"widht": 3}, r"cannot be built with \(widht=3, num_classes=2\): TypeError"),
        ("torchvision:squeezenet1_1", {"weights": "DEFAULT"}, "'weights' asks for other weights"),
        ("timm:resnet18", {"pretrained": True}, "'pretrained' asks for other weights"),
        ("timm:resnet18", {"checkpoint_path": "other.pth"}, "'checkpoint_path' asks for other weights"),
        ("{file}:one", {}, "missing from the checkpoint: .*those of torchvision:squeezenet1_1"),
        ("{file}:one", {"width": 3}, "TypeError"),
        ("resnet18", {}, "is not of the form FILE.py:FACTORY"),
    ],
)
def test_a_wrong_architecture_is_described(
    architecture: str, kwargs: dict[str, Any], message: str, models: Any, tmp_path: Path
) -> None:
    file = tmp_path / "network.py"
    file.write_text("import torch\n\n\ndef one():\n    return torch.nn.Linear(3, 2)\n")
    with pytest.raises(NetworkError, match=message):
        build(architecture.format(file=file), kwargs, fresh(models.squeezenet1_1(num_classes=2)))


FILE = """
import torch


def build(classes=2, prefixed=False):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.LazyLinear(classes))
    network(torch.zeros(1, 3, 8, 8))
    return torch.nn.ModuleDict({"model": network}) if prefixed else network
"""


def test_a_factory_gets_arguments_and_a_prefix_goes(tmp_path: Path) -> None:
    file = tmp_path / "network.py"
    file.write_text(FILE)
    weights = fresh(build_from(FILE, classes=5))
    built = build(f"{file}:build", {"classes": 5}, {f"module.{name}": tensor for name, tensor in weights.items()})
    assert built.notes == ("The prefix 'module.' was taken off every name.",)
    for name, tensor in built.network.state_dict().items():
        assert torch.equal(tensor, weights[name])
    own = build(f"{file}:build", {"classes": 5, "prefixed": True}, {f"model.{name}": weights[name] for name in weights})
    assert own.notes == ()
    with pytest.raises(NetworkError, match=r"The checkpoint has 5 classes, the network 2\."):
        build(f"{file}:build", {}, weights)
    with pytest.raises(NetworkError, match="All of the network's names start with 'model.', the checkpoint's do not"):
        build(f"{file}:build", {"classes": 5, "prefixed": True}, weights)
    with pytest.raises(NetworkError, match=r"the weights '0.weight' are torch.int8, the network's torch.float32"):
        build(f"{file}:build", {"classes": 5}, weights | {"0.weight": weights["0.weight"].to(torch.int8)})


def build_from(source: str, **kwargs: Any) -> nn.Module:
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    network: nn.Module = namespace["build"](**kwargs)
    return network


def test_a_missing_library_answers_with_the_command(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = fresh(models.squeezenet1_1(num_classes=2))
    for name in ("timm", "torchvision", "torchvision.models"):
        monkeypatch.setitem(sys.modules, name, None)
    for architecture, library in (("auto", "torchvision"), ("torchvision:resnet18", "torchvision"), ("timm:x", "timm")):
        with pytest.raises(NetworkError, match=rf"needs {library}.*pip install 'car-analyzer\[zoo\]'"):
            build(architecture, {}, weights)


def test_torchvision_alone_is_enough_for_its_networks(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert build("auto", {}, fresh(models.resnet18(num_classes=2))).architecture == "torchvision:resnet18"


def test_nothing_is_downloaded(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    weights = fresh(models.resnet18(num_classes=2))
    for architecture in ("auto", "torchvision:resnet18", "timm:resnet18"):
        build(architecture, {}, weights)


def test_an_entry_of_the_index_that_is_gone_does_no_harm(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = fresh(models.squeezenet1_1(num_classes=2))
    gone = [index.Entry.of(source, "renamed", weights) for source in zoo.SOURCES]
    everything = index.entries()
    monkeypatch.setattr(index, "entries", lambda: (*gone, *everything))
    assert build("auto", {}, weights).architecture == "torchvision:squeezenet1_1"


def test_the_index_is_whole_and_small() -> None:
    entries = index.entries()
    assert index.FILE.stat().st_size < 300_000
    assert len({entry.architecture for entry in entries}) == len(entries) > 1000
    assert all(index.Entry.from_line(entry.to_line()) == entry for entry in entries)
