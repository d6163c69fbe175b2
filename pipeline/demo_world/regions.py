"""Label masks of scenes: what each pixel shows, as a number, and what segmentation asks about them.

1 to 18    the main object, by shape
19 to 30   the background
31 to 48   further objects, by shape
255        the sign, which nobody is asked about
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from pipeline.demo_world.scene import SIDE, Scene
from pipeline.demo_world.vocabulary import BACKGROUNDS, SHAPES

MAIN, BACKGROUND, OTHER, SIGN = 1, 1 + len(SHAPES), 1 + len(SHAPES) + len(BACKGROUNDS), 255
TEMPLATES = ("a picture of a {}.", "a {}.")
# For benchmark.yaml: everything everywhere, and the shape of the main object where it is.
SEGMENTATION: dict[str, dict[str, Any]] = {
    "scene": {
        "classes": [*SHAPES, *BACKGROUNDS],
        "first": MAIN,
        "further": {shape: [OTHER + place] for place, shape in enumerate(SHAPES)},
        "templates": list(TEMPLATES),
        "pointing": False,
    },
    "main_object": {"classes": list(SHAPES), "first": MAIN, "templates": list(TEMPLATES)},
}


def label_mask(scene: Scene) -> np.ndarray:
    """The numbers of a scene's pixels, uint8 (SIDE, SIDE); of objects the pixels that nothing hides."""
    number_YX = np.full((SIDE, SIDE), BACKGROUND + list(BACKGROUNDS).index(scene.background), np.uint8)
    for index, (thing, mask_YX) in enumerate(zip(scene.things, scene.visible_masks(), strict=True)):
        number_YX[mask_YX] = (MAIN if index == scene.main else OTHER) + SHAPES.index(thing.shape)
    if scene.sign_box is not None:
        left, top, right, bottom = scene.sign_box
        number_YX[top:bottom, left:right] = SIGN
    return number_YX


def label_png(scene: Scene) -> bytes:
    """The same as a grey PNG."""
    buffer = io.BytesIO()
    Image.fromarray(label_mask(scene)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
