"""Writes files that Pillow would not write, piece by piece."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping

from PIL import Image

from .samples import encoded, patched, samples, with_size

FULL = 19_900_000
"""Nearly as many bytes as a photo may have."""
DEFLATE = 8
Tags = Mapping[int, "int | tuple[int, int]"]
"""TIFF tag → its value, or its count of values and their offset in the file. All are of type LONG."""


def filled(photo: bytes, at: int, unit: bytes) -> bytes:
    """A photo with as many copies of something at a position as a file may have."""
    content = photo[:at] + unit * ((FULL - len(photo)) // len(unit)) + photo[at:]
    return patched(content, 4, "<I", len(content) - 8) if content.startswith(b"RIFF") else content


def zeros(count: int) -> bytes:
    """A zlib stream of so many zeros, made fast: a block of a million zeros is repeated."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    end = packer.compress(bytes(count % 1_000_000)) + packer.flush()
    checksum = count % 65_521 << 16 | 1
    return b"\x78\xda" + block * (count // 1_000_000) + end + struct.pack(">I", checksum)


def png_chunk(kind: bytes, data: bytes = b"") -> bytes:
    """A PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, side: int = 4, bits: int = 8) -> bytes:
    """A square PNG in colour of these chunks."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, bits, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks)


def apng_control(number: int, side: int = 4) -> bytes:
    """The chunk that announces a frame of an animated PNG."""
    return png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, side, side, 0, 0, 1, 1, 0, 0))


def jpeg_segment(marker: int, data: bytes) -> bytes:
    """A JPEG marker with its data."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def mpo(pictures: int) -> bytes:
    """A JPEG with an index of so many pictures."""
    index = struct.pack("<HHHLLHHLLL", 2, 0xB001, 4, 1, pictures, 0xB002, 7, pictures * 16, 38, 0)
    jpeg = samples()["jpeg"]
    return jpeg[:2] + jpeg_segment(0xE2, b"MPF\0II*\0\x08\0\0\0" + index + bytes(pictures * 16)) + jpeg[2:]


def gif(width: int, height: int, *blocks: bytes) -> bytes:
    """A GIF of these blocks, with a palette of four colours."""
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x91, 0, 0) + bytes(range(12)) + b"".join(blocks) + b";"


def gif_frame(width: int, height: int, left: int = 0, top: int = 0, data: bytes = b"\x02\x02\x4c\x01\x00") -> bytes:
    """A frame of a GIF; by default its data are two clear codes and an end, for pixels of two bits."""
    return b"," + struct.pack("<HHHHB", left, top, width, height, 0) + data


def bmp(width: int, height: int, bits: int, data: bytes, *, compression: int = 0) -> bytes:
    """A BMP with a palette where it needs one."""
    palette = struct.pack("<4B", 1, 2, 3, 0) * (1 << bits if bits <= 8 else 0)
    offset = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + header + palette + data


def riff_chunk(kind: bytes, data: bytes) -> bytes:
    """A WebP chunk, padded to an even length."""
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def webp(*chunks: bytes) -> bytes:
    """A WebP of these chunks."""
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_canvas(width: int, height: int, flags: int = 0x02) -> bytes:
    """The header of an extended WebP, by default of an animation."""
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return riff_chunk(b"VP8X", bytes((flags, 0, 0, 0)) + size)


def tiff(width: int, height: int, tags: Tags, data: bytes = b"", following: int = 0) -> bytes:
    """A grey TIFF with one directory; its data starts at byte 1000. `following` is the next directory's offset."""
    basic: Tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 277: 1}
    return (b"II*\0\x08\0\0\0" + tiff_directory({**basic, **tags}, following)).ljust(1000, b"\0") + data


def tiff_strip(width: int, height: int, data: bytes, tags: Tags | None = None) -> bytes:
    """A TIFF whose picture is one strip."""
    return tiff(width, height, {273: 1000, 278: height, 279: len(data), **(tags or {})}, data)


def tiff_directory(tags: Tags, following: int = 0) -> bytes:
    """A directory of a TIFF."""
    entries = [(tag, *(value if isinstance(value, tuple) else (1, value))) for tag, value in sorted(tags.items())]
    packed = b"".join(struct.pack("<HHLL", tag, 4, count, value) for tag, count, value in entries)
    return struct.pack("<H", len(entries)) + packed + struct.pack("<L", following)


