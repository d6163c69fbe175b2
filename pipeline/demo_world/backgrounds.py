"""Paints the places and surfaces behind the objects: textured, clearly different from each other, cached.

A background is painted larger than the image; `background` cuts a window out of one of its variants, so that a
few hundred cached paintings give thousands of different ones at the cost of a copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from pipeline.demo_world.vocabulary import BACKGROUNDS

WIDTH, HEIGHT = 120, 106  # of a painting, in final pixels
VARIANTS = 24
_SCALE = 3  # painted this much larger, then scaled down for smooth edges
Rgb = tuple[int, int, int]


class Canvas:
    """A painting in final-pixel units with its own random numbers."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.image = Image.new("RGB", (WIDTH * _SCALE, HEIGHT * _SCALE))
        self._draw = ImageDraw.Draw(self.image)

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def gradient(self, top: Rgb, bottom: Rgb, y0: float = 0, y1: float = HEIGHT) -> None:
        """A vertical blend of two colours between two heights."""
        for y in range(round(y0 * _SCALE), round(y1 * _SCALE)):
            share = (y / _SCALE - y0) / (y1 - y0)
            fill = tuple(round(a + (b - a) * share) for a, b in zip(top, bottom, strict=True))
            self._draw.line([(0, y), (WIDTH * _SCALE, y)], fill=fill)

    def polygon(self, points: list[tuple[float, float]], fill: Rgb) -> None:
        self._draw.polygon([(x * _SCALE, y * _SCALE) for x, y in points], fill=fill)

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Rgb) -> None:
        self._draw.ellipse([(x - rx) * _SCALE, (y - ry) * _SCALE, (x + rx) * _SCALE, (y + ry) * _SCALE], fill=fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Rgb) -> None:
        self._draw.rectangle([x0 * _SCALE, y0 * _SCALE, x1 * _SCALE, y1 * _SCALE], fill=fill)

    def line(self, points: list[tuple[float, float]], fill: Rgb, width: float) -> None:
        self._draw.line([(x * _SCALE, y * _SCALE) for x, y in points], fill=fill, width=max(1, round(width * _SCALE)))

    def shade(self, color: Rgb, spread: float = 0.1) -> Rgb:
        """The colour a little lighter or darker, by chance."""
        factor = 1 + self.uniform(-spread, spread)
        return tuple(int(np.clip(c * factor, 0, 255)) for c in color)  # type: ignore[return-value]

    def wave(self, y: float, height: float, length: float) -> list[tuple[float, float]]:
        phase = self.uniform(0, math.tau)
        return [(x, y + height * math.sin(x / length * math.tau + phase)) for x in range(-4, WIDTH + 5, 4)]

    def hill(self, y: float, height: float, length: float, fill: Rgb) -> None:
        self.polygon([*self.wave(y, height, length), (WIDTH, HEIGHT), (0, HEIGHT)], fill)

    def finish(self, grain: float) -> Image.Image:
        """Scaled down, with fine grain."""
        image = np.asarray(self.image.resize((WIDTH, HEIGHT), Image.Resampling.BOX)).astype(np.float32)
        image += self.rng.normal(0, grain, (HEIGHT, WIDTH, 1))
        return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


def _beach(c: Canvas) -> None:
    shore = c.uniform(44, 56)
    c.gradient((150, 210, 245), (210, 238, 250), 0, 24)
    c.gradient((30, 120, 190), (60, 180, 205), 22, shore + 4)
    c.hill(shore, 2.0, 50, (245, 250, 250))
    c.hill(shore + 3, 2.0, 50, (238, 214, 160))
    for _ in range(120):
        x, y = c.uniform(0, WIDTH), c.uniform(shore + 8, HEIGHT)
        c.ellipse(x, y, 0.8, 0.5, c.shade((205, 172, 112), 0.2))


def _forest(c: Canvas) -> None:
    c.gradient((60, 100, 60), (24, 54, 30))
    for depth in range(3):
        for _ in range(9):
            x, width = c.uniform(0, WIDTH), 1.6 + depth * 1.4
            c.box(x, 0, x + width, HEIGHT, c.shade((74 - 14 * depth, 56 - 12 * depth, 38 - 8 * depth), 0.15))
    for _ in range(150):
        x, y = c.uniform(0, WIDTH), c.uniform(-4, 26)
        c.ellipse(x, y, 5, 4, c.shade((30, 92, 36), 0.35))
    for _ in range(120):
        x, y = c.uniform(0, WIDTH), c.uniform(92, HEIGHT + 4)
        c.ellipse(x, y, 5, 4, c.shade((34, 74, 28), 0.35))


