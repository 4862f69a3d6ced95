"""TIFF bombs."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, TiffImagePlugin

from . import bombs_jpeg, bombs_png
from .samples import encoded, samples

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SHORT, LONG, LONG8 = 3, 4, 16
FULL = 19_900_000
DEFLATE, JPEG, OLD_JPEG = 8, 7, 6

Entry = tuple[int, int, int, int]
"""Tag, type, count, value or offset."""


def basic(width: int, height: int, *, compression: int = 1, photometric: int = 1, bits: int = 8) -> list[Entry]:
    """What every directory has."""
    return [
        (256, LONG, 1, width),
        (257, LONG, 1, height),
        (258, SHORT, 1, bits),
        (259, SHORT, 1, compression),
        (262, SHORT, 1, photometric),
        (277, SHORT, 1, 1),
    ]


def directory(entries: list[Entry], following: int = 0) -> bytes:
    """A directory. Values of type SHORT stand in the lower half, as little-endian files have it."""
    packed = b"".join(struct.pack("<HHLL", *entry) for entry in sorted(entries))
    return struct.pack("<H", len(entries)) + packed + struct.pack("<L", following)


def tiff(entries: list[Entry], data: bytes = b"", following: int = 0) -> bytes:
    """A TIFF with one directory; its data starts at byte 1000."""
    return (b"II*\0\x08\0\0\0" + directory(entries, following)).ljust(1000, b"\0") + data


def one_strip(width: int, height: int, data: bytes, **options: Any) -> bytes:
    """A TIFF whose picture is one strip."""
    strip = [(273, LONG, 1, 1000), (278, LONG, 1, height), (279, LONG, 1, len(data))]
    return tiff(basic(width, height, **options) + strip, data)


def strips(width: int, height: int, count: int, compression: int = 1) -> bytes:
    """A TIFF with a strip for each row; all strips lie at the same place."""
    offsets = struct.pack("<L", 1000) * count
    entries = [(273, LONG, count, 1000), (278, LONG, 1, 1), (279, LONG, count, 1000)]
    return tiff(basic(width, height, compression=compression) + entries, offsets)


def tiles(width: int, height: int, tile: tuple[int, int], count: int, compression: int = 1) -> bytes:
    """A tiled TIFF; all tiles lie at the same place."""
    data = struct.pack("<L", 1000) * count if count > 1 else zlib.compress(bytes(1000))
    offset = 1000
    entries = [(322, LONG, 1, tile[0]), (323, LONG, 1, tile[1])]
    entries += [(324, LONG, count, offset), (325, LONG, count, offset if count > 1 else len(data))]
    return tiff(basic(width, height, compression=compression) + entries, data)


def many_entries() -> bytes:
    """A directory of 65,535 entries, each with data of its own outside."""
    entries = [(tag + 300, 2, 100, 8) for tag in range(65_000)]
    body = directory(entries + basic(4, 4) + [(273, LONG, 1, 8), (279, LONG, 1, 16)])
    return b"II*\0\x08\0\0\0" + body + bytes(7_000_000)


def large_count() -> bytes:
    """A BigTIFF with a million entries in its only directory."""
    count = FULL // 20 - 100
    entry = struct.pack("<HHQQ", 300, LONG, 1, 1)
    distinct = b"".join(struct.pack("<HHQQ", 300 + number % 60_000, LONG, 1, 1) for number in range(60_000))
    body = (distinct + entry * (count - 60_000))[: count * 20]
    return b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, count) + body + bytes(8)


def pages(count: int, following: Callable[[int], int]) -> bytes:
    """A TIFF of many directories, with a way to say which comes after which."""
    entries = [*basic(1, 1), (273, LONG, 1, 8), (279, LONG, 1, 1)]
    size = len(directory(entries))
    return b"II*\0\x08\0\0\0" + b"".join(directory(entries, 8 + size * following(number)) for number in range(count))


def compressed(compression: str, mode: str = "RGB", size: tuple[int, int] = (8000, 7999)) -> bytes:
    """A black TIFF."""
    return encoded(Image.new(mode, size), "TIFF", compression=compression)


def big_profile() -> bytes:
    """A TIFF with an ICC profile of 19 MB and as large an XMP packet in the same place."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[34675] = bytes(9_000_000)
    info[700] = bytes(9_000_000)
    return encoded(Image.new("RGB", (4, 4)), "TIFF", tiffinfo=info)


def deep(kind: str) -> bytes:
    """A TIFF of floats or of 16 bit colours, deflated."""
    if kind == "float":
        return encoded(Image.fromarray(np.zeros((7999, 8000), np.float32)), "TIFF", compression="tiff_adobe_deflate")
    data = bombs_png.zeros(8000 * 7999 * 8)
    bits = [(258, SHORT, 4, 990), (277, SHORT, 1, 4), (338, SHORT, 1, 2)]
    entries = [entry for entry in basic(8000, 7999, compression=DEFLATE, photometric=2) if entry[0] not in (258, 277)]
    strip = [(273, LONG, 1, 1000), (278, LONG, 1, 7999), (279, LONG, 1, len(data))]
    photo = bytearray(tiff(entries + bits + strip, data))
    photo[990:998] = struct.pack("<4H", 16, 16, 16, 16)
    return bytes(photo)


