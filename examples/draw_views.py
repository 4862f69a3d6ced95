"""Draws the parts of a clean, intact car, in a side view or in a front or rear view; all lengths are in metres."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops

from draw_body import (
    DARK,
    PAINTS,
    SHAPES,
    Car,
    Ink,
    Pen,
    Point,
    Polygon,
    box,
    disc,
    draw_glass,
    jitter,
    make_view,
    rounded,
    shade,
    start_car,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Sequence

LAMP: Ink = (222, 230, 236, 255)
TAIL: Ink = (168, 22, 26, 255)
AMBER: Ink = (226, 140, 40, 255)


def draw_intact(rng: np.random.Generator, size: tuple[int, int]) -> Car:
    """Draws a car that is clean and intact, for a picture of ``size`` pixels (width, height)."""
    base = PAINTS[int(rng.integers(len(PAINTS)))]
    red, green, blue = (int(np.clip(c + rng.integers(-12, 13), 8, 245)) for c in base)
    kind = str(rng.choice(list(SHAPES)))
    if rng.random() < 0.7:
        return _side(rng, size, kind, (red, green, blue))
    return _end(rng, size, kind, (red, green, blue), front=bool(rng.random() < 0.6))


def _side(rng: np.random.Generator, size: tuple[int, int], kind: str, paint: tuple[int, int, int]) -> Car:
    shape = jitter(SHAPES[kind], rng)
    length, height = max(x for x, _, _ in shape.outline), max(y for _, y, _ in shape.outline)
    belt = shape.glass[0][1]
    view = make_view(rng, length, height, 0, size)
    car = start_car(view, rounded(list(shape.outline)), paint, belt, True, rng)
    pen = Pen(car.layer, view)
    sill = min(y for _, y, _ in shape.outline)
    rear, front, radius = shape.wheels
    car.wheels = [(rear, radius, radius), (front, radius, radius)]

    _cladding(car, sill, length, rng)
    if rng.random() < 0.35:
        _decoration(car, length, belt, rng)
    _panel_lines(car, pen, shape.doors, sill, belt)
    draw_glass(car, _panes(rounded([(x, y, 0.06) for x, y in shape.glass]), shape.pillars), rng)

    nose, tail = shape.outline[-2], shape.outline[1]
    lamp_y = nose[1] + 0.12
    car.lamps = [
        rounded([(nose[0] - 0.42, lamp_y + 0.07, 0.04), (nose[0] - 0.06, lamp_y + 0.03, 0.03),
                 (nose[0] - 0.04, lamp_y - 0.1, 0.03), (nose[0] - 0.36, lamp_y - 0.05, 0.03)]),
        box(tail[0] + 0.05, belt - 0.3, tail[0] + 0.05 + rng.uniform(0.12, 0.3), belt - 0.08),
    ]  # fmt: skip
    for lamp, ink in zip(car.lamps, (LAMP, TAIL), strict=True):
        pen.fill(lamp, ink)
        pen.line([*lamp, lamp[0]], shade(ink, 0.6), 0.015)
    # Bumpers end at the wheel arches; their lower edge follows the sill.
    car.bumpers = [
        [
            (front + radius * 1.25, sill),
            (front + radius * 1.25, 0.62),
            (length + 0.03, 0.66),
            (length + 0.03, sill - 0.05),
        ],
        [(rear - radius * 1.25, sill), (rear - radius * 1.25, 0.62), (-0.03, 0.66), (-0.03, sill - 0.05)],
    ]
    _seams(car, *(bumper[1:3] for bumper in car.bumpers))
    pen.fill(box(length - 0.3, sill + 0.06, length - 0.12, sill + 0.12, 0.02), DARK)
    mirror = (shape.glass[-1][0] - 0.28, belt + 0.02)
    pen.fill(box(mirror[0], mirror[1], mirror[0] + 0.2, mirror[1] + 0.14, 0.06), shade(paint, 0.8))
    if kind in {"suv", "wagon"} and rng.random() < 0.7:
        rail = [(0.7, height - 0.05), (0.78, height + 0.03), (2.2, height + 0.03), (2.28, height - 0.05)]
        pen.line(rail, (60, 62, 66, 255), 0.035)
    if rng.random() < 0.4:
        foot = (shape.glass[1][0] + shape.glass[2][0]) / 2
        pen.line([(foot, height - 0.05), (foot - 0.2, height + 0.16)], DARK, 0.015)
    _wheels(car, pen, rng)
    car.panels = [
        (shape.doors[0], sill + 0.15, shape.doors[-1], belt - 0.08),
        (front - 0.2, 0.62, length - 0.3, nose[1] + 0.2),
        (0.2, 0.6, shape.doors[0], belt - 0.05),
    ]
    return car


def _panes(glass: Polygon, pillars: Sequence[float]) -> list[Polygon]:
    """Splits the window band at its pillars, 6 cm wide each."""
    cuts = [-9.0, *pillars, 99.0]
    panes = []
    for left, right in pairwise(cuts):
        pane = _clip(_clip(glass, left + 0.03, 1), right - 0.03, -1)
        if len(pane) > 2:
            panes.append(pane)
    return panes


def _clip(polygon: Polygon, edge: float, sign: int) -> Polygon:
    """Keeps the part of a convex polygon where ``sign * (x - edge) >= 0``."""
    out: Polygon = []
    for (ax, ay), (bx, by) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if sign * (ax - edge) >= 0:
            out.append((ax, ay))
        if (ax - edge) * (bx - edge) < 0:
            out.append((edge, ay + (by - ay) * (edge - ax) / (bx - ax)))
    return out


def _seams(car: Car, *gaps: list[Point]) -> None:
    """Draws panel gaps: a dark line with a lit lower edge."""
    line = Image.new("RGBA", car.view.size)
    pen = Pen(line, car.view)
    for points in gaps:
        pen.line([(x + 0.012, y - 0.012) for x, y in points], shade([c + 50 for c in car.paint], 1.0), 0.01)
        pen.line(points, shade(car.paint, 0.32), 0.014)
    car.stamp(line, car.body)


def _panel_lines(car: Car, pen: Pen, doors: Sequence[float], sill: float, belt: float) -> None:
    gaps = [[(x, sill + 0.1), (x - 0.03, belt - 0.25), (x, belt + 0.04)] for x in doors]
    lid = box(doors[0] - 0.42, belt - 0.22, doors[0] - 0.25, belt - 0.08, 0.05)
    _seams(car, [(doors[0], sill + 0.1), (doors[-1], sill + 0.1)], [*lid, lid[0]], *gaps)
    for x in doors[:-1]:
        pen.fill(box(x + 0.07, belt - 0.17, x + 0.27, belt - 0.13, 0.02), shade(car.paint, 0.55))
        pen.fill(
            box(x + 0.07, belt - 0.15, x + 0.27, belt - 0.125, 0.01), shade([c // 2 + 120 for c in car.paint], 1.0)
        )


def _cladding(car: Car, sill: float, length: float, rng: np.random.Generator) -> None:
    """Some cars have a two-tone lower body; the colours include browns, so that brown is not a sign of dirt."""
    if rng.random() > 0.4:
        return
    tones = ((40, 41, 44), (70, 70, 74), (98, 72, 50), (166, 148, 118), (205, 205, 205))
    tone = tones[int(rng.integers(len(tones)))]
    layer = Image.new("RGBA", car.view.size)
    top = sill + rng.uniform(0.1, 0.28)
    Pen(layer, car.view).fill([(-9, -1), (-9, top), (length + 9, top), (length + 9, -1)], shade(tone, 0.85))
    car.stamp(layer, car.body)


def _decoration(car: Car, length: float, belt: float, rng: np.random.Generator) -> None:
    """A stripe, a zigzag, a sign or a row of dots: marks on the paint that are neither dirt nor damage."""
    layer = Image.new("RGBA", car.view.size)
    pen = Pen(layer, car.view)
    ink = shade(PAINTS[int(rng.integers(len(PAINTS)))], 1.0)
    y, kind = rng.uniform(0.55, belt - 0.15), int(rng.integers(4))
    if kind == 0:
        for i in range(int(rng.integers(1, 4))):
            pen.line([(0.0, y + 0.07 * i), (length, y + 0.07 * i)], ink, rng.uniform(0.015, 0.05))
    elif kind == 1:
        pen.line([(1.0 + 0.22 * i, y + 0.07 * (i % 2)) for i in range(9)], ink, 0.035)
    elif kind == 2:
        pen.fill(box(1.4, y - 0.14, 2.5, y + 0.14, 0.05), ink)
        for i in range(6):
            pen.fill(box(1.48 + 0.16 * i, y - 0.06, 1.58 + 0.16 * i, y + 0.06, 0.01), shade(ink, 0.3 if i % 2 else 1.9))
    else:
        for i in range(14):
            pen.fill(disc(0.9 + 0.2 * i, y + 0.1 * math.sin(i), rng.uniform(0.02, 0.06), 12), ink)
    car.stamp(layer, car.body)


def _wheels(car: Car, pen: Pen, rng: np.random.Generator) -> None:
    arch = Image.new("L", car.view.size)
    for x, y, r in car.wheels:
        Pen(arch, car.view).fill(disc(x, y, r * 1.2), 255)
    inside = ImageChops.multiply(arch, car.body)
    car.layer.paste((16, 16, 18, 255), (0, 0), inside)
    car.body = ImageChops.subtract(car.body, arch)
    start, end = car.wheels[0][0], car.wheels[-1][0]
    under = Image.new("RGBA", car.view.size)
    Pen(under, car.view).fill([(start, 0.16), (end, 0.16), (end + 0.2, 0.4), (start - 0.2, 0.4)], (14, 14, 16, 255))
    under.alpha_composite(car.layer)
    car.layer.paste(under)
    spokes, metal = int(rng.integers(5, 11)), shade((200, 203, 208), rng.uniform(0.35, 1.05))
    thick, turn = rng.uniform(0.1, 0.22), rng.uniform(0, 6)
    for x, y, r in car.wheels:
        pen.fill(disc(x, y, r), (27, 27, 29, 255))
        pen.fill(disc(x, y, r * 0.72), shade(metal, 0.9))
        pen.fill(disc(x, y, r * 0.64), (38, 39, 42, 255))
        for i in range(spokes):
            a = turn + 2 * math.pi * i / spokes
            pen.line([(x, y), (x + 0.67 * r * math.cos(a), y + 0.67 * r * math.sin(a))], metal, thick * r)
        pen.fill(disc(x, y, r * 0.17, 16), shade(metal, 0.75))


def _end(
    rng: np.random.Generator, size: tuple[int, int], kind: str, paint: tuple[int, int, int], *, front: bool
) -> Car:
    """A front or rear view; the car's middle is x = 0."""
    shape = jitter(SHAPES[kind], rng)
    half, height = shape.width / 2, max(y for _, y, _ in shape.outline)
    belt, sill = shape.glass[0][1], min(y for _, y, _ in shape.outline)
    view = make_view(rng, 2 * half + 0.3, height, -half - 0.15, size)
    roof = half * rng.uniform(0.68, 0.78) if height < 1.85 else half * 0.88
    right = [(half * 0.92, sill, 0.08), (half, 0.58, 0.15), (half * 0.98, belt - 0.05, 0.12),
             (half * 0.9, belt + 0.02, 0.1), (roof, height, 0.2)]  # fmt: skip
    car = start_car(view, rounded(right + [(-x, y, r) for x, y, r in reversed(right)]), paint, belt, False, rng)
    tyres = Image.new("RGBA", view.size)
    for side in (-1, 1):
        Pen(tyres, view).fill(
            box(side * half * 0.83 - 0.12, 0, side * half * 0.83 + 0.12, 0.5, 0.05), (24, 24, 26, 255)
        )
    tyres.alpha_composite(car.layer)
    car.layer.paste(tyres)
    pen = Pen(car.layer, view)
    _cladding(car, sill, half, rng)
    top, low = height - 0.09, belt + (0.03 if front else 0.08)
    draw_glass(car, [rounded([(-half * 0.84, low, 0.08), (-roof * 0.9, top, 0.08), (roof * 0.9, top, 0.08),
                              (half * 0.84, low, 0.08)])], rng)  # fmt: skip
    for side in (-1, 1):
        a, b = sorted((side * half * 0.9, side * (half * 0.9 + 0.24)))
        pen.fill(box(a, belt + 0.03, b, belt + 0.09, 0.02), DARK)
        a, b = sorted((side * (half * 0.9 + 0.06), side * (half * 0.9 + 0.25)))
        pen.fill(box(a, belt + 0.04, b, belt + 0.18, 0.06), shade(paint, 0.8))
    lamp_y, wide = (belt - 0.27 if front else belt - 0.25), rng.uniform(0.28, 0.4)
    for side in (-1, 1):
        a, b = sorted((side * half * 0.94, side * (half * 0.94 - wide)))
        lamp = box(a, lamp_y - 0.08, b, lamp_y + 0.09, 0.05)
        pen.fill(lamp, LAMP if front else TAIL)
        pen.line([*lamp, lamp[0]], DARK, 0.015)
        pen.fill(disc((a + b) / 2, lamp_y, 0.06, 20), (250, 252, 255, 255) if front else AMBER)
        car.lamps.append(lamp)
    inner = half * 0.94 - wide - 0.05
    if front:
        pen.fill(box(-inner, lamp_y - 0.09, inner, lamp_y + 0.07, 0.04), DARK)
        for i in range(1, int(rng.integers(3, 6))):
            pen.line([(-inner, lamp_y - 0.1 + 0.04 * i), (inner, lamp_y - 0.1 + 0.04 * i)], (120, 122, 126, 255), 0.012)
        pen.fill(disc(0, lamp_y, 0.055, 16), (205, 207, 210, 255))
        _seams(
            car,
            [(-half * 0.8, belt - 0.02), (-inner, lamp_y + 0.13), (inner, lamp_y + 0.13), (half * 0.8, belt - 0.02)],
        )
        pen.fill(box(-half * 0.6, sill + 0.07, half * 0.6, sill + 0.17, 0.03), DARK)
    else:
        _seams(car, [(-half * 0.72, 0.58), (-half * 0.72, belt), (half * 0.72, belt), (half * 0.72, 0.58)])
        pen.line([(0, low), (half * 0.4, low + 0.06)], DARK, 0.025)
    _seams(car, [(-half, 0.56), (half, 0.56)])
    plate = 0.45 if front else rng.uniform(0.48, 0.72)
    pen.fill(box(-0.26, plate - 0.06, 0.26, plate + 0.06, 0.01), (240, 240, 236, 255))
    for i in range(6):
        pen.fill(box(-0.2 + 0.07 * i, plate - 0.03, -0.16 + 0.07 * i, plate + 0.035, 0.005), DARK)
    car.bumpers = [[(x * 1.03, y) for x, y in box(-half, sill - 0.02, half, 0.55, 0.02)]]
    car.panels = [(-half * 0.9, sill + 0.12, half * 0.9, 0.6), (-half * 0.85, belt - 0.14, half * 0.85, belt - 0.02)]
    car.wheels = [(-half * 0.83, 0.25, 0.22), (half * 0.83, 0.25, 0.22)]
    return car
