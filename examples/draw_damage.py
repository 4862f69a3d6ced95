"""Damages a drawn car: dents, scratches, broken glass and lamps, bent or missing bumpers, hanging parts; in metres."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from draw_body import DARK, Car, Ink, Pen, Point, Polygon, shade
from draw_scene import noise

GLINT: Ink = (236, 242, 246, 255)


def make_damaged(car: Car, rng: np.random.Generator) -> None:
    """Damages the car's layer in place: one heavy mark at least, up to five in all."""
    marks = [str(rng.choice(["dent", "dent", "glass"]))]
    marks += [str(m) for m in rng.choice(["dent", "scratch", "scratch", "glass", "bumper", "lamp", "trim"], 3)]
    if rng.random() < 0.4:
        marks = [*marks[:2], "dent"]
    # Bumpers and lamps go first: a dent may then bend what they left.
    order = ("bumper", "lamp", "glass", "dent", "scratch", "trim")
    done: set[str] = set()
    for mark in sorted(marks, key=order.index):
        if mark in done and mark not in {"dent", "scratch"}:
            continue
        done.add(mark)
        {"bumper": _bumper, "lamp": _lamp, "glass": _glass, "dent": _dent, "scratch": _scratch, "trim": _trim}[mark](
            car, rng
        )


def _spot(car: Car, rng: np.random.Generator) -> Point:
    """A point on a body panel."""
    x0, y0, x1, y1 = car.panels[int(rng.choice(len(car.panels), p=_weights(car)))]
    return rng.uniform(x0, x1), rng.uniform(y0, y1)


def _weights(car: Car) -> list[float]:
    wide = [abs(x1 - x0) for x0, _, x1, _ in car.panels]
    return [w / sum(wide) for w in wide]


def _dent(car: Car, rng: np.random.Generator) -> None:
    """Pushes the sheet in: a height map bends what is drawn there and catches the light on its slopes."""
    scale = car.view.scale
    cx, cy = _spot(car, rng)
    rx, ry = rng.uniform(0.26, 0.55), rng.uniform(0.17, 0.32)
    # Only the neighbourhood is worked on; beyond it the height map is flat.
    (mx, my), reach = car.view.px([(cx, cy)])[0], 1.9 * rx * scale
    left, top = max(0, int(mx - reach)), max(0, int(my - reach))
    area = (left, top, min(car.view.size[0], int(mx + reach)), min(car.view.size[1], int(my + reach)))
    size = (area[2] - left, area[3] - top)
    x, y = (a[top : area[3], left : area[2]] for a in (car.x, car.y))
    turn = rng.uniform(-0.6, 0.6)
    u = ((x - cx) * math.cos(turn) + (y - cy) * math.sin(turn)) / rx
    v = ((y - cy) * math.cos(turn) - (x - cx) * math.sin(turn)) / ry
    bumps = noise(rng, size, 7)
    far = np.hypot(u, v) + 0.5 * (bumps - 0.5)
    deep = np.exp(-(np.clip(far, 0, 3) ** 3))
    hollow = -0.11 * deep
    for _ in range(int(rng.integers(2, 5))):  # sharp folds run across the hollow
        a, b = rng.uniform(0, math.pi), rng.uniform(-0.45, 0.45)
        across = u * math.cos(a) + v * math.sin(a) - b + 0.25 * (bumps - 0.5)
        hollow += rng.uniform(0.012, 0.03) * deep * np.exp(-np.hypot(across, 0.05) * 6)
    down, right = (g * scale for g in np.gradient(hollow))
    light = down * rng.uniform(1.1, 1.6) - right * rng.uniform(-0.6, 0.6)
    rows, columns = np.mgrid[: size[1], : size[0]]
    bend = 0.14 * scale
    rows = np.clip(rows + bend * down, 0, size[1] - 1).astype(np.intp)
    columns = np.clip(columns + bend * right, 0, size[0] - 1).astype(np.intp)
    pixels = np.asarray(car.layer.crop(area))[rows, columns].astype(np.float32)
    dull = 0.14 * deep  # a hollow also sees less of the sky
    rgb = pixels[..., :3] * (1 - dull + np.clip(light, -0.55, 0.5))[..., None]
    rgb += 120 * np.clip(light - 0.1, 0, 0.8)[..., None]
    pixels[..., :3] = rgb
    car.layer.paste(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), area, car.body.crop(area))
    if rng.random() < 0.6:
        _scratch(car, rng, (cx, cy))


