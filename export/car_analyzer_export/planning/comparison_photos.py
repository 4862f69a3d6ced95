"""Photos to compare shortcuts on.

For scaled decoding, these are JPEGs so large that it loses detail: the user's own, and ones made from smaller pictures.
For fast resampling with it, also photos so small that they are decoded exactly.
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from car_analyzer_server.cores import cores

from ..photo_folder import PhotoFolder
from ..pictures import generated, variant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from ..preprocess.photo import Photo
    from ..spec import Limits

MOST = 24
# Beside the large ones. The networks' answers to them are most of the time of a comparison.
MOST_SMALL = 12
_LEAST = 8
# Of all generated ones together: a megapixel costs some hundredths of a second.
_PIXELS = 120_000_000
_USUAL = (640, 480)
_QUALITIES = (75, 80, 85, 90, 95)
# Half of the cameras and phones use the first.
_SUBSAMPLINGS = ("4:2:0", "4:2:0", "4:2:2", "4:4:4")


@dataclass(frozen=True)
class ComparisonPhotos:
    """Photos to compare shortcuts on, one from each source in turn.

    Attributes:
        contents: The files.
        sizes: Their widths and heights.
        unchanged: How many of them are the user's photos, unchanged.
        photos: How many of them are the user's photos, unchanged or enlarged; 0 with generated pictures.
        skipped: See `PhotoFolder`.
    """

    contents: tuple[bytes, ...]
    sizes: tuple[tuple[int, int], ...]
    unchanged: int = 0
    photos: int = 0
    skipped: Mapping[str, str] = field(default_factory=dict)


def comparison_photos(least_side: int | None, folder: Path | None, limits: Limits) -> ComparisonPhotos:
    """Finds large JPEGs in a folder, and makes missing ones from its other photos, or from generated pictures.

    They have several sizes, so that a half, a quarter or an eighth of each side is decoded, several qualities, and all
    kinds of chroma subsampling. The result is cached.

    Args:
        least_side: How many pixels each side keeps; see `Photo`. None: decoding is exact, so the photos of the folder
            are returned as they are, and generated ones are small.
        folder: The user's photos.
        limits: The service rejects larger photos, so none are made.

    Raises:
        SpecError: The folder holds no readable photo.
    """
    return _comparison_photos(least_side, folder, limits, _state(folder, limits))


def small_photos(least_side: int, folder: Path | None, limits: Limits) -> ComparisonPhotos:
    """Finds photos that are decoded exactly, and makes missing ones from a folder's large JPEGs, or generates them.

    Args:
        least_side: See `comparison_photos`.
        folder: The user's photos.
        limits: The limits of the service.

    Raises:
        SpecError: The folder holds no readable photo.
    """
    if folder is None:
        return _made([_generated(i) for i in range(MOST_SMALL)], [_USUAL] * MOST_SMALL)
    sources, skipped = _sources(least_side, folder, limits, _state(folder, limits))
    small = [source for source in sources if not source.is_large][:MOST_SMALL]
    large = [source for source in sources if source.is_large][: MOST_SMALL - len(small)]
    made = _made([source.picture for source in large], [source.picture.size for source in large])
    return ComparisonPhotos(
        (*(source.content for source in small), *made.contents),
        (*(source.size for source in small), *made.sizes),
        len(small),
        len(small) + len(large),
        skipped,
    )


def _state(folder: Path | None, limits: Limits) -> object:
    """Changes with the files of a folder."""
    files = PhotoFolder(folder, limits).files if folder is not None else []
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)


@lru_cache(maxsize=2)
def _comparison_photos(least_side: int | None, folder: Path | None, limits: Limits, state: object) -> ComparisonPhotos:
    sizes = list(_sizes(least_side, limits.max_pixels))
    if folder is None:
        return _made([_generated(i) for i in range(len(sizes))], sizes)
    sources, skipped = _sources(least_side, folder, limits, state)
    large = [source for source in sources if source.is_large][:MOST]
    # Without small ones, large ones are the source.
    small = [source for source in sources if not source.is_large] or large
    missing = [] if least_side is None else sizes[len(large) :]
    made = _made([small[i % len(small)].variant(i // len(small)) for i in range(len(missing))], missing)
    return ComparisonPhotos(
        (*(source.content for source in large), *made.contents),
        (*(source.size for source in large), *made.sizes),
        len(large),
        min(len(sources), len(large) + len(missing)),
        skipped,
    )


@lru_cache(maxsize=2)
def _sources(
    least_side: int | None, folder: Path, limits: Limits, _state: object
) -> tuple[list[_Source], Mapping[str, str]]:
    """The first photos of a folder, and why others were skipped."""
    found = PhotoFolder(folder, limits)
    most = MOST if least_side is None else 2 * MOST
    return list(islice(found.read(found.spread(MOST), _source_of(least_side)), most)), found.skipped


@dataclass(frozen=True)
class _Source:
    """A photo of the user's.

    Attributes:
        picture: Scaled down to at most 1000 pixels a side.
        size: Its original size.
        content: Its file.
        is_large: Scaled decoding leaves out detail. Without scaled decoding, every photo counts.
    """

    picture: Image.Image
    size: tuple[int, int]
    content: bytes
    is_large: bool

    def variant(self, turn: int) -> Image.Image:
        return Image.fromarray(variant(np.asarray(self.picture), turn))


def _source_of(least_side: int | None) -> Callable[[Photo, bytes], _Source]:
    def make(photo: Photo, content: bytes) -> _Source:
        photo.upright()  # as in some views
        picture = photo.rgb.copy()
        picture.thumbnail((1000, 1000))
        is_large = least_side is None or photo.scale(least_side) > 1
        return _Source(picture, photo.rgb.size, content, is_large)

    return make


def _sizes(least_side: int | None, max_pixels: int) -> Iterator[tuple[int, int]]:
    """Widths and heights: most are decoded to a half, some to a quarter, and one to an eighth."""
    if least_side is None:
        yield from [_USUAL] * MOST
        return
    pixels = 0
    for number in range(MOST):
        random = np.random.default_rng(number)
        scale = 8 if number == 7 else 4 if number % 5 == 2 else 2
        while scale > 1 and (scale * least_side) ** 2 > max_pixels:
            scale //= 2
        if scale == 1:
            return  # no accepted photo is decoded scaled
        side = longer = scale * least_side
        # The larger ones are squares, which are expensive enough.
        if scale == 2 and (larger := 2 * round(least_side * random.choice((1, 1.2, 4 / 3)))) * side <= max_pixels:
            longer = larger
        pixels += side * longer
        if pixels > _PIXELS and number >= _LEAST:
            return
        yield (longer, side) if random.random() < 0.7 else (side, longer)


def _made(sources: list[Image.Image], sizes: list[tuple[int, int]]) -> ComparisonPhotos:
    # Pillow releases the GIL.
    with ThreadPoolExecutor(cores()) as pool:
        contents = tuple(pool.map(_enlarged, sources, sizes, range(len(sizes))))
    return ComparisonPhotos(contents, tuple(sizes))


@lru_cache(maxsize=MOST)
def _generated(number: int) -> Image.Image:
    return Image.fromarray(_textured(generated(number, _USUAL), number))


def _textured(pixels: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.uint8]:
    """Adds detail of every size, unevenly, as photos have it and generated pictures do not."""
    random = np.random.default_rng(seed)
    size = (pixels.shape[1], pixels.shape[0])

    def noise(cells: int) -> npt.NDArray[np.float32]:
        cell = Image.fromarray(random.integers(0, 256, (cells, cells), dtype=np.uint8))
        return np.asarray(cell.resize(size, Image.Resampling.BICUBIC), np.float32)[..., None] - np.float32(128)

    where = np.clip(noise(6) / 64, 0, 1)
    return (pixels + where * sum(noise(cells) / 4 for cells in (48, 96, 192, 384))).clip(0, 255).astype(np.uint8)


def _enlarged(picture: Image.Image, size: tuple[int, int], seed: int) -> bytes:
    """Enlarges a picture as if from a camera of more pixels: with sharp edges, and grain."""
    random = np.random.default_rng(seed)
    # Sharper ones make no difference to a network.
    shrink = max(1, min(size) // 1344)
    large = picture.resize((size[0] // shrink, size[1] // shrink), Image.Resampling.BICUBIC)
    large = large.filter(ImageFilter.UnsharpMask(2, 120, 0))
    tile = Image.fromarray(random.normal(128, 5, (256, 256)).clip(0, 255).astype(np.uint8))
    grain = Image.new("L", large.size)
    for left in range(0, large.width, 256):
        for top in range(0, large.height, 256):
            grain.paste(tile, (left, top))
    large = ImageChops.add(large, Image.merge("RGB", [grain] * 3), 1, -128)
    file = io.BytesIO()
    options = {"quality": int(random.choice(_QUALITIES)), "subsampling": str(random.choice(_SUBSAMPLINGS))}
    large.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", **options)
    return file.getvalue()
