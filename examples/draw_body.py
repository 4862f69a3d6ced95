"""Draws one clean, intact car on a transparent layer, seen from the side, the front or the rear.

A car is described in metres: for a side view x runs from the rear bumper to the front one, for a front or rear view it
runs across the car from its middle; y is the height above the ground. A :class:`View` turns metres into layer pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

if TYPE_CHECKING:
    from collections.abc import Sequence

Floats: TypeAlias = npt.NDArray[np.float32]
Point: TypeAlias = tuple[float, float]
Polygon: TypeAlias = list[Point]
Colour: TypeAlias = tuple[int, int, int]
Ink: TypeAlias = tuple[int, int, int, int]

MARGIN = 0.25  # metres left free around the car, for parts that hang off it
DARK: Ink = (24, 25, 28, 255)

PAINTS: tuple[Colour, ...] = (
    (232, 233, 235), (172, 177, 184), (96, 101, 108), (30, 32, 37), (186, 28, 34), (112, 20, 30), (28, 62, 140),
    (70, 130, 196), (22, 84, 62), (120, 150, 64), (232, 182, 30), (222, 104, 28), (112, 78, 52), (196, 178, 146),
    (92, 44, 96), (44, 128, 132), (150, 118, 84),
)  # fmt: skip


class Shape(NamedTuple):
    """A body type, in metres; outline points are (x, y, corner radius), from rear sill over the roof to front sill."""

    outline: Sequence[tuple[float, float, float]]
    glass: Sequence[Point]
    pillars: Sequence[float]
    doors: Sequence[float]
    wheels: tuple[float, float, float]
    width: float


SHAPES: dict[str, Shape] = {
    "sedan": Shape(
        [(0.06, 0.24, 0.08), (0, 0.6, 0.15), (0.07, 1.02, 0.12), (0.72, 1.08, 0.3), (1.5, 1.44, 0.5), (2.55, 1.46, 0.6),
         (3.38, 1.02, 0.3), (4.42, 0.86, 0.35), (4.62, 0.58, 0.15), (4.55, 0.22, 0.08)],
        [(0.98, 1.06), (1.58, 1.37), (2.5, 1.385), (3.17, 1.04)], [1.42, 2.2], [1.28, 2.2, 3.2],
        (0.88, 3.72, 0.33), 1.8,
    ),
    "coupe": Shape(
        [(0.06, 0.24, 0.08), (0, 0.6, 0.15), (0.1, 0.98, 0.12), (0.45, 1.03, 0.2), (1.45, 1.33, 0.6), (2.2, 1.35, 0.5),
         (3.1, 0.95, 0.3), (4.25, 0.78, 0.4), (4.42, 0.55, 0.15), (4.35, 0.2, 0.08)],
        [(1.0, 1.0), (1.55, 1.265), (2.15, 1.28), (2.88, 0.97)], [1.5], [1.5, 2.95], (0.82, 3.5, 0.33), 1.85,
    ),
    "hatchback": Shape(
        [(0.05, 0.26, 0.08), (0, 0.6, 0.12), (0.08, 0.98, 0.1), (0.38, 1.44, 0.25), (1.0, 1.51, 0.4), (2.15, 1.5, 0.6),
         (2.95, 1.03, 0.3), (3.75, 0.88, 0.35), (3.95, 0.58, 0.15), (3.88, 0.23, 0.08)],
        [(0.4, 1.03), (0.58, 1.4), (2.08, 1.42), (2.75, 1.05)], [0.95, 1.75], [1.02, 1.75, 2.75],
        (0.68, 3.2, 0.31), 1.72,
    ),
    "wagon": Shape(
        [(0.05, 0.25, 0.08), (0, 0.6, 0.12), (0.1, 1.0, 0.1), (0.42, 1.43, 0.22), (1.2, 1.5, 0.5), (2.6, 1.49, 0.6),
         (3.4, 1.03, 0.3), (4.45, 0.87, 0.35), (4.65, 0.58, 0.15), (4.58, 0.22, 0.08)],
        [(0.45, 1.05), (0.66, 1.4), (2.55, 1.42), (3.2, 1.06)], [1.3, 2.2], [1.3, 2.2, 3.2], (0.9, 3.75, 0.33), 1.8,
    ),
    "suv": Shape(
        [(0.05, 0.36, 0.08), (0, 0.7, 0.1), (0.07, 1.15, 0.1), (0.3, 1.66, 0.2), (1.0, 1.75, 0.4), (2.5, 1.73, 0.5),
         (3.2, 1.2, 0.3), (4.35, 1.06, 0.25), (4.55, 0.7, 0.15), (4.46, 0.34, 0.08)],
        [(0.36, 1.22), (0.5, 1.61), (2.45, 1.64), (3.02, 1.23)], [1.15, 2.1], [1.25, 2.1, 3.05],
        (0.85, 3.65, 0.38), 1.9,
    ),
    "van": Shape(
        [(0.04, 0.3, 0.08), (0, 0.7, 0.1), (0.05, 1.9, 0.2), (0.5, 1.98, 0.3), (3.4, 1.96, 0.5), (4.2, 1.22, 0.3),
         (4.85, 1.02, 0.25), (5.0, 0.65, 0.15), (4.93, 0.28, 0.08)],
        [(0.3, 1.22), (0.36, 1.74), (3.3, 1.76), (3.95, 1.23)], [1.4, 2.6], [1.4, 2.6, 3.75], (0.95, 4.05, 0.34), 1.95,
    ),
    "cargo": Shape(
        [(0.04, 0.3, 0.08), (0, 0.7, 0.1), (0.04, 2.0, 0.15), (0.4, 2.08, 0.3), (3.4, 2.04, 0.5), (4.2, 1.22, 0.3),
         (4.85, 1.02, 0.25), (5.0, 0.65, 0.15), (4.93, 0.28, 0.08)],
        [(2.82, 1.22), (2.84, 1.8), (3.34, 1.8), (3.95, 1.23)], [], [1.4, 2.7, 3.75], (0.95, 4.05, 0.34), 1.95,
    ),
    "pickup": Shape(
        [(0.04, 0.42, 0.08), (0, 0.7, 0.08), (0.03, 1.16, 0.05), (1.98, 1.17, 0.02), (2.08, 1.72, 0.15),
         (3.3, 1.75, 0.4), (3.98, 1.2, 0.25), (5.1, 1.08, 0.25), (5.3, 0.72, 0.15), (5.22, 0.38, 0.08)],
        [(2.2, 1.22), (2.26, 1.62), (3.22, 1.65), (3.78, 1.23)], [2.92], [2.14, 2.92, 3.85], (1.1, 4.25, 0.4), 1.95,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class View:
    """An affine camera: ``scale`` is pixels per metre, ``origin`` the pixel of the point (0, 0), ``size`` in pixels."""

    scale: float
    shear: float
    tilt: float
    flip: bool
    origin: Point
    size: tuple[int, int]

    def px(self, points: Sequence[Point]) -> list[Point]:
        """Turns points in metres into layer pixels."""
        sign, (left, base) = (-1 if self.flip else 1), self.origin
        return [
            (left + sign * self.scale * (x + self.shear * y), base - self.scale * (y + self.tilt * x))
            for x, y in points
        ]

    def metres(self) -> tuple[Floats, Floats]:
        """Gives the metres (x, y) of every layer pixel, two float32 arrays [height, width]."""
        columns = np.arange(self.size[0], dtype=np.float32)
        rows = np.arange(self.size[1], dtype=np.float32)[:, None]
        across = (columns - self.origin[0]) / (-self.scale if self.flip else self.scale)
        up = (self.origin[1] - rows) / self.scale
        det = 1 - self.shear * self.tilt
        return (across - self.shear * up) / det, (up - self.tilt * across) / det


@dataclass
class Car:
    """A drawn car, with the places of its parts in metres.

    ``layer`` is RGBA; ``x`` and ``y`` are the metres of its pixels, float32 [height, width]; ``body`` (the paint) and
    ``glass_mask`` are "L" masks of its size, and ``shadow`` is one half as large.
    """

    layer: Image.Image
    view: View
    x: Floats
    y: Floats
    paint: Colour
    body: Image.Image
    glass_mask: Image.Image
    shadow: Image.Image
    height: float
    side: bool
    wheels: list[tuple[float, float, float]] = field(default_factory=list)
    glass: list[Polygon] = field(default_factory=list)
    panels: list[tuple[float, float, float, float]] = field(default_factory=list)
    bumpers: list[Polygon] = field(default_factory=list)
    lamps: list[Polygon] = field(default_factory=list)

    def stamp(self, patch: Image.Image, mask: Image.Image) -> None:
        """Pastes the RGBA ``patch``, of the layer's size, where the "L" ``mask`` lets it."""
        area = patch.getbbox()
        if area:
            part = patch.crop(area)
            self.layer.paste(part, area, ImageChops.multiply(part.getchannel("A"), mask.crop(area)))


