"""Decodes photos, and rejects invalid ones with a sentence.

Runs inside Triton, so it needs only Pillow, and pillow-heif for HEIC. The exporter uses it, too, so that it prepares
photos as the server does.
"""

from __future__ import annotations

import io
import math
import re
import struct
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from PIL import AvifImagePlugin, Image, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import PREFIXES, ImageFileDirectory_v1

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager


def _register_heic() -> bool:
    """Adds HEIC to Pillow's formats, if pillow-heif is installed."""
    try:
        from pillow_heif import register_heif_opener

        # Only the primary image is needed. Its pixels do not depend on the number of threads, but its memory does.
        register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    except ImportError:
        return False
    return True


HAS_HEIC = _register_heic()
# An allow-list: Pillow also opens formats that start external programs (EPS) or that no camera writes.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", *(("HEIF",) if HAS_HEIC else ()))
ACCEPTED = f"JPEG, PNG, WebP, BMP, GIF, TIFF{', AVIF or HEIC' if HAS_HEIC else ' or AVIF'}"

MAX_BYTES = 20_000_000
MAX_PIXELS = 64_000_000
# The maximum of a JPEG. The memory for resizing grows with the length of a side, whatever the other side is.
MAX_SIDE = 65_535
# Pillow parses metadata in small reads, in Python; real photos need some thousands.
MAX_READS = 500_000
# Each scan of a progressive JPEG can change every pixel with a few bytes; real photos have about ten scans. This is the
# limit for a photo of `max_pixels`; smaller photos may have proportionally more.
MAX_SCANS = 16
MAX_SEGMENTS = 10_000
# Pillow concatenates all segments again for each one.
MAX_EXIF_SEGMENTS = 64
# Pillow inflates each profile, and keeps only the last.
MAX_PROFILES = 64
MAX_STRIPS = 65_536

# The header is checked against `max_pixels`; Pillow's own limit would reject photos that the configuration allows.
Image.MAX_IMAGE_PIXELS = None
# Each thread has a stack that counts as memory; the pixels do not depend on the number of threads.
AvifImagePlugin.DEFAULT_MAX_THREADS = 2

_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
# Pictures that repeat others in any number, and so take any time to decode. Only for a photo's own grid is the number
# known before. Cameras write no others.
_HEIC_COMPOSED = re.compile(rb"infe.{8,10}(iovl|iden)", re.DOTALL)
_HEIC_GRID = re.compile(rb"infe.{8,10}grid", re.DOTALL)
# With them, a tile is larger than it says.
_HEIC_ALPHA_OR_CROP = re.compile(rb"auxC\0{4}urn:mpeg:[^\0]*(auxid:1|alpha)\0|\0\0\0\x28clap")
_HEIC_SIZES = re.compile(rb"ispe\0{4}(.{8})", re.DOTALL)
_HEIC_SIZE = struct.Struct(">II")
_HEIC_WITHOUT_MEMORY = re.compile(r"^Out of memory|Allocating \d+ bytes failed")
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class InvalidPhotoError(ValueError):
    """The photo is invalid; the message is a sentence with the reason."""


