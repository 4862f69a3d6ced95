"""Photo bytes to pixels: Pillow's own answer, or a sentence that says what is wrong with the photo."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from car_analyzer_export import preprocess
from car_analyzer_export.preprocess.photo import InvalidPhotoError, Photo, header, is_turned
from car_analyzer_export.preprocess.view import View

RANDOM = np.random.default_rng(7)
COLOURS = RANDOM.integers(0, 256, (37, 53, 4), dtype=np.uint8)
SMOOTH = np.asarray(Image.fromarray(COLOURS[:8, :8]).resize((53, 37), Image.Resampling.BICUBIC))


def encoded(mode: str, file_format: str, **options: Any) -> bytes:
    rgba = Image.fromarray(SMOOTH)
    if mode == "I;16":
        image = Image.fromarray(np.ascontiguousarray(SMOOTH[..., 0]).astype(np.uint16) * np.uint16(257))
    elif mode == "LA":
        image = rgba.convert("LA")
    else:
        image = rgba.convert("RGB").convert(mode) if mode != "RGBA" else rgba
    if "tile_size" in options:
        image = image.resize((150, 90))  # several tiles, without padding
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


PHOTOS = {
    "jpeg": encoded("RGB", "JPEG"),
    "jpeg progressive": encoded("RGB", "JPEG", progressive=True),
    "jpeg grey": encoded("L", "JPEG"),
    "jpeg cmyk": encoded("CMYK", "JPEG"),
    "mpo": encoded("RGB", "MPO", save_all=True, append_images=[Image.new("RGB", (53, 37))]),
    "png": encoded("RGB", "PNG"),
    "png grey": encoded("L", "PNG"),
    "png grey and alpha": encoded("LA", "PNG"),
    "png alpha": encoded("RGBA", "PNG"),
    "png palette": encoded("P", "PNG"),
    "png one bit": encoded("1", "PNG"),
    "png 16 bit": encoded("I;16", "PNG"),
    "webp": encoded("RGB", "WEBP"),
    "webp lossless alpha": encoded("RGBA", "WEBP", lossless=True),
    "bmp": encoded("RGB", "BMP"),
    "bmp palette": encoded("P", "BMP"),
    "gif": encoded("P", "GIF"),
    "gif animated": encoded("P", "GIF", save_all=True, append_images=[Image.new("P", (53, 37), 3)]),
    "tiff": encoded("RGB", "TIFF"),
    "tiff deflated": encoded("RGB", "TIFF", compression="tiff_adobe_deflate"),
    "tiff cmyk": encoded("CMYK", "TIFF"),
    "tiff 16 bit": encoded("I;16", "TIFF"),
    "avif": encoded("RGB", "AVIF"),
    "heic": encoded("RGB", "HEIF"),
    "heic alpha": encoded("RGBA", "HEIF"),
    "heic of tiles": encoded("RGB", "HEIF", tile_size=64),
    "heic of several": encoded("RGB", "HEIF", save_all=True, append_images=[Image.new("RGB", (53, 37))]),
    "heic by its container's name": encoded("RGB", "HEIF").replace(b"ftypheic", b"ftypmif1", 1),
}


@pytest.mark.parametrize("name", PHOTOS)
def test_pixels_are_what_pillow_gives(name: str) -> None:
    with Image.open(io.BytesIO(PHOTOS[name])) as image:
        expected = np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))
    pixels = View().pixels(Photo(PHOTOS[name]).rgb)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


def test_the_size_is_width_by_height() -> None:
    assert View(width=64, height=32).pixels(Photo(PHOTOS["jpeg"]).rgb).shape == (32, 64, 3)


def test_orientation_is_left_alone_unless_asked_for() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    turned = Photo(encoded("RGB", "JPEG", exif=exif))
    np.testing.assert_array_equal(turned.rgb, Photo(PHOTOS["jpeg"]).rgb)
    np.testing.assert_array_equal(turned.upright(), np.rot90(turned.rgb, -1))


def test_a_tiff_is_upright_with_and_without_exif_rotation() -> None:
    """As for a training script: Pillow turns the picture when it decodes it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded("RGB", "TIFF", exif=exif)
    photo = Photo(content)
    np.testing.assert_array_equal(photo.rgb, np.rot90(Photo(PHOTOS["tiff"]).rgb, -1))
    np.testing.assert_array_equal(photo.upright(), photo.rgb)
    assert not is_turned(header(content))


