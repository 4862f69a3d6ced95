"""Draws pictures of cars, clean or dirty and intact or damaged, that train and show the demo models.

``python examples/draw_cars.py labelled`` draws 160 that the demo models were not trained with, each into a folder named
by its labels, such as ``labelled/dirty_intact/``, to try ``car-analyzer check`` and ``calibrate`` on.

A car is seen from its side. Its lengths are in metres: x from the rear bumper, y from the ground. Masks are float32
[height, width] from 0 to 1, pixels are RGB, float32 [height, width, 3] from 0 to 255.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Sequence

Array: TypeAlias = npt.NDArray[Any]
Point: TypeAlias = tuple[float, float]

COMBINATIONS = ("clean_intact", "dirty_intact", "clean_damaged", "dirty_damaged")
# Seed and first number of pictures with which nothing was trained, tested or shown.
SEED, START = 7, 3_000_000

PAINTS = (
    (232, 233, 235), (172, 177, 184), (96, 101, 108), (34, 36, 41), (186, 28, 34), (112, 20, 30), (28, 62, 140),
    (70, 130, 196), (22, 84, 62), (120, 150, 64), (232, 182, 30), (222, 104, 28), (112, 78, 52), (196, 178, 146),
)  # fmt: skip
DIRTS = ((112, 84, 54), (92, 66, 44), (142, 116, 82), (172, 152, 120), (126, 112, 94))
GROUNDS = ((112, 112, 116), (98, 128, 62), (138, 132, 124), (190, 192, 196))
WALLS = ((158, 100, 84), (172, 168, 160), (110, 116, 122), (96, 116, 96))


# Outline and windows from the rear over the roof to the front, pillars between windows, axles.
BODIES = (
    (((0.06, 0.24), (0, 0.6), (0.07, 1.02), (0.72, 1.08), (1.5, 1.44), (2.55, 1.46), (3.38, 1.02), (4.42, 0.86),
       (4.62, 0.58), (4.55, 0.22)),
      ((0.98, 1.06), (1.58, 1.37), (2.5, 1.385), (3.17, 1.04)), (1.42, 2.2), (0.88, 3.72)),
    (((0.05, 0.26), (0, 0.6), (0.08, 0.98), (0.38, 1.44), (1.0, 1.51), (2.15, 1.5), (2.95, 1.03), (3.75, 0.88),
       (3.95, 0.58), (3.88, 0.23)),
      ((0.4, 1.03), (0.58, 1.4), (2.08, 1.42), (2.75, 1.05)), (0.95, 1.75), (0.68, 3.2)),
    (((0.05, 0.36), (0, 0.7), (0.07, 1.15), (0.3, 1.66), (1.0, 1.75), (2.5, 1.73), (3.2, 1.2), (4.35, 1.06),
       (4.55, 0.7), (4.46, 0.34)),
      ((0.36, 1.22), (0.5, 1.61), (2.45, 1.64), (3.02, 1.23)), (1.15, 2.1), (0.85, 3.65)),
    (((0.04, 0.42), (0, 0.7), (0.03, 1.16), (1.98, 1.17), (2.08, 1.72), (3.3, 1.75), (3.98, 1.2), (5.1, 1.08),
       (5.3, 0.72), (5.22, 0.38)),
      ((2.2, 1.22), (2.26, 1.62), (3.22, 1.65), (3.78, 1.23)), (2.92,), (1.1, 4.25)),
)  # fmt: skip


def draw_jpeg(seed: int, number: int, quality: int | None = None) -> bytes:
    """Draws picture ``number`` of a seed as a JPEG of ``COMBINATIONS[number % 4]``, by default of random quality."""
    rng = np.random.default_rng((seed, number))
    varied = int(rng.integers(45, 96))
    picture = draw_car(rng, dirty=bool(number % 2), damaged=bool(number // 2 % 2))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality or varied)
    return out.getvalue()


def draw_car(
    rng: np.random.Generator, *, dirty: bool, damaged: bool, size: tuple[int, int] = (640, 480)
) -> Image.Image:
    """Draws one car in its surroundings.

    The car, its place, the background and the light come from ``rng`` alone: the same generator state gives the same
    ones whatever the two properties are, so only the marks themselves tell them.

    Args:
        rng: The only source of randomness.
        dirty: Whether the car is dusty and muddy.
        damaged: Whether it has dents, scratches or broken windows.
        size: Width and height of the picture in pixels; its mode is RGB.
    """
    # Each part has its own generator, so that marks do not shift the draws of what comes after them.
    car_rng, dirt_rng, damage_rng, scene_rng, light_rng = (
        np.random.default_rng(int(seed)) for seed in rng.integers(2**62, size=5)
    )
    car = Car(car_rng, size)
    if dirty:
        make_dirty(car, dirt_rng)
    if damaged:
        make_damaged(car, damage_rng)
    left = int((size[0] - car.size[0]) * scene_rng.uniform(0.2, 0.8))
    top = int(size[1] * scene_rng.uniform(0.88, 0.96)) - car.size[1]
    pixels = draw_background(scene_rng, size)
    place = pixels[top : top + car.size[1], left : left + car.size[0]]
    shadow = np.exp(-((car.y / 0.09) ** 2) - (2.1 * car.x / car.length - 1.05) ** 12)
    blend(place, 20, 0.75 * shadow)
    blend(place, car.pixels, car.alpha)
    return apply_light(light_rng, pixels)


class Car:
    """A clean, intact car.

    Attributes:
        size: Width and height of its part of the picture, in pixels.
        pixels: Its colours.
        alpha: The mask of the whole car.
        painted: The mask of the paint.
        glass: The mask of the windows.
        x, y: The metres of each pixel, [height, width].
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        *shapes, pillars, axles = BODIES[rng.integers(len(BODIES))]
        long, tall = rng.uniform(0.94, 1.06), rng.uniform(0.96, 1.06)
        outline, window = ([(x * long, y * tall) for x, y in part] for part in shapes)
        self.length, self.height = (max(point[axis] for point in outline) for axis in (0, 1))
        self.sill, (self.rear, self.belt), (self.front, _) = outline[0][1], window[0], window[-1]
        self.axles, self.radius = [x * long for x in axles], rng.uniform(0.31, 0.38)
        self.scale = min(rng.uniform(0.75, 0.9) * size[0] / self.length, 0.6 * size[1] / self.height)
        self.size = round((self.length + 0.3) * self.scale), round((self.height + 0.35) * self.scale)
        rows, columns = np.mgrid[: self.size[1], : self.size[0]].astype(np.float32)
        self.x, self.y = columns / self.scale - 0.15, (self.size[1] - rows) / self.scale - 0.25
        rear, front = (np.hypot(self.x - x, self.y - self.radius) for x in self.axles)
        self.from_axle = np.minimum(rear, front)

        pillars = [x * long for x in pillars]
        whole, arches = self.mask(outline), self.discs(1.2 * self.radius)
        self.glass = self.mask(window) * (1 - self.mask(*([(x, 0), (x, 9)] for x in pillars), width=0.07))
        self.painted = whole * (1 - self.glass) * (1 - arches)
        self.alpha = np.maximum(whole, self.discs(self.radius))
        self.paint = np.clip(rng.choice(PAINTS) + rng.integers(-12, 13, 3), 8, 245)
        self._draw_body(rng, [self.rear + 0.3, *pillars, self.front + 0.03])
        (tail, low), (nose, high) = outline[1], outline[-2]
        blend(self.pixels, (168, 22, 26), self.mask([(tail + 0.06, low + 0.2), (tail + 0.22, low + 0.2)], width=0.22))
        lamp = [(nose - 0.38, high + 0.14), (nose - 0.08, high + 0.1)]
        blend(self.pixels, (226, 232, 238), self.mask(lamp, width=0.14))
        self._draw_wheels(rng)

    def mask(self, *shapes: Sequence[Point], width: float = 0) -> Array:
        """Draws lines ``width`` metres wide, or filled polygons with rounded corners where there is no width."""
        image = Image.new("L", (2 * self.size[0], 2 * self.size[1]))  # twice as fine, for smooth edges
        draw, unit = ImageDraw.Draw(image), 2 * self.scale
        for shape in shapes:
            points = [((x + 0.15) * unit, image.height - (y + 0.25) * unit) for x, y in shape]
            if width:
                draw.line(points, fill=255, width=max(1, round(width * unit)), joint="curve")
            else:
                draw.polygon(points, fill=255)
        if not width:  # a blur and a threshold round the corners
            image = image.filter(ImageFilter.GaussianBlur(0.04 * unit)).point(lambda value: 255 * (value > 127))
        return np.asarray(image.reduce(2), np.float32) / 255

    def discs(self, radius: float) -> Array:
        """The mask of a disc around each axle."""
        return np.clip((radius - self.from_axle) * self.scale + 0.5, 0, 1)

    def _draw_body(self, rng: np.random.Generator, doors: Sequence[float]) -> None:
        knots = [0.2, 0.5, 0.62, 0.68, self.belt - 0.1, self.belt, self.belt + 0.06, self.height]
        light = np.interp(self.y[:, :1], knots, [0.5, 0.9, 1.0, 0.84, 1.04, 1.2, 1.0, 1.2])
        gloss = rng.uniform(10, 60) * np.exp(-(((self.y[:, :1] - self.belt + 0.08) / 0.03) ** 2))
        self.pixels = np.zeros((*self.y.shape, 3), np.float32)
        self.pixels += np.clip(self.paint * light[..., None] + gloss[..., None], 0, 255)
        if rng.random() < 0.4:  # a lower part of another colour, sometimes brown: brown alone is no sign of dirt
            blend(self.pixels, 0.85 * rng.choice(PAINTS), self.y < self.sill + rng.uniform(0.1, 0.28))
        if rng.random() < 0.4:  # a stripe or a sign is no sign of damage
            y, (start, end) = rng.uniform(0.6, 0.8), ((0, self.length), (1.4, 2.5))[rng.integers(2)]
            blend(self.pixels, rng.choice(PAINTS), self.mask([(start, y), (end, y)], width=rng.uniform(0.03, 0.2)))
        seams = [[(x, self.sill + 0.1), (x, self.belt)] for x in doors]
        handles = [[(x - 0.25, self.belt - 0.15), (x - 0.08, self.belt - 0.15)] for x in doors[1:]]
        gaps = np.maximum(self.mask(*seams, width=0.016), self.mask(*handles, width=0.035))
        blend(self.pixels, 0.35 * self.paint, gaps)
        reflections = 30 * np.sin(2.5 * (self.x + 0.6 * self.y) + rng.uniform(0, 6)) ** 8
        blend(self.pixels, rng.uniform(35, 70) + reflections[..., None] + np.array((0, 8, 16)), self.glass)

    def _draw_wheels(self, rng: np.random.Generator) -> None:
        metal = rng.uniform(80, 210)
        for share, grey in ((1.2, 16), (1.0, 30), (0.7, metal), (0.62, 0.35 * metal), (0.2, metal)):
            blend(self.pixels, grey, self.discs(share * self.radius))
        tips = [0.66 * self.radius * circle(turn) for turn in np.linspace(0, 1, rng.integers(6, 10))]
        spokes = [[(x, self.radius), (x + dx, self.radius + dy)] for x in self.axles for dx, dy in tips]
        blend(self.pixels, metal, self.mask(*spokes, width=0.05))


