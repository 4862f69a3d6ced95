"""Pixels are those of torchvision's transforms: bit for bit, or within a bound where it interpolates tensors."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from car_analyzer_export.preprocess.view import FAST_MISSING, View
from tests.export.zoo import import_torchvision

REAL_PHOTOS = Path(__file__).parents[3] / "shared" / "photos"


@pytest.fixture(scope="module")
def pictures(sample_photos: list[Path]) -> list[Image.Image]:
    """Wide ones, tall ones, and photographs where there are some."""
    files = [*sample_photos[:2], *sorted(REAL_PHOTOS.glob("*.jpg"))[::6]]
    found = []
    for file in files:
        with Image.open(file) as image:
            found.append(image.convert("RGB"))
    return [*found, found[0].rotate(90, expand=True)]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("shortest_edge", [None, 256])
@pytest.mark.parametrize("antialias", [True, False])
def test_pixels_are_torchvisions(
    interpolation: str, shortest_edge: int | None, antialias: bool, pictures: list[Image.Image]
) -> None:
    functional = import_torchvision("torchvision.transforms.functional")
    mode = import_torchvision("torchvision.transforms").InterpolationMode(interpolation)
    # On PIL images torchvision always antialiases; without, it works on tensors. Nearest neighbour has nothing to.
    on_tensors = not antialias and interpolation != "nearest"
    differences = []
    for picture in pictures:
        image: Any = torch.from_numpy(np.array(picture)).permute(2, 0, 1) if on_tensors else picture
        if shortest_edge:
            resized = functional.resize(image, shortest_edge, mode, antialias=not on_tensors)
            expected = functional.center_crop(resized, [224, 224])
        else:
            expected = functional.resize(image, [224, 224], mode, antialias=not on_tensors)
        array = expected.permute(1, 2, 0).numpy() if on_tensors else np.asarray(expected)
        view = View(224, 224, shortest_edge, interpolation, antialias)
        differences.append(np.abs(view.pixels(picture).astype(int) - array))
    assert max(difference.max() for difference in differences) <= (1 if on_tensors else 0)
    assert np.mean([difference.mean() for difference in differences]) <= 0.01


def difficult(pictures: list[Image.Image]) -> list[Image.Image]:
    """With pictures of one pixel, of the network's size, of extreme shapes, and of black and white noise."""
    random = np.random.default_rng(0)
    sizes = [(1, 1), (224, 224), (90, 100), (30, 900), (900, 30), (640, 480)]
    noise = [random.integers(0, 2, (height, width, 3), dtype=np.uint8) * 255 for width, height in sizes]
    return [*pictures, *map(Image.fromarray, noise)]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("shortest_edge", [None, 256])
@pytest.mark.parametrize("antialias", [True, False])
def test_fast_pixels_are_the_exact_ones_within_1(
    interpolation: str, shortest_edge: int | None, antialias: bool, pictures: list[Image.Image]
) -> None:
    exact = View(224, 224, shortest_edge, interpolation, antialias)
    fast = replace(exact, resampling="fast")
    assert fast.has_fast == (antialias and interpolation == "bilinear")
    differences = [np.abs(fast.pixels(each).astype(int) - exact.pixels(each)) for each in difficult(pictures)]
    assert max(difference.max() for difference in differences) == (1 if fast.has_fast and not FAST_MISSING else 0)
    assert max(difference.mean() for difference in differences) < 0.3


def test_repositories_from_before_fast_resampling_are_exact() -> None:
    views = '{"pixels": {"width": 64, "height": 64, "decoding": "scaled"}}'
    assert View(**json.loads(views)["pixels"]).resampling == "exact"


WITHOUT_LIBRARY = """
import json, sys, types
import numpy as np
from PIL import Image

sys.path.insert(0, sys.argv[1])
sys.modules["cykooz_resizer"] = None  # as if it were not installed
triton = sys.modules["triton_python_backend_utils"] = types.ModuleType("triton_python_backend_utils")
triton.Logger = types.SimpleNamespace(log_warn=print)
from model import TritonPythonModel
from view import View

parameters = {name: {"string_value": "1000000"} for name in ("max_bytes", "max_pixels")}
config = {"max_batch_size": 32, "parameters": parameters}
for instance in ("preprocess_0_0", "preprocess_0_1"):
    names = {"model_instance_name": instance, "model_version": "1"}
    TritonPythonModel().initialize({"model_config": json.dumps(config), **names})
picture = Image.effect_noise((640, 480), 50).convert("RGB")
np.testing.assert_array_equal(View(resampling="fast").pixels(picture), View().pixels(picture))
"""


def test_without_the_library_pillow_resizes_and_one_line_says_so(repository: Path) -> None:
    step = repository / "preprocess" / "1"
    assert json.loads((step / "views.json").read_text())["pixels"]["resampling"] == "fast"
    done = subprocess.run([sys.executable, "-c", WITHOUT_LIBRARY, str(step)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert line.startswith("Pillow resizes the photos, which takes longer: cykooz-resizer cannot be imported: ")
