"""Resizes a decoded picture to the pixels that a network was trained with, like torchvision's transforms.

Runs inside Triton, so it needs only Pillow and numpy. With cykooz-resizer, it can resize in a fraction of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from .photo import Photo

_PILLOW_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}

# cykooz-resizer reads a picture in Pillow's own memory. Another layout of it would end this process.
_LAST_PILLOW = 13


def _fast_resizer() -> tuple[Any, str]:
    """The module cykooz-resizer; or None, and why it cannot be used."""
    if int(PIL.__version__.partition(".")[0]) > _LAST_PILLOW:
        return None, f"cykooz-resizer was not tried with Pillow {PIL.__version__}"
    try:
        import cykooz_resizer
    except ImportError as error:
        return None, f"cykooz-resizer cannot be imported: {error}"
    return cykooz_resizer, ""


# FAST_MISSING: why fast resampling is not possible here; empty if it is.
_FAST, FAST_MISSING = _fast_resizer()

# Of a photo that is scaled before the center crop. A photo of 224 x 60,000 pixels would become far larger.
MAX_SCALED_PIXELS = 64_000_000
# Scaled decoding keeps this many pixels for each pixel of the view. The export compares the answers of each network.
DETAIL = 3


class ViewError(ValueError):
    """A picture's shape cannot be resized for this view; the message is a sentence."""


@dataclass(frozen=True)
class View:
    """How photos are prepared for one group of networks.

    Attributes:
        width: Of the pixels.
        height: Of the pixels.
        shortest_edge: Scale the photo until its shorter side has this length, then take a center crop of
            width x height; None squashes the photo into width x height.
        interpolation: `bilinear`, `bicubic` or `nearest`.
        antialias: Average over all source pixels, as torchvision does for a PIL image. Without it, interpolate between
            the nearest neighbours only, as torchvision does for a tensor with `antialias=False`.
        exif_rotation: Apply the EXIF orientation first.
        decoding: `exact` decodes every pixel. `scaled` leaves out the finest detail of a JPEG that is far larger than
            the view; views without averaging (no `antialias`, or `nearest`) are decoded exactly in any case.
        resampling: `exact` resizes with Pillow. `fast` uses cykooz-resizer where it is installed, if `has_fast`.
    """

    width: int = 224
    height: int = 224
    shortest_edge: int | None = None
    interpolation: str = "bilinear"
    antialias: bool = True
    exif_rotation: bool = False
    decoding: str = "scaled"
    resampling: str = "exact"

    @property
    def has_fast(self) -> bool:
        """Whether there is a fast resize with Pillow's pixels, within 1 of 255.

        A resize has two passes, along rows and along columns, and Pillow and cykooz-resizer do them in different order.
        Bicubic pixels then differ by up to 29, since each pass cuts off what is below 0 or above 255.
        """
        return self.antialias and self.interpolation == "bilinear"

    @property
    def least_side(self) -> int | None:
        """The pixels that each side of a picture must keep for this view when decoding is scaled; None for all."""
        if self.decoding == "exact" or not self.antialias or self.interpolation == "nearest":
            return None
        return DETAIL * (self.shortest_edge or max(self.width, self.height))

    def prepare(self, photo: Photo) -> npt.NDArray[np.uint8]:
        """Orients and resizes a photo: uint8 [height, width, 3], RGB.

        Raises:
            ViewError: See `pixels`.
            InvalidPhotoError: The photo's EXIF data is needed and cannot be read.
        """
        return self.pixels(photo.upright() if self.exif_rotation else photo.rgb)

    def pixels(self, picture: Image.Image) -> npt.NDArray[np.uint8]:
        """Resizes an RGB picture: uint8 [height, width, 3].

        Raises:
            ViewError: The picture is so narrow that it would become huge before the center crop.
        """
        size = self.scaled_size(picture.size)
        # Nearest neighbour averages nothing, so antialiasing makes no difference.
        if self.resampling == "fast" and self.has_fast and not FAST_MISSING:
            scaled = _resized_fast(picture, size)
        elif self.antialias or self.interpolation == "nearest":
            scaled = np.asarray(picture.resize(size, _PILLOW_FILTERS[self.interpolation]))
        else:
            scaled = _interpolated(np.asarray(picture), size, self.interpolation)
        left, top = self.corner(size)
        return scaled[top : top + self.height, left : left + self.width]

    def corner(self, scaled: tuple[int, int]) -> tuple[int, int]:
        """The left and top of the center crop in a picture scaled to a width and height."""
        return round((scaled[0] - self.width) / 2), round((scaled[1] - self.height) / 2)

    def scaled_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The width and height to which a picture of a width and height is scaled before the center crop.

        Raises:
            ViewError: See `pixels`.
        """
        if self.shortest_edge is None:
            return self.width, self.height
        # torchvision truncates the longer side to whole pixels; it does not round.
        shorter, longer = min(size), max(size)
        scaled = int(self.shortest_edge * longer / shorter)
        if self.shortest_edge * scaled > MAX_SCALED_PIXELS:
            raise ViewError(f"The photo is {size[0]} x {size[1]} pixels, which is too narrow.")
        return (self.shortest_edge, scaled) if size[0] <= size[1] else (scaled, self.shortest_edge)


def least_side_for(views: Iterable[View]) -> int | None:
    """The pixels that each side of a picture must keep when it is decoded once for several views; None for all."""
    sides = [view.least_side for view in views]
    return None if None in sides else max(side or 0 for side in sides)


def _resized_fast(picture: Image.Image, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Resizes like Pillow's bilinear filter, in one thread and without the GIL."""
    resized = Image.new("RGB", size)
    # Only for this photo: a resizer keeps its memory, which can be tens of megabytes for a panorama.
    resizer = _FAST.Resizer()
    method = _FAST.ResizeAlg.convolution(_FAST.FilterType.bilinear)
    resizer.resize_pil(picture, resized, _FAST.ResizeOptions(resize_alg=method))
    return np.asarray(resized)


