"""Good and bad photos as a service meets them: several formats and sizes, and what people send by mistake or malice."""

from __future__ import annotations

import functools
import io
import struct
import zlib

from PIL import Image

from .known import Known, known_photos, reference

_FORMATS = ("PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_LARGE = (4000, 3000)


@functools.cache
def good_photos() -> tuple[Known, ...]:
    """The sample photos, one of them in every other format, and one of 12 megapixels."""
    samples = known_photos()
    picture = Image.open(io.BytesIO(samples[0].photo))
    others = {f"photo.{kind.lower()}": _encoded(picture, kind) for kind in _FORMATS}
    others["large.jpg"] = _encoded(picture.resize(_LARGE), "JPEG")
    return (*samples, *(Known(name, content, reference(content)) for name, content in others.items()))


@functools.cache
def bad_photos() -> tuple[Known, ...]:
    """What must be refused."""
    photo = known_photos()[0].photo
    broken = {
        "empty.jpg": b"",
        "text.jpg": b"this is no photo",
        "cut.jpg": photo[: len(photo) // 2],
        "cut.png": _encoded(Image.open(io.BytesIO(photo)), "PNG")[:5000],
        "bomb.png": _png_header(50_000, 50_000),
        "too_large.jpg": photo + bytes(20_000_000),
    }
    return tuple(Known(name, content, None) for name, content in broken.items())


def _encoded(picture: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def _png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header) - 4) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk
