"""Small or valid-looking files that cost much to decode: in pixels, in pieces, in layers, or in compressed text.

`BOMBS` makes them by name.
"""

from __future__ import annotations

import functools
import struct
import zlib
from typing import TYPE_CHECKING, Any

from PIL import Image

from . import build
from .samples import encoded, patched, samples, with_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PIXELS = zlib.compress(bytes(4 * 13))
_SMALL_PNG = build.png(build.png_chunk(b"IDAT", _PIXELS), build.png_chunk(b"IEND"))
_PHOTOSHOP = b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 5400
_SMALL_GIF = build.gif(4, 4, build.gif_frame(2, 1))
# Positions: behind the first marker, the header, the palette, and before the end.
_JPEG, _PNG, _GIF, _END = 2, 33, 25, -12

# Sample, and the size that its header claims.
_CLAIMS: Mapping[str, tuple[str, int, int]] = {
    "jpeg of 50,000 x 50,000": ("jpeg", 50_000, 50_000),
    "jpeg of 64 megapixels, all missing": ("jpeg 4:4:4", 8000, 8000),
    "jpeg of 64 megapixels, cmyk": ("jpeg cmyk", 8000, 8000),
    "jpeg of 65,500 x 970": ("jpeg", 65_500, 970),
    "jpeg progressive of 64 megapixels": ("jpeg progressive", 8000, 8000),
    "png of 2 billion x 2 billion": ("png", 2**31 - 1, 2**31 - 1),
    "png of 64 megapixels, all missing": ("png", 8000, 8000),
    "png of 64 megapixels, 16 bit": ("png 16 bit", 8000, 8000),
    "png of 64,000,000 x 1": ("png", 64_000_000, 1),
    "gif of 50,000 x 50,000": ("gif", 50_000, 50_000),
    "gif of 64 megapixels": ("gif", 8000, 8000),
    "gif of 64 megapixels, transparent": ("gif interlaced", 8000, 8000),
    "bmp of 2 billion x 2 billion": ("bmp", 2**31 - 1, 2**31 - 1),
    "bmp of negative size": ("bmp", -1, -2),
    "bmp upside down, 16 million high": ("bmp", 10, -(2**24)),
    "bmp of 64 megapixels, all missing": ("bmp", 8000, 8000),
    "webp of 16,384 x 16,384": ("webp lossless", 16_384, 16_384),
    "webp with a canvas of 16,000,000 x 250": ("webp animated", 16_000_000, 250),
    "webp with a canvas of 64 megapixels": ("webp animated", 8000, 8000),
    "webp with a canvas of 32 megapixels": ("webp animated", 8000, 3999),
    "avif that claims 50,000 x 50,000": ("avif", 50_000, 50_000),
    "avif that claims 64 megapixels": ("avif", 8000, 8000),
    "avif that claims 32 megapixels": ("avif", 8000, 3999),
    "avif that claims 65,535 x 100": ("avif", 65_535, 100),
    "heic that claims 50,000 x 50,000": ("heic", 50_000, 50_000),
    "heic that claims 64 megapixels": ("heic", 8000, 8000),
    "heic of tiles that claim 50 megapixels each": ("heic of tiles", 8000, 6250),
}

