"""Where a picture is cut: boxes (left, top, width, height) in shares of the picture."""

import math
from typing import Annotated

import numpy as np
from pydantic import AfterValidator

Box = tuple[float, float, float, float]
ASPECTS = (3 / 4, 4 / 3)  # of training crops, as CLIP's
LOG_ASPECTS = tuple(np.log(ASPECTS).tolist())


def _ordered(scale: tuple[float, float]) -> tuple[float, float]:
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError("expected 0 < smallest <= largest <= 1")
    return scale


CropScale = Annotated[tuple[float, float], AfterValidator(_ordered)]


def draw_crop(width: int, height: int, scale: tuple[float, float], rng: np.random.Generator) -> Box:
    """A box that covers `scale` of the image's area at a mild aspect.

    As torchvision's RandomResizedCrop: ten tries, then the whole image at the nearest allowed aspect.
    """
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        aspect = float(np.exp(rng.uniform(*LOG_ASPECTS)))
        w, h = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if w <= width and h <= height:
            left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
            return left / width, top / height, w / width, h / height
    return whole(width, height)


def whole(width: int, height: int) -> Box:
    """The whole image where its aspect is mild, else its middle at the nearest allowed aspect."""
    w = min(width, height * ASPECTS[1])
    h = min(height, width / ASPECTS[0])
    return (width - w) / 2 / width, (height - h) / 2 / height, w / width, h / height
