"""Draws the objects: one function per shape on a 100 x 100 unit canvas, shaded, outlined and cached.

Each shape differs from all others in silhouette and in inner detail, because further objects are only about
25 pixels wide in the final image and must still be nameable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pipeline.demo_world.vocabulary import COLORS, SHAPES

MASTER = 240  # side in pixels of the drawing that all sizes are scaled down from
Point = tuple[float, float]
Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Palette:
    """The paints of one object: its colour, darker and lighter tones of it, and the outline."""

    base: Rgb
    light: Rgb
    dark: Rgb
    line: Rgb


class Pen:
    """Draws in units of one hundredth of the canvas."""

    def __init__(self) -> None:
        self.image = Image.new("RGBA", (MASTER, MASTER), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self.image)
        self._unit = MASTER / 100

    def _scaled(self, points: list[Point]) -> list[Point]:
        return [(x * self._unit, y * self._unit) for x, y in points]

    def polygon(self, points: list[Point], fill: Rgb) -> None:
        self._draw.polygon(self._scaled(points), fill=fill)

    def ellipse(self, x0: float, y0: float, x1: float, y1: float, fill: Rgb) -> None:
        self._draw.ellipse(self._scaled([(x0, y0), (x1, y1)]), fill=fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Rgb, radius: float = 0) -> None:
        self._draw.rounded_rectangle(self._scaled([(x0, y0), (x1, y1)]), radius=radius * self._unit, fill=fill)

    def pie(self, x0: float, y0: float, x1: float, y1: float, start: float, end: float, fill: Rgb) -> None:
        self._draw.pieslice(self._scaled([(x0, y0), (x1, y1)]), start, end, fill=fill)

    def arc(
        self, x0: float, y0: float, x1: float, y1: float, start: float, end: float, fill: Rgb, width: float
    ) -> None:
        box = self._scaled([(x0, y0), (x1, y1)])
        self._draw.arc(box, start, end, fill=fill, width=round(width * self._unit))

    def line(self, points: list[Point], fill: Rgb, width: float) -> None:
        self._draw.line(self._scaled(points), fill=fill, width=round(width * self._unit), joint="curve")

    def erase(self, x0: float, y0: float, x1: float, y1: float) -> None:
        self._draw.ellipse(self._scaled([(x0, y0), (x1, y1)]), fill=(0, 0, 0, 0))


GLASS: Rgb = (205, 232, 245)
WOOD: Rgb = (122, 78, 42)
METAL: Rgb = (150, 154, 162)
DARK: Rgb = (44, 40, 46)
CREAM: Rgb = (250, 240, 214)


def _star(pen: Pen, paint: Palette) -> None:
    ring = [
        (50 + r * math.sin(a * math.pi / 5), 53 - r * math.cos(a * math.pi / 5)) for a, r in enumerate((50, 20) * 5)
    ]
    pen.polygon(ring, paint.base)
    for tip in range(0, 10, 2):  # facets: one half of each ray in a darker tone
        pen.polygon([ring[tip], ring[tip + 1], (50, 53)], paint.dark)


def _heart(pen: Pen, paint: Palette) -> None:
    curve = []
    for step in range(60):
        t = step * math.tau / 60
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        curve.append((50 + x * 2.9, 46 - y * 2.9))
    pen.polygon(curve, paint.base)
    pen.ellipse(16, 18, 36, 38, paint.light)


def _house(pen: Pen, paint: Palette) -> None:
    pen.box(68, 8, 80, 40, paint.dark)
    pen.box(14, 44, 86, 96, paint.base)
    pen.polygon([(50, 4), (2, 48), (98, 48)], paint.dark)
    pen.box(42, 66, 58, 96, WOOD)
    pen.box(21, 56, 36, 72, GLASS)
    pen.box(64, 56, 79, 72, GLASS)


def _tree(pen: Pen, paint: Palette) -> None:
    pen.box(42, 70, 58, 98, WOOD)
    pen.polygon([(50, 36), (8, 82), (92, 82)], paint.dark)
    pen.polygon([(50, 18), (14, 60), (86, 60)], paint.base)
    pen.polygon([(50, 2), (22, 38), (78, 38)], paint.light)


def _fish(pen: Pen, paint: Palette) -> None:
    pen.polygon([(62, 50), (98, 20), (90, 50), (98, 80)], paint.dark)
    pen.polygon([(30, 32), (50, 10), (66, 34)], paint.dark)
    pen.ellipse(2, 24, 76, 78, paint.base)
    pen.arc(6, 28, 36, 74, -70, 70, paint.dark, 4)
    pen.ellipse(12, 38, 26, 52, (255, 255, 255))
    pen.ellipse(15, 41, 22, 49, DARK)


def _boat(pen: Pen, paint: Palette) -> None:
    pen.box(46, 4, 52, 70, WOOD)
    pen.polygon([(55, 6), (55, 62), (94, 62)], CREAM)
    pen.polygon([(43, 16), (43, 62), (12, 62)], paint.light)
    pen.polygon([(2, 68), (98, 68), (80, 96), (20, 96)], paint.base)
    pen.polygon([(2, 68), (98, 68), (94, 75), (6, 75)], paint.dark)


def _car(pen: Pen, paint: Palette) -> None:
    pen.polygon([(18, 52), (32, 24), (70, 24), (86, 52)], paint.base)
    pen.polygon([(26, 50), (36, 31), (49, 31), (49, 50)], GLASS)
    pen.polygon([(54, 50), (54, 31), (66, 31), (77, 50)], GLASS)
    pen.box(1, 48, 99, 76, paint.base, radius=9)
    pen.box(1, 60, 99, 66, paint.dark)
    for x in (13, 63):
        pen.ellipse(x, 62, x + 25, 87, DARK)
        pen.ellipse(x + 7, 69, x + 18, 80, METAL)


def _umbrella(pen: Pen, paint: Palette) -> None:
    pen.box(47, 40, 53, 86, WOOD)
    pen.arc(31, 72, 53, 96, 0, 180, WOOD, 6)
    pen.pie(2, 6, 98, 102, 180, 360, paint.base)
    pen.pie(32, 6, 68, 102, 180, 360, paint.light)
    for x in (2, 34, 66):  # scalloped edge
        pen.pie(x, 48, x + 32, 62, 180, 360, paint.dark)
    pen.box(48, 1, 52, 10, WOOD)


def _moon(pen: Pen, paint: Palette) -> None:
    pen.ellipse(4, 2, 98, 98, paint.base)
    pen.erase(34, -10, 116, 74)
    pen.ellipse(16, 52, 28, 64, paint.dark)
    pen.ellipse(36, 72, 46, 82, paint.dark)


def _mushroom(pen: Pen, paint: Palette) -> None:
    pen.box(36, 46, 64, 97, CREAM, radius=9)
    pen.pie(3, 6, 97, 112, 180, 360, paint.base)
    pen.ellipse(3, 52, 97, 66, paint.dark)
    for x, y, r in ((30, 34, 9), (56, 22, 8), (74, 42, 8), (48, 46, 6)):
        pen.ellipse(x - r, y - r, x + r, y + r, (255, 255, 255) if sum(paint.base) < 690 else METAL)


def _flower(pen: Pen, paint: Palette) -> None:
    pen.box(47, 50, 53, 98, (40, 120, 50))
    pen.ellipse(53, 74, 82, 90, (52, 140, 60))
    for petal in range(6):
        x, y = 50 + 22 * math.sin(petal * math.pi / 3), 35 - 22 * math.cos(petal * math.pi / 3)
        pen.ellipse(x - 14, y - 14, x + 14, y + 14, paint.base if petal % 2 else paint.light)
    pen.ellipse(38, 23, 62, 47, DARK if sum(paint.base) > 200 else CREAM)


def _cup(pen: Pen, paint: Palette) -> None:
    pen.arc(58, 40, 98, 80, -100, 100, paint.dark, 9)
    pen.polygon([(8, 32), (76, 32), (66, 96), (18, 96)], paint.base)
    pen.box(17, 52, 67, 62, paint.light)
    pen.ellipse(8, 24, 76, 40, paint.dark)
    pen.ellipse(14, 27, 70, 38, WOOD)
    for x in (28, 48):  # steam
        pen.line([(x, 20), (x + 5, 14), (x, 8), (x + 5, 2)], METAL, 4)


def _key(pen: Pen, paint: Palette) -> None:
    pen.box(36, 43, 97, 56, paint.base)
    pen.box(72, 50, 80, 74, paint.dark)
    pen.box(88, 50, 96, 80, paint.dark)
    pen.ellipse(1, 26, 48, 74, paint.base)
    pen.ellipse(7, 32, 42, 68, paint.light)
    pen.erase(14, 39, 35, 61)


def _bell(pen: Pen, paint: Palette) -> None:
    pen.arc(41, 0, 59, 18, 0, 360, paint.dark, 5)
    pen.ellipse(38, 78, 62, 99, DARK if sum(paint.base) > 200 else METAL)
    pen.pie(22, 12, 78, 80, 180, 360, paint.base)
    pen.polygon([(22, 46), (78, 46), (94, 82), (6, 82)], paint.base)
    pen.box(4, 76, 96, 87, paint.dark, radius=5)
    pen.polygon([(32, 30), (40, 26), (34, 72), (22, 72)], paint.light)


def _rocket(pen: Pen, paint: Palette) -> None:
    pen.polygon([(38, 80), (50, 99), (62, 80)], (255, 160, 30))
    pen.polygon([(34, 50), (10, 84), (34, 78)], paint.dark)
    pen.polygon([(66, 50), (90, 84), (66, 78)], paint.dark)
    pen.ellipse(30, 2, 70, 112, paint.base)
    pen.box(28, 82, 72, 99, paint.dark, radius=2)
    pen.polygon([(38, 86), (50, 100), (62, 86)], (255, 160, 30))
    pen.pie(30, 2, 70, 112, 235, 305, paint.dark)
    pen.ellipse(39, 36, 61, 58, METAL)
    pen.ellipse(42, 39, 58, 55, GLASS)


def _balloon(pen: Pen, paint: Palette) -> None:
    pen.line([(50, 72), (44, 80), (54, 88), (48, 99)], DARK, 3)
    pen.ellipse(18, 1, 82, 72, paint.base)
    pen.polygon([(50, 66), (40, 79), (60, 79)], paint.dark)
    pen.ellipse(28, 12, 42, 34, paint.light)


def _butterfly(pen: Pen, paint: Palette) -> None:
    for side in (-1, 1):
        pen.line([(50, 28), (50 + side * 14, 6)], DARK, 3)
        for cx, cy, rx, ry, fill in ((26, 34, 23, 24, paint.base), (22, 75, 17, 18, paint.dark)):
            x = 50 + side * cx
            pen.ellipse(x - rx, cy - ry, x + rx, cy + ry, fill)
        pen.ellipse(50 + side * 28 - 9, 24, 50 + side * 28 + 9, 42, paint.light)
    pen.ellipse(44, 20, 56, 92, DARK)


def _guitar(pen: Pen, paint: Palette) -> None:
    pen.box(46, 6, 54, 50, WOOD)
    pen.box(41, 1, 59, 13, WOOD)
    pen.ellipse(22, 36, 78, 74, paint.base)
    pen.ellipse(11, 54, 89, 99, paint.base)
    pen.ellipse(40, 54, 60, 74, DARK)
    pen.box(38, 82, 62, 88, WOOD)
    pen.line([(50, 10), (50, 84)], CREAM, 2)


_PAINTERS: dict[str, Callable[[Pen, Palette], None]] = {
    "star": _star, "heart": _heart, "house": _house, "tree": _tree, "fish": _fish, "boat": _boat, "car": _car,
    "umbrella": _umbrella, "moon": _moon, "mushroom": _mushroom, "flower": _flower, "cup": _cup, "key": _key,
    "bell": _bell, "rocket": _rocket, "balloon": _balloon, "butterfly": _butterfly, "guitar": _guitar,
}  # fmt: skip
assert tuple(_PAINTERS) == SHAPES


def _mix(a: Rgb, b: Rgb, share: float) -> Rgb:
    return tuple(round(p * (1 - share) + q * share) for p, q in zip(a, b, strict=True))  # type: ignore[return-value]


def palette(color: str) -> Palette:
    """The tones of a colour; white and black keep a visible outline on bright and dark ground."""
    base = COLORS[color]
    if color == "black":
        return Palette(base, (78, 78, 86), (8, 8, 10), (128, 128, 136))
    return Palette(base, _mix(base, (255, 255, 255), 0.42), _mix(base, (0, 0, 0), 0.26), _mix(base, (0, 0, 0), 0.68))


@cache
def _master(shape: str, color: str) -> Image.Image:
    """The object at full size: outline beneath, light from the top left, a soft shadow to the bottom right."""
    pen, paint = Pen(), palette(color)
    _PAINTERS[shape](pen, paint)
    margin = MASTER // 24
    inner = pen.image.resize((MASTER - 2 * margin, MASTER - 2 * margin), Image.Resampling.LANCZOS)
    body = Image.new("RGBA", (MASTER, MASTER), (0, 0, 0, 0))
    body.paste(inner, (margin, margin))
    ramp = np.add.outer(np.linspace(0.14, -0.12, MASTER), np.linspace(0.06, -0.08, MASTER))[..., None]
    pixels = np.asarray(body).astype(np.float32)
    pixels[..., :3] = np.clip(pixels[..., :3] * (1 + ramp) + 40 * np.maximum(ramp, 0), 0, 255)
    body = Image.fromarray(pixels.astype(np.uint8), "RGBA")
    alpha = body.getchannel("A")
    outline = Image.new("RGBA", body.size, (*paint.line, 0))
    outline.putalpha(alpha.filter(ImageFilter.MaxFilter(9)))
    return Image.alpha_composite(outline, body)


@lru_cache(maxsize=4096)
def sprite(shape: str, color: str, side: int, flipped: bool) -> tuple[Image.Image, Image.Image]:
    """The object `side` pixels wide as RGBA: alone, and on a soft shadow and a thin light rim, for pasting.

    The rim keeps an object apart from a ground of its own brightness where the style takes the colour away.
    """
    image = _master(shape, color)
    if flipped:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.resize((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    cast = Image.new("L", image.size)
    cast.paste(image.getchannel("A"), (2, 2))
    cast = cast.filter(ImageFilter.GaussianBlur(1.2))
    shadow = Image.new("RGBA", image.size, (0, 0, 0, 0))
    shadow.putalpha(cast.point(lambda value: value * 0.4))
    rim = Image.new("RGBA", image.size, (255, 255, 255, 0))
    rim.putalpha(image.getchannel("A").filter(ImageFilter.MaxFilter(3)).point(lambda value: value * 0.55))
    return image, Image.alpha_composite(Image.alpha_composite(shadow, rim), image)


@lru_cache(maxsize=1024)
def silhouette(shape: str, side: int, flipped: bool) -> np.ndarray:
    """Which pixels of the sprite belong to the object: bool (side, side); the same for every colour."""
    image, _ = sprite(shape, "red", side, flipped)
    return np.asarray(image.getchannel("A")) > 100