def rounded(points: Sequence[tuple[float, float, float]]) -> Polygon:
    """Rounds each corner (x, y, radius) of a closed polygon with a quadratic curve."""
    out: Polygon = []
    for i, (x, y, radius) in enumerate(points):
        ends = []
        for ox, oy, _ in (points[i - 1], points[(i + 1) % len(points)]):
            far = math.hypot(ox - x, oy - y) or 1.0
            part = min(radius / far, 0.48)
            ends.append((x + (ox - x) * part, y + (oy - y) * part))
        (ax, ay), (bx, by) = ends
        for t in (0, 0.2, 0.4, 0.6, 0.8, 1):
            a, b, c = (1 - t) ** 2, 2 * t * (1 - t), t * t
            out.append((a * ax + b * x + c * bx, a * ay + b * y + c * by))
    return out


def disc(x: float, y: float, radius: float, corners: int = 36) -> Polygon:
    """A circle as a polygon, in metres."""
    turn = [2 * math.pi * i / corners for i in range(corners)]
    return [(x + radius * math.cos(t), y + radius * math.sin(t)) for t in turn]


def box(x0: float, y0: float, x1: float, y1: float, radius: float = 0.03) -> Polygon:
    """A rectangle with rounded corners, in metres."""
    return rounded([(x0, y0, radius), (x0, y1, radius), (x1, y1, radius), (x1, y0, radius)])