def make_dirty(car: Car, rng: np.random.Generator) -> None:
    """Covers the car with dust, and its sills and wheel arches with mud, in place."""
    coarse, fine, grain = (noise(rng, car.size, cells) - 0.5 for cells in (9, 40, 190))
    # The most visible one of a few colours.
    mud = max(rng.permutation(DIRTS)[:3], key=lambda dirt: float(np.abs(dirt - car.paint).sum()))
    # Dust is thick near the ground and thins out towards the roof.
    dust = rng.uniform(0.4, 0.8) * (1 - rng.uniform(0.4, 0.9) * car.y / car.height)
    dust *= 1 + 0.8 * coarse + 0.5 * fine + 0.3 * grain
    blend(car.pixels, np.minimum(225, 1.2 * mud + 8), np.clip(dust, 0, 0.85) * (1 - 0.4 * car.glass))
    edge = rng.uniform(0.4, 0.65) + 0.5 * coarse + 0.34 * fine + 0.12 * grain
    splash = car.radius * rng.uniform(1.3, 1.7) + 0.3 * coarse + 0.42 * fine
    wet = np.maximum(np.clip((edge - car.y) / 0.07, 0, 1), np.clip((splash - car.from_axle) / 0.08, 0, 1))
    wet *= rng.uniform(0.75, 0.95) * np.clip(1 + grain, 0, 1) * (1 - 0.4 * car.discs(car.radius))
    blend(car.pixels, mud * (0.95 + 0.5 * fine[..., None]), wet)


