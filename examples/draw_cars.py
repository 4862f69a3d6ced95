"""Draws pictures of cars, clean or dirty and intact or damaged, that train and show the demo models.

The drawing is split by subject: ``draw_body`` and ``draw_views`` the car, ``draw_dirt`` and ``draw_damage`` the marks
on it, ``draw_scene`` the surroundings and the light.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from draw_damage import make_damaged
from draw_dirt import make_dirty
from draw_scene import SCENES, apply_light, draw_background
from draw_views import draw_intact


def draw_car(
    rng: np.random.Generator, *, dirty: bool, damaged: bool, size: tuple[int, int] = (640, 480)
) -> Image.Image:
    """Draws one car in its surroundings.

    Body type, colour, view, place and light come from ``rng`` alone: the same generator state gives the same car in the
    same place whatever the two properties are, so neither of them can be told from anything but its own marks.

    Args:
        rng: where all chance comes from; one state always draws the same picture.
        dirty: whether the car wears dust, mud and splashes.
        damaged: whether it has dents, scratches, broken glass or torn parts.
        size: width and height of the picture in pixels.

    Returns:
        The picture, mode RGB.
    """
    # Each part has a stream of its own, so that marks do not shift the draws of what comes after them.
    streams = [np.random.default_rng(int(seed)) for seed in rng.integers(2**62, size=6)]
    car_rng, dirt_rng, damage_rng, place_rng, scene_rng, light_rng = streams
    car = draw_intact(car_rng, (size[0] * 2, size[1] * 2))
    # Damage comes after dirt: a knock goes through the dust and stays visible.
    if dirty:
        make_dirty(car, dirt_rng)
    if damaged:
        make_damaged(car, damage_rng)

    scene = str(place_rng.choice(SCENES))
    horizon = int(size[1] * place_rng.uniform(0.5, 0.66))
    picture = draw_background(scene_rng, size, scene, horizon)
    # Premultiplied alpha, or the transparent pixels' colour would bleed into the outline.
    layer = car.layer.convert("RGBa").reduce(2).convert("RGBA")
    ground = int(size[1] * place_rng.uniform(0.82, 0.9))
    left = (size[0] - layer.width) // 2 + int(place_rng.uniform(-0.03, 0.03) * size[0])
    top = ground - round(car.view.origin[1] / 2)
    picture.paste((18, 18, 20), (left, top), car.shadow)
    if scene == "showroom":
        # A polished floor shows the car upside down.
        mirror = ImageOps.flip(layer)
        alpha = mirror.getchannel("A").point(lambda a: a * 0.18)
        picture.paste(mirror, (left, 2 * ground - top - layer.height), alpha)
    picture.paste(layer, (left, top), layer)
    return apply_light(light_rng, picture, scene == "showroom")