def turned() -> bytes:
    """A TIFF that Pillow turns as it is loaded."""
    buffer = io.BytesIO()
    Image.new("RGB", (8000, 7999)).save(buffer, "TIFF", compression="tiff_adobe_deflate", tiffinfo={274: 6})
    return buffer.getvalue()


def jpeg_inside(photo: bytes, width: int, height: int) -> bytes:
    """A TIFF that holds a JPEG of another size."""
    entries = [(258, SHORT, 1, 8), (262, SHORT, 1, 6), (277, SHORT, 1, 3)]
    kept = [entry for entry in basic(width, height, compression=JPEG) if entry[0] not in (258, 262, 277)]
    strip = [(273, LONG, 1, 1000), (278, LONG, 1, height), (279, LONG, 1, len(photo))]
    return tiff(kept + entries + strip, photo)


BOMBS: Mapping[str, Callable[[], bytes]] = {
    "tiff of 50,000 x 50,000": lambda: one_strip(50_000, 50_000, b""),
    "tiff of 4 billion x 4 billion": lambda: one_strip(2**32 - 1, 2**32 - 1, b"", compression=DEFLATE),
    "tiff of 64 megapixels, all missing": lambda: one_strip(8000, 8000, b""),
    "tiff of 64,000,000 x 1": lambda: one_strip(64_000_000, 1, bombs_png.zeros(64_000_000), compression=DEFLATE),
    "tiff of 1 x 64,000,000": lambda: one_strip(1, 64_000_000, bombs_png.zeros(64_000_000), compression=DEFLATE),
    "tiff in 4 million strips": lambda: strips(1, 4_900_000, 4_900_000),
    "tiff in 4 million strips, deflated": lambda: strips(1, 4_900_000, 4_900_000, DEFLATE),
    "tiff in 60,000 strips": lambda: strips(1, 60_000, 60_000),
    "tiff in 4 million tiles": lambda: tiles(2000, 2400, (1, 1), 4_800_000),
    "tiff in 4 million tiles, deflated": lambda: tiles(8000, 8000, (16, 16), 250_000, DEFLATE),
    "tiff with a tile of 2 GB": lambda: tiles(16, 16, (46_336, 46_336), 1, DEFLATE),
    "tiff with a tile of 16 GB": lambda: tiles(16, 16, (131_072, 131_072), 1, DEFLATE),
    "tiff with a tile of 500 MB": lambda: tiles(16, 16, (22_400, 22_400), 1, DEFLATE),
    "tiff with an offset table of 16 GB": lambda: tiff(
        [*basic(1000, 1000), (273, LONG, 2**32 - 1, 1000), (279, LONG, 2**32 - 1, 1000)]
    ),
    "tiff with 65,000 entries": many_entries,
    "tiff with a million entries": large_count,
    "tiff whose directory follows itself": lambda: tiff([*basic(4, 4), (273, LONG, 1, 8), (279, LONG, 1, 16)], b"", 8),
    "tiff of 200,000 directories": lambda: pages(200_000, lambda number: number + 1),
    "tiff whose directories go in a ring": lambda: pages(3, lambda number: (number + 1) % 3),
    "tiff with its sub-directories in itself": lambda: tiff(
        [
            *basic(4, 4),
            (273, LONG, 1, 8),
            (279, LONG, 1, 16),
            (330, LONG, 1, 8),
            (34665, LONG, 1, 8),
            (34853, LONG, 1, 8),
        ]
    ),
    "tiff with 19 MB of profile": big_profile,
    "tiff of 64 megapixels, lzw": lambda: compressed("tiff_lzw"),
    "tiff of 64 megapixels, deflated": lambda: compressed("tiff_adobe_deflate"),
    "tiff of 64 megapixels, deflated cmyk": lambda: compressed("tiff_adobe_deflate", "CMYK"),
    "tiff of 64 megapixels, zstd alpha": lambda: compressed("zstd", "RGBA"),
    "tiff of 64 megapixels, packbits": lambda: compressed("packbits"),
    "tiff of 64 megapixels, fax": lambda: compressed("group4", "1"),
    "tiff of 64 megapixels, jpeg": lambda: compressed("jpeg"),
    "tiff of 64 megapixels, float": lambda: deep("float"),
    "tiff of 64 megapixels, 16 bit alpha": lambda: deep("16 bit"),
    "tiff of 64 megapixels, turned": turned,
    "tiff with a jpeg of 65,535 x 65,535 inside": lambda: jpeg_inside(
        bombs_jpeg.resized(samples()["jpeg 4:4:4"], 65_535, 65_535), 16, 16
    ),
    "tiff with a progressive jpeg of 1,000 scans": lambda: jpeg_inside(
        bombs_jpeg.progressive(8000, 7999, 1000), 8000, 7999
    ),
    "tiff with a progressive jpeg of 50 scans": lambda: jpeg_inside(bombs_jpeg.progressive(8000, 7999, 50), 8000, 7999),
    "tiff with a huge progressive jpeg inside": lambda: jpeg_inside(bombs_jpeg.progressive(65_500, 65_500, 50), 16, 16),
}
