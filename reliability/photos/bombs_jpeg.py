"""JPEG bombs."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from PIL import Image

from .samples import encoded, samples

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FULL = 19_900_000


def segment(marker: int, data: bytes) -> bytes:
    """A marker with its data."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def resized(photo: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header claims another size. What is missing, libjpeg makes up in grey."""
    found = re.search(rb"\xff[\xc0-\xc2]\x00.\x08", photo, re.DOTALL)
    if found is None:
        raise ValueError("no frame header")
    at = found.end()
    return photo[:at] + struct.pack(">HH", height, width) + photo[at + 4 :]


def progressive(width: int, height: int, scans: int, kind: str = "RGB") -> bytes:
    """A progressive JPEG that repeats its last scan."""
    options = {} if kind == "L" else {"subsampling": 0}
    picture = Image.new("RGB", (16, 16), "#804020").convert(kind)
    photo = resized(encoded(picture, "JPEG", progressive=True, **options), width, height)
    last = photo.rindex(b"\xff\xda")
    return photo[:last] + photo[last:-2] * scans + b"\xff\xd9"


def interleaved(width: int, height: int, scans: int) -> bytes:
    """A progressive JPEG that repeats the scan over all components."""
    photo = resized(encoded(Image.new("RGB", (16, 16)), "JPEG", progressive=True, subsampling=0), width, height)
    first = photo.index(b"\xff\xda")
    end = photo.index(b"\xff\xc4", first)
    return photo[:first] + photo[first:end] * scans + photo[end:]


def sequential(width: int, height: int, scans: int) -> bytes:
    """A JPEG that repeats its only scan."""
    photo = resized(samples()["jpeg 4:4:4"], width, height)
    first = photo.rindex(b"\xff\xda")
    return photo[:first] + photo[first:-2] * scans + b"\xff\xd9"


def arithmetic(width: int, height: int) -> bytes:
    """A JPEG that says that it is coded arithmetically, full of data."""
    photo = resized(samples()["jpeg 4:4:4"], width, height)
    photo = re.sub(rb"\xff\xc0\x00", b"\xff\xc9\x00", photo, count=1)
    noise = bytes(range(1, 255)) * (FULL // 254)
    at = photo.index(b"\xff\xda") + 14
    return photo[:at] + noise + b"\xff\xd9"


def before_picture(data: bytes) -> bytes:
    """A JPEG with something put in after its first marker."""
    photo = samples()["jpeg"]
    return photo[:2] + data + photo[2:]


def exif_chain() -> bytes:
    """EXIF that fills the file, in as many segments as it takes, with a directory of 65,535 entries."""
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, tag) for tag in range(65535))
    exif = b"II*\0\x08\0\0\0" + struct.pack("<H", 65535) + entries
    exif += b"\0" * (FULL - len(exif) - 8000)
    parts = [exif[at : at + 65_000] for at in range(0, len(exif), 65_000)]
    return before_picture(b"".join(segment(0xE1, b"Exif\0\0" + part) for part in parts))


def looping_exif() -> bytes:
    """EXIF whose directories point at themselves and at each other."""
    ifd = struct.pack("<HHHLLHHLLL", 2, 0x8769, 4, 1, 8, 0x8825, 4, 1, 8, 8)
    return before_picture(segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + ifd))


def pictures_of_an_mpo() -> bytes:
    """An MPO that claims thousands of pictures."""
    count = 4000
    ifd = struct.pack("<HHHLLHHLLL", 2, 0xB001, 4, 1, count, 0xB002, 7, count * 16, 38, 0)
    return before_picture(segment(0xE2, b"MPF\0II*\0\x08\0\0\0" + ifd + b"\0" * (count * 16)))


def resources() -> bytes:
    """Photoshop resources, as many as fit."""
    resource = b"8BIM\x04\x04\0\0\0\0\0\0"
    return before_picture(segment(0xED, b"Photoshop 3.0\0" + resource * 5400) * (FULL // 65_000))


BOMBS: Mapping[str, Callable[[], bytes]] = {
    "jpeg of 50,000 x 50,000": lambda: resized(samples()["jpeg"], 50_000, 50_000),
    "jpeg of 65,535 x 65,535": lambda: resized(samples()["jpeg progressive"], 65_535, 65_535),
    "jpeg of 64 megapixels, all missing": lambda: resized(samples()["jpeg 4:4:4"], 8000, 8000),
    "jpeg of 64 megapixels, cmyk": lambda: resized(samples()["jpeg cmyk"], 8000, 8000),
    "jpeg of 65,535 x 970": lambda: resized(samples()["jpeg"], 65_535, 970),
    "jpeg progressive of 64 megapixels": lambda: progressive(8000, 8000, 1),
    "jpeg progressive of 64 megapixels, cmyk": lambda: progressive(8000, 8000, 1, "CMYK"),
    "jpeg progressive of 32 megapixels, cmyk": lambda: progressive(8000, 3999, 1, "CMYK"),
    "jpeg progressive of 32 megapixels, 1,000 scans": lambda: progressive(8000, 3999, 1000),
    "jpeg progressive of 32 megapixels, 30 scans over all": lambda: interleaved(8000, 3999, 30),
    "jpeg progressive of 16 pixels, a million scans": lambda: progressive(4, 4, 1_000_000),
    "jpeg progressive of 2 megapixels, 1,000 scans": lambda: progressive(2000, 1000, 1000),
    "jpeg of 64 megapixels, 1,000 scans": lambda: sequential(8000, 8000, 1000),
    "jpeg arithmetic of 64 megapixels": lambda: arithmetic(8000, 8000),
    "jpeg with millions of comments": lambda: before_picture(segment(0xFE, b"") * (FULL // 4)),
    "jpeg with large comments": lambda: before_picture(segment(0xFE, b"x" * 65_000) * (FULL // 65_004)),
    "jpeg padded with FF": lambda: before_picture(b"\xff" * FULL),
    "jpeg with junk between markers": lambda: before_picture(b"\0" * FULL),
    "jpeg with thousands of tables": lambda: before_picture(
        segment(0xDB, (b"\0" + b"\x01" * 64) * 1000) * (FULL // 65_004)
    ),
    "jpeg with millions of huffman tables": lambda: before_picture(segment(0xC4, b"\0" + b"\0" * 16) * (FULL // 21)),
    "jpeg with millions of restarts": lambda: before_picture(b"\xff\xd0" * (FULL // 2)),
    "jpeg with a full exif": exif_chain,
    "jpeg with looping exif": looping_exif,
    "jpeg with photoshop resources": resources,
    "jpeg with a lying icc profile": lambda: before_picture(
        b"".join(segment(0xE2, b"ICC_PROFILE\0" + bytes((n, 255)) + b"x" * 65_000) for n in range(255))
    ),
    "mpo of thousands of pictures": pictures_of_an_mpo,
}