class Photo:
    """A decoded photo.

    Args:
        content: The bytes of the file.
        max_bytes: The size of the largest accepted file.
        max_pixels: Width times height of the largest accepted photo, checked before it is decoded. Formats that take
            more time or memory per pixel have a lower limit.
        decoding: A context manager around opening and decoding, to monitor or limit their resources.
        least_side: The pixels that each side of the picture must keep. A larger JPEG is decoded at an eighth, a quarter
            or half of its size if both sides are divisible, which is much faster. None decodes all pixels.

    Attributes:
        rgb: The picture as stored, without its EXIF orientation; a HEIC is upright, since its decoder turns it.

    Raises:
        InvalidPhotoError: The photo is empty, too large, damaged, or in a format that is not accepted.
    """

    def __init__(
        self,
        content: bytes,
        max_bytes: int = MAX_BYTES,
        max_pixels: int = MAX_PIXELS,
        decoding: AbstractContextManager[Any] | None = None,
        least_side: int | None = None,
    ) -> None:
        try:
            with decoding or nullcontext():
                self._image = header(content, max_bytes, max_pixels)
                if least_side is not None and (scale := _scale_of(self._image, least_side)) > 1:
                    self._image.draft(None, (self._image.width // scale, self._image.height // scale))
                # Only once: a second attempt to load a damaged file can succeed and return half a picture.
                self._image.load()
                # Converting RGB to RGB would copy the picture.
                self.rgb: Image.Image = self._image if self._image.mode == "RGB" else self._image.convert("RGB")
        except InvalidPhotoError:
            raise
        except Exception as error:
            if isinstance(error, MemoryError) or _HEIC_WITHOUT_MEMORY.search(str(error)):
                raise InvalidPhotoError(
                    "Decoding the photo would take too much memory; save it smaller, or as JPEG."
                ) from None
            if not hasattr(self, "_image"):
                raise  # `header` describes all errors that a photo can cause
            raise InvalidPhotoError(f"The photo is damaged and cannot be decoded: {_reason(error)}.") from error

    def scale(self, least_side: int) -> int:
        """The factor by which a photo is scaled down for a `least_side`: 8, 4, 2, or 1."""
        return _scale_of(self._image, least_side)

    def upright(self) -> Image.Image:
        """The picture with its EXIF orientation applied.

        Raises:
            InvalidPhotoError: The EXIF data cannot be read.
        """
        try:
            turn = _TURNS.get(self._image.getexif().get(_ORIENTATION, 1))
        except Exception as error:
            raise InvalidPhotoError(f"The photo's EXIF data is damaged: {_reason(error)}.") from error
        return self.rgb if turn is None else self.rgb.transpose(turn)


def is_turned(image: Image.Image) -> bool:
    """Whether an image's EXIF orientation turns or mirrors it; that of a TIFF does not, since its decoder did so."""
    return image.format != "TIFF" and image.getexif().get(_ORIENTATION) in _TURNS


def header(content: bytes, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> ImageFile.ImageFile:
    """Checks a photo without decoding it.

    Raises:
        InvalidPhotoError: See `Photo`; damage after the header is not detected.
        MemoryError: There is not enough memory for the metadata.
    """
    if not content:
        raise InvalidPhotoError("The photo is empty: it has 0 bytes.")
    if len(content) > max_bytes:
        raise InvalidPhotoError(f"The photo has {len(content):,} bytes; at most {max_bytes:,} are accepted.")
    try:
        _check_pieces(content)
        image = Image.open(_File(content), formats=FORMATS)
        _check_picture(image)
        _check_size(image, content, max_pixels)
    except (InvalidPhotoError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise InvalidPhotoError(_describe_unknown(content)) from None
    except Exception as error:
        raise InvalidPhotoError(f"The photo's header is damaged: {_reason(error)}.") from error
    return image


class _File(io.BytesIO):
    """A photo's bytes, with a limit on the number of reads."""

    reads = 0
    exif_segments = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise InvalidPhotoError(
                "The photo's file is cut into too many small pieces; save it again with another program."
            )
        piece = super().read(size)
        if piece.startswith(b"Exif\0\0"):
            self.exif_segments += 1
            if self.exif_segments > MAX_EXIF_SEGMENTS:
                raise InvalidPhotoError(f"The photo's EXIF data has more than {MAX_EXIF_SEGMENTS} parts.")
        return piece


def _scale_of(image: ImageFile.ImageFile, least_side: int) -> int:
    """The factor by which the JPEG decoder can scale a picture down, leaving out the finest detail.

    It must divide both sides: otherwise the last row or column would be stretched, and with it the picture.
    """
    width, height = image.size
    for scale in (8, 4, 2) if image.format == "JPEG" else ():
        if width % scale == height % scale == 0 and min(width, height) >= scale * least_side:
            return scale
    return 1


def _check_pieces(content: bytes) -> None:
    """Rejects files that are slow merely to open, by the signatures with which Pillow detects their format."""
    if content.startswith(b"\x89PNG") and (count := content.count(b"iCCP")) > MAX_PROFILES:
        raise InvalidPhotoError(f"The photo has {count} colour profiles; at most {MAX_PROFILES} are accepted.")
    if content.startswith(tuple(PREFIXES)) and (count := _strips(content)) > MAX_STRIPS:
        raise InvalidPhotoError(
            f"The photo is cut into {count:,} strips or tiles; at most {MAX_STRIPS:,} are accepted."
        )
    if _is_heic(content) and (
        _HEIC_COMPOSED.search(content) or (_HEIC_ALPHA_OR_CROP.search(content) and _HEIC_GRID.search(content))
    ):
        raise InvalidPhotoError("The photo is a HEIC composed of several pictures; at most plain tiles are accepted.")


def _strips(content: bytes) -> int:
    """The number of strips or tiles in the header of a TIFF."""
    file = _File(content)
    try:
        directory = ImageFileDirectory_v1(content[: 16 if content[2:3] == b"+" else 8])
        file.seek(directory.next)
        directory.load(file)
    except (OverflowError, struct.error):
        return 0  # Pillow will fail in the same way, with a message
    sizes = {3: 2, 4: 4, 16: 8}
    tables = (273, 279, 324, 325)
    return max(len(directory.tagdata.get(tag, b"")) // sizes.get(directory.tagtype.get(tag, 0), 1) for tag in tables)


def _check_picture(image: ImageFile.ImageFile) -> None:
    # For other formats, Pillow detects that only when it decodes.
    if not image.tile and image.format in ("JPEG", "MPO", "PNG"):
        raise InvalidPhotoError("The photo's file has a header, but no picture; send it again.")


def _check_size(image: ImageFile.ImageFile, content: bytes, max_pixels: int) -> None:
    width, height = max(_heic_sizes(image, content), key=math.prod) if image.format == "HEIF" else image.size
    if max(width, height) > MAX_SIDE and width * height <= max_pixels:
        raise InvalidPhotoError(
            f"The photo is {width} x {height} pixels; at most {MAX_SIDE:,} are accepted along a side."
        )
    if width * height <= max_pixels and image.format in ("JPEG", "MPO"):
        interleaved = None if image.info.get("progressive") else len(image.getbands())
        check_scans(content, MAX_SCANS * max_pixels // (width * height), interleaved)
    kind, share = _kind(image)
    if width * height > max_pixels * share:
        raise InvalidPhotoError(
            f"The photo is {width} x {height} pixels ({width * height / 1e6:.0f} megapixels); "
            f"at most {max_pixels * share / 1e6:.3g} megapixels are accepted{kind}."
        )


def _kind(image: ImageFile.ImageFile) -> tuple[str, float]:
    """The kind of a file for messages, and its limit as a share of `max_pixels`.

    Pillow stores a picture with 4 bytes per pixel, twice during a conversion. Decoders that need more memory or time
    get a lower limit, so that no photo takes more memory than the largest PNG, or more than twice its time.
    """
    if image.format == "HEIF":
        return " of HEIC", 4 / 5  # the 48 megapixels of a phone
    if image.format in ("WEBP", "AVIF", "TIFF"):
        return {"WEBP": " of WebP", "AVIF": " of AVIF", "TIFF": " of TIFF"}[image.format], 1 / 2
    if image.format == "PNG" and "16" in str(image.tile[0].args):
        return " of PNG with 16 bits a colour", 1 / 2
    if image.format == "BMP" and image.info.get("compression") in (1, 2):
        return " of run-length encoded BMP", 1 / 8
    if image.format in ("JPEG", "MPO") and image.info.get("progressive"):
        return " of progressive JPEG", progressive_share(len(image.getbands()))
    return "", 1.0


def progressive_share(colours: int) -> float:
    """The limit of a progressive JPEG, as a share of `max_pixels`."""
    # The decoder keeps two bytes for each colour of each pixel until the last scan.
    return min(1.0, 8 / (4 + 2 * colours))


# A marker with data; neither an escaped 0xFF in the picture nor a marker without data.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
_START_OF_SCAN, _END = 0xDA, 0xD9


def check_scans(content: bytes, most: int, interleaved: int | None) -> None:
    """Limits the number of scans of a JPEG, counted as its decoder does.

    Args:
        content: The file.
        most: The most scans.
        interleaved: The number of colours that a first and only scan can have; None for a progressive JPEG.

    Raises:
        InvalidPhotoError: There are more scans, or too many segments.
    """
    position, scans = 2, 0
    colours = None if interleaved is None else bytes([interleaved])
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.search(content, position)
        if found is None or found[1][0] == _END:
            return
        if found[1][0] == _START_OF_SCAN:
            scans += 1
            if scans == 1 and content[found.end() + 2 : found.end() + 3] == colours:
                return  # This scan has the data of all colours, and the decoder rejects a second one.
        if scans > most:
            raise InvalidPhotoError(f"The photo is a JPEG of more than {most:,} scans; save it again as baseline JPEG.")
        position = found.end() + int.from_bytes(content[found.end() : found.end() + 2], "big")
    raise InvalidPhotoError(
        f"The photo is a JPEG of more than {MAX_SEGMENTS:,} segments; save it again as baseline JPEG."
    )


def _heic_sizes(image: ImageFile.ImageFile, content: bytes) -> Iterator[tuple[int, int]]:
    """The sizes of a HEIC, of the pictures stored in it, and of all its tiles: it may show only a section of them."""
    yield image.size
    yield from map(_HEIC_SIZE.unpack, _HEIC_SIZES.findall(content))
    if grid := image.info.get("tiling"):
        yield grid["num_columns"] * grid["tile_width"], grid["num_rows"] * grid["tile_height"]


def _is_heic(content: bytes) -> bool:
    return content[4:8] == b"ftyp" and content[8:12] in _HEIC_BRANDS


def _describe_unknown(content: bytes) -> str:
    if _is_heic(content) and not HAS_HEIC:
        return f"The photo is in HEIC format; send it as {ACCEPTED}."
    return f"The file is not a photo that can be read, or its header is damaged; send {ACCEPTED}."


def _reason(error: Exception) -> str:
    # Some of Pillow's errors have no text (MemoryError) or end with a full stop.
    return str(error).rstrip(".") or type(error).__name__
