"""Scaled decoding: a large JPEG is decoded only as finely as a view can see."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from car_analyzer_export.preprocess.photo import Photo
from car_analyzer_export.preprocess.view import View
from reliability.reference import reference_logits

if TYPE_CHECKING:
    from pathlib import Path

VIEW = View()


def jpeg(picture: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def sharpened(file: Path, size: tuple[int, int]) -> Image.Image:
    """A photograph as a larger camera would have taken it: with edges as sharp, and grain."""
    large = Image.open(file).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(large.filter(ImageFilter.UnsharpMask(2, 120, 0)), np.int16)
    grain = np.random.default_rng(0).normal(0, 5, (*pixels.shape[:2], 1)).astype(np.int16)
    return Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))


def test_what_a_network_sees_stays_the_same(real_photos: list[Path]) -> None:
    means, shifts = [], []
    for file in real_photos[:15]:
        photo = jpeg(sharpened(file, (1400, 1352)))
        scaled, exact = Photo(photo, least_side=VIEW.least_side), Photo(photo)
        assert (scaled.rgb.size, exact.rgb.size) == ((700, 676), (1400, 1352))
        means.append(np.abs(VIEW.pixels(scaled.rgb).astype(int) - VIEW.pixels(exact.rgb)).mean())
        answers = zip(reference_logits(photo).values(), reference_logits(photo, exact=True).values(), strict=True)
        # How far the answer moves towards the other label; networks of drawn cars are undecided on some photographs.
        shifts += [abs((one[1] - one[0]) - (other[1] - other[0])) for one, other in answers]
    assert max(means) < 0.5
    assert max(shifts) < 0.25


@pytest.mark.parametrize(
    ("size", "decoded"),
    [
        ((5376, 5376), (672, 672)),
        ((4000, 3000), (1000, 750)),
        ((1920, 1344), (960, 672)),
        # Half a pixel would be left over, or too few of them.
        ((1401, 1400), (1401, 1400)),
        ((4002, 3002), (2001, 1501)),
        ((1920, 1080), (1920, 1080)),
    ],
)
def test_sizes(size: tuple[int, int], decoded: tuple[int, int]) -> None:
    assert Photo(jpeg(Image.linear_gradient("L").resize(size)), least_side=VIEW.least_side).rgb.size == decoded


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_kinds(mode: str, progressive: bool) -> None:
    photo = jpeg(Image.linear_gradient("L").resize((1504, 1344)).convert(mode), progressive=progressive)
    assert Photo(photo, least_side=VIEW.least_side).rgb.size == (752, 672)


def test_what_has_to_be_exact_is() -> None:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((2688, 2688)).convert("RGB").save(file, "WEBP")
    assert Photo(file.getvalue(), least_side=VIEW.least_side).rgb.size == (2688, 2688)
    assert View(decoding="exact").least_side is None
    assert View(antialias=False).least_side is None
    assert View(interpolation="nearest").least_side is None
    assert View(320, 240).least_side == 960
    assert View(shortest_edge=256).least_side == 768


def test_a_large_photo_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = Photo(jpeg(Image.linear_gradient("L").resize((4000, 3000)), exif=exif), least_side=VIEW.least_side)
    np.testing.assert_array_equal(photo.upright(), np.rot90(photo.rgb, -1))
