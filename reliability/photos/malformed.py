"""Files that are no photos, and files with a header but without a picture, or without all that belongs to one."""

from __future__ import annotations

import functools
import io
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from . import build
from .samples import encoded, samples, with_size

if TYPE_CHECKING:
    from collections.abc import Mapping

ACCEPTED = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF", "HEIF")
PDF = b"%PDF-1.7\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n%%EOF\n"
HTML = b"<!doctype html><script>alert(1)</script>"
# How each format starts.
SIGNATURES = {
    "jpeg": b"\xff\xd8\xff\xe0",
    "png": b"\x89PNG\r\n\x1a\n",
    "webp": b"RIFF\xff\0\0\0WEBPVP8 ",
    "bmp": b"BM\xff\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0",
    "gif": b"GIF89a",
    "tiff": b"II*\0\x08\0\0\0",
    "large tiff": b"MM\0+\0\x08\0\0\0\0\0\0\0\0\0\x10",
    "avif": b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B",
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
}


@functools.cache
def not_photos() -> Mapping[str, bytes]:
    """Files that are no photos, or something else besides, by name."""
    jpeg, png_file, archive = samples()["jpeg"], samples()["png"], _zip()
    found = {
        "nothing": b"",
        "one byte": b"\xff",
        "zeros": bytes(10_000),
        "more than 20 MB": bytes(20_000_001),
        "a text": b"not a photo\n",
        "html": HTML,
        "svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>',
        "postscript": b"%!PS\n{} loop\n",
        "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
        "zip": archive,
        "elf": Path(sys.executable).resolve().read_bytes()[:50_000],
        "jpeg and zip": jpeg + archive,
        "zip and jpeg": archive + jpeg,
        "pdf and jpeg": PDF + jpeg,
        "html and png": HTML + png_file,
        "png and html": png_file + HTML,
        "gif, then javascript": samples()["gif"] + b"\nalert(1)",
        "two jpegs": jpeg + jpeg,
        "a jpeg whose end is missing": jpeg[:-2],
        "a jpeg whose second half is missing": jpeg[: len(jpeg) // 2],
        "a truncated webp that fails only once": samples()["webp"][:-40],
    }
    for name, signature in SIGNATURES.items():
        found[f"only the start of {name}"] = signature
        for what, rest in {
            "zeros": bytes(5000),
            "a text": b"no photo. " * 500,
            "a jpeg": jpeg,
            "a zip": archive,
        }.items():
            found[f"the start of {name}, then {what}"] = signature + rest
    return {**found, **_other_formats()}


def _other_formats() -> dict[str, bytes]:
    """A picture in each format that Pillow can write and we do not accept."""
    Image.init()
    found = {}
    for file_format in sorted(set(Image.SAVE) - set(ACCEPTED)):
        for mode in ("RGB", "L", "1", "F"):
            try:
                found[f"{file_format} file"] = encoded(Image.new(mode, (16, 16)), file_format)
                break
            except Exception:  # noqa: BLE001, S112 - not in this mode, or not with what is installed here
                continue
    return found


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("index.html", HTML)
    return buffer.getvalue()


@functools.cache
def without_picture() -> Mapping[str, bytes]:
    """Files with a header that promises a picture, by name."""
    return {**_png(), **_jpeg(), **_gif_and_bmp(), **_webp(), **_tiff(), **_boxes("avif"), **_boxes("heic")}


def _png() -> dict[str, bytes]:
    pixels = zlib.compress(bytes(4 * 13))
    data, end, control = build.png_chunk(b"IDAT", pixels), build.png_chunk(b"IEND"), build.apng_control(0)
    none, one, two = (build.png_chunk(b"acTL", struct.pack(">II", count, 0)) for count in range(3))
    return {
        "png without IDAT": build.png(end),
        "png without IDAT, 16 bits": build.png(end, bits=16),
        "png of IHDR only": build.png(),
        "png with an empty IDAT": build.png(build.png_chunk(b"IDAT"), end),
        "png with half an IDAT": build.png(build.png_chunk(b"IDAT", pixels[:5]), end),
        "png without IEND": build.png(data),
        "apng of no frames": build.png(none, end),
        "apng of no frames, with IDAT": build.png(none, data, end),
        "apng of no frames, with fcTL and IDAT": build.png(none, control, data, end),
        "apng with fcTL and no fdAT": build.png(one, control, end),
        "apng with fcTL, IDAT, fcTL and no fdAT": build.png(two, control, data, build.apng_control(1), end),
        "apng with fdAT only": build.png(one, control, build.png_chunk(b"fdAT", struct.pack(">I", 1) + pixels), end),
        "apng of two frames that are not there": build.png(two, end),
    }


def _jpeg() -> dict[str, bytes]:
    jpeg = samples()["jpeg"]
    scan = jpeg.index(b"\xff\xda")
    return {
        "jpeg of start and end": b"\xff\xd8\xff\xd9",
        "jpeg without a scan": jpeg[:scan] + b"\xff\xd9",
        "jpeg that ends before its scan": jpeg[:scan],
        "jpeg of a scan without a frame": b"\xff\xd8" + jpeg[scan:],
        "jpeg with an empty scan": jpeg[: scan + 14] + b"\xff\xd9",
        "jpeg of 0 x 0": with_size(jpeg, 0, 0),
        "mpo of no pictures": build.mpo(0),
        "mpo of two pictures, one of which is there": build.mpo(2),
        "mpo of no pictures, without a scan": build.mpo(0)[: build.mpo(0).index(b"\xff\xda")] + b"\xff\xd9",
    }


def _gif_and_bmp() -> dict[str, bytes]:
    return {
        "gif without a frame": build.gif(4, 4),
        "gif of its header": build.gif(4, 4)[:-1],
        "gif of an extension": build.gif(4, 4, b"!\xf9\x04\0\0\0\0\0"),
        "gif with a frame without data": build.gif(4, 4, build.gif_frame(4, 4, data=b"")),
        "gif of 0 x 0": build.gif(0, 0, build.gif_frame(0, 0)),
        "bmp of its headers": build.bmp(4, 4, 24, b""),
        "bmp of its first header": build.bmp(4, 4, 24, b"")[:14],
        "bmp of 0 x 0": build.bmp(0, 0, 24, b""),
        "icon of no pictures": b"\0\0\1\0\0\0",
        "cursor of no pictures": b"\0\0\2\0\0\0",
    }


def _webp() -> dict[str, bytes]:
    animation = build.riff_chunk(b"ANIM", bytes(6))
    frame = build.riff_chunk(b"ANMF", bytes(6) + (3).to_bytes(3, "little") * 2 + bytes(4))
    return {
        "webp of nothing": build.webp(),
        "webp of VP8X": build.webp(build.webp_canvas(4, 4, 0)),
        "webp of an animation without a frame": build.webp(build.webp_canvas(4, 4), animation),
        "webp of an animation with an empty frame": build.webp(build.webp_canvas(4, 4), animation, frame),
        "webp with an empty picture": build.webp(build.riff_chunk(b"VP8 ", b"")),
    }


def _tiff() -> dict[str, bytes]:
    return {
        "tiff without a directory": b"II*\0" + bytes(4),
        "tiff with an empty directory": b"II*\0\x08" + bytes(9),
        "tiff that ends before its directory": b"MM\0*\0\0\0\x08",
        "tiff of a size only": b"II*\0\x08\0\0\0" + build.tiff_directory({256: 4, 257: 4}),
        "large tiff without a directory": b"II+\0\x08" + bytes(11),
        "large tiff with an empty directory": b"II+\0\x08\0\0\0\x10" + bytes(23),
    }


def _boxes(name: str) -> dict[str, bytes]:
    photo = samples()[name]
    return {
        f"{name} of its first box": photo[: int.from_bytes(photo[:4], "big")],
        f"{name} without data": photo[: photo.index(b"mdat") - 4],
        **{f"{name} without {box}": photo.replace(box.encode(), b"free") for box in ("iinf", "iloc", "pitm", "ispe")},
        f"{name} of 0 x 0": with_size(photo, 0, 0),
    }
