"""Removes the metadata of a photo without decoding it: where and when it was taken, with what, and previews."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from .jpeg import strip_jpeg
from .metadata import UnreadableError, minimal_exif, orientation

if TYPE_CHECKING:
    from collections.abc import Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
# What changes pixels, colours or the animation. Text, time, EXIF and chunks of programs are left out.
_PNG_CHUNKS = frozenset(
    b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP sBIT bKGD pHYs hIST cICP mDCV cLLI acTL fcTL fdAT".split()
)
_PNG_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
_WEBP_CHUNKS = {b"VP8X", b"ICCP", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"}
_WEBP_EXIF, _WEBP_XMP = 0x08, 0x04
_LOOP = b"NETSCAPE2.0"
# Real photos have some thousands; a limit for files that consist of tiny ones.
_MAX_CHUNKS = 100_000
_MAX_TEXT = 1_000_000


def strip(photo: bytes) -> tuple[bytes, str]:
    """Remove the metadata of a photo. Its orientation and colour profile are kept.

    Args:
        photo: The file's bytes.

    Returns:
        The new file, and the ending of its name.

    Raises:
        UnreadableError: The file is damaged, or in a format whose metadata cannot be removed this way.
    """
    if photo.startswith(b"\xff\xd8\xff"):
        return strip_jpeg(photo), "jpg"
    if photo.startswith(_PNG):
        return _strip_png(photo), "png"
    if photo.startswith(b"RIFF") and photo[8:12] == b"WEBP":
        return _strip_webp(photo), "webp"
    if photo.startswith((b"GIF87a", b"GIF89a")):
        return _strip_gif(photo), "gif"
    if photo.startswith(b"BM"):
        # It has no metadata, unless something follows the picture.
        if int.from_bytes(photo[2:6], "little") < len(photo):
            raise UnreadableError("a BMP that is longer than its header says")
        return photo, "bmp"
    raise UnreadableError("not a JPEG, PNG, WebP, GIF or BMP")


def _strip_png(photo: bytes) -> bytes:
    kept: list[bytes] = []
    texts: dict[bytes, bytes] = {}
    exif = None
    for kind, start, end in _chunks(photo, len(_PNG), is_png=True):
        if kind in _PNG_CHUNKS:
            kept.append(photo[start:end])
        elif kind == b"eXIf":
            exif = photo[start + 8 : end - 4]
        elif kind in _PNG_TEXTS:
            texts.update(_text(kind, photo[start + 8 : end - 4]))
        if kind == b"IEND":
            break
    else:
        raise UnreadableError("a PNG without an end")
    turned = orientation(exif or _raw_profile(texts.get(b"Raw profile type exif")), texts.get(b"XML:com.adobe.xmp"))
    if turned != 1:
        data = b"eXIf" + minimal_exif(turned)
        kept.insert(1, (len(data) - 4).to_bytes(4, "big") + data + zlib.crc32(data).to_bytes(4, "big"))
    return b"".join([_PNG, *kept])


def _text(kind: bytes, data: bytes) -> dict[bytes, bytes]:
    """The keyword and the text of a chunk; nothing if it is damaged, or too long."""
    keyword, _, rest = data.partition(b"\0")
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed = rest[:1] == b"\1"
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    elif packed:
        rest = rest[1:]
    if packed:
        try:
            rest = zlib.decompressobj().decompress(rest, _MAX_TEXT)
        except zlib.error:
            return {}
    return {keyword: rest} if len(rest) < _MAX_TEXT else {}


def _raw_profile(text: bytes | None) -> bytes | None:
    """EXIF data as ImageMagick writes it: three lines, then hexadecimal digits."""
    if text is None:
        return None
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return None


def _strip_webp(photo: bytes) -> bytes:
    kept: list[bytes] = []
    found: dict[bytes, bytes] = {}
    size = int.from_bytes(photo[4:8], "little") + 8
    if size > len(photo) + 1:
        raise UnreadableError("a WebP that is cut off")
    for kind, start, end in _chunks(photo[:size], 12, is_png=False):
        if kind in _WEBP_CHUNKS:
            chunk = photo[start:end]
            kept.append(chunk + b"\0" * (len(chunk) % 2))
        else:
            found.setdefault(kind, photo[start + 8 : end])
    if not kept:
        raise UnreadableError("a WebP without a picture")
    # Only the extended format, which starts with its flags, has metadata.
    if kept[0].startswith(b"VP8X"):
        turned = orientation(found.get(b"EXIF"), found.get(b"XMP "))
        flags = kept[0][8] & ~(_WEBP_EXIF | _WEBP_XMP)
        if turned != 1:
            data = minimal_exif(turned)
            flags |= _WEBP_EXIF
            kept.append(b"EXIF" + len(data).to_bytes(4, "little") + data)
        kept[0] = kept[0][:8] + bytes([flags]) + kept[0][9:]
    body = b"".join([b"WEBP", *kept])
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def _strip_gif(photo: bytes) -> bytes:
    position = 13 + _colours(photo, 10)
    kept: list[bytes] = [photo[:position]]
    for _ in range(_MAX_CHUNKS):
        start, kind = position, photo[position : position + 1]
        if kind == b";":
            return b"".join([*kept, b";"])
        if kind == b",":
            data = position + 10 + _colours(photo, position + 9) + 1
            position = _after_blocks(photo, data)
            kept.append(photo[start:position])
        elif kind == b"!":
            position = _after_blocks(photo, start + 2)
            extension = photo[start:position]
            if extension[1:2] == b"\xf9":
                kept.append(extension)
            elif extension[1:2] == b"\xff" and extension[3:14] == _LOOP and extension[14:16] == b"\3\1":
                kept.append(extension[:18] + b"\0")
            elif b"tiff:Orientation" in extension:
                raise UnreadableError("a GIF with an orientation")  # it has no other place than in XMP
        else:
            break
    raise UnreadableError("not a complete GIF")


def _colours(photo: bytes, position: int) -> int:
    """The size of the colour table that the flags at a position announce."""
    flags = photo[position] if position < len(photo) else 0
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_blocks(photo: bytes, position: int) -> int:
    for _ in range(_MAX_CHUNKS):
        if position >= len(photo):
            break
        size = photo[position]
        position += size + 1
        if not size:
            return position
    raise UnreadableError("a GIF that is cut off")


def _chunks(photo: bytes, position: int, *, is_png: bool) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a PNG, or else of a WebP: their type, start and end."""
    for _ in range(_MAX_CHUNKS):
        if position + 8 > len(photo):
            return
        if is_png:
            length, kind = struct.unpack_from(">I4s", photo, position)
            end = position + 12 + length
            following = end
        else:
            kind, length = struct.unpack_from("<4sI", photo, position)
            end = position + 8 + length
            following = end + length % 2
        if end > len(photo):
            raise UnreadableError("a file that is cut off")
        yield kind, position, end
        position = following
    raise UnreadableError("a file with too many chunks")