def _night_sky(c: Canvas) -> None:
    c.gradient((6, 8, 36), (34, 26, 84))
    for _ in range(8):
        x, y = c.uniform(0, WIDTH), c.uniform(0, HEIGHT)
        c.ellipse(x, y, c.uniform(8, 18), c.uniform(4, 8), c.shade((30, 24, 80), 0.2))
    for _ in range(130):
        x, y, r = c.uniform(0, WIDTH), c.uniform(0, HEIGHT), c.uniform(0.3, 1.0)
        c.ellipse(x, y, r, r, c.shade((250, 248, 220), 0.1))


def _desert(c: Canvas) -> None:
    c.gradient((255, 196, 120), (255, 228, 170), 0, 40)
    for y, tone in ((32, (222, 150, 84)), (50, (208, 130, 66)), (74, (190, 110, 52))):
        c.hill(y + c.uniform(-4, 4), c.uniform(4, 8), c.uniform(70, 120), tone)
    for ripple in range(40, HEIGHT, 6):
        c.line(c.wave(ripple, 1.5, 40), (172, 98, 46), 0.5)
    for _ in range(3):  # cacti
        x, foot = c.uniform(4, WIDTH - 4), c.uniform(40, 66)
        c.box(x - 1.4, foot - 16, x + 1.4, foot, (58, 110, 60))
        c.line([(x, foot - 6), (x + 5, foot - 6), (x + 5, foot - 12)], (58, 110, 60), 2)


def _snow_field(c: Canvas) -> None:
    c.gradient((170, 190, 215), (226, 234, 244), 0, 36)
    for _ in range(12):  # bare fir line far away
        x = c.uniform(0, WIDTH)
        c.polygon([(x, 22), (x - 4, 38), (x + 4, 38)], c.shade((120, 140, 160), 0.1))
    for y, tone in ((36, (242, 246, 252)), (58, (230, 238, 248)), (82, (246, 249, 253))):
        c.hill(y, 3, 80, tone)
    for _ in range(140):
        x, flake_y = c.uniform(0, WIDTH), c.uniform(0, HEIGHT)
        c.ellipse(x, flake_y, 0.9, 0.9, (255, 255, 255) if flake_y < 40 else (200, 214, 234))


def _city(c: Canvas) -> None:
    c.gradient((236, 196, 176), (240, 220, 200), 0, 60)
    x = -4.0
    while x < WIDTH:
        width, top = c.uniform(11, 18), c.uniform(4, 40)
        wall = c.shade((104, 108, 124), 0.25)
        c.box(x, top, x + width, 88, wall)
        for wy in np.arange(top + 3, 84, 6).tolist():
            for wx in np.arange(x + 2, x + width - 3, 4.5).tolist():
                c.box(wx, wy, wx + 2.4, wy + 3, (250, 228, 140) if c.uniform(0, 1) < 0.6 else (60, 66, 84))
        x += width + 0.8
    c.box(0, 88, WIDTH, HEIGHT, (70, 70, 76))
    for dash in range(0, WIDTH, 16):
        c.box(dash, 95, dash + 9, 97, (240, 240, 240))


def _wooden_table(c: Canvas) -> None:
    y = -c.uniform(0, 14)
    while y < HEIGHT:
        plank = c.shade((176, 116, 64), 0.14)
        c.box(0, y, WIDTH, y + 17, plank)
        for _ in range(5):
            c.line(c.wave(y + c.uniform(2, 15), 0.8, c.uniform(40, 90)), c.shade((140, 86, 44), 0.12), 0.6)
        c.ellipse(c.uniform(0, WIDTH), y + 8, 3.2, 1.8, (112, 66, 34))
        c.box(0, y + 16.2, WIDTH, y + 17.2, (78, 44, 22))
        y += 17


def _brick_wall(c: Canvas) -> None:
    c.box(0, 0, WIDTH, HEIGHT, (206, 194, 182))
    for row, y in enumerate(np.arange(-c.uniform(0, 8), HEIGHT, 9).tolist()):
        for x in range(-18 + (row % 2) * 9, WIDTH, 18):
            c.box(x, y, x + 16.6, y + 7.6, c.shade((168, 84, 62), 0.16))