# Format, mode and size of a picture of one colour, and how Pillow is to write it.
_FLAT: Mapping[str, tuple[str, str, tuple[int, int], dict[str, Any]]] = {
    "png of 64 megapixels": ("PNG", "RGB", (8000, 8000), {}),
    "png of 64 megapixels, alpha": ("PNG", "RGBA", (8000, 8000), {}),
    "png of 64 megapixels, palette": ("PNG", "P", (8000, 8000), {"transparency": 0}),
    "png of 1 x 65,535": ("PNG", "L", (1, 65_535), {}),
    "bmp of 64 megapixels, one bit": ("BMP", "1", (8000, 8000), {}),
    "webp of 32 megapixels": ("WEBP", "RGB", (8000, 3999), {"quality": 0, "method": 0}),
    "webp of 32 megapixels, lossless": ("WEBP", "RGB", (8000, 3999), {"lossless": True, "quality": 0, "method": 0}),
    "webp with a profile of 19 MB": ("WEBP", "RGB", (1, 1), {"icc_profile": bytes(19_000_000)}),
    "avif of 32 megapixels": ("AVIF", "RGB", (8000, 3999), {"speed": 10, "quality": 1}),
    "avif of 32 megapixels, 4:4:4": ("AVIF", "RGB", (8000, 3999), {"speed": 10, "quality": 1, "subsampling": "4:4:4"}),
    "tiff of 32 megapixels, lzw": ("TIFF", "RGB", (8000, 3999), {"compression": "tiff_lzw"}),
    "tiff of 32 megapixels, deflated cmyk": ("TIFF", "CMYK", (8000, 3999), {"compression": "tiff_adobe_deflate"}),
    "tiff of 32 megapixels, zstd alpha": ("TIFF", "RGBA", (8000, 3999), {"compression": "zstd"}),
    "tiff of 32 megapixels, packbits": ("TIFF", "RGB", (8000, 3999), {"compression": "packbits"}),
    "tiff of 32 megapixels, fax": ("TIFF", "1", (8000, 3999), {"compression": "group4"}),
    "tiff of 32 megapixels, jpeg": ("TIFF", "RGB", (8000, 3999), {"compression": "jpeg"}),
    "tiff of 32 megapixels, float": ("TIFF", "F", (8000, 3999), {"compression": "tiff_adobe_deflate"}),
    "tiff of 32 megapixels, turned": ("TIFF", "RGB", (8000, 3999), {"compression": "zstd", "tiffinfo": {274: 6}}),
    "tiff with 18 MB of profile": (
        "TIFF",
        "RGB",
        (4, 4),
        {"tiffinfo": {34675: bytes(9_000_000), 700: bytes(9_000_000)}},
    ),
}


def _text(kind: bytes, head: bytes, size: int = 1_000_000) -> bytes:
    """A PNG chunk that inflates to so many bytes."""
    return build.png_chunk(kind, b"car\0" + head + build.zeros(size))


def _webp_frame() -> bytes:
    pixel = encoded(Image.new("RGB", (1, 1)), "WEBP", lossless=True)[12:]
    return build.riff_chunk(b"ANMF", bytes(12) + bytes((1, 0, 0, 0)) + pixel)


# Sample, where something is inserted (None: at its end), and what is repeated there until the file has 19.9 MB.
_REPEATED: Mapping[str, tuple[str, int | None, bytes]] = {
    "jpeg with millions of comments": ("jpeg", _JPEG, build.jpeg_segment(0xFE, b"")),
    "jpeg with large comments": ("jpeg", _JPEG, build.jpeg_segment(0xFE, b"x" * 65_000)),
    "jpeg padded with FF": ("jpeg", _JPEG, b"\xff"),
    "jpeg with junk between markers": ("jpeg", _JPEG, b"\0"),
    "jpeg with thousands of tables": ("jpeg", _JPEG, build.jpeg_segment(0xDB, (b"\0" + b"\1" * 64) * 1000)),
    "jpeg with millions of huffman tables": ("jpeg", _JPEG, build.jpeg_segment(0xC4, bytes(17))),
    "jpeg with millions of restarts": ("jpeg", _JPEG, b"\xff\xd0"),
    "jpeg with photoshop resources": ("jpeg", _JPEG, build.jpeg_segment(0xED, _PHOTOSHOP)),
    "jpeg with a malformed profile": ("jpeg", _JPEG, build.jpeg_segment(0xE2, b"ICC_PROFILE\0\1\xff" + bytes(65_000))),
    "png with zTXt of 20 GB": ("small png", _PNG, _text(b"zTXt", b"\0")),
    "png with iTXt of 20 GB": ("small png", _PNG, _text(b"iTXt", b"\1\0\0\0")),
    "png with iTXt of 20 GB behind": ("small png", _END, _text(b"iTXt", b"\1\0\0\0")),
    "png with one zTXt of 1 GB": ("small png", _PNG, _text(b"zTXt", b"\0", 1_000_000_000)),
    "png with a profile of 1 GB": ("small png", _PNG, _text(b"iCCP", b"\0", 1_000_000_000)),
    "png with profiles of 20 GB": ("small png", _PNG, _text(b"iCCP", b"\0")),
    "png with profiles of 20 GB behind": ("small png", _END, _text(b"iCCP", b"\0")),
    "png with a million unknown chunks": ("small png", _PNG, build.png_chunk(b"quIz")),
    "png with a million unknown chunks behind": ("small png", _END, build.png_chunk(b"quIz")),
    "png in a million empty pieces": ("small png", _PNG, build.png_chunk(b"IDAT")),
    "png with a million headers": ("small png", _PNG, _SMALL_PNG[8:_PNG]),
    "gif of a million frames": ("small gif", _GIF, build.gif_frame(2, 1)),
    "gif with millions of comments": ("small gif", _GIF, b"!\xfe\x01x\0"),
    "gif with junk between blocks": ("small gif", _GIF, b"\0"),
    "webp of 400,000 frames": ("webp animated", None, _webp_frame()),
    "webp with a million unknown chunks": ("webp alpha", None, build.riff_chunk(b"car!", b"")),
}