def _scratch(car: Car, rng: np.random.Generator, at: Point | None = None) -> None:
    """A group of scrapes down to primer or metal, each with a dark edge."""
    x, y = at or _spot(car, rng)
    patch = Image.new("RGBA", car.view.size)
    pen = Pen(patch, car.view)
    bright = sum(car.paint) / 3 > 128
    core = (74, 76, 80, 255) if bright else (214, 216, 218, 255)
    lip = (238, 238, 238, 255) if bright else (18, 18, 20, 255)
    slope, long = rng.normal(0, 0.28), rng.uniform(0.45, 1.1)
    for _ in range(int(rng.integers(5, 12))):
        sx, sy = x + rng.normal(0, 0.13) - long / 2, y + rng.normal(0, 0.055)
        size, wide = long * rng.uniform(0.4, 1.1), rng.uniform(0.011, 0.03)
        bow, lean = rng.normal(0, 0.05), slope + rng.normal(0, 0.06)
        steps = np.linspace(0, 1, 9)
        line = [(sx + size * t, sy + size * lean * t + bow * 4 * t * (1 - t) + rng.normal(0, 0.006)) for t in steps]
        for i in range(8):  # a scrape skips, and thins out at its ends
            if rng.random() < 0.1:
                continue
            thin = wide * (0.45 + 0.55 * math.sin(math.pi * (i + 0.5) / 8))
            pen.line([(px, py - 0.6 * thin) for px, py in line[i : i + 2]], lip, thin * 0.7)
            pen.line(line[i : i + 2], core, thin)
    car.stamp(patch, car.body)


def _glass(car: Car, rng: np.random.Generator) -> None:
    """Cracks a pane in a web; a hard hit also leaves a hole or a white, crazed patch."""
    panes = sorted(car.glass, key=lambda p: -_reach(p))[:2]
    pane = panes[int(rng.integers(len(panes)))]
    xs, ys = [x for x, _ in pane], [y for _, y in pane]
    cx = rng.uniform(0.7 * min(xs) + 0.3 * max(xs), 0.3 * min(xs) + 0.7 * max(xs))
    cy = rng.uniform(0.65 * min(ys) + 0.35 * max(ys), 0.35 * min(ys) + 0.65 * max(ys))
    patch, crazed = Image.new("RGBA", car.view.size), Image.new("RGBA", car.view.size)
    pen = Pen(patch, car.view)
    count, reach = int(rng.integers(9, 17)), rng.uniform(0.4, 0.95)
    Pen(crazed, car.view).fill(_star(cx, cy, reach * 0.55, count, rng), (214, 226, 232, int(rng.integers(70, 170))))
    rays = []
    for i in range(count):
        a, stop = 2 * math.pi * (i + rng.uniform(-0.3, 0.3)) / count, reach * rng.uniform(0.6, 1.2)
        ray = [(cx + r * math.cos(a + w), cy + r * math.sin(a + w))
               for r, w in ((stop * t, rng.normal(0, 0.05)) for t in np.linspace(0, 1, 6))]  # fmt: skip
        rays.append(ray)
        pen.line(ray, GLINT, rng.uniform(0.011, 0.02))
    for ring in range(1, 5):
        for i in range(count):
            if rng.random() < 0.85:
                pen.line([rays[i][ring], rays[i - 1][ring]], GLINT, rng.uniform(0.008, 0.015))
    if rng.random() < 0.65:
        hole = _star(cx, cy, rng.uniform(0.1, 0.24), 9, rng)
        pen.fill(hole, (10, 10, 12, 255))
        pen.line([*hole, hole[0]], GLINT, 0.012)
    only = Image.new("L", car.view.size)
    Pen(only, car.view).fill(pane, 255)
    car.stamp(crazed, only)
    car.stamp(patch, only)


def _reach(pane: Polygon) -> float:
    return max(x for x, _ in pane) - min(x for x, _ in pane)


def _star(x: float, y: float, radius: float, points: int, rng: np.random.Generator) -> Polygon:
    """An uneven star, the outline of a hole or of a splinter patch."""
    out: Polygon = []
    for i in range(points * 2):
        a, r = math.pi * i / points, radius * rng.uniform(0.75, 1.15) * (1.0 if i % 2 else 0.62)
        out.append((x + r * math.cos(a), y + r * math.sin(a)))
    return out