def progressive(width: int, height: int, scans: int, mode: str = "RGB") -> bytes:
    """A progressive JPEG that repeats its last scan."""
    picture = Image.new("RGB", (16, 16), "#804020").convert(mode)
    return repeated_scan(with_size(encoded(picture, "JPEG", progressive=True, subsampling=0), width, height), scans)


def repeated_scan(photo: bytes, scans: int) -> bytes:
    """A JPEG that repeats its last scan."""
    last = photo.rindex(b"\xff\xda")
    return photo[:last] + photo[last:-2] * scans + b"\xff\xd9"


def interleaved(width: int, height: int, scans: int) -> bytes:
    """A progressive JPEG that repeats the scan over all components."""
    photo = progressive(width, height, 1)
    first = photo.index(b"\xff\xda")
    end = photo.index(b"\xff\xc4", first)
    return photo[:first] + photo[first:end] * scans + photo[end:]


def _with_exif(*parts: bytes) -> bytes:
    segments = b"".join(jpeg_segment(0xE1, b"Exif\0\0" + part) for part in parts)
    return samples()["jpeg"][:2] + segments + samples()["jpeg"][2:]


def full_exif() -> bytes:
    """EXIF that fills the file in as many segments as it takes, with a directory of 65,535 entries."""
    exif = (b"II*\0\x08\0\0\0" + tiff_directory({tag: tag for tag in range(65_535)})).ljust(FULL - 8000, b"\0")
    return _with_exif(*(exif[at : at + 65_000] for at in range(0, len(exif), 65_000)))


def looping_exif() -> bytes:
    """EXIF whose directories point at themselves and at each other."""
    return _with_exif(b"II*\0\x08\0\0\0" + tiff_directory({0x8769: 8, 0x8825: 8}, 8))


def tiff_strips(count: int) -> bytes:
    """A TIFF with a strip for each row; all strips are at the same offset."""
    return tiff(1, count, {273: (count, 1000), 278: 1, 279: (count, 1000)}, struct.pack("<L", 1000) * count)


def tiff_tiles(width: int, height: int) -> bytes:
    """A TIFF with a tile for each pixel; all tiles are at the same offset."""
    count = width * height
    tags: Tags = {322: 1, 323: 1, 324: (count, 1000), 325: (count, 1000)}
    return tiff(width, height, tags, struct.pack("<L", 1000) * count)


def tiff_tile(side: int) -> bytes:
    """A small TIFF of one huge tile."""
    data = zlib.compress(bytes(1000))
    return tiff(16, 16, {259: DEFLATE, 322: side, 323: side, 324: 1000, 325: len(data)}, data)


def tiff_entries() -> bytes:
    """A directory of 65,000 entries, each with 100 values elsewhere."""
    tags = {tag + 300: (100, 8) for tag in range(65_000)}
    return b"II*\0\x08\0\0\0" + tiff_directory({**tags, 256: 4, 257: 4, 273: 8, 279: 16}) + bytes(7_000_000)


def large_tiff() -> bytes:
    """A BigTIFF with a million entries in its only directory."""
    entries = b"".join(struct.pack("<HHQQ", 300 + number, 4, 1, 1) for number in range(60_000))
    count = FULL // 20
    body = entries + entries[:20] * (count - 60_000)
    return b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, count) + body + bytes(8)


def tiff_directories(count: int, following: Callable[[int], int]) -> bytes:
    """A TIFF of many directories; `following` tells which comes after which."""
    tags = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 279: 1}
    size = len(tiff_directory(tags))
    return b"II*\0\x08\0\0\0" + b"".join(tiff_directory(tags, 8 + size * following(n)) for n in range(count))


def deep_tiff() -> bytes:
    """A TIFF of 16 bit colours with alpha."""
    tags: Tags = {258: (4, 980), 259: DEFLATE, 262: 2, 277: 4, 338: 2}
    photo = tiff_strip(8000, 3999, zeros(8000 * 3999 * 8), tags)
    return patched(photo, 980, "<4L", 16, 16, 16, 16)


def jpeg_in_tiff(photo: bytes, width: int, height: int) -> bytes:
    """A TIFF that claims a size and holds a JPEG."""
    return tiff_strip(width, height, photo, {259: 7, 262: 6, 277: 3})
