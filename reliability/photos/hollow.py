"""Files with a header that promises a picture, and no picture, or not all that belongs to one."""

from __future__ import annotations

import functools
import struct
import zlib
from typing import TYPE_CHECKING

from .bombs_avif import claimed
from .bombs_gif_bmp import bmp, gif, picture
from .bombs_jpeg import resized, segment
from .bombs_png import COLOUR, chunk
from .bombs_webp import canvas, riff
from .bombs_webp import chunk as riff_chunk
from .samples import samples

if TYPE_CHECKING:
    from collections.abc import Mapping

_PIXELS = zlib.compress(bytes(4 * 13))


@functools.cache
def hollow() -> Mapping[str, bytes]:
    """Such files by name."""
    return {**_png(), **_jpeg(), **_gif_and_bmp(), **_webp(), **_tiff(), **_avif()}


def _png() -> dict[str, bytes]:
    def png(*chunks: bytes, bits: int = 8) -> bytes:
        header = struct.pack(">IIBBBBB", 4, 4, bits, COLOUR, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks)

    def frames(count: int) -> bytes:
        return chunk(b"acTL", struct.pack(">II", count, 0))

    def control(number: int) -> bytes:
        return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, 4, 4, 0, 0, 1, 1, 0, 0))

    data, end = chunk(b"IDAT", _PIXELS), chunk(b"IEND")
    return {
        "png without IDAT": png(end),
        "png without IDAT, 16 bits": png(end, bits=16),
        "png of IHDR only": png(),
        "png with an empty IDAT": png(chunk(b"IDAT"), end),
        "png with half an IDAT": png(chunk(b"IDAT", _PIXELS[:5]), end),
        "png without IEND": png(data),
        "apng of no frames": png(frames(0), end),
        "apng of no frames, with IDAT": png(frames(0), data, end),
        "apng of no frames, with fcTL and IDAT": png(frames(0), control(0), data, end),
        "apng with fcTL and no fdAT": png(frames(1), control(0), end),
        "apng with fcTL, IDAT, fcTL and no fdAT": png(frames(2), control(0), data, control(1), end),
        "apng with fdAT only": png(frames(1), control(0), chunk(b"fdAT", struct.pack(">I", 1) + _PIXELS), end),
        "apng of two frames that are not there": png(frames(2), end),
    }


def _jpeg() -> dict[str, bytes]:
    jpeg = samples()["jpeg"]
    scan = jpeg.index(b"\xff\xda")

    def mpo(count: int) -> bytes:
        index = struct.pack("<HHHLLHHLLL", 2, 0xB001, 4, 1, count, 0xB002, 7, count * 16, 38, 0) + bytes(count * 16)
        return jpeg[:2] + segment(0xE2, b"MPF\0II*\0\x08\0\0\0" + index) + jpeg[2:]

    return {
        "jpeg of start and end": b"\xff\xd8\xff\xd9",
        "jpeg without a scan": jpeg[:scan] + b"\xff\xd9",
        "jpeg that ends before its scan": jpeg[:scan],
        "jpeg of a scan without a frame": b"\xff\xd8" + jpeg[scan:],
        "jpeg with an empty scan": jpeg[: scan + 14] + b"\xff\xd9",
        "jpeg of 0 x 0": resized(jpeg, 0, 0),
        "mpo of no pictures": mpo(0),
        "mpo of two pictures, one of which is there": mpo(2),
        "mpo of no pictures, without a scan": mpo(0)[: mpo(0).index(b"\xff\xda")] + b"\xff\xd9",
    }


def _gif_and_bmp() -> dict[str, bytes]:
    return {
        "gif without a frame": gif(4, 4),
        "gif of its header": gif(4, 4)[:-1],
        "gif of an extension": gif(4, 4, b"!\xf9\x04\0\0\0\0\0"),
        "gif with a frame without data": gif(4, 4, picture(4, 4, data=b"")),
        "gif of 0 x 0": gif(0, 0, picture(0, 0)),
        "bmp of its headers": bmp(4, 4, 24, b""),
        "bmp of its first header": bmp(4, 4, 24, b"")[:14],
        "bmp of 0 x 0": bmp(0, 0, 24, b""),
        "icon of no pictures": b"\0\0\1\0\0\0",
        "cursor of no pictures": b"\0\0\2\0\0\0",
    }


def _webp() -> dict[str, bytes]:
    animation = riff_chunk(b"ANIM", bytes(6))
    frame = riff_chunk(b"ANMF", bytes(6) + (3).to_bytes(3, "little") * 2 + bytes(4))
    return {
        "webp of nothing": riff(),
        "webp of VP8X": riff(canvas(4, 4, 0)),
        "webp of an animation without a frame": riff(canvas(4, 4), animation),
        "webp of an animation with an empty frame": riff(canvas(4, 4), animation, frame),
        "webp with an empty picture": riff(riff_chunk(b"VP8 ", b"")),
    }


def _tiff() -> dict[str, bytes]:
    return {
        "tiff without a directory": b"II*\0" + bytes(4),
        "tiff with an empty directory": b"II*\0\x08" + bytes(9),
        "tiff that ends before its directory": b"MM\0*\0\0\0\x08",
        "tiff of a size only": b"II*\0\x08\0\0\0\x02\0" + struct.pack("<HHLLHHLLL", 256, 4, 1, 4, 257, 4, 1, 4, 0),
        "large tiff without a directory": b"II+\0\x08" + bytes(11),
        "large tiff with an empty directory": b"II+\0\x08\0\0\0\x10" + bytes(23),
    }


def _avif() -> dict[str, bytes]:
    avif = samples()["avif"]
    return {
        "avif of its first box": avif[: int.from_bytes(avif[:4], "big")],
        "avif without data": avif[: avif.index(b"mdat") - 4],
        "avif without items": avif.replace(b"iinf", b"free"),
        "avif without places": avif.replace(b"iloc", b"free"),
        "avif without a first item": avif.replace(b"pitm", b"free"),
        "avif of 0 x 0": claimed(avif, 0, 0),
    }