def make_damaged(car: Car, rng: np.random.Generator) -> None:
    """Damages the car in place: dents, a broken window or both, and scratches."""
    kind = rng.random()
    places = rng.uniform((0.15 * car.length, car.sill + 0.25), (0.85 * car.length, car.belt - 0.12), (3, 2))
    for number, (x, y) in enumerate(places):
        if kind < 0.7 and number < 2:
            _dent(car, rng, x, y)
        _scratch(car, rng, x, y)
    if kind > 0.4:
        _crack(car, rng)


def _dent(car: Car, rng: np.random.Generator, x: float, y: float) -> None:
    """Pushes the sheet in: the slopes of a height map catch the light."""
    across, up = (car.x - x) / rng.uniform(0.3, 0.55), (car.y - y) / rng.uniform(0.18, 0.3)
    bumps = noise(rng, car.size, 24) - 0.5
    deep = np.exp(-(np.clip(np.hypot(across, up) + 0.6 * bumps, 0, 3) ** 3))
    slope, side = (car.scale * change for change in np.gradient(deep * (0.08 * bumps - 0.11)))
    light = rng.uniform(1.1, 1.6) * slope + rng.uniform(-0.6, 0.6) * side - 0.25 * deep
    lit = car.pixels * (1 + np.clip(light, -0.6, 0.5)[..., None]) + 130 * np.clip(light - 0.1, 0, 0.8)[..., None]
    blend(car.pixels, np.clip(lit, 0, 255), car.painted)


