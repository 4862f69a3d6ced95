"""Photo bytes to pixels: what the classifiers were trained to see.

Runs inside Triton, so it needs nothing but Pillow and numpy, and it is also what the exporter uses to prepare the
photos it compares with. The steps are those of torchvision's ``Resize`` on a PIL image followed by ``ToTensor`` without
its scaling: ``convert("RGB")``, then an antialiased bilinear resize straight to the network's size.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

# An allow-list: Pillow also opens formats that start other programs (EPS) or that no camera writes.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
ACCEPTED = "JPEG, PNG, WebP, BMP, GIF, TIFF or AVIF"

# Our own limit is checked at the header, too; Pillow's would refuse what the configuration may allow.
Image.MAX_IMAGE_PIXELS = None

_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


class PhotoError(ValueError):
    """The photo is at fault; the message says what is wrong with it, in a sentence."""


@dataclass(frozen=True)
class Preprocessing:
    """How a photo becomes pixels, and which photos are refused.

    Attributes:
        width: Width of the pixels in the answer.
        height: Height of the pixels in the answer.
        max_bytes: Size of the largest accepted file.
        max_pixels: Width times height of the largest accepted photo, checked before it is decoded.
    """

    width: int = 224
    height: int = 224
    max_bytes: int = 20_000_000
    max_pixels: int = 64_000_000

    @classmethod
    def from_model_config(cls, config: Mapping[str, Any]) -> Preprocessing:
        """Reads the settings from a Triton model configuration in its JSON form."""
        height, width, _ = (int(size) for size in config["output"][0]["dims"])
        parameters = {name: int(value["string_value"]) for name, value in config.get("parameters", {}).items()}
        return cls(width=width, height=height, **parameters)

    def pixels(self, photo: bytes) -> npt.NDArray[np.uint8]:
        """Decodes and resizes a photo.

        Returns:
            RGB pixels, uint8 [height, width, 3].

        Raises:
            PhotoError: The photo is empty, too large, damaged, or in a format that is not accepted.
        """
        image = self._open(photo)
        try:
            # Once only: a second attempt to load a damaged file can succeed and hand out half a picture.
            rgb = image.convert("RGB")
            resized = rgb.resize((self.width, self.height), Image.Resampling.BILINEAR)
        except Exception as error:
            raise PhotoError(f"The photo is damaged and cannot be decoded: {_reason(error)}.") from error
        return np.asarray(resized)

    def _open(self, photo: bytes) -> Image.Image:
        if not photo:
            raise PhotoError("The photo is empty: it has 0 bytes.")
        if len(photo) > self.max_bytes:
            raise PhotoError(f"The photo has {len(photo):,} bytes; at most {self.max_bytes:,} are accepted.")
        try:
            image = Image.open(io.BytesIO(photo), formats=FORMATS)
        except UnidentifiedImageError:
            raise PhotoError(_describe_unknown(photo)) from None
        except Exception as error:
            raise PhotoError(f"The photo's header is damaged: {_reason(error)}.") from error
        width, height = image.size
        if width * height > self.max_pixels:
            raise PhotoError(
                f"The photo is {width} x {height} pixels ({width * height / 1e6:.0f} megapixels); "
                f"at most {self.max_pixels / 1e6:g} megapixels are accepted."
            )
        return image


def _describe_unknown(photo: bytes) -> str:
    if photo[4:8] == b"ftyp" and photo[8:12] in _HEIC_BRANDS:
        return f"The photo is in HEIC format; send it as {ACCEPTED}."
    return f"The file is not a photo that can be read, or its header is damaged; send {ACCEPTED}."


def _reason(error: Exception) -> str:
    # Some of Pillow's errors carry no text (MemoryError) or end in a full stop of their own.
    return str(error).rstrip(".") or type(error).__name__
