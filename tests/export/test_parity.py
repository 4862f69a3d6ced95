"""Whatever the checkpoint, network, head or preprocessing: what Triton says is what PyTorch says about the photo.

All cases are heads of one export, served by one Triton.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import tritonclient.grpc
from PIL import Image, ImageOps
from torch import nn

from car_analyzer_export.export import export
from car_analyzer_export.planning import plan_export
from car_analyzer_export.spec import Spec
from car_analyzer_server import Server, Settings
from tests.conftest import SMALL_TRITON, decided
from tests.export import zoo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.triton

SIZE = 96
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def transform(
    *,
    size: tuple[int, int] = (SIZE, SIZE),
    shortest_edge: int | None = None,
    interpolation: str = "bilinear",
    antialias: bool = True,
    upright: bool = False,
    bgr: bool = False,
    mean: tuple[float, ...] = MEAN,
    std: tuple[float, ...] = STD,
) -> Callable[[Image.Image], torch.Tensor]:
    """A training script's transform, made of torchvision's. `size` is width, height."""
    functional = zoo.import_torchvision("torchvision.transforms.v2.functional")
    mode = zoo.import_torchvision("torchvision.transforms").InterpolationMode(interpolation)

    def apply(photo: Image.Image) -> torch.Tensor:
        image: Any = (ImageOps.exif_transpose(photo) if upright else photo).convert("RGB")
        if not antialias:
            image = functional.pil_to_tensor(image)
        if shortest_edge:
            image = functional.resize(image, [shortest_edge], interpolation=mode, antialias=antialias)
            image = functional.center_crop(image, [size[1], size[0]])
        else:
            image = functional.resize(image, [size[1], size[0]], interpolation=mode, antialias=antialias)
        tensor = functional.to_dtype(functional.to_image(image), torch.float32, scale=True)
        return functional.normalize(tensor.flip(0) if bgr else tensor, mean, std)

    return apply


@dataclass
class Case:
    """A network, how its weights are saved, what the spec says of it, and how it was trained."""

    make: Callable[[], nn.Module] = zoo.Small
    save: Callable[[nn.Module, Path], None] = lambda network, file: torch.save(network.state_dict(), file)
    spec: dict[str, Any] = field(default_factory=dict)
    heads: dict[str, dict[str, Any]] | None = None
    train: dict[str, Any] = field(default_factory=dict)
    file: str = "weights.pth"
    atol: float = 1e-3


def save_as(**entries: Any) -> Callable[[nn.Module, Path], None]:
    """A dict that holds the weights under the one key that is given as None, maybe with a prefix before each name."""

    def save(network: nn.Module, file: Path) -> None:
        prefix = entries.get("prefix", "")
        weights = {prefix + name: tensor for name, tensor in network.state_dict().items()}
        key = entries.get("key")
        torch.save({key: weights, **entries.get("beside", {})} if key else weights, file)

    return save


def save_safetensors(network: nn.Module, file: Path) -> None:
    pytest.importorskip("safetensors.torch").save_file(network.state_dict(), file)


def save_legacy(network: nn.Module, file: Path) -> None:
    torch.save(network.state_dict(), file, _use_new_zipfile_serialization=False)


def save_in(dtype: torch.dtype) -> Callable[[nn.Module, Path], None]:
    def save(network: nn.Module, file: Path) -> None:
        network.to(dtype)
        torch.save(network.state_dict(), file)
        network.float()

    return save


def torchvision_model(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: zoo.import_torchvision("torchvision.models").get_model(name, weights=None, **options)


def timm_model() -> nn.Module:
    return pytest.importorskip("timm").create_model("resnet10t", pretrained=False, num_classes=2)


OPTIMISER = {"epoch": 3, "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 0.1}]}, "loss": 0.25}
THREE = {"labels": ["good", "worn", "flat"]}
FOUR = ["clean_intact", "clean_damaged", "dirty_intact", "dirty_damaged"]

# Read alike, whatever the network becomes afterwards: compared with PyTorch before the export.
CONTAINERS: dict[str, Case] = {
    "training_checkpoint": Case(save=save_as(key="model_state_dict", beside=OPTIMISER)),
    "state_dict_key": Case(save=save_as(key="state_dict", beside={"arch": "small", "epoch": 9})),
    "net_key": Case(save=save_as(key="net", beside={"acc": 91.5})),
    "model_state_key": Case(save=save_as(key="model_state")),
    "model_key": Case(save=save_as(key="model")),
    "lightning": Case(
        save=save_as(key="state_dict", prefix="model.", beside={"pytorch-lightning_version": "2.5.0", "epoch": 1}),
        file="last.ckpt",
    ),
    "data_parallel": Case(save=save_as(prefix="module.")),
    "compiled": Case(save=save_as(prefix="_orig_mod.")),
    "stacked_prefixes": Case(save=save_as(prefix="module._orig_mod.")),
    "backbone_prefix": Case(save=save_as(prefix="backbone.")),
    "legacy": Case(save=save_legacy, file="old.pt"),
    "any_ending": Case(file="weights"),
    "safetensors": Case(save=save_safetensors, file="weights.safetensors"),
}

CASES: dict[str, Case] = {
    "state_dict": Case(),
    "half": Case(save=save_in(torch.float16), atol=0.05),
    "double": Case(save=save_in(torch.float64)),
    # architectures
    "kwargs": Case(make=lambda: zoo.Small(2, 12), spec={"kwargs": {"width": 12}}),
    "torchvision_named": Case(
        torchvision_model("squeezenet1_1", num_classes=2), spec={"architecture": "torchvision:squeezenet1_1"}
    ),
    "timm_named": Case(timm_model, spec={"architecture": "timm:resnet10t"}),
    # heads
    "three_labels": Case(lambda: zoo.Small(3), spec={"kwargs": {"classes": 3}, **THREE}),
    "one_logit": Case(lambda: zoo.Small(1), spec={"kwargs": {"classes": 1}, "activation": "sigmoid"}),
    "one_logit_squeezed": Case(zoo.OneLogit, spec={"architecture": "zoo:OneLogit"}),
    "threshold": Case(spec={"threshold": 0.8, "unsure": [0.3, 0.9]}),
    "positive_first": Case(spec={"positive": "no", "threshold": 0.3}),
    "multilabel": Case(
        lambda: zoo.Small(3),
        spec={"kwargs": {"classes": 3}, "labels": ["dent", "scratch", "glass"], "activation": "multilabel"},
    ),
    "tuple_of_two": Case(
        zoo.TupleOfTwo,
        spec={"architecture": "zoo:TupleOfTwo"},
        heads={"tuple_dirt": {"output": 0, "labels": ["no", "yes"]}, "tuple_tires": {"output": 1, **THREE}},
    ),
    "dict_of_two": Case(
        zoo.DictOfTwo,
        spec={"architecture": "zoo:DictOfTwo"},
        heads={"dict_dirt": {"output": "dirt", "labels": ["no", "yes"]}, "dict_tires": {"output": "tires", **THREE}},
    ),
    "four_classes": Case(
        lambda: zoo.Small(4),
        spec={"kwargs": {"classes": 4}, "classes": FOUR},
        heads={
            "four_dirt": {"labels": ["clean", "dirty"]},
            "four_damage": {
                "classes": {"ok": [FOUR[0], FOUR[2]], "broken": [FOUR[1], FOUR[3]]},
                "labels": ["ok", "broken"],
            },
        },
    ),
    # preprocessing
    "wide": Case(spec={"photo_size": [128, 64]}, train={"size": (128, 64)}),
    "cropped": Case(spec={"shortest_edge": 120}, train={"shortest_edge": 120}),
    "bicubic": Case(spec={"interpolation": "bicubic"}, train={"interpolation": "bicubic"}),
    "nearest": Case(spec={"interpolation": "nearest"}, train={"interpolation": "nearest"}),
    "bilinear_aliased": Case(spec={"antialias": False}, train={"antialias": False}, atol=1e-2),
    "bicubic_aliased_cropped": Case(
        spec={"antialias": False, "interpolation": "bicubic", "shortest_edge": 110},
        train={"antialias": False, "interpolation": "bicubic", "shortest_edge": 110},
        atol=5e-3,
    ),
    "bgr": Case(spec={"channels": "BGR"}, train={"bgr": True, "mean": MEAN, "std": STD}),
    "own_mean": Case(
        spec={"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.4, 0.3]}, train={"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.4, 0.3)}
    ),
    "not_normalised": Case(spec={"normalize": False}, train={"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}),
    "upright": Case(spec={"exif_rotation": True}, train={"upright": True}),
}


def head_names(case: str) -> list[str]:
    return list(CASES[case].heads or [case])


def networks() -> dict[str, nn.Module]:
    return {name: zoo.seeded(case.make, seed) for seed, (name, case) in enumerate(CASES.items())}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bytes], dict[str, np.ndarray[Any, Any]]]]:
    """Exports all cases, serves them, and gives a function from a photo to every head's logits."""
    zoo.import_torchvision("torchvision")
    folder = tmp_path_factory.mktemp("cases")
    values: dict[str, Any] = {"networks": {}, "heads": {}, "photo_size": SIZE}
    for name, network in networks().items():
        case = CASES[name]
        file = folder / name / case.file
        file.parent.mkdir()
        case.save(network, file)
        architecture = f"{Path(zoo.__file__)}:Small"
        own = {"architecture": architecture, "weights": file, **case.spec}
        if str(own["architecture"]).startswith("zoo:"):
            own["architecture"] = own["architecture"].replace("zoo:", f"{Path(zoo.__file__)}:")
        if case.heads:
            values["networks"][name] = own
            values["heads"] |= {head: {"network": name, **rest} for head, rest in case.heads.items()}
        else:
            values["heads"][name] = {"labels": ["no", "yes"], **own}
    plan = plan_export(decided(Spec.from_values(values, "cases")))
    export(plan, folder / "repository")
    heads = [head for name in CASES for head in head_names(name)]
    with Server(Settings(folder / "repository", **SMALL_TRITON)) as server:
        client = tritonclient.grpc.InferenceServerClient(server.grpc_url.partition("://")[2])

        def infer(photo: bytes, class_count: int = 0) -> dict[str, np.ndarray[Any, Any]]:
            image = tritonclient.grpc.InferInput("image", [1, 1], "BYTES")
            image.set_data_from_numpy(np.array([[photo]], dtype=object))
            outputs = [tritonclient.grpc.InferRequestedOutput(f"{head}_logits", class_count) for head in heads]
            answer = client.infer("car_analyzer", [image], outputs=outputs)
            return {head: answer.as_numpy(f"{head}_logits")[0] for head in heads}

        yield infer
        client.close()


