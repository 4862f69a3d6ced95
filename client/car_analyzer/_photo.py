"""Converts a photo, in any of the accepted types, to the bytes that are sent.

Files and bytes are sent unchanged: the server decodes them, and decides whether they are an image. Pillow images and
arrays are already pixels: they are sent as PNG, which is lossless, with the EXIF orientation of the file they are from.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, Union

from ._urls import is_url, read_url
from .errors import PhotoError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

Photo: TypeAlias = Union[
    str,
    "os.PathLike[str]",
    bytes,
    bytearray,
    memoryview,
    BinaryIO,
    "Image.Image",
    "npt.NDArray[np.uint8]",
]
"""A path, a URL, bytes of an image file, an open binary file, a Pillow image, or an RGB array (uint8, H x W x 3)."""

# The limit of a gRPC message is 2 GiB; a real photo is a thousand times smaller.
MAX_BYTES = 2**31 - 2**20
ORIENTATION = 0x0112


async def to_bytes(photo: Photo) -> bytes:
    """Get the bytes to send, without blocking the event loop.

    Args:
        photo: See `Photo`. An open file is read from its current position.

    Raises:
        PhotoError: It cannot be read, is empty, or has an unsupported type.
        ConfigurationError: It is a URL, and a library is missing.
    """
    if isinstance(photo, bytes | bytearray | memoryview):
        data = bytes(photo)
    else:
        import asyncio

        # In a thread: a disk may be slow, and encoding a PNG takes a while.
        data = await asyncio.to_thread(_convert, photo)
    if not data:
        raise PhotoError(f"{_describe(photo)} is empty", code="photo.empty")
    if len(data) > MAX_BYTES:
        raise PhotoError(f"{_describe(photo)} is too large: {len(data):,} bytes", code="photo.too_large")
    return data


def _convert(photo: Photo) -> bytes:
    if isinstance(photo, str | os.PathLike):
        return read_path(photo)
    if _is_a(photo, "PIL.Image", "Image"):
        return _encode(photo)
    if _is_a(photo, "numpy", "ndarray"):
        return _encode_array(photo)
    if hasattr(photo, "read"):
        return _read_file(photo)
    raise PhotoError(
        f"a photo is a path, a URL, bytes, a binary file, a Pillow image or an array, not {_describe(photo)}"
    )


def _is_a(photo: Any, module: str, name: str) -> bool:
    # A caller with such an object has imported its module; importing it here would slow down all others.
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(photo, kind)


def _describe(photo: Any) -> str:
    if isinstance(photo, str | os.PathLike):
        return os.fspath(photo)
    if isinstance(photo, bytes | bytearray | memoryview):
        return "the photo"
    kind = type(photo)
    return f"this {kind.__name__}" if kind.__module__ == "builtins" else f"this {kind.__module__}.{kind.__name__}"


def read_path(path: str | os.PathLike[str]) -> bytes:
    """The content of a file, named by its path or URL.

    Raises:
        PhotoError: It cannot be read.
        ConfigurationError: It is a URL, and a library is missing.
    """
    if isinstance(path, str) and is_url(path):
        return read_url(path)
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise PhotoError(f"cannot read {os.fspath(path)}: {reason}", code="photo.unreadable") from error


def _read_file(file: Any) -> bytes:
    try:
        data = file.read()
    except Exception as error:
        raise PhotoError(f"cannot read {_describe(file)}: {error}", code="photo.unreadable") from error
    if isinstance(data, str):
        raise PhotoError("the file is open for text; open it with mode 'rb'", code="photo.unreadable")
    if not isinstance(data, bytes | bytearray | memoryview):
        raise PhotoError(f"reading {_describe(file)} gave {type(data).__name__}, not bytes", code="photo.unreadable")
    return bytes(data)


def _encode(image: Any) -> bytes:
    buffer = io.BytesIO()
    try:
        # The preprocess step calls convert("RGB") for files, too, so both give the same pixels.
        pixels = image.convert("RGB")
        pixels.save(buffer, "PNG", compress_level=1, exif=_orientation_of(image))
    except Exception as error:
        raise PhotoError(f"cannot read the Pillow image: {error}") from error
    return buffer.getvalue()


def _orientation_of(image: Any) -> Image.Exif:
    """Only the orientation of its EXIF data: a network may see the turned photo."""
    from PIL.Image import Exif

    exif = Exif()
    orientation = image.getexif().get(ORIENTATION)
    if orientation in range(2, 9):
        exif[ORIENTATION] = orientation
    return exif


def _encode_array(array: Any) -> bytes:
    if array.dtype != "uint8" or array.ndim != 3 or array.shape[2] != 3:
        shape = " x ".join(map(str, array.shape)) or "()"
        raise PhotoError(f"an array must be uint8 of shape height x width x 3 (RGB), not {array.dtype} of {shape}")
    if not array.size:
        raise PhotoError(f"the array is empty: {' x '.join(map(str, array.shape))}", code="photo.empty")
    from PIL import Image

    return _encode(Image.fromarray(array))
