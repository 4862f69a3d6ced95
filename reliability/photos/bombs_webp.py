"""WebP bombs."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from PIL import Image

from .samples import encoded, samples

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def riff(*chunks: bytes) -> bytes:
    """A WebP file of these chunks."""
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk, padded to an even length."""
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def canvas(width: int, height: int, flags: int = 0x02) -> bytes:
    """The header of an extended file."""
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return chunk(b"VP8X", bytes((flags, 0, 0, 0)) + size)


def frame(picture: bytes, width: int, height: int) -> bytes:
    """One picture of an animation."""
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return chunk(b"ANMF", bytes(6) + size + bytes((1, 0, 0, 0)) + picture)


def pixel() -> bytes:
    """The chunk of a picture of one pixel."""
    return encoded(Image.new("RGB", (1, 1)), "WEBP", lossless=True)[12:]


def animated(width: int, height: int, frames: int) -> bytes:
    """An animation on a canvas of a size."""
    return riff(canvas(width, height), chunk(b"ANIM", bytes(6)), frame(pixel(), 1, 1) * frames)


def flat(width: int, height: int, *, lossless: bool) -> bytes:
    """A picture of one colour."""
    return encoded(Image.new("RGB", (width, height), "#804020"), "WEBP", lossless=lossless, quality=0, method=0)


def lossless_header(width: int, height: int) -> bytes:
    """A lossless picture whose header claims a size."""
    photo = bytearray(samples()["webp lossless"])
    at = photo.index(b"VP8L") + 9
    (bits,) = struct.unpack_from("<I", photo, at)
    struct.pack_into("<I", photo, at, (bits >> 28 << 28) | (height - 1) << 14 | (width - 1))
    return bytes(photo)


BOMBS: Mapping[str, Callable[[], bytes]] = {
    "webp of 16,384 x 16,384": lambda: lossless_header(16_384, 16_384),
    "webp with a canvas of 50,000 x 50,000": lambda: animated(50_000, 50_000, 1),
    "webp with a canvas of 16,000,000 x 250": lambda: animated(16_000_000, 250, 1),
    "webp with a canvas of 64 megapixels": lambda: animated(8000, 8000, 1),
    "webp with a canvas of 32 megapixels": lambda: animated(8000, 3999, 1),
    "webp of 32 megapixels": lambda: flat(8000, 3999, lossless=False),
    "webp of 32 megapixels, lossless": lambda: flat(8000, 3999, lossless=True),
    "webp of 300,000 frames": lambda: animated(4, 4, 300_000),
    "webp with a profile of 19 MB": lambda: riff(canvas(1, 1, 0x20), chunk(b"ICCP", bytes(19_000_000)), pixel()),
    "webp with a million unknown chunks": lambda: riff(canvas(1, 1, 0), pixel(), chunk(b"car!", b"") * 2_400_000),
    "webp that claims 4 GB": lambda: b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\xff" + samples()["webp"][20:],
}
