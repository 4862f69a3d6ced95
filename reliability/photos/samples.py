"""One small valid photo for each way of writing each accepted format."""

from __future__ import annotations

import functools
import io
import re
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pillow_heif import register_heif_opener

if TYPE_CHECKING:
    from collections.abc import Mapping

SIZE = (61, 43)

register_heif_opener()


@functools.cache
def samples() -> Mapping[str, bytes]:
    """Valid photos by name."""
    colours = np.random.default_rng(7).integers(0, 256, (6, 8, 4), dtype=np.uint8)
    picture = Image.fromarray(colours).resize(SIZE, Image.Resampling.BICUBIC)
    rgb = picture.convert("RGB")
    deep = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * np.uint16(257))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a car"
    profile = bytes(range(256)) * 3
    return {
        "jpeg": encoded(rgb, "JPEG", exif=exif, icc_profile=profile, comment="a car"),
        "jpeg 4:4:4": encoded(rgb, "JPEG", subsampling=0, restart_marker_blocks=2),
        "jpeg progressive": encoded(rgb, "JPEG", progressive=True),
        "jpeg grey": encoded(picture.convert("L"), "JPEG"),
        "jpeg cmyk": encoded(rgb.convert("CMYK"), "JPEG"),
        "mpo": encoded(rgb, "MPO", **_frames(rgb)),
        "png": encoded(rgb, "PNG", exif=exif, icc_profile=profile),
        "png alpha": encoded(picture, "PNG"),
        "png grey and alpha": encoded(picture.convert("LA"), "PNG"),
        "png palette": encoded(rgb.quantize(16), "PNG", transparency=3),
        "png one bit": encoded(rgb.convert("1"), "PNG"),
        "png 16 bit": encoded(deep, "PNG"),
        "png animated": encoded(rgb, "PNG", **_frames(rgb)),
        "webp": encoded(rgb, "WEBP", exif=exif, icc_profile=profile),
        "webp alpha": encoded(picture, "WEBP"),
        "webp lossless": encoded(picture, "WEBP", lossless=True),
        "webp animated": encoded(rgb, "WEBP", **_frames(rgb)),
        "bmp": encoded(rgb, "BMP"),
        "bmp palette": encoded(rgb.quantize(16), "BMP"),
        "bmp grey": encoded(picture.convert("L"), "BMP"),
        "bmp alpha": encoded(picture, "BMP"),
        "gif": encoded(rgb.quantize(16), "GIF", comment=b"a car"),
        "gif interlaced": encoded(rgb.quantize(200), "GIF", interlace=True, transparency=3),
        "gif animated": encoded(rgb, "GIF", **_frames(rgb)),
        "tiff": encoded(rgb, "TIFF", exif=exif),
        "tiff lzw": encoded(rgb, "TIFF", compression="tiff_lzw"),
        "tiff deflate": encoded(picture, "TIFF", compression="tiff_adobe_deflate", tiffinfo={317: 2}),
        "tiff packbits": encoded(rgb.quantize(16), "TIFF", compression="packbits"),
        "tiff jpeg": encoded(rgb, "TIFF", compression="jpeg"),
        "tiff zstd": encoded(rgb, "TIFF", compression="zstd"),
        "tiff lzma": encoded(rgb, "TIFF", compression="lzma"),
        "tiff fax": encoded(rgb.convert("1"), "TIFF", compression="group4"),
        "tiff cmyk": encoded(rgb.convert("CMYK"), "TIFF"),
        "tiff 16 bit": encoded(deep, "TIFF"),
        "tiff float": encoded(picture.convert("F"), "TIFF"),
        "tiff large": encoded(rgb, "TIFF", big_tiff=True),
        # A copy: saving as JPEG leaves settings in a picture that saving several pages as TIFF stumbles over.
        "tiff pages": encoded(rgb.copy(), "TIFF", **_frames(rgb)),
        "avif": encoded(rgb, "AVIF", exif=exif),
        "avif alpha": encoded(picture, "AVIF", subsampling="4:4:4"),
        "avif animated": encoded(rgb, "AVIF", **_frames(rgb)),
        "heic": encoded(rgb, "HEIF", exif=exif.tobytes(), icc_profile=profile, thumbnails=[32]),
        "heic alpha": encoded(picture, "HEIF", chroma=444),
        "heic of tiles": encoded(rgb.resize((150, 90)), "HEIF", tile_size=64),
        "heic of several": encoded(rgb, "HEIF", **_frames(rgb)),
    }


def _frames(picture: Image.Image) -> dict[str, Any]:
    return {"save_all": True, "append_images": [picture.rotate(180), picture.rotate(90)]}


def encoded(picture: Image.Image, file_format: str, **options: Any) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def with_size(photo: bytes, width: int, height: int) -> bytes:
    """A file whose header claims another size than its picture has. Not for TIFF."""
    if photo.startswith(b"\x89PNG"):
        header = patched(photo, 16, ">II", width, height)[12:29]
        return photo[:12] + header + struct.pack(">I", zlib.crc32(header)) + photo[33:]
    if photo.startswith(b"GIF"):
        return patched(photo, 6, "<HH", width, height)
    if photo.startswith(b"BM"):
        return patched(photo, 18, "<ii", width, height)
    if photo[12:16] == b"VP8X":
        return patched(photo, 24, "<I", width - 1)[:27] + struct.pack("<I", height - 1)[:3] + photo[30:]
    if photo[12:16] == b"VP8L":
        has_alpha = int.from_bytes(photo[21:25], "little") >> 28 << 28
        return patched(photo, 21, "<I", has_alpha | (height - 1) << 14 | (width - 1))
    if photo[4:8] == b"ftyp":  # AVIF, HEIC
        for place in re.finditer(rb"ispe....", photo, re.DOTALL):
            photo = patched(photo, place.end(), ">II", width, height)
        return photo
    frame = re.search(rb"\xff[\xc0-\xc2]\0.\x08", photo, re.DOTALL)  # JPEG
    if frame is None:
        raise ValueError("this is no file whose size can be changed")
    return patched(photo, frame.end(), ">HH", height, width)


def patched(photo: bytes, at: int, layout: str, *values: int) -> bytes:
    """A file with other values at a position; the layout is that of `struct`."""
    return photo[:at] + struct.pack(layout, *values) + photo[at + struct.calcsize(layout) :]