def _meadow(c: Canvas) -> None:
    c.gradient((120, 190, 250), (190, 226, 252), 0, 30)
    c.hill(24, 3, 90, (128, 196, 84))
    c.hill(46, 3, 70, (104, 180, 66))
    for _ in range(260):
        x, y = c.uniform(0, WIDTH), c.uniform(32, HEIGHT)
        c.line([(x, y), (x + c.uniform(-1.5, 1.5), y - 5)], c.shade((76, 148, 48), 0.25), 0.7)
    for _ in range(50):
        x, y = c.uniform(0, WIDTH), c.uniform(36, HEIGHT)
        c.ellipse(x, y, 1.1, 1.1, ((255, 255, 255), (250, 226, 90))[int(c.rng.integers(2))])


def _sea(c: Canvas) -> None:
    c.gradient((198, 224, 240), (232, 240, 246), 0, 16)
    c.gradient((20, 96, 150), (8, 52, 104), 14, HEIGHT)
    for y in np.arange(18, HEIGHT + 4, 7):
        c.line(c.wave(float(y), 1.8, 18), (96, 170, 206), 1.1)
        c.line(c.wave(float(y) + 3, 1.8, 18), (14, 70, 122), 0.8)


def _mountains(c: Canvas) -> None:
    c.gradient((110, 160, 214), (222, 232, 240), 0, 70)
    for base, low, high, tone in ((76, 4, 22, (122, 132, 156)), (100, 34, 50, (86, 96, 112))):
        x = -20.0
        while x < WIDTH + 20:
            half, peak = c.uniform(20, 30), c.uniform(low, high)
            c.polygon([(x, peak), (x - half, base), (x + half, base)], c.shade(tone, 0.08))
            cap = 0.3
            left, right = (x - half * cap, peak + (base - peak) * cap), (x + half * cap, peak + (base - peak) * cap)
            c.polygon([(x, peak), left, (x - 2, left[1] - 4), (x + 2, left[1]), right], (250, 252, 255))
            x += c.uniform(26, 38)
    c.hill(90, 3, 80, (78, 110, 70))


def _checkered_cloth(c: Canvas) -> None:
    cell, shift = 13.0, c.uniform(0, 13)
    paint: Rgb = ((196, 60, 70), (70, 100, 180), (70, 140, 90))[int(c.rng.integers(3))]
    half: Rgb = tuple((v + 255) // 2 for v in paint)  # type: ignore[assignment]
    for i, x in enumerate(np.arange(-shift, WIDTH, cell).tolist()):
        for j, y in enumerate(np.arange(-shift, HEIGHT, cell).tolist()):
            fill = ((250, 250, 246), half, paint)[(i % 2) + (j % 2)]
            c.box(x, y, x + cell, y + cell, fill)


_PAINTERS: dict[str, tuple[Callable[[Canvas], None], float]] = {
    "beach": (_beach, 5), "forest": (_forest, 6), "night sky": (_night_sky, 3), "desert": (_desert, 5),
    "snow field": (_snow_field, 2), "city": (_city, 3), "wooden table": (_wooden_table, 3),
    "brick wall": (_brick_wall, 6), "meadow": (_meadow, 4), "sea": (_sea, 3), "mountains": (_mountains, 3),
    "checkered cloth": (_checkered_cloth, 3),
}  # fmt: skip
assert tuple(_PAINTERS) == tuple(BACKGROUNDS)


@lru_cache(maxsize=VARIANTS * len(_PAINTERS))
def _painting(name: str, variant: int) -> Image.Image:
    paint, grain = _PAINTERS[name]
    canvas = Canvas(seed=variant)
    paint(canvas)
    return canvas.finish(grain)


def background(name: str, side: int, rng: np.random.Generator) -> Image.Image:
    """A window of `side` x `side` pixels out of one variant of the background: shifted, mirrored, lit anew."""
    painting = _painting(name, int(rng.integers(VARIANTS)))
    x, y = int(rng.integers(WIDTH - side + 1)), int(rng.integers(HEIGHT - side + 1))
    window = painting.crop((x, y, x + side, y + side))
    if rng.random() < 0.5:
        window = window.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    light = float(rng.uniform(0.9, 1.08))
    return ImageChops.multiply(window, Image.new("RGB", window.size, (min(255, round(255 * light)),) * 3))
