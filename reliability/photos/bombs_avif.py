"""AVIF bombs."""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING

from PIL import Image

from .samples import encoded, samples

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def claimed(photo: bytes, width: int, height: int) -> bytes:
    """An AVIF whose header claims another size than its AV1 stream has."""
    parts = photo.split(b"ispe")
    return parts[0] + b"".join(b"ispe" + part[:4] + struct.pack(">II", width, height) + part[12:] for part in parts[1:])


@functools.cache
def flat(width: int, height: int, subsampling: str = "4:2:0") -> bytes:
    """A picture of one colour."""
    return encoded(Image.new("RGB", (width, height), "#804020"), "AVIF", speed=10, quality=1, subsampling=subsampling)


BOMBS: Mapping[str, Callable[[], bytes]] = {
    "avif that claims 50,000 x 50,000": lambda: claimed(samples()["avif"], 50_000, 50_000),
    "avif that claims 32 megapixels": lambda: claimed(samples()["avif"], 8000, 3999),
    "avif that claims 64 megapixels": lambda: claimed(samples()["avif"], 8000, 8000),
    "avif that claims 65,535 x 100": lambda: claimed(samples()["avif"], 65_535, 100),
    "avif of 32 megapixels": lambda: flat(8000, 3999),
    "avif of 32 megapixels, 4:4:4": lambda: flat(8000, 3999, "4:4:4"),
    "avif of 32 megapixels that claims 16": lambda: claimed(flat(8000, 3999), 4, 4),
    "avif of 144 megapixels that claims 16": lambda: claimed(flat(12_000, 12_000), 4, 4),
}