def _interpolated(pixels: npt.NDArray[np.uint8], size: tuple[int, int], kind: str) -> npt.NDArray[np.uint8]:
    """Interpolates like `torch.nn.functional.interpolate(..., align_corners=False, antialias=False)`."""
    width, height = size
    rows = _along_rows(pixels, height, kind)
    columns = _along_rows(rows.transpose(1, 0, 2), width, kind).transpose(1, 0, 2)
    return np.ascontiguousarray(np.rint(columns).clip(0, 255).astype(np.uint8))


def _along_rows(pixels: npt.NDArray[Any], count: int, kind: str) -> npt.NDArray[np.float32]:
    taps = _linear_taps(len(pixels), count) if kind == "bilinear" else _cubic_taps(len(pixels), count)
    total = np.zeros((count, *pixels.shape[1:]), np.float32)
    for indices, weights in taps:
        total += pixels[indices] * weights[:, None, None]
    return total


_Tap = tuple["npt.NDArray[np.int64]", "npt.NDArray[np.float32]"]


def _linear_taps(length: int, count: int) -> list[_Tap]:
    positions = np.maximum((np.arange(count) + 0.5) * (length / count) - 0.5, 0)
    first = np.minimum(positions.astype(np.int64), length - 1)
    fraction = (positions - first).astype(np.float32)
    return [(first, 1 - fraction), (np.minimum(first + 1, length - 1), fraction)]


def _cubic_taps(length: int, count: int) -> list[_Tap]:
    # The cubic convolution kernel with a = -0.75, PyTorch's choice; Pillow's is -0.5.
    a = -0.75
    positions = (np.arange(count) + 0.5) * (length / count) - 0.5
    first = np.floor(positions).astype(np.int64)
    taps = []
    for offset in (-1, 0, 1, 2):
        distance = np.abs(positions - first - offset)
        near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        weights = np.where(distance <= 1, near, far).astype(np.float32)
        taps.append((np.clip(first + offset, 0, length - 1), weights))
    return taps
