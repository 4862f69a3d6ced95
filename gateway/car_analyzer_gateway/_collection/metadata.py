"""The orientation of a photo: the only metadata that is kept, since a network may see the turned photo."""

from __future__ import annotations

import re
import struct

PREFIX = b"Exif\0\0"
_ORIENTATION = 0x0112
# Type SHORT or LONG: how to read its first value.
_TYPES = {3: "H", 4: "I"}
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
# XMP is a few kB; some programs pad it.
_MAX_XMP = 1_000_000


class UnreadableError(ValueError):
    """The file is damaged, or its metadata cannot be removed without decoding it."""


def orientation(exif: bytes | None, xmp: bytes | None = None) -> int:
    """The orientation as Pillow reads it, from 1 to 8; 1 if there is none.

    Args:
        exif: The EXIF data, with or without its prefix. Only its first directory is read.
        xmp: The XMP data. It counts if EXIF has no orientation.
    """
    found = None if exif is None else _from_exif(exif.removeprefix(PREFIX))
    if found is None and xmp is not None and (match := _XMP.search(xmp[:_MAX_XMP])):
        found = int(match[1])
    return found if found is not None and 1 <= found <= 8 else 1


def minimal_exif(value: int) -> bytes:
    """EXIF data with an orientation and nothing else, without the prefix."""
    return struct.pack("<2sHI H HHIHxx I", b"II", 42, 8, 1, _ORIENTATION, 3, 1, value, 0)


def _from_exif(data: bytes) -> int | None:
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None or len(data) < 10:
        return None
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    count = int.from_bytes(data[start : start + 2], "little" if order == "<" else "big")
    found = None
    for position in range(start + 2, min(start + 2 + 12 * count, len(data) - 11), 12):
        tag, kind, _ = struct.unpack_from(f"{order}HHI", data, position)
        if tag == _ORIENTATION and kind in _TYPES:
            (found,) = struct.unpack_from(order + _TYPES[kind], data, position + 8)
    return found
