"""Removes the metadata of a JPEG. The coded picture stays as it is, bit for bit."""

from __future__ import annotations

import re

from .metadata import PREFIX, UnreadableError, minimal_exif, orientation

_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
# Frames, tables and scans: all but a JPEG's beginning and end, and what is reserved for extensions.
_CODING = {*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF} - {0xC8}
_JFIF, _APP1, _ICC, _ADOBE = 0xE0, 0xE1, 0xE2, 0xEE
_METADATA = {*range(0xE0, 0xF0), 0xFE}
_XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"
# A marker; neither an escaped 0xFF in the picture, nor padding, nor a restart.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_MAX_SEGMENTS = 10_000
# The orientation is near the start. Each segment is appended to a copy of those before it.
_MAX_EXIF = 1_000_000


def strip_jpeg(photo: bytes) -> bytes:
    """Keep what the decoder needs, the colour profile and the orientation.

    Raises:
        UnreadableError: The file is damaged.
    """
    head, exif, xmp = [b"\xff\xd8"], b"", None
    coding: list[bytes | memoryview] = []
    view = memoryview(photo)
    position = 2
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(photo, position)
        if found is None:
            break
        start, kind = found.start(), found[1][0]
        if kind == _END:
            turned = orientation(exif or None, xmp)
            if turned != 1:
                head.append(_segment(_APP1, PREFIX + minimal_exif(turned)))
            return b"".join([*head, *coding, b"\xff\xd9"])
        end = start + 2 + int.from_bytes(photo[start + 2 : start + 4], "big")
        if kind not in _CODING | _METADATA or not start + 4 <= end <= len(photo):
            break
        data = photo[start + 4 : end] if kind in _METADATA else b""
        if kind == _JFIF and data.startswith(b"JFIF\0"):
            # Without its thumbnail.
            if len(head) == 1:
                head.append(_segment(_JFIF, data[:12].ljust(12, b"\0") + b"\0\0"))
        elif kind == _ADOBE and data.startswith(b"Adobe"):
            coding.append(_segment(_ADOBE, data[:12]))
        elif kind == _ICC and data.startswith(b"ICC_PROFILE\0"):
            coding.append(view[start:end])
        elif kind == _APP1 and data.startswith(PREFIX) and len(exif) < _MAX_EXIF:
            exif += data.removeprefix(PREFIX) if exif else data
        elif kind == _APP1 and data.startswith(_XMP_PREFIX):
            xmp = data.removeprefix(_XMP_PREFIX)
        elif kind in _CODING:
            if kind == _SCAN:
                # With the picture's data, up to the next marker.
                following = _MARKER.search(photo, end)
                end = len(photo) if following is None else following.start()
            coding.append(view[start:end])
        position = end
    raise UnreadableError("not a complete JPEG")


def _segment(kind: int, data: bytes) -> bytes:
    return b"\xff" + bytes([kind]) + (len(data) + 2).to_bytes(2, "big") + data
