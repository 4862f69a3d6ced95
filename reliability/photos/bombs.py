"""Small or valid-looking files that are dear to decode: in pixels, in pieces, in layers, or in compressed text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import bombs_avif, bombs_gif_bmp, bombs_jpeg, bombs_png, bombs_tiff, bombs_webp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BOMBS: Mapping[str, Callable[[], bytes]] = {
    **bombs_jpeg.BOMBS,
    **bombs_png.BOMBS,
    **bombs_webp.BOMBS,
    **bombs_gif_bmp.BOMBS,
    **bombs_tiff.BOMBS,
    **bombs_avif.BOMBS,
}
"""Name → what makes the file."""