def _scratch(car: Car, rng: np.random.Generator, x: float, y: float) -> None:
    """Draws a group of scrapes down to primer or metal, each with a contrasting edge."""
    scrapes = []
    for slope in rng.normal(rng.normal(0, 0.25), 0.1, rng.integers(4, 11)):
        left, low, bow = x + rng.normal(-0.3, 0.15), y + rng.normal(0, 0.06), rng.normal(0, 0.2)
        steps = np.linspace(0, rng.uniform(0.3, 0.9), 9)
        scrapes.append([(left + t, low + slope * t + bow * t * t + rng.normal(0, 0.008)) for t in steps])
    edge, core = (238, 74) if car.paint.mean() > 128 else (18, 215)
    edges = [[(px, py - 0.015) for px, py in scrape] for scrape in scrapes]
    blend(car.pixels, edge, car.painted * car.mask(*edges, width=0.02))
    blend(car.pixels, core, car.painted * car.mask(*scrapes, width=rng.uniform(0.014, 0.026)))


def _crack(car: Car, rng: np.random.Generator) -> None:
    """Cracks the windows in a web around a hole."""
    centre = np.array((rng.uniform(car.rear + 0.5, car.front - 0.7), car.belt + rng.uniform(0.12, 0.22)))
    rings, turns = rng.uniform(0.5, 0.9) * np.linspace(0.05, 1, 6), np.sort(rng.random(rng.integers(10, 18)))
    web = [[tuple(centre + ring * circle(turn + rng.normal(0, 0.01))) for ring in rings] for turn in turns]
    web += [[ray[ring] for ray in (*web, web[0])] for ring in range(1, 5)]
    away = np.hypot(car.x - centre[0], car.y - centre[1]) + 0.1 * (noise(rng, car.size, 60) - 0.5)
    blend(car.pixels, 225, 0.5 * car.glass * np.clip((0.3 - away) / 0.1, 0, 1))
    blend(car.pixels, 240, car.glass * car.mask(*web, width=0.018))
    blend(car.pixels, 10, car.glass * np.clip((rng.uniform(0.08, 0.16) - away) / 0.02, 0, 1))


