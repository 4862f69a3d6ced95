"""Pictures to compare ONNX Runtime with PyTorch on."""

from __future__ import annotations

import functools
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

if TYPE_CHECKING:
    import numpy.typing as npt

    from .photo_folder import PhotoFolder
    from .preprocess.view import View


def comparison_pixels(view: View, count: int, photos: PhotoFolder | None) -> npt.NDArray[np.uint8]:
    """Prepares pictures as the service does.

    Args:
        view: The network's view.
        count: How many pictures.
        photos: If it has too few photos, mirrored and cropped copies are added. Without a folder, pictures with the
            edges, gradients and texture of photos are generated, always the same ones.

    Returns:
        uint8 [count, height, width, 3].

    Raises:
        SpecError: The folder has no readable photo.
    """
    if photos is None:
        return np.stack([generated(seed, (view.width, view.height)) for seed in range(count)])
    found = read_photos(view, photos, count)
    return np.stack([variant(found[index % len(found)], index // len(found)) for index in range(count)])


def read_photos(view: View, folder: PhotoFolder, most: int) -> list[npt.NDArray[np.uint8]]:
    """Prepares up to `most` photos of a folder, in the order of their paths.

    Raises:
        SpecError: It has no readable photo.
    """
    return list(islice(folder.read(folder.files, lambda photo, _: view.prepare(photo)), most))


def variant(pixels: npt.NDArray[np.uint8], turn: int) -> npt.NDArray[np.uint8]:
    """The `turn`-th variant of a picture: unchanged, mirrored, then ever tighter crops."""
    if turn == 0:
        return pixels
    mirrored = pixels[:, ::-1] if turn % 2 else pixels
    image = Image.fromarray(np.ascontiguousarray(mirrored))
    margin = min(0.04 * (turn // 2), 0.4)
    box = (margin * image.width, margin * image.height, (1 - margin) * image.width, (1 - margin) * image.height)
    return np.asarray(image.resize(image.size, Image.Resampling.BILINEAR, box=box))


@functools.lru_cache(maxsize=64)  # each network of an export is compared on the same ones, several times
def generated(seed: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Generates a picture of a size, width by height, with the edges, gradients and texture of photos.

    Returns:
        uint8 [height, width, 3], read-only.
    """
    random = np.random.default_rng(seed)
    # Noise at several scales has the spectrum of photos; shapes on it give edges and flat areas.
    canvas = np.zeros((size[1], size[0], 3))
    for cells in (2, 4, 8, 16, 32):
        noise = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        canvas += np.asarray(noise.resize(size, Image.Resampling.BICUBIC), dtype=float) / cells
    image = Image.fromarray((255 * canvas / canvas.max()).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = random.integers(0, size[0]), random.integers(0, size[1])
        box = (x, y, x + random.integers(1, size[0]), y + random.integers(1, size[1]))
        colour = tuple(int(part) for part in random.integers(0, 256, 3))
        (draw.ellipse if random.random() < 0.5 else draw.rectangle)([int(side) for side in box], fill=colour)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(random.uniform(0, 2))))