def shade(colour: Sequence[int], factor: float) -> Ink:
    """The colour made brighter or darker, opaque."""
    red, green, blue = (int(min(255, max(0, c * factor))) for c in colour[:3])
    return red, green, blue, 255


class Pen:
    """Draws in metres on a layer."""

    def __init__(self, image: Image.Image, view: View) -> None:
        self._draw = ImageDraw.Draw(image)
        self._view = view

    def fill(self, points: Sequence[Point], ink: Ink | int) -> None:
        """Fills a polygon."""
        self._draw.polygon(self._view.px(points), fill=ink)

    def line(self, points: Sequence[Point], ink: Ink | int, width: float) -> None:
        """Draws a line ``width`` metres wide."""
        self._draw.line(self._view.px(points), fill=ink, width=max(1, round(width * self._view.scale)), joint="curve")


def paint_body(
    x: Floats, y: Floats, mask: Image.Image, paint: Colour, belt: float, rng: np.random.Generator
) -> Image.Image:
    """Paints a body mask with the vertical light of a curved, glossy surface; returns the RGBA layer."""
    wave = y + rng.uniform(0.01, 0.04) * np.sin(x * rng.uniform(1.0, 2.4) + rng.uniform(0, 6))
    knots = [0.2, 0.35, 0.5, 0.62, 0.66, belt - 0.12, belt - 0.02, belt + 0.05, belt + 0.5]
    heights = np.linspace(0, 2.3, 256)
    light = np.interp(heights, knots, [0.5, 0.66, 0.86, 0.98, 0.84, 1.04, 1.22, 1.0, 1.24])
    gloss = rng.uniform(0.1, 0.5) * np.exp(-(((heights - belt + 0.07) / 0.025) ** 2))
    gloss += rng.uniform(0.0, 0.2) * np.exp(-(((heights - 0.52) / 0.03) ** 2))
    ramp = np.clip(np.asarray(paint) * light[:, None] + 150 * gloss[:, None], 0, 255).astype(np.uint8)
    steps = Image.fromarray(np.clip(wave * (255 / 2.3), 0, 255).astype(np.uint8))
    return Image.merge("RGBA", [*(steps.point(ramp[:, c].tolist()) for c in range(3)), mask])


