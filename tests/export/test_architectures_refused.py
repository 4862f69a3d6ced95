"""A checkpoint of an unknown network, or of several, is rejected with the reason; nothing is downloaded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from car_analyzer_export.architectures import build, index, zoo
from car_analyzer_export.errors import NetworkError

from .networks import StateDict, fresh, head


@pytest.fixture(autouse=True)
def _same_weights_every_time() -> None:
    torch.manual_seed(0)


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


def patches(embedding: nn.Module) -> nn.Module:
    """A vision transformer's parts; its embedding is called as a text network's."""
    network = nn.ModuleDict({"embedding": embedding, "blocks": nn.TransformerEncoderLayer(8, 2, 16)})
    network.register_parameter("positions", nn.Parameter(torch.zeros(1, 17, 8)))
    return network


OWN_NETWORK = "nor is one near.*FILE.py:FACTORY"
REFUSED: dict[str, tuple[Callable[[Any], StateDict], str]] = {
    "LSTM": (lambda _: fresh(nn.LSTM(3, 4)), r"recurrent network.*'weight_ih_l0'"),
    "GRU cell": (lambda _: fresh(nn.ModuleDict({"cell": nn.GRUCell(3, 4)})), r"recurrent network.*'cell.weight_ih'"),
    "table": (
        lambda _: fresh(nn.Sequential(nn.Linear(30, 5), nn.ReLU(), nn.Linear(5, 2))),
        r"for tables \('0.weight' is \[5, 30\]\); if it takes photos, write a FILE.py:FACTORY",
    ),
    "table with a scale beside its weights": (
        lambda _: fresh(nn.Sequential(weight_norm(nn.Linear(10, 20)), nn.Linear(20, 2))),
        r"for tables \('0.parametrizations.weight.original1' is \[20, 10\]\)",
    ),
    "text": (lambda _: fresh(nn.ModuleDict({"embedding": nn.Embedding(9, 4), "out": nn.Linear(4, 2)})), "for text"),
    "sound": (lambda _: fresh(nn.Sequential(nn.Conv1d(1, 4, 3), nn.Linear(4, 2))), "sequences or signals"),
    "video": (lambda _: fresh(nn.Sequential(nn.Conv3d(3, 4, 3), nn.Linear(4, 2))), "video or volumes"),
    "grey": (lambda _: fresh(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Linear(4, 2))), "pictures of 1 channel, where"),
    "depthwise on RGB": (
        lambda _: fresh(nn.Sequential(nn.Conv2d(3, 12, 3, groups=3), nn.Conv2d(12, 4, 1), nn.Linear(4, 2))),
        OWN_NETWORK,
    ),
    "a convolution's scale": (lambda _: fresh(nn.Sequential(weight_norm(nn.Conv2d(3, 4, 3)))), OWN_NETWORK),
    "convolution and LSTM": (lambda _: fresh(nn.Sequential(nn.Conv2d(3, 4, 3), nn.LSTM(4, 4))), OWN_NETWORK),
    "ViT": (lambda _: fresh(patches(nn.Conv2d(3, 8, 4, 4))), OWN_NETWORK),
    "ViT of cut photos": (
        lambda _: fresh(patches(nn.Linear(48, 8))),
        "a transformer of another library .*; if it takes photos, write a FILE.py:FACTORY",
    ),
    "YOLO": (names("model.0.conv.weight", "model.2.cv1.conv.weight"), "a YOLO network"),
    "Faster R-CNN": (names("backbone.body.conv1.weight", "rpn.head.conv.0.0.weight"), "a detector"),
    "Mask R-CNN": (names("conv1.weight", "roi_heads.mask_head.mask_fcn1.weight"), "Mask R-CNN"),
    "segmentation": (names("backbone.conv1.weight", "aux_classifier.0.weight"), "a segmentation network"),
    "U-Net": (names("inc.double_conv.0.weight", "up1.conv.double_conv.0.weight"), "U-Net"),
    "transformers": (names("vit.embeddings.patch_embeddings.projection.weight"), "Hugging Face transformers"),
    "quantised": (names("conv1.weight", "fc._packed_params._packed_params"), "a quantised network"),
    "own": (lambda _: fresh(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(8, 2))), OWN_NETWORK),
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
    "a layer that halves": (
        lambda models: fresh(
            head(models.mobilenet_v2(), "classifier", nn.Sequential(nn.Linear(1280, 20), nn.GLU(), nn.Linear(10, 2)))
        ),
        r"it takes 10 features, where 20 come in; a layer without weights .*\(GLU halves it.*FILE.py:FACTORY",
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
        ("torchvision:fasterrcnn_resnet50_fpn", {}, "is not an image classifier"),
        ("torchvision:quantized_resnet18", {}, "is quantised"),
        ("timm:efficientnetb0", {}, "no image classifier 'efficientnetb0'; the nearest names: .*efficientnet_b0"),
        ("timm:hf-hub:timm/resnet18", {}, "no image classifier 'hf-hub:timm/resnet18'"),
        ("timm:resnet18.no_such_tag", {}, "cannot be built"),
        ("torchvision:resnet18", {}, "missing from the checkpoint: bn1.*those of torchvision:squeezenet1_1"),
        ("torchvision:squeezenet1_1", {"num_classes": 3}, "has 2 classes, not num_classes=3"),
        ("torchvision:squeezenet1_1", {"widht": 3}, r"cannot be built with \(widht=3, num_classes=2\): TypeError"),
        ("torchvision:squeezenet1_1", {"weights": "DEFAULT"}, "'weights' would load other weights"),
        ("timm:resnet18", {"pretrained": True}, "'pretrained' would load other weights"),
        ("timm:resnet18", {"checkpoint_path": "other.pth"}, "'checkpoint_path' would load other weights"),
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
    assert built.notes == ("The prefix 'module.' was removed from every name.",)
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


@pytest.mark.usefixtures("models", "timm")
def test_libraries_of_another_build_than_pytorch_are_imported() -> None:
    """In a new process, since this one has declared the operators that torchvision misses beside a CPU build."""
    create = "from car_analyzer_export.architectures import zoo; zoo.create('{}', {!r}, {{}})"
    networks = [create.format("timm", "resnet18"), create.format("torchvision", "squeezenet1_1")]
    subprocess.run([sys.executable, "-c", "; ".join(networks)], check=True, timeout=300)


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