def draw_background(rng: np.random.Generator, size: tuple[int, int]) -> Array:
    """Draws the pixels of a brick wall or of houses under the sky, and of the ground."""
    width, height = size
    horizon = int(height * rng.uniform(0.5, 0.66))
    picture = Image.new("RGB", size, ink(rng.choice(GROUNDS) + rng.integers(-18, 19)))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, width, horizon), fill=ink(np.array((120, 150, 190)) + rng.integers(-20, 60)))
    base, bricks = rng.choice(WALLS), rng.random() < 0.4
    step = width // (16 if bricks else 5)
    for left in range(-int(rng.integers(step)), width + step, step):
        if bricks:
            for row, y in enumerate(range(0, horizon, step // 2)):
                x = left - step * (row % 2) // 2
                draw.rectangle((x, y, x + step - 3, y + step // 2 - 3), fill=ink(base + rng.integers(-14, 15)))
            continue
        top = int(horizon * rng.uniform(0.1, 0.6))
        draw.rectangle((left, top, left + step, horizon), fill=ink(base + rng.integers(-40, 40)))
        for y in range(top + step // 8, horizon - step // 4, step // 3):
            for x in range(left + step // 8, left + step * 5 // 6, step // 4):
                draw.rectangle((x, y, x + step // 7, y + step // 5), fill=(76, 90, 106))
    pixels = np.array(picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.6))), np.float32)
    floor = pixels[horizon:]
    fine, coarse = (noise(rng, (width, height - horizon), cells) - 0.5 for cells in (160, 14))
    floor += (rng.uniform(5, 45) * fine + rng.uniform(5, 40) * coarse)[..., None]
    if rng.random() < 0.45:  # mud is under clean cars as often as under dirty ones
        blend(floor, rng.choice(DIRTS), np.clip(6 * coarse + 2 * fine - rng.uniform(0, 1.2), 0, 0.9))
    return pixels


def apply_light(rng: np.random.Generator, pixels: Array) -> Image.Image:
    """Makes a photo of pixels: by day, dusk or night, perhaps mirrored, with a camera's noise and blur."""
    tints = ((1.02, 1.0, 0.98), (0.9, 0.93, 0.97), (0.98, 0.83, 0.7), (0.55, 0.6, 0.74))
    gain = rng.uniform(0.9, 1.1) * np.array(tints[rng.choice(4, p=(0.5, 0.2, 0.18, 0.12))])
    lit = (pixels * gain - 118) * rng.uniform(0.85, 1.1) + 118
    lit += rng.uniform(0, 8) * rng.standard_normal((*pixels.shape[:2], 1))
    picture = Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))
    picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.9)))
    return ImageOps.mirror(picture) if rng.random() < 0.5 else picture


def ink(colour: Array) -> tuple[int, ...]:
    """A colour as Pillow takes it."""
    return tuple(np.clip(colour, 0, 255).tolist())


def circle(turn: float) -> Array:
    """The point on a circle of radius 1 after a part of a full turn."""
    return np.array((math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)))


def blend(pixels: Array, colour: npt.ArrayLike, mask: Array) -> None:
    """Covers pixels with a colour, or with other pixels, where a mask is above 0, in place."""
    pixels += (np.asarray(colour, np.float32) - pixels) * mask.astype(np.float32)[..., None]


def noise(rng: np.random.Generator, size: tuple[int, int], cells: int) -> Array:
    """Smooth noise between 0 and 1, float32 [height, width], with ``cells`` bumps across the width."""
    grid = rng.integers(0, 256, (max(2, cells * size[1] // size[0]), cells), dtype=np.uint8)
    return np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC), np.float32) / 255


def draw_labelled(folder: Path, count: int, mislabelled: float) -> None:
    """Draws pictures into folders named by their labels, some of them into a folder with a wrong label."""
    chance = np.random.default_rng(SEED)
    for number in tqdm(range(count), "draw", disable=None):
        shown = number % len(COMBINATIONS)
        # Its bits are dirty and damaged.
        wrong = 1 << int(chance.integers(2)) if chance.random() < mislabelled else 0
        file = folder / COMBINATIONS[shown ^ wrong] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(draw_jpeg(SEED, START + number))


def main() -> int:
    """Draws labelled pictures."""
    parser = argparse.ArgumentParser(description="Draw cars into folders named by their labels.")
    parser.add_argument("folder", type=Path, help="where these folders are made")
    parser.add_argument("--count", type=int, default=160, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--mislabelled",
        type=float,
        default=0,
        metavar="SHARE",
        help="share of the pictures with one wrong label, as people make them; default: none",
    )
    arguments = parser.parse_args()
    draw_labelled(arguments.folder, arguments.count, arguments.mislabelled)
    return 0


if __name__ == "__main__":
    sys.exit(main())
