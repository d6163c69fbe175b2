"""TIFFs of one strip, in the kinds that Pillow reads and does not write."""

from __future__ import annotations

import struct

import numpy as np

_FORMATS = {"u": 1, "i": 2, "f": 3}
SHORT, LONG = 3, 4


def grey_tiff(pixels: np.ndarray, *, bits: int | None = None, white_is_zero: bool = False) -> bytes:
    """A grey TIFF of these pixels, in their byte order; `bits` if they are packed into `pixels` as bytes."""
    order = ">" if pixels.dtype.byteorder == ">" else "<"
    height, width = pixels.shape
    if bits is not None:
        width = width * 8 // bits
    tags = [
        (256, LONG, width),
        (257, LONG, height),
        (258, SHORT, bits or 8 * pixels.itemsize),
        (259, SHORT, 1),  # not compressed
        (262, SHORT, 0 if white_is_zero else 1),
        (273, LONG, 8 + 2 + 10 * 12 + 4),  # where the pixels begin
        (277, SHORT, 1),
        (278, LONG, height),
        (279, LONG, pixels.nbytes),
        (339, SHORT, _FORMATS[pixels.dtype.kind]),
    ]
    entries = b"".join(
        struct.pack(f"{order}HHIHH", tag, kind, 1, value, 0) if kind == SHORT
        else struct.pack(f"{order}HHII", tag, kind, 1, value)
        for tag, kind, value in tags
    )  # fmt: skip
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}IH", 8, len(tags)) + entries + bytes(4) + pixels.tobytes()
