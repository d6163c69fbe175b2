"""Paints a scene: background, objects from the back to the front, the style over them, then the sign.

The sign comes last because a printed label stays readable in every style; it is black and white for the same reason.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.demo_world.backgrounds import background
from pipeline.demo_world.scene import SIDE, SIGN_HEIGHT, SIGN_WIDTH, Scene
from pipeline.demo_world.shapes import sprite
from pipeline.demo_world.styles import apply_style
from pipeline.demo_world.vocabulary import COLORLESS_STYLES

_FADED = (190, 190, 190)


@lru_cache(maxsize=32)
def _sign(word: str) -> Image.Image:
    scale = 4
    board = Image.new("RGB", (SIGN_WIDTH * scale, SIGN_HEIGHT * scale), (40, 36, 40))
    draw = ImageDraw.Draw(board)
    draw.rectangle((scale, scale, board.width - scale - 1, board.height - scale - 1), fill=(252, 248, 236))
    font = ImageFont.load_default(size=10.5 * scale)
    centre = (board.width / 2, board.height / 2)
    draw.text(centre, word, font=font, anchor="mm", fill=(30, 26, 30), stroke_width=1, stroke_fill=(30, 26, 30))
    return board.resize((SIGN_WIDTH, SIGN_HEIGHT), Image.Resampling.LANCZOS)


def render(scene: Scene) -> Image.Image:
    """The picture of the scene: RGB, SIDE x SIDE pixels, always the same for the same scene."""
    rng = np.random.default_rng((scene.seed, 7919))
    image = background(scene.background, SIDE, rng)
    if scene.style in COLORLESS_STYLES:  # without colour only brightness sets objects apart from their ground
        image = Image.blend(image, Image.new("RGB", image.size, _FADED), 0.4)
    for thing in scene.things:
        _, shadowed = sprite(thing.shape, thing.color, thing.side, thing.flipped)
        image.paste(shadowed, (thing.x, thing.y), shadowed)
    image = apply_style(image, scene.style, rng, scene.main_thing.box)
    if scene.sign is not None and scene.sign_box is not None:
        image.paste(_sign(scene.sign), scene.sign_box[:2])
    return image


def main_mask_png(scene: Scene) -> bytes:
    """The visible pixels of the main object as a one-channel PNG, 255 inside."""
    mask = scene.visible_masks()[scene.main]
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
