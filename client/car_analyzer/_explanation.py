"""The result of explaining an answer: a map of where in the photo it comes from."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from ._geometry import Box, upright_picture
from ._photo import read_path

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import numpy.typing as npt

# A weaker map is not drawn at full strength: it would show differences that mean nothing.
FAINT = 0.1
OPACITY = 0.75
HEAT_MAP_SIDE = 256
PICTURE_SIDE = 1024
# From weak to strong. Dark to bright, so that the colour of the car does not matter.
STRENGTHS, COLOURS = (0.0, 0.5, 1.0), ((80, 20, 150), (225, 80, 70), (255, 235, 60))


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where in the photo a head's answer comes from.

    Positive values speak for the label, negative ones against it. With `cam`, a value is what the place adds to the
    label's logit: their mean, plus the network's bias, is the logit. With `occlusion`, it is how far the label's logit
    falls when the place is covered. A head with one logit has maps with opposite signs for its two labels.

    The photo here is the upright one, which viewers show and `ImageOps.exif_transpose` returns. That holds whether or
    not the network saw it upright.

    Attributes:
        method: `cam`, a class activation map that the network itself computes, or `occlusion`, which covers one part of
            the photo after another.
        labels: What `map` explains: the label of the answer; for `unsure` the more likely label; for a multilabel head
            all labels that apply, or the most likely one if none does.
        maps: Each label of the head to its map, float32 of shape [rows, columns].
        box: The part of the photo that the maps cover, in pixels.
        photo_size: The photo's width and height in pixels.
        orientation: The EXIF orientation of the stored photo, 1 to 8; 1: stored upright, or turned by its decoder, as
            TIFF and HEIC are.
    """

    method: Literal["cam", "occlusion"]
    labels: tuple[str, ...]
    maps: Mapping[str, npt.NDArray[np.float32]] = field(compare=False, repr=False)
    box: Box
    photo_size: tuple[int, int]
    orientation: int = 1

    @property
    def map(self) -> npt.NDArray[np.float32]:
        """The map of the answer, float32 [rows, columns]; for several labels the highest value of their maps."""
        highest: npt.NDArray[np.float32] = np.max([self.maps[label] for label in self.labels], axis=0)
        return highest

    def heat_map(self) -> bytes:
        """Draw the map alone: a transparent PNG, to be stretched over `box`.

        What speaks against the label is not drawn. The strongest place is drawn at full strength, unless even that one
        changes the logit by less than 0.1.
        """
        return _png(_heat_map(self.map))

    def on_photo(self, photo: bytes | str | os.PathLike[str], side: int = PICTURE_SIDE) -> bytes:
        """Draw the map on the photo, upright and scaled down: a PNG.

        Args:
            photo: The photo that was analysed: its bytes or its path.
            side: The picture's longer side has at most so many pixels.

        Raises:
            PhotoError: It cannot be read on this side.
        """
        picture = upright_picture(photo if isinstance(photo, bytes) else read_path(photo), side)
        across, down = picture.width / self.photo_size[0], picture.height / self.photo_size[1]
        size = max(1, round(self.box.width * across)), max(1, round(self.box.height * down))
        heat = _heat_map(self.map).resize(size, Image.Resampling.BILINEAR)
        picture.paste(heat, (round(self.box.left * across), round(self.box.top * down)), heat)
        return _png(picture)

    def to_dict(self) -> dict[str, Any]:
        """The explanation as JSON-ready camelCase, without the maps.

        Returns:
            `{"method": "occlusion", "labels": ["damaged"], "box": {"left": 0.0, "top": 0.0, "width": 640.0,
            "height": 480.0}, "photo": {"width": 640, "height": 480, "orientation": 1}}`, the box to one digit.
        """
        width, height = self.photo_size
        box = {name: round(getattr(self.box, name), 1) for name in ("left", "top", "width", "height")}
        photo = {"width": width, "height": height, "orientation": self.orientation}
        return {"method": self.method, "labels": list(self.labels), "box": box, "photo": photo}


def read_explanation(fields: Mapping[str, Any]) -> Explanation:
    """The explanation in the gateway's JSON: that of `to_dict`, and `maps`.

    Raises:
        KeyError, TypeError, ValueError: It is not one.
    """
    photo = fields["photo"]
    maps = {label: np.array(rows, np.float32) for label, rows in fields["maps"].items()}
    if not all(values.ndim == 2 for values in maps.values()) or not maps.keys() >= set(fields["labels"]):
        raise ValueError("maps")
    return Explanation(
        fields["method"],
        tuple(fields["labels"]),
        maps,
        Box(**fields["box"]),
        (photo["width"], photo["height"]),
        photo["orientation"],
    )


# For help() and messages; see `_results`.
Explanation.__module__ = "car_analyzer"


def _heat_map(values: npt.NDArray[np.float32]) -> Image.Image:
    rows, columns = values.shape
    scale = max(1, HEAT_MAP_SIDE // max(rows, columns))
    smooth = Image.fromarray(np.ascontiguousarray(values)).resize(
        (columns * scale, rows * scale), Image.Resampling.BILINEAR
    )
    strength = np.clip(np.asarray(smooth) / max(float(values.max()), FAINT), 0, 1)
    channels = [np.interp(strength, STRENGTHS, channel) for channel in zip(*COLOURS, strict=True)]
    pixels = np.stack([*channels, 255 * OPACITY * strength], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8), "RGBA")


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
