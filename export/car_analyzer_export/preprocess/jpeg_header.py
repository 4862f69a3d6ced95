"""Reads the header of a plain JPEG, and finds damage, in a few percent of the time that Pillow takes.

Runs inside Triton, before DALI. Everything unusual is left to Pillow: it is rare, and need not be fast.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from photo import MAX_SCANS, check_scans, progressive_share

if TYPE_CHECKING:
    import numpy.typing as npt

_START = b"\xff\xd8\xff"
_BASELINE, _PROGRESSIVE, _START_OF_SCAN, _TABLES = 0xFFC0, 0xFFC2, 0xFFDA, 0xFFDB
_APP0, _APP1, _APP2, _APP13, _APP14 = 0xFFE0, 0xFFE1, 0xFFE2, 0xFFED, 0xFFEE
# Huffman tables, the restart interval, other application data, comments. They cannot make Pillow reject a photo.
_SKIPPED = {0xFFC4, 0xFFDD, *range(0xFFE3, _APP13), 0xFFEF, 0xFFFE}
_FILL, _END = 0xFF, 0xD9
# After 0xFF, a byte that is no marker: the escape of a 0xFF in the data, the restart markers, padding.
_NO_MARKERS = np.zeros(256, bool)
_NO_MARKERS[[0, *range(0xD0, 0xD8), _FILL]] = True
# A progressive JPEG has several scans, with Huffman tables between them.
_BETWEEN_SCANS = _NO_MARKERS.copy()
_BETWEEN_SCANS[[_START_OF_SCAN & 0xFF, 0xC4]] = True
# Far more than in real photos.
_MAX_SEGMENTS, _MAX_RESOURCES = 100, 200
_SEGMENT, _FRAME = struct.Struct(">HH"), struct.Struct(">BHHB")
# With other component ids, some decoders assume RGB instead of YCbCr.
_YCBCR = (b"\1\2\3", b"\0\1\2")
_EXIF, _XMP, _PHOTOSHOP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"Photoshop 3.0\0"
_TURNED_BY_XMP = re.compile(rb'tiff:Orientation(="|>)[02-9]')
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_SHORT, _RATIONAL = 3, 5
_ORIENTATION = 0x0112
# The entries that Pillow reads; with other types, it may reject the photo.
_EXIF_TYPES = {_ORIENTATION: _SHORT, 0x011A: _RATIONAL, 0x0128: _SHORT}


class Header(NamedTuple):
    """The header of a plain JPEG.

    Attributes:
        width: Of the picture as stored.
        height: Of the picture as stored.
        is_upright: Whether neither its EXIF data nor its XMP turns or mirrors it.
    """

    width: int
    height: int
    is_upright: bool


class _UnusualError(Exception):
    """The JPEG is damaged or unusual."""


def plain_header(content: bytes, max_bytes: int, max_pixels: int) -> Header | None:
    """The header of a plain JPEG within the limits of `photo.header`; None for everything else.

    Plain is a baseline or progressive JPEG of 8 bits, grey or YCbCr, with a well-formed header, and a picture that ends
    with its marker and has no others inside. All decoders agree on its colours, and `photo.header` accepts it.
    """
    # With "ftyp" there, it could be a HEIC as well.
    if len(content) > max_bytes or not content.startswith(_START) or content[4:8] == b"ftyp":
        return None
    try:
        return _read(content, max_pixels)
    except (_UnusualError, ValueError, IndexError, struct.error):
        return None


def _read(content: bytes, max_pixels: int) -> Header:
    position = 2
    frame: tuple[int, int, int] | None = None
    progressive = has_exif = False
    is_upright = True
    adobe: int | None = None
    for _ in range(_MAX_SEGMENTS):
        marker, length = _SEGMENT.unpack_from(content, position)
        data = content[position + 4 : position + 2 + length]
        _require(len(data) == length - 2)
        position += 2 + length
        if data.startswith(_EXIF):
            _require(marker == _APP1 and not has_exif)
            has_exif = True
        if marker == _START_OF_SCAN:
            break
        if marker in (_BASELINE, _PROGRESSIVE):
            _require(frame is None)
            frame = _frame(data)
            progressive = marker == _PROGRESSIVE
        elif marker == _TABLES:
            _check_tables(data)
        elif marker == _APP1:
            is_upright &= _orientation(data) == 1 if data.startswith(_EXIF) else not _turned_by_xmp(data)
        elif marker == _APP14 and data.startswith(b"Adobe"):
            adobe = data[11]
        elif marker in (_APP0, _APP2, _APP13):
            _check_application_data(marker, data)
        else:
            _require(marker in _SKIPPED or marker == _APP14)
    else:
        raise _UnusualError
    if frame is None:
        raise _UnusualError
    width, height, colours = frame
    # data is now the header of the first scan.
    scanned = data[0]
    _require(len(data) == 4 + 2 * scanned and 1 <= scanned <= colours)
    _require(colours == 1 or adobe in (None, 1))
    _check_scans(content, position, _BETWEEN_SCANS if progressive else _NO_MARKERS)
    if progressive:
        _require(width * height <= max_pixels * progressive_share(colours))
        check_scans(content, MAX_SCANS * max_pixels // (width * height), None)
    else:
        _require(width * height <= max_pixels and scanned == colours)
    return Header(width, height, is_upright)


def _require(condition: object) -> None:
    if not condition:
        raise _UnusualError


def _check_scans(content: bytes, start: int, expected: npt.NDArray[np.bool_]) -> None:
    """Requires that the first unexpected marker is the picture's end. Pillow rejects others; DALI may decode on."""
    data = np.frombuffer(content, np.uint8, offset=start)
    markers = data[1:][data[:-1] == _FILL]
    unexpected = markers[~expected[markers]]
    _require(len(unexpected) and unexpected[0] == _END)


