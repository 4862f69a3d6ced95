"""Streams photos past the comparison of `car-analyzer gateway --drift`, without a server: what it notices, and when.

Recorded and later photos are independent draws of one distribution: photos of a folder with random crop, light,
white balance and JPEG quality. A change must raise an alarm within 500 photos, and 10,000 photos like the recorded ones
at most one.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter

from car_analyzer.drift import LEAST_PHOTOS, Observation, Reference, photo_statistics
from car_analyzer_export.preprocess.photo import Photo
from car_analyzer_export.preprocess.view import View
from car_analyzer_gateway._drift import WINDOW

from .harness import Row, announce, make_parser, report
from .reference import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EPILOG = """\
examples:
  python -m reliability.drift
  python -m reliability.drift --photos ../shared/photos
  python -m reliability.drift --alike 1000 --recorded 100
"""
WITHIN = 500
VIEW = View()
SIZE = (320, 240)
PHOTOS = EXAMPLES / "photos"


def unchanged(picture: Image.Image, _rng: np.random.Generator) -> Image.Image:
    """As it is."""
    return picture


def night(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Dark, with the noise of a high sensitivity."""
    pixels = 255 * 0.5 * (np.asarray(picture) / 255) ** 1.6 + rng.normal(0, 8, (picture.height, picture.width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def blur(picture: Image.Image, _rng: np.random.Generator) -> Image.Image:
    """Out of focus, by a few pixels of the photo."""
    return picture.filter(ImageFilter.GaussianBlur(picture.width / 200))


def greyish(picture: Image.Image, _rng: np.random.Generator) -> Image.Image:
    """With a fifth of its colour."""
    return Image.blend(picture.convert("L").convert("RGB"), picture, 0.2)


def swap(picture: Image.Image, _rng: np.random.Generator) -> Image.Image:
    """With red and blue swapped, as by a client that mixes them up."""
    return Image.fromarray(np.ascontiguousarray(np.asarray(picture)[..., ::-1]))


@dataclass(frozen=True)
class Stream:
    """How photos of one kind come about.

    Attributes:
        scene: Changes the scene.
        size: Of the photo.
        gains: The camera's white balance: of red, green and blue.
        quality: Of the JPEG, on average.
        client: Changes the camera's picture before it is encoded.
    """

    scene: Callable[[Image.Image, np.random.Generator], Image.Image] = unchanged
    size: tuple[int, int] = SIZE
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    quality: int = 88
    client: Callable[[Image.Image, np.random.Generator], Image.Image] = unchanged


PLAIN = Stream()
WARMER = (1.12, 1.0, 0.88)
# Name → the recorded photos, and those that come later.
CHANGES = {
    "night": (PLAIN, Stream(night)),
    "blur": (PLAIN, Stream(blur)),
    "another camera": (PLAIN, Stream(size=(400, 300), gains=WARMER, quality=70)),
    "another white balance": (PLAIN, Stream(gains=WARMER)),
    "red and blue swapped": (PLAIN, Stream(client=swap)),
    "the same, greyish photos": (Stream(greyish), Stream(greyish, client=swap)),
}


class Photographer:
    """Takes photos of random scenes.

    Args:
        folder: Of photos to take the scenes from.
        seed: Of everything random.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._pictures = _read(folder)

    def take(self, stream: Stream, count: int) -> list[Observation]:
        """What the gateway sees of so many photos."""
        return [self._observe(stream) for _ in range(count)]

    def _observe(self, stream: Stream) -> Observation:
        rng = self._rng
        picture = stream.scene(self._scene(), rng).resize(stream.size)
        balance = [gain * 2 ** rng.normal(0, 0.05) for gain in stream.gains]
        picture = stream.client(_scaled(picture, balance), rng)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=min(97, round(rng.normal(stream.quality, 3))))
        content = file.getvalue()
        pixels = VIEW.prepare(Photo(content, least_side=VIEW.least_side))
        return Observation(photo_statistics(pixels, content), {})

    def _scene(self) -> Image.Image:
        rng = self._rng
        picture = self._pictures[rng.integers(len(self._pictures))]
        share = rng.uniform(0.6, 1)
        width, height = round(share * picture.width), round(share * picture.height)
        left, top = rng.integers(picture.width - width + 1), rng.integers(picture.height - height + 1)
        picture = _scaled(picture.crop((left, top, left + width, top + height)), [2 ** rng.normal(0, 0.25)] * 3)
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else picture


def _read(folder: Path) -> list[Image.Image]:
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    pictures = [Image.open(file).convert("RGB") for file in files]
    for picture in pictures:
        picture.thumbnail(SIZE)
    return pictures


def _scaled(picture: Image.Image, gains: Sequence[float]) -> Image.Image:
    """The picture with red, green and blue multiplied."""
    return picture.point([min(255, round(value * gain)) for gain in gains for value in range(256)])


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = make_parser("drift", __doc__, EPILOG)
    parser.add_argument(
        "--photos", type=Path, default=PHOTOS, metavar="DIR", help="to take scenes from; default: the demo's"
    )
    parser.add_argument("--recorded", type=int, default=500, metavar="N", help="recorded photos; default: %(default)s")
    parser.add_argument("--alike", type=int, default=10_000, metavar="N", help="like them; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of everything random; default: %(default)s")
    arguments = parser.parse_args(argv)
    photographer = Photographer(arguments.photos, arguments.seed)
    rows = [try_change(name, photographer, arguments.recorded) for name in CHANGES]
    return report([*rows, try_alike(photographer, arguments.recorded, arguments.alike)])


def try_change(name: str, photographer: Photographer, recorded: int) -> Row:
    """Changes a stream in the middle of a window, and counts the changed photos until the alarm."""
    before, after = CHANGES[name]
    reference = _record(photographer, before, recorded)
    window = photographer.take(before, WINDOW // 2) + photographer.take(after, WINDOW - WINDOW // 2)
    changed = WINDOW - WINDOW // 2
    while not (alarms := [one for one in reference.compare(window) if one.score >= 1]) and changed < WITHIN:
        window = photographer.take(after, WINDOW)
        changed += WINDOW
    note = f"after {changed} photos: {alarms[0].sentence}" if alarms else "no alarm"
    return announce(Row(name, changed, int(not alarms or changed > WITHIN), note))


def try_alike(photographer: Photographer, recorded: int, count: int) -> Row:
    """Counts the alarms among photos like the recorded ones."""
    reference = _record(photographer, PLAIN, recorded)
    highest = [reference.compare(photographer.take(PLAIN, WINDOW))[0] for _ in range(count // WINDOW)]
    alarms = sum(one.score >= 1 for one in highest)
    top = max(highest, key=lambda one: one.score)
    note = f"{alarms} alarms; the highest score is {top.score:.2f} ({top.statistic})"
    return announce(Row("like the recorded", count, max(0, alarms - 1), note))


def _record(photographer: Photographer, stream: Stream, count: int) -> Reference:
    reference = Reference.of(photographer.take(stream, count))
    if reference is None:
        raise SystemExit(f"--recorded: at least {LEAST_PHOTOS} are needed")
    return reference


if __name__ == "__main__":
    sys.exit(main())