def _bumper(car: Car, rng: np.random.Generator) -> None:
    """Tears a bumper off: it hangs askew by one end, or is gone and shows the dark beam behind it."""
    corners = car.bumpers[int(rng.integers(len(car.bumpers)))]
    mask = Image.new("L", car.view.size)
    Pen(mask, car.view).fill(corners, 255)
    piece = Image.new("RGBA", car.view.size)
    piece.paste(car.layer, (0, 0), ImageChops.multiply(mask, car.layer.getchannel("A")))
    inside = Image.new("RGBA", car.view.size)
    pen = Pen(inside, car.view)
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    pen.fill([(left, low), (left, high), (right, high), (right, low)], (20, 20, 22, 255))
    beam = low + 0.58 * (high - low)
    pen.line([(left, beam), (right, beam)], (118, 116, 112, 255), 0.07)
    pen.line([(left, beam + 0.02), (right, beam + 0.02)], (156, 154, 150, 255), 0.015)
    for _ in range(3):
        x = rng.uniform(left, right)
        pen.line([(x, high), (x + rng.normal(0, 0.05), beam), (x + rng.normal(0, 0.12), low)], (70, 66, 62, 255), 0.02)
    car.stamp(inside, ImageChops.multiply(mask, car.layer.getchannel("A")))
    ragged = [(x, high + rng.uniform(-0.035, 0.035)) for x in np.linspace(left, right, 12)]
    edge = Image.new("RGBA", car.view.size)
    Pen(edge, car.view).line(ragged, shade(car.paint, 0.4), 0.03)
    car.stamp(edge, car.layer.getchannel("A"))
    if car.side:
        # The lower corner is where the torn skin ends, so the body's outline steps in there.
        bite = Image.new("L", car.view.size, 255)
        outer = right if abs(right) > abs(left) and left > 0 else left
        inner = outer + (0.13 if outer == left else -0.13)
        Pen(bite, car.view).fill([(outer * 1.01, low - 0.1), (outer, high - 0.05), (inner, low - 0.1)], 0)
        car.layer.putalpha(ImageChops.multiply(car.layer.getchannel("A"), bite))
    if rng.random() < 0.65:
        hold = corners[1] if car.side else ((left if rng.random() < 0.5 else right), 0.5)
        angle = rng.uniform(9, 20) if car.side else rng.uniform(5, 9)
        (px, py), (qx, _) = car.view.px([hold, ((left + right) / 2, hold[1])])
        piece = piece.rotate(-angle if qx > px else angle, Image.Resampling.BILINEAR, center=(px, py), translate=(0, 4))
        shadow = piece.getchannel("A").filter(ImageFilter.GaussianBlur(4)).point(lambda a: a * 0.5)
        dark = Image.new("RGBA", car.view.size, DARK)
        car.layer.paste(dark, (0, 5), ImageChops.multiply(shadow, car.layer.getchannel("A")))
        car.layer.alpha_composite(piece)


def _lamp(car: Car, rng: np.random.Generator) -> None:
    """Breaks a lamp: a dark hole with splinters at its rim."""
    lamp = car.lamps[int(rng.integers(len(car.lamps)))]
    pen = Pen(car.layer, car.view)
    pen.fill(lamp, (18, 18, 20, 255))
    cx, cy = float(np.mean([x for x, _ in lamp])), float(np.mean([y for _, y in lamp]))
    for i in range(0, len(lamp), 3):
        (ax, ay), (bx, by) = lamp[i], lamp[(i + 2) % len(lamp)]
        part = rng.uniform(0.2, 0.75)
        pen.fill([(ax, ay), (bx, by), (ax + (cx - ax) * part, ay + (cy - ay) * part)], GLINT)
    pen.line([(cx, cy), (cx + rng.normal(0, 0.05), cy - 0.16), (cx + 0.05, cy - 0.2)], (150, 60, 40, 255), 0.014)


def _trim(car: Car, rng: np.random.Generator) -> None:
    """A strip torn from the sill hangs to the ground, held at one end."""
    side = 1 if rng.random() < 0.5 else -1
    x0, y0, x1, _ = car.panels[0]
    x, y = rng.uniform(0.7 * x0 + 0.3 * x1, 0.3 * x0 + 0.7 * x1), y0 - 0.08
    long = min(rng.uniform(0.6, 1.2), abs(x1 - x0) * 0.6)
    drop = -min(y - 0.03, long * rng.uniform(0.2, 0.4))
    pen = Pen(car.layer, car.view)
    curve = [(x + side * long * t, y + drop * t + 0.05 * math.sin(4 * t)) for t in np.linspace(0, 1, 8)]
    pen.line(curve, DARK, 0.085)
    pen.line([(px, py + 0.012) for px, py in curve], shade(car.paint, 0.9), 0.05)
    pen.line([(x, y + 0.06), (x - side * 0.5, y + 0.06)], DARK, 0.05)
