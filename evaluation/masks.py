"""Label masks: pictures of numbers, read as they are stored. They are never scaled, as numbers have no mean."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from evaluation.contents import Picture
from evaluation.regions import UNLABELLED, Regions
from pipeline.errors import InputError

INDEXED = ("P", "L", "1", "I", "I;16")  # modes whose pixels are numbers; those of a palette are places in it
OUTSIDE = -1  # a pixel that counts nowhere in the mean IoU


def read(mask: Picture) -> np.ndarray:
    """The numbers of a mask, (rows, columns). Raises `InputError` for what is none."""
    try:
        with Image.open(io.BytesIO(mask.read())) as opened:
            mode, number_YX = opened.mode, np.asarray(opened).astype(np.int64)
    except Exception as error:  # decoders raise anything on damaged input
        raise InputError(f"the mask {mask} cannot be decoded ({error}); replace it") from error
    if mode not in INDEXED:
        raise InputError(f"the mask {mask} is in colour ({mode}); expected a number a pixel, in grey or by a palette")
    return number_YX


def places(number_YX: np.ndarray, regions: Regions) -> np.ndarray:
    """The place of each pixel's label among `regions.labels`, and OUTSIDE where it is none of them."""
    place_YX = number_YX - regions.first
    is_class = (place_YX >= 0) & (place_YX < len(regions.classes)) & (number_YX != UNLABELLED)
    found_YX = np.where(is_class, place_YX, OUTSIDE)
    for place, name in enumerate(regions.classes):
        if further := regions.further.get(name):
            found_YX[np.isin(number_YX, further)] = place
    if regions.background is not None:
        found_YX[number_YX == regions.background] = len(regions.classes)
    return found_YX
