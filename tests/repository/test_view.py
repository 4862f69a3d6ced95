"""Pixels are those of torchvision's transforms: bit for bit, or within a bound where it interpolates tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from car_analyzer_export.preprocess.view import View
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
