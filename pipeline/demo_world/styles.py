"""Turns a clean picture into one of the styles: each filter is a function of the picture and a random generator.

Filters must be told apart at a glance and must not hide which objects are there: they change colour, line and
texture, never shape.
All filters share one signature, used or not.
"""

# ruff: noqa: ARG001
from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from pipeline.demo_world.vocabulary import STYLES

Box = tuple[int, int, int, int]
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def _pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(np.float32)


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@lru_cache(maxsize=4)
def _vignette(side: int) -> np.ndarray:
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    return (1 - 0.35 * np.clip(np.add.outer(axis**2, axis**2) - 0.5, 0, 1))[..., None]


@lru_cache(maxsize=64)
def _noise(side: int, variant: int) -> np.ndarray:
    return np.random.default_rng(variant).normal(0, 1, (side, side, 1)).astype(np.float32)


def _grain(image: Image.Image, rng: np.random.Generator) -> np.ndarray:
    return _noise(image.width, int(rng.integers(64)))


def _edges(image: Image.Image) -> np.ndarray:
    """How strongly brightness changes at each pixel, 0 to 1: float (side, side, 1)."""
    light = _pixels(image) @ _LUMA
    across, down = np.zeros_like(light), np.zeros_like(light)
    across[:, 1:-1] = light[:, 2:] - light[:, :-2]
    down[1:-1] = light[2:] - light[:-2]
    return np.clip(np.hypot(across, down) / 150, 0, 1)[..., None]


def _render(image: Image.Image, rng: np.random.Generator, box: Box) -> Image.Image:
    return image


def _cartoon(image: Image.Image, rng: np.random.Generator, box: Box) -> Image.Image:
    flat = ImageOps.posterize(ImageEnhance.Color(image.filter(ImageFilter.SMOOTH)).enhance(1.5), 2)
    pixels = _pixels(flat) * 1.12 + 30
    return _image(pixels * (1 - 0.9 * np.clip(_edges(image) * 1.7 - 0.3, 0, 1)))


def _pixel_art(image: Image.Image, rng: np.random.Generator, box: Box) -> Image.Image:
    side = image.width
    small = image.resize((side // 2, side // 2), Image.Resampling.BOX)
    small = ImageEnhance.Contrast(ImageEnhance.Color(small).enhance(1.25)).enhance(1.15)
    return ImageOps.posterize(small, 3).resize((side, side), Image.Resampling.NEAREST)


def _pencil_sketch(image: Image.Image, rng: np.random.Generator, box: Box) -> Image.Image:
    light = _pixels(image) @ _LUMA
    paper = 246 - 7 * np.abs(_grain(image, rng)[..., 0])
    hatch = (np.add.outer(np.arange(light.shape[0]), np.arange(light.shape[1])) % 4 < 1.5) * np.clip(
        130 - light, 0, 70
    )
    return _image(np.repeat((paper - 215 * _edges(image)[..., 0] - hatch)[..., None], 3, axis=2))


def _blurry_photo(image: Image.Image, rng: np.random.Generator, box: Box) -> Image.Image:
    return ImageEnhance.Color(image.filter(ImageFilter.GaussianBlur(1.4))).enhance(0.9)


def _sepia_photo(image: Image.Image, rng: np.random.Generator, box: Box) -> Image.Image:
    light = (_pixels(image) @ _LUMA)[..., None] * 1.15 - 8 + 5 * _grain(image, rng)
    return _image(light * np.array([1.1, 0.86, 0.58], np.float32) * _vignette(image.width))


def _night_photo(image: Image.Image, rng: np.random.Generator, box: Box) -> Image.Image:
    """Dark and bluish, with a lamp on the main object."""
    lamp = Image.new("L", image.size, 150)
    x0, y0, x1, y1 = box
    ImageDraw.Draw(lamp).ellipse((x0 - 8, y0 - 8, x1 + 8, y1 + 8), fill=235)
    lamp = lamp.filter(ImageFilter.GaussianBlur(7))
    return ImageChops.multiply(
        image, Image.merge("RGB", (lamp.point(lambda v: v * 0.8), lamp.point(lambda v: v * 0.84), lamp))
    )


def _neon_art(image: Image.Image, rng: np.random.Generator, box: Box) -> Image.Image:
    """Glowing lines in the colours of what they surround, over a dim picture."""
    pixels = _pixels(image)
    vivid = pixels / np.maximum(pixels.max(axis=2, keepdims=True), 40) * 255
    glow = _image(vivid * _edges(image))
    halo = glow.filter(ImageFilter.GaussianBlur(1.6))
    return _image(0.3 * pixels + 0.9 * _pixels(glow) + 0.6 * _pixels(halo))


def _watercolour(image: Image.Image, rng: np.random.Generator, box: Box) -> Image.Image:
    """Soft blots, paled towards white paper that shows at the ragged border."""
    side = image.width
    soft = _pixels(image.filter(ImageFilter.MedianFilter(3)))
    blots = _image((128 + 24 * _grain(image, rng))[:12, :12, 0]).resize((side, side), Image.Resampling.BICUBIC)
    wash = soft * 0.7 + 76 + (_pixels(blots)[..., None] - 128) * 0.9
    axis = np.minimum(np.arange(side), np.arange(side)[::-1])
    border = np.clip(np.minimum.outer(axis, axis)[..., None] / 5 + 0.35 * _grain(image, rng), 0, 1)
    return _image(wash * border + 252 * (1 - border) - 70 * _edges(_image(soft)))


def _black_and_white_photo(image: Image.Image, rng: np.random.Generator, box: Box) -> Image.Image:
    light = (_pixels(image) @ _LUMA)[..., None]
    light = (light - 128) * 1.15 + 128 + 6 * _grain(image, rng)
    return _image(np.repeat(light * _vignette(image.width), 3, axis=2))


@lru_cache(maxsize=4)
def _dots(side: int) -> np.ndarray:
    """A screen of round dots on a 45 degree grid, 0 to 1: float (side, side, 1)."""
    y, x = np.mgrid[:side, :side] * (2 * np.pi / 6)
    return (0.5 + 0.25 * (np.cos(x + y) + np.cos(x - y)))[..., None].astype(np.float32)


def _halftone_print(image: Image.Image, rng: np.random.Generator, box: Box) -> Image.Image:
    pixels = _pixels(ImageEnhance.Color(image).enhance(1.4))
    ink = _dots(image.width) > 0.72
    return _image(np.where(ink, pixels * 0.42, pixels * 0.75 + 58))


_FILTERS: dict[str, Callable[[Image.Image, np.random.Generator, Box], Image.Image]] = {
    "3d render": _render, "cartoon": _cartoon, "pixel art": _pixel_art, "pencil sketch": _pencil_sketch,
    "blurry photo": _blurry_photo, "sepia photo": _sepia_photo, "night photo": _night_photo, "neon art": _neon_art,
    "watercolour": _watercolour, "black and white photo": _black_and_white_photo, "halftone print": _halftone_print,
}  # fmt: skip
assert tuple(_FILTERS) == tuple(STYLES)


def apply_style(image: Image.Image, style: str, rng: np.random.Generator, main_box: Box) -> Image.Image:
    """The picture in the style; `main_box` (x0, y0, x1, y1) is where light falls when the style has a lamp."""
    return _FILTERS[style](image, rng, main_box)
