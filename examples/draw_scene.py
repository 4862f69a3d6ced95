"""Draws what is around the car, and the light on the finished picture; sizes are in pixels (width, height)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from draw_body import Colour, Floats

SCENES = ("street", "parking", "grass", "wall", "showroom")


def noise(rng: np.random.Generator, size: tuple[int, int], cells: int) -> Floats:
    """Smooth noise between 0 and 1, float32 [height, width], with ``cells`` bumps across the width."""
    rows = max(2, round(cells * size[1] / size[0]))
    grid = rng.integers(0, 256, (rows, max(2, cells)), dtype=np.uint8)
    return np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC), np.float32) / 255


def fade(size: tuple[int, int], top: Sequence[int], bottom: Sequence[int]) -> Image.Image:
    """A vertical gradient between two colours."""
    steps = np.linspace(0, 1, 64)[:, None, None]
    column = (1 - steps) * np.asarray(top, float) + steps * np.asarray(bottom, float)
    return Image.fromarray(column.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)


def _tone(rng: np.random.Generator, colour: Colour, spread: int = 18) -> Colour:
    # Mostly lighter or darker: a wall whose stones each have their own hue looks like confetti.
    step = int(rng.integers(-spread, spread + 1))
    red, green, blue = (
        min(255, max(0, c + step + int(d))) for c, d in zip(colour, rng.integers(-5, 6, 3), strict=True)
    )
    return red, green, blue


def draw_background(rng: np.random.Generator, size: tuple[int, int], scene: str, horizon: int) -> Image.Image:
    """Draws an RGB scene whose ground begins at the row ``horizon``."""
    width, height = size
    big = Image.new("RGB", (width * 2, height * 2))
    split = horizon * 2
    draw = ImageDraw.Draw(big)
    ground = {"street": (112, 112, 116), "parking": (104, 105, 108), "grass": (98, 128, 62), "wall": (138, 132, 124),
              "showroom": (196, 198, 202)}[scene]  # fmt: skip
    floor = _tone(rng, ground)
    big.paste(fade((width * 2, height * 2 - split), [int(c * 0.82) for c in floor], floor), (0, split))
    sky = [((92, 146, 206), (206, 224, 238)), ((150, 162, 176), (214, 218, 222)), ((120, 150, 190), (244, 214, 180))]
    top, low = sky[int(rng.integers(len(sky)))]
    big.paste(fade((width * 2, split), _tone(rng, top), _tone(rng, low)), (0, 0))
    {"street": _street, "parking": _parking, "grass": _grass, "wall": _wall, "showroom": _showroom}[scene](
        rng, draw, (width * 2, height * 2), split
    )
    picture = big.reduce(2).filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.6)))
    return _ground_texture(rng, picture, scene, horizon)


def _ground_texture(rng: np.random.Generator, picture: Image.Image, scene: str, horizon: int) -> Image.Image:
    """Roughens the ground; puddles of mud and stones lie under clean cars as often as under dirty ones."""
    width, height = picture.size
    size = (width, height - horizon)
    pixels = np.asarray(picture, np.float32).copy()
    if scene != "showroom":
        grain = (noise(rng, size, 160) - 0.5) * rng.uniform(10, 45) + (noise(rng, size, 9) - 0.5) * rng.uniform(10, 50)
        pixels[horizon:] += grain[..., None]
        if rng.random() < 0.45:
            mud = np.clip(
                (noise(rng, size, 14) * 0.7 + noise(rng, size, 50) * 0.3 - rng.uniform(0.5, 0.68)) * 9, 0, 0.9
            )
            tone = np.asarray(_tone(rng, (104, 78, 52)), np.float32)
            pixels[horizon:] += (tone - pixels[horizon:]) * mud[..., None]
    result = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if scene != "showroom" and rng.random() < 0.5:
        draw = ImageDraw.Draw(result)
        for _ in range(int(rng.integers(10, 60))):
            x, y = rng.uniform(0, width), rng.uniform(horizon + 4, height)
            r, tone_ = rng.uniform(1, 5), int(rng.integers(70, 190))
            draw.ellipse((x - r * 1.4, y - r, x + r * 1.4, y + r), fill=(tone_, tone_ - 6, tone_ - 14))
    return result


def _street(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: tuple[int, int], split: int) -> None:
    x = -40
    while x < size[0]:
        wide, top = int(rng.integers(140, 340)), int(split * rng.uniform(0.05, 0.6))
        tone = _tone(rng, ((158, 120, 100), (182, 172, 156), (120, 126, 138), (196, 184, 150))[int(rng.integers(4))])
        draw.rectangle((x, top, x + wide, split), fill=tone)
        pane = _tone(rng, (70, 84, 100))
        for wx in range(x + 20, x + wide - 34, 52):
            for wy in range(top + 24, split - 60, 66):
                draw.rectangle((wx, wy, wx + 28, wy + 38), fill=pane)
        x += wide
    kerb = split + 40
    draw.rectangle((0, split, size[0], kerb), fill=_tone(rng, (168, 166, 160)))
    draw.rectangle((0, kerb, size[0], kerb + 8), fill=_tone(rng, (120, 118, 114)))
    if rng.random() < 0.7:
        y = int(size[1] * rng.uniform(0.9, 0.97))
        for x in range(int(rng.integers(-200, 0)), size[0], 300):
            draw.polygon([(x, y), (x + 170, y), (x + 158, y + 14), (x - 14, y + 14)], fill=(222, 222, 214))


def _trees(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: tuple[int, int], split: int, count: int) -> None:
    for _ in range(count):
        x, top = rng.uniform(0, size[0]), split * rng.uniform(0.25, 0.7)
        green = _tone(rng, (64, 98, 52), 26)
        draw.rectangle((x - 9, top, x + 9, split), fill=(82, 64, 48))
        for _ in range(12):
            cx, cy, r = x + rng.normal(0, 45), top + rng.normal(0, 40), rng.uniform(25, 60)
            draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=_tone(rng, green, 10))


def _parking(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: tuple[int, int], split: int) -> None:
    _trees(rng, draw, size, split, int(rng.integers(2, 7)))
    draw.rectangle((0, split - int(rng.integers(30, 130)), size[0], split), fill=_tone(rng, (66, 92, 56)))
    step, lean = int(rng.integers(280, 520)), int(rng.integers(-160, 160))
    for x in range(int(rng.integers(-300, 0)), size[0] + 300, step):
        draw.polygon([(x, split + 30), (x + 12, split + 30), (x + lean + 22, size[1]), (x + lean, size[1])],
                     fill=(216, 216, 208))  # fmt: skip


def _grass(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: tuple[int, int], split: int) -> None:
    for shade in (0.8, 1.0):
        ys = split - rng.uniform(20, 200, 7) * shade
        hill = [(size[0] * i / 6, float(y)) for i, y in enumerate(ys)]
        draw.polygon([(0, split), *hill, (size[0], split)], fill=_tone(rng, (98, 126, 92)))
    _trees(rng, draw, size, split, int(rng.integers(0, 5)))
    greens = [_tone(rng, (104, 136, 62), 30) for _ in range(12)]
    for x, y, lean, tall in rng.uniform((0, split, -6, 6), (size[0], size[1], 6, 22), (900, 4)).tolist():
        draw.line((x, y, x + lean, y - tall), fill=greens[int(x) % 12], width=2)


def _wall(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: tuple[int, int], split: int) -> None:
    base = _tone(rng, ((156, 88, 66), (172, 168, 160), (198, 182, 150), (110, 116, 122))[int(rng.integers(4))])
    tones = [_tone(rng, base, 12) for _ in range(9)]
    joint = _tone(rng, (176, 170, 160))
    draw.rectangle((0, 0, size[0], split), fill=joint)
    high, wide = (26, 74) if rng.random() < 0.6 else (110, 220)
    for row, y in enumerate(range(split, -high, -high)):
        for x in range(-wide + (row % 2) * wide // 2, size[0], wide):
            draw.rectangle((x, y - high, x + wide - 4, y - 4), fill=tones[int(rng.integers(len(tones)))])
    for y in range(split + 40, size[1], 70):
        draw.line((0, y, size[0], y), fill=(116, 112, 106), width=3)


def _showroom(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: tuple[int, int], split: int) -> None:
    draw.rectangle((0, 0, size[0], split), fill=_tone(rng, (214, 216, 220)))
    step = int(rng.integers(200, 380))
    for left in range(int(rng.integers(-200, 0)), size[0], step):
        draw.rectangle((left, int(split * 0.2), left + step - 26, split - 16), fill=_tone(rng, (176, 200, 218), 10))
    for _ in range(int(rng.integers(3, 8))):
        x, y = rng.uniform(0, size[0]), rng.uniform(10, split * 0.16)
        draw.ellipse((x - 26, y - 7, x + 26, y + 7), fill=(255, 255, 248))


def apply_light(rng: np.random.Generator, picture: Image.Image, indoor: bool) -> Image.Image:
    """Lights the finished RGB picture: day, dusk or night, perhaps glare, then blur and sensor noise."""
    width, height = picture.size
    pixels = np.asarray(picture, np.float32)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    time = "day" if indoor else str(rng.choice(["day", "grey", "dusk", "night"], p=[0.5, 0.2, 0.17, 0.13]))
    tint = {"day": (1.02, 1.0, 0.98), "grey": (0.9, 0.93, 0.97), "dusk": (0.98, 0.8, 0.66), "night": (0.5, 0.56, 0.72)}
    gain = np.asarray(tint[time], np.float32) * rng.uniform(0.9, 1.1)
    lit = np.full((height, width), 1.0, np.float32)
    if time == "night":
        x, y = rng.uniform(0.3, 0.7) * width, 0.55 * height
        lit = 0.62 + 0.95 * np.exp(-(((columns - x) / (0.42 * width)) ** 2 + ((rows - y) / (0.45 * height)) ** 2))
        gain = gain * np.asarray((1.25, 1.1, 0.9), np.float32)
    lit = lit * (1 + rng.uniform(-0.12, 0.12) * (columns / width - 0.5) * 2)
    pixels = pixels * lit[..., None] * gain
    if rng.random() < 0.15:
        x, y, r = rng.uniform(0, width), rng.uniform(0, height * 0.5), rng.uniform(40, 110)
        glare = rng.uniform(60, 170) * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * r * r))
        pixels = pixels + glare[..., None] * np.asarray((1.0, 0.97, 0.86), np.float32)
    contrast = rng.uniform(0.85, 1.1)
    pixels = (pixels - 118) * contrast + 118
    if rng.random() < 0.5:
        pixels = pixels + rng.standard_normal((height, width, 1), dtype=np.float32) * rng.uniform(1, 9)
    result = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if rng.random() < 0.3:
        result = result.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.1)))
    return result