@pytest.mark.parametrize("name", CONTAINERS)
def test_weights_of_every_container_reach_the_network(name: str, tmp_path: Path) -> None:
    case, network, file = CONTAINERS[name], zoo.seeded(zoo.Small, 1), tmp_path / CONTAINERS[name].file
    case.save(network, file)
    head = {"labels": ["no", "yes"], "architecture": f"{Path(zoo.__file__)}:Small", "weights": file}
    plan = plan_export(decided(Spec.from_values({"heads": {"head": head}, "photo_size": SIZE}, "case")))
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.inference_mode():
        torch.testing.assert_close(plan.networks[0].network(images), network(images), atol=0, rtol=0)


@pytest.fixture(scope="module")
def photos(sample_photos: list[Path]) -> list[bytes]:
    """Some as they are, one turned by its EXIF data, and photographs where there are some."""
    with Image.open(sample_photos[0]) as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        turned = io.BytesIO()
        image.save(turned, "JPEG", exif=exif)
    real = sorted((Path(__file__).parents[3] / "shared" / "photos").glob("*.jpg"))[::9]
    return [photo.read_bytes() for photo in [*sample_photos[::3], *real]] + [turned.getvalue()]


def expected(case: Case, outputs: Any) -> list[torch.Tensor]:
    """What the heads should give, from what the network gives, by another way than the exporter's."""
    if isinstance(outputs, tuple):
        return [output[0] for output in outputs]
    if isinstance(outputs, dict):
        return [output[0] for output in outputs.values()]
    if case.heads:
        p = outputs[0].softmax(0)
        return [torch.stack([p[0] + p[1], p[2] + p[3]]).log(), torch.stack([p[0] + p[2], p[1] + p[3]]).log()]
    return [outputs.reshape(-1)]


