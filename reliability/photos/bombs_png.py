"""PNG bombs."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FULL = 19_900_000
GREY, COLOUR, PALETTE, ALPHA = 0, 2, 3, 6


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    """A chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zeros(count: int) -> bytes:
    """A zlib stream of so many zeros."""
    packer = zlib.compressobj(9)
    block = bytes(10_000_000)
    parts = [packer.compress(block) for _ in range(count // len(block))]
    return b"".join([*parts, packer.compress(bytes(count % len(block))), packer.flush()])


def png(
    width: int,
    height: int,
    data: bytes,
    *,
    bits: int = 8,
    kind: int = COLOUR,
    interlaced: bool = False,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A PNG of these parts; `data` is what stands in its only IDAT chunk."""
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced)
    picture = chunk(b"IDAT", data) if data else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + picture + after + chunk(b"IEND")


def flat(width: int, height: int, bits: int, kind: int, channels: int, *, interlaced: bool = False) -> bytes:
    """A black PNG. Interlaced, it has a little more data than it needs."""
    rows = height * 2 if interlaced else height
    data = zeros(rows + rows * width * channels * bits // 8 // (2 if interlaced else 1) + 8 * rows)
    palette = chunk(b"PLTE", bytes(range(48))) + chunk(b"tRNS", bytes(16)) if kind == PALETTE else b""
    return png(width, height, data, bits=bits, kind=kind, interlaced=interlaced, before=palette)


def small(before: bytes = b"", after: bytes = b"") -> bytes:
    """A PNG of one pixel with much around it."""
    return png(1, 1, zlib.compress(bytes(4)), before=before, after=after)


def cut_up(pieces: int) -> bytes:
    """A PNG whose data comes one byte at a time, or in empty chunks."""
    data = zlib.compress(bytes(4))
    body = b"".join(chunk(b"IDAT", data[at : at + 1]) for at in range(len(data)))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, COLOUR, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT") * pieces + body + chunk(b"IEND")


def texts(kind: bytes, size: int, count: int) -> bytes:
    """Compressed texts."""
    body = zlib.compress(b"x" * size, 9)
    head = {b"zTXt": b"car\0\0", b"iTXt": b"car\0\x01\0\0\0", b"iCCP": b"car\0\0"}[kind]
    return chunk(kind, head + body) * count


def many_texts() -> bytes:
    """Short texts, each under a key of its own."""
    return b"".join(chunk(b"tEXt", b"%d\0x" % number) for number in range(FULL // 22))


def animated(frames: int) -> bytes:
    """An APNG of many frames."""
    data = zlib.compress(bytes(4))
    control = struct.pack(">IIIIIHHBB", 0, 1, 1, 0, 0, 1, 1, 0, 0)
    more = b"".join(
        chunk(b"fcTL", struct.pack(">IIIIIHHBB", number * 2 + 1, 1, 1, 0, 0, 1, 1, 0, 0))
        + chunk(b"fdAT", struct.pack(">I", number * 2 + 2) + data)
        for number in range(frames)
    )
    return small(chunk(b"acTL", struct.pack(">II", frames + 1, 0)) + chunk(b"fcTL", control), more)


BOMBS: Mapping[str, Callable[[], bytes]] = {
    "png of 50,000 x 50,000": lambda: png(50_000, 50_000, zlib.compress(b"")),
    "png of 2 billion x 2 billion": lambda: png(2**31 - 1, 2**31 - 1, zlib.compress(b"")),
    "png of 64 megapixels, all missing": lambda: png(8000, 8000, zlib.compress(b"")),
    "png of 64 megapixels": lambda: flat(8000, 8000, 8, COLOUR, 3),
    "png of 64 megapixels, alpha": lambda: flat(8000, 8000, 8, ALPHA, 4),
    "png of 64 megapixels, 16 bit alpha": lambda: flat(8000, 8000, 16, ALPHA, 4),
    "png of 64 megapixels, 16 bit grey": lambda: flat(8000, 8000, 16, GREY, 1),
    "png of 64 megapixels, palette": lambda: flat(8000, 8000, 4, PALETTE, 1),
    "png of 64 megapixels, interlaced": lambda: flat(8000, 8000, 16, ALPHA, 4, interlaced=True),
    "png of 64,000,000 x 1": lambda: flat(64_000_000, 1, 8, GREY, 1),
    "png of 1 x 64,000,000": lambda: flat(1, 64_000_000, 1, GREY, 1),
    "png of 1 x 65,535": lambda: flat(1, 65_535, 8, GREY, 1),
    "png with 10 GB behind its picture": lambda: png(1, 1, zeros(2_000_000_000)),
    "png with zTXt of 20 GB": lambda: small(texts(b"zTXt", 1_000_000, 19_000)),
    "png with iTXt of 20 GB": lambda: small(texts(b"iTXt", 1_000_000, 19_000)),
    "png with iTXt of 20 GB behind": lambda: small(after=texts(b"iTXt", 1_000_000, 19_000)),
    "png with one zTXt of 1 GB": lambda: small(chunk(b"zTXt", b"car\0\0" + zeros(1_000_000_000))),
    "png with profiles of 20 GB": lambda: small(texts(b"iCCP", 1_000_000, 18_000)),
    "png with profiles of 20 GB behind": lambda: small(after=texts(b"iCCP", 1_000_000, 18_000)),
    "png with a profile of 1 GB": lambda: small(chunk(b"iCCP", b"car\0\0" + zeros(1_000_000_000))),
    "png with a million texts": lambda: small(many_texts()),
    "png with a million unknown chunks": lambda: small(chunk(b"quIz") * (FULL // 12)),
    "png with a million unknown chunks behind": lambda: small(after=chunk(b"quIz") * (FULL // 12)),
    "png in a million empty pieces": lambda: cut_up(FULL // 12),
    "png with a million headers": lambda: small(
        chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, COLOUR, 0, 0, 0)) * (FULL // 25)
    ),
    "png of 100,000 frames": lambda: animated(100_000),
    "png that claims 4 billion frames": lambda: small(
        chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))
        + chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 1, 1, 0, 0, 1, 1, 0, 0))
    ),
    "png whose frame is larger than it": lambda: small(
        chunk(b"acTL", struct.pack(">II", 1, 0))
        + chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 50_000, 50_000, 0, 0, 1, 1, 0, 0))
    ),
    "png with a chunk of 4 GB": lambda: small(struct.pack(">I", 2**32 - 1) + b"tEXt"),
}