def make_view(rng: np.random.Generator, length: float, height: float, left: float, size: tuple[int, int]) -> View:
    """Picks a camera for a car ``length`` by ``height`` metres whose leftmost x is ``left``, for a picture ``size``."""
    reach = min(size[0] * rng.uniform(0.74, 0.93) / length, size[1] * rng.uniform(0.54, 0.68) / height)
    shear, tilt, flip = rng.uniform(-0.07, 0.07), rng.uniform(-0.02, 0.02), bool(rng.random() < 0.5)
    width, tall = int((length + 2 * MARGIN) * reach), int((height + 2 * MARGIN) * reach)
    start = (MARGIN - left) * reach
    return View(reach, shear, tilt, flip, (width - start if flip else start, tall - MARGIN * reach), (width, tall))


def jitter(shape: Shape, rng: np.random.Generator) -> Shape:
    """Stretches a body type a little, so that no two cars have the same outline."""
    sx, sy = rng.uniform(0.94, 1.06), rng.uniform(0.96, 1.06)
    return Shape(
        [(x * sx, y * sy + rng.uniform(-0.012, 0.012), r) for x, y, r in shape.outline],
        [(x * sx, y * sy) for x, y in shape.glass],
        [x * sx for x in shape.pillars],
        [x * sx for x in shape.doors],
        (shape.wheels[0] * sx, shape.wheels[1] * sx, shape.wheels[2] * rng.uniform(0.96, 1.06)),
        shape.width * rng.uniform(0.97, 1.04),
    )


def start_car(view: View, outline: Polygon, paint: Colour, belt: float, side: bool, rng: np.random.Generator) -> Car:
    """Makes the car's masks, its painted body and the shadow on the ground under it."""
    body, shadow = Image.new("L", view.size), Image.new("L", view.size)
    Pen(body, view).fill(outline, 255)
    xs = [x for x, _ in outline]
    Pen(shadow, view).fill([(min(xs), 0.07), (max(xs), 0.07), (max(xs) + 0.08, -0.1), (min(xs) - 0.08, -0.1)], 235)
    shadow = shadow.reduce(2).filter(ImageFilter.GaussianBlur(0.03 * view.scale))
    x, y = view.metres()
    layer = paint_body(x, y, body, paint, belt, rng)
    return Car(layer, view, x, y, paint, body, Image.new("L", view.size), shadow, max(y for _, y in outline), side)


def draw_glass(car: Car, panes: list[Polygon], rng: np.random.Generator) -> None:
    """Draws windows: a dark tint, a bright slanted reflection and a rim."""
    dark = int(rng.integers(28, 70))
    glass = Image.new("RGBA", car.view.size, (dark, dark + 8, dark + 16, 255))
    pen, rim = Pen(glass, car.view), Pen(car.layer, car.view)
    middle = float(np.mean([x for pane in panes for x, _ in pane]))
    top = max(y for pane in panes for _, y in pane)
    for _ in range(int(rng.integers(1, 4))):
        x, wide = middle + rng.uniform(-1.3, 1.0), rng.uniform(0.06, 0.4)
        pen.fill([(x, top - 0.7), (x + wide, top - 0.7), (x + wide + 0.35, top + 0.1), (x + 0.35, top + 0.1)],
                 (dark + 42, dark + 54, dark + 66, 255))  # fmt: skip
    mask = Pen(car.glass_mask, car.view)
    for pane in panes:
        rim.line([*pane, pane[0], pane[1]], DARK, 0.035)
        mask.fill(pane, 255)
    car.layer.paste(glass, (0, 0), car.glass_mask)
    car.body = ImageChops.subtract(car.body, car.glass_mask)
    car.glass = panes
