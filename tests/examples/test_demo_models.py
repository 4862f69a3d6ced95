"""The committed demo models, the sample photos, and the drawings they were trained on."""

from __future__ import annotations

import importlib.util
import io
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MEGABYTE = 1_000_000
HEADS = ("cleanliness", "condition")
COMBINATIONS = [(dirty, damaged) for damaged in (0, 1) for dirty in (0, 1)]
PHOTOS = [
    (f"{('clean', 'dirty')[dirty]}_{('intact', 'damaged')[damaged]}_{number}.jpg", (dirty, damaged))
    for dirty, damaged in COMBINATIONS
    for number in (1, 2)
]
FRESH_SEED = 20_240  # the training script's default seed is 0


def load_module(name: str) -> ModuleType:
    """Imports an example file by its path; the examples are scripts, not a package."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def draw_car() -> Any:
    return load_module("draw_cars").draw_car


@pytest.fixture(scope="module")
def networks() -> list[nn.Module]:
    factory = load_module("demo_network").build
    built = []
    for head in HEADS:
        network: nn.Module = factory()
        weights = torch.load(EXAMPLES / f"{head}_model.pth", map_location="cpu", weights_only=True)
        network.load_state_dict(weights, strict=True)
        built.append(network.eval())
    return built


def to_tensor(picture: Image.Image) -> torch.Tensor:
    """What the service does, in plain PyTorch: float32 [1, 3, 224, 224]."""
    resized = picture.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
    scaled = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((scaled - mean.view(3, 1, 1)) / deviation.view(3, 1, 1))[None]


@torch.inference_mode()
def classify(networks: list[nn.Module], pictures: torch.Tensor) -> torch.Tensor:
    """The winning class of both heads, int64 [N, 2]."""
    return torch.stack([network(pictures).argmax(1) for network in networks], dim=1)


@pytest.mark.parametrize("head", HEADS)
def test_weights_are_small(head: str) -> None:
    assert (EXAMPLES / f"{head}_model.pth").stat().st_size < MEGABYTE


def test_networks_take_pictures_and_give_two_logits(networks: list[nn.Module]) -> None:
    for network in networks:
        assert sum(p.numel() for p in network.parameters()) <= 150_000
        with torch.inference_mode():
            logits = network(torch.zeros(3, 3, 224, 224))
        assert logits.shape == (3, 2)
        assert logits.dtype == torch.float32


def test_there_are_eight_photos_and_they_are_small() -> None:
    files = sorted((EXAMPLES / "photos").iterdir())
    assert [file.name for file in files] == sorted(name for name, _ in PHOTOS)
    assert sum(file.stat().st_size for file in files) < MEGABYTE


@pytest.mark.parametrize(("name", "expected"), PHOTOS)
def test_photo_gets_both_labels_right(networks: list[nn.Module], name: str, expected: tuple[int, int]) -> None:
    with Image.open(EXAMPLES / "photos" / name) as photo:
        assert photo.format == "JPEG"
        assert photo.size == (640, 480)
        assert photo.mode == "RGB"
        found = classify(networks, to_tensor(photo))
    assert tuple(found[0].tolist()) == expected


def test_fresh_pictures_are_classified(networks: list[nn.Module], draw_car: Any) -> None:
    pictures, labels = [], []
    for number in range(60):
        dirty, damaged = COMBINATIONS[number % 4]
        drawn = draw_car(np.random.default_rng((FRESH_SEED, number)), dirty=bool(dirty), damaged=bool(damaged))
        jpeg = io.BytesIO()
        drawn.save(jpeg, "JPEG", quality=80)
        with Image.open(jpeg) as picture:
            pictures.append(to_tensor(picture))
        labels.append((dirty, damaged))
    right = (classify(networks, torch.cat(pictures)) == torch.tensor(labels)).float().mean(0)
    assert right.min().item() >= 0.95


def test_drawing_is_deterministic_for_a_seed(draw_car: Any) -> None:
    for dirty, damaged in COMBINATIONS:
        first, again, other = (
            draw_car(np.random.default_rng(seed), dirty=bool(dirty), damaged=bool(damaged)) for seed in (7, 7, 8)
        )
        assert first.tobytes() == again.tobytes()
        assert first.tobytes() != other.tobytes()
        assert (first.mode, first.size) == ("RGB", (640, 480))


def test_marks_leave_the_surroundings_alone(draw_car: Any) -> None:
    pictures = [
        np.asarray(draw_car(np.random.default_rng(3), dirty=dirty, damaged=damaged), np.int16)
        for dirty, damaged in ((False, False), (True, False), (False, True))
    ]
    for marked in pictures[1:]:
        changed = np.abs(marked - pictures[0]).max(axis=2) > 0
        assert not changed[:40].any()  # the sky
        assert changed.mean() > 0.005


def test_size_is_honoured(draw_car: Any) -> None:
    picture = draw_car(np.random.default_rng(1), dirty=True, damaged=True, size=(320, 240))
    assert picture.size == (320, 240)


def test_a_model_learns_from_labelled_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    drawn, out = tmp_path / "drawn", tmp_path / "new.pth"
    monkeypatch.setattr("sys.argv", ["draw_cars.py", str(drawn), "--count", "16", "--mislabelled", "1"])
    assert load_module("draw_cars").main() == 0
    # One label of each is wrong.
    wrong = [
        (int(file.stem) % 4) ^ load_module("draw_cars").COMBINATIONS.index(file.parent.name)
        for file in drawn.rglob("*.jpg")
    ]
    assert len(wrong) == 16
    assert set(wrong) == {1, 2}

    labelled = tmp_path / "labelled" / "cleanliness" / "clean" / "condition"
    for label in ("intact", "damaged"):
        shutil.copytree(drawn / f"clean_{label}", labelled / label)
    tune = load_module("fine_tune")
    options = ["condition", "--out", str(out), "--epochs", "1"]
    monkeypatch.setattr("sys.argv", ["fine_tune.py", str(tmp_path / "labelled"), *options])
    assert tune.main() == 0
    count = len(list(labelled.rglob("*.jpg")))
    assert f"of these {count} photos" in capsys.readouterr().out
    old = torch.load(EXAMPLES / "condition_model.pth", weights_only=True)
    new = torch.load(out, weights_only=True)
    assert old.keys() == new.keys()
    assert not torch.equal(old["head.weight"], new["head.weight"])
    monkeypatch.setattr("sys.argv", ["fine_tune.py", str(drawn), *options])
    assert tune.main() == 1
    assert "has no photo in a folder condition/LABEL/" in capsys.readouterr().err
