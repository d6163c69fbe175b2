"""Pictures of more than 8 bits a pixel (detectors, depth maps, X-rays, scans) as the 8 bits that they show.

Pillow would cut them off at 255, which leaves a white sheet. The rule, the same for everybody:

- Unsigned integers of up to 16 bits by bit depth: 0 is black, and white is the top of their bits. Where the file does
  not say how many of the 16 bits are used, it is the smallest of 8, 10, 12, 14 and 16 that holds all values: cameras
  and detectors of 10 to 14 bits store their values in 16. By depth and not by the range that is used, since then a
  picture of 16 bits looks as it does in 8, pictures of one detector look alike, and one hot pixel changes nothing.
- Signed and 32-bit integers and floats by range: their lowest finite value is black, their highest white. Their type
  says nothing of what white is. NaN, which mostly means "not measured", is black; infinities are black and white.

16-bit colour (and grey with alpha) never gets here: Pillow itself takes the upper 8 bits.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, TiffImagePlugin

DEPTHS = (8, 10, 12, 14, 16)  # of bits in use, in a file that has room for 16
BLOCK = 1 << 20  # values that are scaled at a time
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_WHITE_IS_ZERO, _UNSIGNED = 0, 1  # values of the last two


def is_deep(picture: Image.Image) -> bool:
    """Whether there are more than 8 bits a pixel."""
    return picture.mode.startswith(("I", "F"))


def in_8_bits(picture: Image.Image) -> Image.Image:
    """A deep picture as L, or as LA where one of its values stands for transparent.

    Raises `ValueError` where the rule does not say what is shown.
    """
    value_RC = _values(picture)
    clear = picture.info.get("transparency")
    level_RC = _by_depth(value_RC, _bits(picture)) if value_RC.dtype == np.uint16 else _by_range(value_RC)
    if _tag(picture, _PHOTOMETRIC) == _WHITE_IS_ZERO:
        level_RC = 255 - level_RC
    shown = Image.fromarray(level_RC)
    if isinstance(clear, int):
        shown.putalpha(Image.fromarray(np.where(value_RC == clear, 0, 255).astype(np.uint8)))
    return shown


def _values(picture: Image.Image) -> np.ndarray:
    """The pixels in the type that they have in the file, where Pillow has only a wider or a signed one."""
    value_RC = np.asarray(picture)
    if picture.mode.startswith("I;16"):
        return value_RC.astype(np.uint16, copy=False)  # of whatever byte order
    if picture.format == "PPM" and picture.mode == "I":
        return value_RC.astype(np.uint16)  # scaled to 16 bits from the highest value that the file names
    if picture.mode == "I" and _tag(picture, _SAMPLE_FORMAT) == _UNSIGNED:
        return value_RC.view(np.uint32)
    return value_RC


def _bits(picture: Image.Image) -> int | None:
    """How many bits are in use, where the file says so."""
    if picture.format == "PPM":
        return 16
    bits = _tag(picture, _BITS)
    return bits if bits is not None and bits < 16 else None


def _by_depth(value_RC: np.ndarray, bits: int | None) -> np.ndarray:
    if bits is None:
        bits = next(depth for depth in DEPTHS if int(value_RC.max()) < 1 << depth)
    white = (1 << bits) - 1
    level_V = (np.arange(white + 1, dtype=np.uint32) * 255 + white // 2) // white
    return level_V.astype(np.uint8)[value_RC]


def _by_range(value_RC: np.ndarray) -> np.ndarray:
    finite_RC = np.isfinite(value_RC)
    if not finite_RC.any():
        raise ValueError("no pixel of it is a finite number")
    finite_V = value_RC[finite_RC]
    black, white = float(finite_V.min()), float(finite_V.max())
    if black == white:
        raise ValueError(f"all its pixels are {black:g}, and what shade that is cannot be told without a range")
    level_RC = np.empty(value_RC.shape, np.uint8)
    rows = max(1, BLOCK // value_RC.shape[1])
    for first in range(0, len(value_RC), rows):
        value = value_RC[first : first + rows].astype(np.float64)
        share = np.clip((value - black) / (white - black), 0, 1)
        level_RC[first : first + rows] = np.rint(255 * np.nan_to_num(share, nan=0.0))
    return level_RC


def _tag(picture: Image.Image, tag: int) -> int | None:
    """The number that a TIFF's tag holds; the first, if there are several."""
    if not isinstance(picture, TiffImagePlugin.TiffImageFile):
        return None
    value = picture.tag_v2.get(tag)
    return value[0] if isinstance(value, tuple) else value
