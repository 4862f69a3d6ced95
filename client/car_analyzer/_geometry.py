"""Where the pixels that a network saw are in the photo: resizing, center crop and EXIF orientation."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from ._photo import ORIENTATION
from .errors import PhotoError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
# To make a stored picture upright: swap rows and columns, then mirror left and right, then top and bottom.
SWAPPED, MIRRORED, FLIPPED = {5, 6, 7, 8}, {2, 3, 6, 7}, {3, 4, 7, 8}


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in a photo's pixels, which need not be whole.

    Attributes:
        left: From the photo's left edge.
        top: From the photo's top edge.
        width: Of the rectangle.
        height: Of the rectangle.
    """

    left: float
    top: float
    width: float
    height: float


# For help() and messages; see `_results`.
Box.__module__ = "car_analyzer"


@dataclass(frozen=True)
class Frame:
    """A photo's size in pixels as stored, and its EXIF orientation, 1 to 8."""

    width: int
    height: int
    orientation: int = 1

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height as viewers show the photo."""
        return (self.height, self.width) if self.orientation in SWAPPED else (self.width, self.height)

    def turn(self, box: Box) -> Box:
        """A box in the stored photo, as a box in the upright photo."""
        left, top, width, height = box.left, box.top, box.width, box.height
        if self.orientation in SWAPPED:
            left, top, width, height = top, left, height, width
        right, bottom = self.upright_size[0] - left - width, self.upright_size[1] - top - height
        return Box(
            right if self.orientation in MIRRORED else left,
            bottom if self.orientation in FLIPPED else top,
            width,
            height,
        )

    def turn_map(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A map [rows, columns] of the stored photo, as a map of the upright photo."""
        if self.orientation in SWAPPED:
            values = values.T
        if self.orientation in MIRRORED:
            values = values[:, ::-1]
        return values[::-1] if self.orientation in FLIPPED else values


@dataclass(frozen=True)
class View:
    """The part of the exporter's `View` that decides where pixels are; see `preprocess/view.py`.

    Attributes:
        width: Of the network's pixels.
        height: Of the network's pixels.
        shortest_edge: The photo is scaled until its shorter side has this length, then its center is cropped; None:
            the whole photo is squashed.
        exif_rotation: The network sees the photo upright.
    """

    width: int
    height: int
    shortest_edge: int | None
    exif_rotation: bool

    def box(self, size: tuple[int, int]) -> Box:
        """The part of a photo of that width and height that the network sees."""
        if self.shortest_edge is None:
            return Box(0.0, 0.0, float(size[0]), float(size[1]))
        longer = int(self.shortest_edge * max(size) / min(size))
        scaled = (self.shortest_edge, longer) if size[0] <= size[1] else (longer, self.shortest_edge)
        left, top = round((scaled[0] - self.width) / 2), round((scaled[1] - self.height) / 2)
        across, down = size[0] / scaled[0], size[1] / scaled[1]
        return Box(left * across, top * down, self.width * across, self.height * down)


def read_frame(photo: bytes) -> Frame:
    """Read a photo's size and orientation from its header.

    Raises:
        PhotoError: It cannot be read here, although the server may be able to.
    """
    with open_photo(photo) as image:
        # Pillow turns a TIFF itself when it decodes it, and its size is already that of the upright picture.
        orientation = 1 if image.format == "TIFF" else image.getexif().get(ORIENTATION, 1)
        return Frame(*image.size, orientation if orientation in range(1, 9) else 1)


def upright_picture(photo: bytes, longest: int) -> Image.Image:
    """Decode a photo as viewers show it: RGB, scaled down until no side is longer than that.

    Raises:
        PhotoError: It cannot be read here.
    """
    with open_photo(photo) as image:
        image.draft("RGB", (longest, longest))
        picture = ImageOps.exif_transpose(image).convert("RGB")
    picture.thumbnail((longest, longest))
    return picture


@contextlib.contextmanager
def open_photo(photo: bytes) -> Iterator[Image.Image]:
    """Open a photo with Pillow; whatever fails meanwhile is a `PhotoError`."""
    formats: tuple[str, ...] = FORMATS
    if photo[4:8] == b"ftyp":
        with contextlib.suppress(ImportError):
            import pillow_heif

            pillow_heif.register_heif_opener()
            formats = (*FORMATS, "HEIF")
    try:
        with Image.open(io.BytesIO(photo), formats=formats) as image:
            yield image
    except Exception as error:
        hint = "; for HEIC: pip install pillow-heif" if photo[4:8] == b"ftyp" else ""
        raise PhotoError(
            f"the photo cannot be read on this side, so its explanation has no place{hint}", code="photo.unreadable"
        ) from error