_CRAFTED: Mapping[str, Callable[[], bytes]] = {
    "jpeg progressive of 32 megapixels, 1,000 scans": lambda: build.progressive(8000, 3999, 1000),
    "jpeg progressive of 2 megapixels, 1,000 scans": lambda: build.progressive(2000, 1000, 1000),
    "jpeg progressive of 16 pixels, a million scans": lambda: build.progressive(4, 4, 1_000_000),
    "jpeg progressive of 32 megapixels, cmyk": lambda: build.progressive(8000, 3999, 1, "CMYK"),
    "jpeg progressive of 32 megapixels, 20 scans over all": lambda: build.interleaved(8000, 3999, 20),
    "jpeg of 64 megapixels, 1,000 scans": lambda: build.repeated_scan(
        with_size(samples()["jpeg 4:4:4"], 8000, 8000), 1000
    ),
    "jpeg with a full exif": build.full_exif,
    "jpeg with looping exif": build.looping_exif,
    "mpo of thousands of pictures": lambda: build.mpo(4000),
    "png of 64 megapixels, interlaced": lambda: _interlaced(),
    "png with 2 GB behind its picture": lambda: build.png(
        build.png_chunk(b"IDAT", build.zeros(2_000_000_000)), build.png_chunk(b"IEND")
    ),
    "png with a million texts": lambda: _many_texts(),
    "png of 100,000 frames": lambda: _animated_png(100_000),
    "png that claims 2 billion frames": lambda: build.png(
        build.png_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)), build.apng_control(0), _SMALL_PNG[_PNG:]
    ),
    "png whose frame is larger than it": lambda: build.png(
        build.png_chunk(b"acTL", struct.pack(">II", 1, 0)), build.apng_control(0, 50_000), _SMALL_PNG[_PNG:]
    ),
    "png with a chunk of 4 GB": lambda: _SMALL_PNG[:_PNG] + b"\xff\xff\xff\xfftEXt" + _SMALL_PNG[_PNG:],
    "gif with a frame of 65,535 x 65,535": lambda: build.gif(1, 1, build.gif_frame(65_535, 65_535)),
    "gif with a frame far outside": lambda: build.gif(1, 1, build.gif_frame(1, 1, 65_535, 65_535)),
    "gif with a comment in millions of pieces": lambda: build.gif(
        4, 4, b"!\xfe" + b"\x01x" * (build.FULL // 2) + b"\0", build.gif_frame(2, 1)
    ),
    "gif in pieces of one byte": lambda: build.gif(
        8000, 8000, build.gif_frame(8000, 8000, data=b"\x02" + b"\x01\x8c" * (build.FULL // 2) + b"\0")
    ),
    "gif of 19 MB in clear codes": lambda: build.gif(
        8000,
        8000,
        build.gif_frame(8000, 8000, data=b"\x08" + (b"\xff" + b"\x00\x01" * 127 + b"\0") * (build.FULL // 256) + b"\0"),
    ),
    "bmp with 4 billion colours": lambda: patched(samples()["bmp palette"], 46, "<I", 2**32 - 1),
    "bmp rle of one line end in 64,000,000": lambda: build.bmp(60_000, 1000, 8, b"\x01x\0\0" * 1000, compression=1),
    "bmp rle of millions of runs": lambda: build.bmp(8000, 1000, 8, b"\x01x" * (build.FULL // 2), compression=1),
    "bmp rle of 8 megapixels": lambda: build.bmp(8000, 1000, 8, (b"\xffx" * 31 + b"\x5fx\0\0") * 1000, compression=1),
    "bmp rle 4 of 8 megapixels": lambda: build.bmp(8000, 1000, 4, (b"\xffx" * 31 + b"\x5fx\0\0") * 1000, compression=2),
    "webp that claims 4 GB": lambda: patched(patched(samples()["webp"], 4, "<I", 2**32 - 1), 16, "<I", 2**32 - 1),
    "heic composed of itself": lambda: samples()["heic of tiles"].replace(b"\0\0grid\0", b"\0\0iovl\0"),
    "heic of tiles, with alpha": lambda: samples()["heic of tiles"] + samples()["heic alpha"],
    "avif of 144 megapixels that claims 16": lambda: with_size(
        _flat("AVIF", "RGB", (12_000, 12_000), speed=10, quality=1), 4, 4
    ),
    "tiff of 4 billion x 4 billion": lambda: build.tiff_strip(2**32 - 1, 2**32 - 1, b"", {259: build.DEFLATE}),
    "tiff of 64 megapixels, all missing": lambda: build.tiff_strip(8000, 8000, b""),
    "tiff of 1 x 64,000,000": lambda: build.tiff_strip(1, 64_000_000, build.zeros(64_000_000), {259: build.DEFLATE}),
    "tiff in 4 million strips": lambda: build.tiff_strips(4_900_000),
    "tiff in 60,000 strips": lambda: build.tiff_strips(60_000),
    "tiff in 4 million tiles": lambda: build.tiff_tiles(2000, 2400),
    "tiff with a tile of 500 MB": lambda: build.tiff_tile(22_400),
    "tiff with a tile of 2 GB": lambda: build.tiff_tile(46_336),
    "tiff with a tile of 16 GB": lambda: build.tiff_tile(131_072),
    "tiff with an offset table of 16 GB": lambda: build.tiff(
        1000, 1000, {273: (2**32 - 1, 1000), 279: (2**32 - 1, 1000)}
    ),
    "tiff with 65,000 entries": build.tiff_entries,
    "tiff with a million entries": build.large_tiff,
    "tiff of 190,000 directories": lambda: build.tiff_directories(190_000, lambda number: number + 1),
    "tiff whose directories go in a ring": lambda: build.tiff_directories(3, lambda number: (number + 1) % 3),
    "tiff whose directory follows itself": lambda: build.tiff(4, 4, {273: 8, 279: 16}, following=8),
    "tiff with its sub-directories in itself": lambda: build.tiff(4, 4, {273: 8, 279: 16, 330: 8, 34665: 8, 34853: 8}),
    "tiff of 32 megapixels, 16 bit alpha": build.deep_tiff,
    "tiff with a jpeg of 65,535 x 65,535 inside": lambda: build.jpeg_in_tiff(
        with_size(samples()["jpeg 4:4:4"], 65_535, 65_535), 16, 16
    ),
    "tiff with a progressive jpeg of 50 scans": lambda: build.jpeg_in_tiff(
        build.progressive(8000, 3999, 50), 8000, 3999
    ),
    "tiff with a progressive jpeg of 1,000 scans": lambda: build.jpeg_in_tiff(
        build.progressive(8000, 3999, 1000), 8000, 3999
    ),
}


def _claim(sample: str, width: int, height: int) -> bytes:
    return with_size(samples()[sample], width, height)


def _flat(file_format: str, mode: str, size: tuple[int, int], **options: Any) -> bytes:
    return encoded(Image.new(mode, size), file_format, **options)


def _repeat(sample: str, at: int | None, unit: bytes) -> bytes:
    photo = {"small png": _SMALL_PNG, "small gif": _SMALL_GIF}.get(sample) or samples()[sample]
    return build.filled(photo, len(photo) if at is None else at, unit)


BOMBS: Mapping[str, Callable[[], bytes]] = {
    **{name: functools.partial(_claim, *claim) for name, claim in _CLAIMS.items()},
    **{name: functools.partial(_flat, *flat[:3], **flat[3]) for name, flat in _FLAT.items()},
    **{name: functools.partial(_repeat, *repeated) for name, repeated in _REPEATED.items()},
    **_CRAFTED,
}
"""Name → what makes the file."""


def _interlaced() -> bytes:
    # Claimed only: the few bytes that interlacing adds are missing at the end.
    photo = patched(_flat("PNG", "RGBA", (8000, 8000)), 28, "B", 1)
    return with_size(photo, 8000, 8000)  # for the checksum


def _many_texts() -> bytes:
    """Short texts, each under a key of its own."""
    texts = b"".join(build.png_chunk(b"tEXt", b"%d\0x" % number) for number in range(build.FULL // 22))
    return _SMALL_PNG[:_PNG] + texts + _SMALL_PNG[_PNG:]


def _animated_png(frames: int) -> bytes:
    more = b"".join(
        build.apng_control(number) + build.png_chunk(b"fdAT", struct.pack(">I", number + 1) + _PIXELS)
        for number in range(1, 2 * frames, 2)
    )
    count = build.png_chunk(b"acTL", struct.pack(">II", frames + 1, 0))
    return build.png(count, build.apng_control(0), _SMALL_PNG[_PNG:_END], more, _SMALL_PNG[_END:])
