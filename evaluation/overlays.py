"""Pictures with the labels of their pixels laid over them, for reports."""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image

from evaluation.masks import OUTSIDE
from pipeline.thumbnails import SIDE, data_uri

TURN = 0.618034  # of the circle of hues from one label to the next: neighbours in a list look unlike
# Value and saturation, in turn; where hues come close again, after 8, 13, 21 and 34 labels, these differ.
SHADES = ((0.59, 0.74), (0.96, 0.93), (0.47, 0.98), (0.97, 0.56), (0.72, 0.73))
SHARE = 0.62  # of a label's colour in what is shown


def colour(label: int, labels: int, *, background: bool) -> tuple[int, int, int]:
    """The colour of a label; the background, which comes last, is grey."""
    if background and label == labels - 1:
        return 120, 120, 120
    value, saturation = SHADES[label % len(SHADES)]
    red, green, blue = colorsys.hsv_to_rgb(label * TURN % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def small(picture: Image.Image) -> Image.Image:
    """A picture as large as reports show it."""
    copy = picture.copy()
    copy.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return copy


def over(picture: Image.Image, label_YX: np.ndarray, labels: int, *, background: bool) -> str:
    """A small picture in grey under the colours of its labels, as a data URI; what has none stays as it is."""
    paint_L3 = np.array([colour(label, labels, background=background) for label in range(labels)], np.float32)
    rows, columns = (
        (np.arange(count) + 0.5) * size // count
        for count, size in zip(picture.size[::-1], label_YX.shape, strict=True)
    )
    near_YX = label_YX[rows.astype(int)[:, None], columns.astype(int)]
    grey_YX3 = np.asarray(picture.convert("L"), np.float32)[..., None]
    mixed_YX3 = (1 - SHARE) * grey_YX3 + SHARE * paint_L3[np.maximum(near_YX, 0)]
    shown_YX3 = np.where((near_YX == OUTSIDE)[..., None], np.asarray(picture, np.float32), mixed_YX3)
    return data_uri(Image.fromarray(shown_YX3.astype(np.uint8)))
