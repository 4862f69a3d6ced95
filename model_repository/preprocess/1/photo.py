"""Photo bytes to a decoded picture, or a sentence that says what is wrong with the photo.

Runs inside Triton, so it needs nothing but Pillow, and it is also what the exporter uses to prepare the photos it
compares with.
"""

from __future__ import annotations

import io

from PIL import Image, ImageOps, UnidentifiedImageError

# An allow-list: Pillow also opens formats that start other programs (EPS) or that no camera writes.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
ACCEPTED = "JPEG, PNG, WebP, BMP, GIF, TIFF or AVIF"

MAX_BYTES = 20_000_000
MAX_PIXELS = 64_000_000

# Our own limit is checked at the header, too; Pillow's would refuse what the configuration may allow.
Image.MAX_IMAGE_PIXELS = None

_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


class PhotoError(ValueError):
    """The photo is at fault; the message says what is wrong with it, in a sentence."""


class Photo:
    """A decoded photo.

    Args:
        content: The bytes of the file.
        max_bytes: The size of the largest accepted file.
        max_pixels: Width times height of the largest accepted photo, checked before it is decoded.

    Attributes:
        rgb: The picture as it is stored, without regard to its EXIF orientation.

    Raises:
        PhotoError: The photo is empty, too large, damaged, or in a format that is not accepted.
    """

    def __init__(self, content: bytes, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> None:
        self._image = _open(content, max_bytes, max_pixels)
        try:
            # Once only: a second attempt to load a damaged file can succeed and hand out half a picture.
            self.rgb = self._image.convert("RGB")
        except Exception as error:
            raise PhotoError(f"The photo is damaged and cannot be decoded: {_reason(error)}.") from error

    def upright(self) -> Image.Image:
        """The picture turned and mirrored as its EXIF orientation says.

        Raises:
            PhotoError: The EXIF data cannot be read.
        """
        try:
            self.rgb.getexif()[_ORIENTATION] = self._image.getexif().get(_ORIENTATION, 1)
            return ImageOps.exif_transpose(self.rgb)
        except Exception as error:
            raise PhotoError(f"The photo's EXIF data is damaged: {_reason(error)}.") from error


_ORIENTATION = 0x0112


def _open(content: bytes, max_bytes: int, max_pixels: int) -> Image.Image:
    if not content:
        raise PhotoError("The photo is empty: it has 0 bytes.")
    if len(content) > max_bytes:
        raise PhotoError(f"The photo has {len(content):,} bytes; at most {max_bytes:,} are accepted.")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise PhotoError(_describe_unknown(content)) from None
    except Exception as error:
        raise PhotoError(f"The photo's header is damaged: {_reason(error)}.") from error
    width, height = image.size
    if width * height > max_pixels:
        raise PhotoError(
            f"The photo is {width} x {height} pixels ({width * height / 1e6:.0f} megapixels); "
            f"at most {max_pixels / 1e6:g} megapixels are accepted."
        )
    return image


def _describe_unknown(content: bytes) -> str:
    if content[4:8] == b"ftyp" and content[8:12] in _HEIC_BRANDS:
        return f"The photo is in HEIC format; send it as {ACCEPTED}."
    return f"The file is not a photo that can be read, or its header is damaged; send {ACCEPTED}."


def _reason(error: Exception) -> str:
    # Some of Pillow's errors carry no text (MemoryError) or end in a full stop of their own.
    return str(error).rstrip(".") or type(error).__name__
