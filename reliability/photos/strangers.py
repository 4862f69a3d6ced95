"""Files that are no photos, or something else besides, and the worst single files."""

from __future__ import annotations

import functools
import io
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from .samples import samples

if TYPE_CHECKING:
    from collections.abc import Mapping

PDF = b"%PDF-1.7\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n%%EOF\n"
HTML = b"<!doctype html><script>alert(1)</script>"
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(x) (w) file\nshowpage\n%%EOF\n"
# What each format is known by, with nothing behind it that belongs there.
SIGNATURES = {
    "jpeg": b"\xff\xd8\xff\xe0",
    "png": b"\x89PNG\r\n\x1a\n",
    "webp": b"RIFF\xff\0\0\0WEBPVP8 ",
    "bmp": b"BM\xff\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0",
    "gif": b"GIF89a",
    "tiff": b"II*\0\x08\0\0\0",
    "large tiff": b"MM\0+\0\x08\0\0\0\0\0\0\0\0\0\x10",
    "avif": b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B",
}


@functools.cache
def strangers() -> Mapping[str, bytes]:
    """Such files by name."""
    jpeg, gif, png = samples()["jpeg"], samples()["gif"], samples()["png"]
    archive = _zip()
    found = {
        "nothing": b"",
        "one byte": b"\xff",
        "zeros": bytes(10_000),
        "more than may be": bytes(20_000_001),
        "a text": b"not a photo\n",
        "jpeg and zip": jpeg + archive,
        "zip and jpeg": archive + jpeg,
        "gif and javascript": gif[:6] + b"/*" + gif[8:] + b"*/=1;alert(1)",
        "gif, then javascript": gif + b"\nalert(1)",
        "pdf and jpeg": PDF + jpeg,
        "jpeg and pdf": jpeg + PDF,
        "html and png": HTML + png,
        "png and html": png + HTML,
        "jpeg, then php": jpeg + b"<?php system($_GET['c']); ?>",
        "html": HTML,
        "svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>',
        "eps": EPS,
        "eps with a dos header": b"\xc5\xd0\xd3\xc6" + (32).to_bytes(4, "little") + bytes(24) + EPS,
        "postscript": b"%!PS\n{} loop\n",
        "pdf": PDF,
        "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
        "tar": _tar(),
        "zip": archive,
        "elf": Path(sys.executable).resolve().read_bytes()[:50_000],
        "jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
        "icon": b"\0\0\1\0\1\0\1\1\0\0\1\0\x20\0\x30\0\0\0\x16\0\0\0" + bytes(100),
        "ppm": b"P6 2 2 255\n" + bytes(12),
        "targa": bytes((0, 0, 2)) + bytes(9) + bytes((2, 0, 2, 0, 24, 0)) + bytes(12),
        "photoshop": b"8BPS\0\1" + bytes(6) + b"\0\3\0\0\0\2\0\0\0\2\0\x08\0\3" + bytes(40),
        "two jpegs": jpeg + jpeg,
        "a jpeg whose end is missing": jpeg[:-2],
        "a jpeg whose second half is missing": samples()["jpeg 4:4:4"][: len(samples()["jpeg 4:4:4"]) // 2],
        "a mutilated webp that fails once": samples()["webp"][:-40],
    }
    for name, signature in SIGNATURES.items():
        found[f"only the start of {name}"] = signature
        found[f"the start of {name}, then zeros"] = signature + bytes(5000)
        found[f"the start of {name}, then a text"] = signature + b"this is no photo. " * 300
        found[f"the start of {name}, then a jpeg"] = signature + jpeg
        found[f"the start of {name}, then a zip"] = signature + archive
    return found


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("index.html", HTML)
    return buffer.getvalue()


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("photo.jpg")
        entry.size = len(samples()["jpeg"])
        archive.addfile(entry, io.BytesIO(samples()["jpeg"]))
    return buffer.getvalue()
