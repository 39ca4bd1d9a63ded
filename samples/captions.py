"""Drawn pictures with captions: an endless, seeded supply of image-text pairs.

A caption names colours and a kind, which a small model soon learns to see, and a position to the
pixel, which it never quite predicts. That matters: AutoQuant scores a layer by the gradient of the
loss, and a loss that has fallen to nothing ranks layers by noise.
"""

from __future__ import annotations

import random

from PIL import Image, ImageDraw

SIDE = 64
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 220),
    "yellow": (235, 215, 50),
    "purple": (150, 50, 170),
    "orange": (240, 140, 30),
    "white": (245, 245, 245),
    "black": (15, 15, 15),
}
KINDS = ("circle", "square", "triangle", "cross", "ring")


def _draw_shape(
    pen: ImageDraw.ImageDraw, kind: str, x: int, y: int, size: int, fill: tuple[int, int, int]
) -> None:
    """Draw one shape whose bounding box has its upper left corner at (x, y)."""
    right, bottom = x + size, y + size
    third = size // 3
    if kind == "circle":
        pen.ellipse((x, y, right, bottom), fill=fill)
    elif kind == "ring":
        pen.ellipse((x, y, right, bottom), outline=fill, width=third // 2)
    elif kind == "square":
        pen.rectangle((x, y, right, bottom), fill=fill)
    elif kind == "triangle":
        pen.polygon(((x, bottom), (right, bottom), (x + size // 2, y)), fill=fill)
    else:
        pen.rectangle((x + third, y, right - third, bottom), fill=fill)
        pen.rectangle((x, y + third, right, bottom - third), fill=fill)


def captioned_picture(rng: random.Random) -> tuple[Image.Image, str]:
    """One picture of a shape on a plain ground, and the sentence that describes it."""
    ground, ink = rng.sample(sorted(COLOURS), k=2)
    kind, size = rng.choice(KINDS), rng.randint(12, 30)
    x, y = rng.randint(0, SIDE - size - 1), rng.randint(0, SIDE - size - 1)
    picture = Image.new("RGB", (SIDE, SIDE), COLOURS[ground])
    _draw_shape(ImageDraw.Draw(picture), kind, x, y, size, COLOURS[ink])
    return picture, f"A {ink} {kind} on {ground} at {x} {y}."


def captioned_pictures(count: int, seed: int) -> list[tuple[Image.Image, str]]:
    """The first `count` pictures of the stream that belongs to `seed`."""
    rng = random.Random(seed)
    return [captioned_picture(rng) for _ in range(count)]
