"""Occlusion: covers one part of a photo after another, and maps how far each logit falls.

Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, arXiv:1311.2901.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

# Windows in each direction. They overlap by half, so the map has one more cell in each direction.
WINDOWS = 8
CELLS = WINDOWS + 1
# More would hold up the photos of other callers.
BATCH = 16
BATCH_BYTES = 16_000_000


def batches(pixels: npt.NDArray[np.uint8], max_batch_size: int) -> Iterator[npt.NDArray[np.uint8]]:
    """The pixels [height, width, 3], and then a copy for each window, in batches [batch, height, width, 3]."""
    size = max(1, min(max_batch_size, BATCH, BATCH_BYTES // pixels.nbytes))
    pictures = _pictures(pixels)
    while batch := list(islice(pictures, size)):
        yield np.stack(batch)


def fall_maps(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """How far each logit falls where the photo is covered.

    Args:
        logits: For all pictures of `batches` [1 + windows, logits].

    Returns:
        [logits, rows, columns]. Each cell has the mean of the windows that cover it.
    """
    falls = (logits[0] - logits[1:]).reshape(WINDOWS, WINDOWS, -1)
    total, count = np.zeros((CELLS, CELLS, falls.shape[2]), np.float32), np.zeros((CELLS, CELLS, 1), np.float32)
    for down, across in np.ndindex(2, 2):
        place = slice(down, down + WINDOWS), slice(across, across + WINDOWS)
        total[place] += falls
        count[place] += 1
    maps: npt.NDArray[np.float32] = (total / count).transpose(2, 0, 1)
    return maps


def _pictures(pixels: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.uint8]]:
    yield pixels
    mean_colour = pixels.mean(axis=(0, 1)).round().astype(np.uint8)
    rows, columns = (np.linspace(0, side, CELLS + 1).round().astype(int) for side in pixels.shape[:2])
    for row, column in np.ndindex(WINDOWS, WINDOWS):
        covered = pixels.copy()
        covered[rows[row] : rows[row + 2], columns[column] : columns[column + 2]] = mean_colour
        yield covered