def _frame(data: bytes) -> tuple[int, int, int]:
    """The width, height and number of colours."""
    bits, height, width, colours = _FRAME.unpack_from(data)
    _require(bits == 8 and width and height and len(data) == 6 + 3 * colours)
    _require(colours == 1 or (colours == 3 and data[6::3] in _YCBCR))
    # The samples of a colour along both sides: from 1 to 4.
    _require(all(each >> 4 in (1, 2, 3, 4) and each & 15 in (1, 2, 3, 4) for each in data[7::3]))
    return width, height, colours


def _check_tables(data: bytes) -> None:
    """Quantization tables: each has a byte with its number, and 64 values of 8 bits."""
    _require(data and len(data) % 65 == 0 and max(data[::65]) < 4)


def _check_application_data(marker: int, data: bytes) -> None:
    """Requires what Pillow reads without a check of its own."""
    if marker == _APP0 and data.startswith(b"JFIF"):
        _require(len(data) >= 14)
    elif marker == _APP2 and data.startswith(b"ICC_PROFILE\0"):
        _require(len(data) > 14)
    elif marker == _APP13 and data.startswith(_PHOTOSHOP):
        _check_resources(data)


def _check_resources(data: bytes) -> None:
    """Photoshop's resources: each has a number, a name of even length, a size, and data padded to an even size."""
    position = len(_PHOTOSHOP)
    for _ in range(_MAX_RESOURCES):
        if not data.startswith(b"8BIM", position):
            return
        position += 6
        position += data[position] + 1
        position += position & 1
        (size,) = struct.unpack_from(">L", data, position)
        position += 4 + size
        position += position & 1
    raise _UnusualError


def _turned_by_xmp(data: bytes) -> bool:
    return data.startswith(_XMP) and _TURNED_BY_XMP.search(data) is not None


def _orientation(data: bytes) -> int:
    """The orientation in EXIF data; 1 is upright."""
    exif = data[len(_EXIF) :]
    order = _BYTE_ORDERS.get(exif[:4])
    if order is None:
        raise _UnusualError
    (start,) = struct.unpack_from(f"{order}L", exif, 4)
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    entries = exif[start + 2 : start + 2 + 12 * count]
    found = 1
    # An entry: its tag, type, and number of values; and its first value, if that is a short one.
    for tag, kind, number, value in struct.iter_unpack(f"{order}HHLHxx", entries):
        if tag in _EXIF_TYPES:
            _require(kind == _EXIF_TYPES[tag] and number == 1)
            if tag == _ORIENTATION and value != 1:
                found = value
    return found