def test_a_heic_is_upright_with_and_without_exif_rotation() -> None:
    """As for a training script with pillow-heif, which turns the picture and resets its EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded("RGB", "HEIF", exif=exif.tobytes())
    photo = Photo(content)
    assert photo.rgb.size == (37, 53)
    with Image.open(io.BytesIO(content)) as image:
        np.testing.assert_array_equal(photo.rgb, image)
        np.testing.assert_array_equal(photo.upright(), ImageOps.exif_transpose(image))


def test_a_heic_has_a_lower_limit_for_each_of_its_pictures() -> None:
    with pytest.raises(InvalidPhotoError, match="64 x 64 pixels .* are accepted of HEIC"):
        Photo(PHOTOS["heic"], max_pixels=64 * 64)  # it is padded
    large_tiles = PHOTOS["heic of tiles"].replace(struct.pack(">II", 64, 64), struct.pack(">II", 5000, 5000))
    with pytest.raises(InvalidPhotoError, match="15000 x 10000 pixels"):
        Photo(large_tiles)


def test_a_heic_that_needs_too_much_memory() -> None:
    with pytest.raises(InvalidPhotoError, match="too much memory"):
        Photo(PHOTOS["heic"], decoding=_NoMemory())


class _NoMemory:
    """As where the memory limit is reached."""

    def __enter__(self) -> None:
        raise MemoryError

    def __exit__(self, *_: object) -> None:
        pass


WITHOUT_LIBRARY = """
import sys
sys.path.insert(0, sys.argv[1])
sys.modules["pillow_heif"] = None  # as if it were not installed
from photo import InvalidPhotoError, Photo
try:
    Photo(sys.stdin.buffer.read())
except InvalidPhotoError as error:
    print(error)
"""


def test_without_pillow_heif_a_heic_is_named() -> None:
    step = Path(preprocess.__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LIBRARY, step], input=PHOTOS["heic"], capture_output=True, check=True
    )
    assert done.stdout == b"The photo is in HEIC format; send it as JPEG, PNG, WebP, BMP, GIF, TIFF or AVIF.\n"


@pytest.mark.parametrize("name", PHOTOS)
def test_a_truncated_photo_is_pillows_answer_or_an_error(name: str) -> None:
    """Never a part of the picture that Pillow itself would refuse to hand out."""
    whole = PHOTOS[name]
    for length in range(1, len(whole), max(1, len(whole) // 25)):
        part = whole[:length]
        try:
            with Image.open(io.BytesIO(part)) as image:
                expected = np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))
        except Exception:  # noqa: BLE001 - whatever Pillow says, ours is a InvalidPhotoError
            with pytest.raises(InvalidPhotoError):
                Photo(part)
        else:
            np.testing.assert_array_equal(View().pixels(Photo(part).rgb), expected)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        (b"", "empty"),
        (b"not a photo at all", "send JPEG"),
        (b"<html><body>404</body></html>", "send JPEG"),
        (b"%PDF-1.7 ", "send JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "send JPEG"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "HEIC"),
        (PHOTOS["png"][:40], "damaged"),
        (PHOTOS["jpeg"][: len(PHOTOS["jpeg"]) // 2], "damaged"),
        (png_header(50_000, 50_000), r"50000 x 50000 pixels \(2500 megapixels\); at most 64 megapixels"),
    ],
)
def test_a_bad_photo_is_described(photo: bytes, message: str) -> None:
    with pytest.raises(InvalidPhotoError, match=message):
        Photo(photo)


def test_the_limits_are_settings() -> None:
    photo = PHOTOS["jpeg"]
    assert Photo(photo, max_bytes=len(photo), max_pixels=37 * 53).rgb.size == (53, 37)
    with pytest.raises(InvalidPhotoError, match="at most"):
        Photo(photo, max_bytes=len(photo) - 1)
    with pytest.raises(InvalidPhotoError, match="at most"):
        Photo(photo, max_pixels=37 * 53 - 1)
