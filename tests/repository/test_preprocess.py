"""Photo bytes to pixels: Pillow's own answer, or a sentence that says what is wrong with the photo."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from car_analyzer_export.preprocess.photo import InvalidPhotoError, Photo
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
