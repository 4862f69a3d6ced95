"""Makes a drawn car dirty: dust, mud on sills and wheel arches, splashes, dusty windows; lengths in metres."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from draw_body import Car, Colour, Floats, Pen, disc
from draw_scene import noise

DIRTS: tuple[Colour, ...] = ((112, 84, 54), (92, 66, 44), (142, 116, 82), (172, 152, 120), (126, 112, 94), (78, 64, 50))


def make_dirty(car: Car, rng: np.random.Generator) -> None:
    """Covers the car's layer with dirt, in place; how much varies, yet a person always sees it."""
    # Half the layer's resolution is the finished picture's: dirt has no edges that would need more.
    x, y = car.x[::2, ::2], car.y[::2, ::2]
    size = (y.shape[1], y.shape[0])
    coarse, fine, grain = noise(rng, size, 9), noise(rng, size, 40), noise(rng, size, 190)
    rough = 0.5 * coarse + 0.3 * fine + 0.2 * grain
    mud, dust = _colours(car, rng)
    glass = np.asarray(car.glass_mask.reduce(2), np.float32) / 255

    # The film is thick near the ground and thins out towards the roof.
    strength = rng.uniform(0.35, 0.8)
    rise = 1 - np.clip(y / car.height, 0, 1) * rng.uniform(0.5, 0.95)
    film = strength * rise * np.clip(0.25 + 1.5 * rough, 0, 1.3) * (1 - glass)
    film += glass * _window_film(car, x, y, rough, rng)
    _cover(car, np.clip(film, 0, 0.88), dust, 0.8 + 0.4 * grain)

    edge = rng.uniform(0.36, 0.62) + 0.5 * (coarse - 0.5) + 0.34 * (fine - 0.5) + 0.12 * (grain - 0.5)
    wet = np.clip((edge - y) / 0.07, 0, 1)
    if car.side:
        for wx, wy, r in car.wheels:
            reach = r * rng.uniform(1.3, 1.7) + 0.42 * (fine - 0.5) + 0.3 * (coarse - 0.5)
            # Wheels throw mud backwards, so the patch sits behind the axle.
            far = np.hypot(x - wx + 0.12, y - wy)
            wet = np.maximum(wet, np.clip((reach - far) / 0.08, 0, 1))
    if car.side:
        for wx, wy, r in car.wheels:  # a turning wheel sheds most of its mud
            wet = np.where(np.hypot(x - wx, y - wy) < r * 0.97, wet * (0.3 + 0.5 * fine), wet)
    wet *= rng.uniform(0.72, 0.95) * np.clip(0.55 + 0.8 * grain, 0, 1)
    _cover(car, wet, mud, 0.72 + 0.5 * fine)

    drops = np.asarray(_splashes(car, rng).reduce(2), np.float32) / 255
    _cover(car, drops * rng.uniform(0.75, 0.95), mud, 0.75 + 0.5 * grain)


def _colours(car: Car, rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Picks a mud and a dust colour that differ enough from the paint to be seen on it."""
    order = [DIRTS[i] for i in rng.permutation(len(DIRTS))]
    order.sort(key=lambda c: sum(abs(a - b) for a, b in zip(c, car.paint, strict=True)) < 110)
    mud = order[0]
    lift = rng.uniform(1.1, 1.35)
    red, green, blue = (int(min(225, c * lift + 8)) for c in mud)
    return mud, (red, green, blue)


def _cover(car: Car, amount: Floats, colour: Colour, tone: Floats) -> None:
    """Blends a colour over the layer by ``amount`` (0 to 1, [height / 2, width / 2]); the layer's outline stays."""
    shape = car.layer.getchannel("A")
    grey = Image.fromarray(np.clip(tone * 128, 0, 255).astype(np.uint8))
    ink = Image.merge("RGB", [grey.point([min(255, c * i // 128) for i in range(256)]) for c in colour])
    mask = Image.fromarray(np.clip(amount * 255, 0, 255).astype(np.uint8))
    ink, mask = (image.resize(car.view.size, Image.Resampling.BILINEAR) for image in (ink, mask))
    car.layer = Image.composite(ink, car.layer.convert("RGB"), mask).convert("RGBA")
    car.layer.putalpha(shape)


def _window_film(car: Car, x: Floats, y: Floats, rough: Floats, rng: np.random.Generator) -> Floats:
    """Dust on the windows, [height, width], with the arcs that wipers or a hand left clean."""
    film = rng.uniform(0.2, 0.62) * np.clip(0.35 + 1.2 * rough, 0, 1.2)
    low = min(py for pane in car.glass for _, py in pane)
    if car.side:
        if rng.random() < 0.5:
            pane = car.glass[int(rng.integers(len(car.glass)))]
            cx = float(np.mean([px for px, _ in pane]))
            film = film * np.clip((np.hypot((x - cx) / 1.4, y - low - 0.18) - 0.12) / 0.03, 0.15, 1)
        return film
    reach = rng.uniform(0.75, 1.05) * (max(py for pane in car.glass for _, py in pane) - low)
    for cx in (-0.38, 0.3):
        film = film * np.clip((np.hypot(x - cx, y - low) - reach) / 0.02, 0.12, 1)
    return film


def _splashes(car: Car, rng: np.random.Generator) -> Image.Image:
    """Drops and runs of mud thrown up by the wheels, an "L" mask."""
    mask = Image.new("L", car.view.size)
    pen = Pen(mask, car.view)
    for wx, wy, r in car.wheels:
        for _ in range(int(rng.integers(40, 170))):
            far = rng.exponential(0.42)
            turn = rng.normal(math.pi * 0.78 if car.side else math.pi / 2, 0.5)
            x, y = wx + (r + far) * math.cos(turn), wy + (r + far) * math.sin(turn)
            big = rng.uniform(0.006, 0.016) + 0.035 * rng.random() ** 5
            tail = big * rng.uniform(1, 2.2)
            along, aside = math.cos(turn), math.sin(turn)
            long = tail / big
            spot = [
                (x + dx * along * long - dy * aside, y + dx * aside * long + dy * along)
                for dx, dy in disc(0, 0, big, 10)
            ]
            pen.fill(spot, int(rng.integers(150, 256)))
            if rng.random() < 0.05:
                pen.line([(x, y), (x + rng.normal(0, 0.01), y - rng.uniform(0.05, 0.2))], 150, 0.012)
    return mask
