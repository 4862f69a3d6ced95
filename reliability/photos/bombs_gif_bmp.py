"""GIF and BMP bombs."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from PIL import Image

from .samples import encoded, samples

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FULL = 19_900_000
PALETTE = bytes(range(12))
# Two clear codes and an end, for pixels of two bits.
PIXELS = b"\x02\x02\x4c\x01\x00"


def gif(width: int, height: int, *blocks: bytes) -> bytes:
    """A GIF of these blocks, with a palette of four colours."""
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x91, 0, 0) + PALETTE + b"".join(blocks) + b";"


def picture(width: int, height: int, left: int = 0, top: int = 0, data: bytes = PIXELS) -> bytes:
    """One picture of a GIF."""
    return b"," + struct.pack("<HHHHB", left, top, width, height, 0) + data


def bmp(width: int, height: int, bits: int, data: bytes, *, compression: int = 0, colours: int = 0) -> bytes:
    """A BMP with a palette where it needs one."""
    palette = struct.pack("<4B", 1, 2, 3, 0) * (colours or (1 << bits if bits <= 8 else 0))
    offset = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, colours, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + header + palette + data


BOMBS: Mapping[str, Callable[[], bytes]] = {
    "gif of 50,000 x 50,000": lambda: gif(50_000, 50_000, picture(1, 1)),
    "gif with a frame of 65,535 x 65,535": lambda: gif(1, 1, picture(65_535, 65_535)),
    "gif with a frame far outside": lambda: gif(1, 1, picture(1, 1, 65_535, 65_535)),
    "gif of 64 megapixels": lambda: gif(8000, 8000, picture(1, 1)),
    "gif of 64 megapixels, transparent": lambda: encoded(Image.new("P", (8000, 8000)), "GIF", transparency=0),
    "gif of 100,000 frames": lambda: gif(4, 4, picture(2, 1) * 100_000),
    "gif with millions of comments": lambda: gif(4, 4, b"!\xfe\x01x\0" * (FULL // 5), picture(2, 1)),
    "gif with a comment in millions of pieces": lambda: gif(
        4, 4, b"!\xfe" + b"\x01x" * (FULL // 2) + b"\0", picture(2, 1)
    ),
    "gif with an extension in millions of pieces": lambda: gif(
        4, 4, b"!\xff" + b"\x01x" * (FULL // 2) + b"\0", picture(2, 1)
    ),
    "gif with junk between blocks": lambda: gif(4, 4, b"\0" * FULL, picture(2, 1)),
    "gif in pieces of one byte": lambda: gif(
        8000, 8000, picture(8000, 8000, data=b"\x02" + b"\x01\x8c" * (FULL // 2) + b"\0")
    ),
    "gif of 19 MB in clear codes": lambda: gif(
        8000, 8000, picture(8000, 8000, data=b"\x08" + (b"\xff" + b"\x00\x01" * 127 + b"\0") * (FULL // 256) + b"\0")
    ),
    "bmp of 50,000 x 50,000": lambda: bmp(50_000, 50_000, 24, b""),
    "bmp of 2 billion x 2 billion": lambda: bmp(2**31 - 1, 2**31 - 1, 24, b""),
    "bmp of negative size": lambda: bmp(-1, -2, 24, bytes(100)),
    "bmp upside down, 2 billion high": lambda: bmp(10, -(2**24), 24, bytes(100)),
    "bmp of 64 megapixels, all missing": lambda: bmp(8000, 8000, 24, b""),
    "bmp of 64 megapixels, one bit": lambda: bmp(8000, 8000, 1, bytes(8_000_000)),
    "bmp of 64,000,000 x 1": lambda: bmp(64_000_000, 1, 1, bytes(8_000_000)),
    "bmp with 65,536 colours": lambda: bmp(4, 4, 8, bytes(16), colours=65_536),
    "bmp with 4 billion colours": lambda: (
        samples()["bmp palette"][:46] + b"\xff\xff\xff\xff" + samples()["bmp palette"][50:]
    ),
    "bmp rle of millions of line ends": lambda: bmp(8000, 8000, 8, b"\0\0" * (FULL // 2), compression=1),
    "bmp rle of one line end in 64,000,000": lambda: bmp(60_000, 1000, 8, b"\x01x\0\0" * 1000, compression=1),
    "bmp rle of millions of runs": lambda: bmp(8000, 8000, 8, b"\x01x" * (FULL // 2), compression=1),
    "bmp rle of 64 megapixels": lambda: bmp(8000, 8000, 8, (b"\xffx" * 31 + b"\x5fx\0\0") * 8000, compression=1),
    "bmp rle 4 of 64 megapixels": lambda: bmp(8000, 8000, 4, (b"\xffx" * 31 + b"\x5fx\0\0") * 8000, compression=2),
}