@pytest.mark.parametrize("name", CASES)
def test_triton_says_what_pytorch_says(name: str, served: Any, photos: list[bytes]) -> None:
    case, network = CASES[name], networks()[name]
    if name == "half":
        network.half().float()
    prepare = transform(**case.train)
    differences = []
    for photo in photos:
        answers = served(photo)
        with Image.open(io.BytesIO(photo)) as image, torch.inference_mode():
            outputs = network(prepare(image)[None])
            wrong = network(transform()(image)[None])
        for head, logits in zip(head_names(name), expected(case, outputs), strict=True):
            given = torch.from_numpy(answers[head].copy())
            if case.heads and name == "four_classes":
                given, logits = given.log_softmax(0), logits.log_softmax(0)
            torch.testing.assert_close(given, logits, atol=case.atol, rtol=1e-3)
        if case.train:
            differences.append(float((wrong - outputs).abs().max()))
    # Or the case would pass with the default preprocessing, too.
    assert not case.train or max(differences) > 5 * case.atol


def test_triton_names_the_labels_of_every_head(served: Any, photos: list[bytes]) -> None:
    logits, classes = served(photos[0]), served(photos[0], class_count=1)
    for name, case in CASES.items():
        for head in head_names(name):
            labels = (case.heads or {name: {"labels": ["no", "yes"], **case.spec}})[head]["labels"]
            # One logit speaks of the second label.
            labels = labels if len(logits[head]) > 1 else labels[1:]
            index = int(logits[head].argmax())
            (best,) = classes[head].tolist()
            assert best.decode().split(":")[1:] == [str(index), labels[index]], head
