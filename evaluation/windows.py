"""How a picture reaches a model for dense evaluation: scaled, uncropped, at once or in windows, and back again.

A square picture of just the size of the model's input passes its preprocessing unscaled and uncropped, so what is cut
here is what the model sees. Scores of patches are laid out over the picture and scaled to the size of its mask; masks
are never scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from evaluation.regions import Sliding

Preprocess = Callable[[Image.Image], Tensor]
Box = tuple[slice, slice]  # rows and columns of a mask
ALL: Box = (slice(None), slice(None))


def input_side(preprocess: Preprocess) -> int | None:
    """The side of the model's square input; None where pictures of that size are cropped or scaled again."""
    side = int(preprocess(Image.new("RGB", (64, 64))).shape[-1])
    ramp = np.tile(np.linspace(0, 255, side).round().astype(np.uint8), (side, 1))
    seen_CSS = preprocess(Image.fromarray(np.dstack([ramp] * 3)))
    if seen_CSS.shape[-2:] != (side, side):
        return None
    first, last = (float(preprocess(Image.new("RGB", (side, side), (value,) * 3))[0, 0, 0]) for value in (0, 255))
    expected_SS = first + (last - first) / 255 * torch.from_numpy(ramp.astype(np.float32))
    return side if torch.allclose(seen_CSS[0], expected_SS, atol=1e-3 * abs(last - first)) else None


@dataclass(frozen=True)
class Layout:
    """Where windows of a side lie on a scaled picture of (rows, columns)."""

    side: int
    size: tuple[int, int]
    corners: tuple[tuple[int, int], ...]  # top and left of each window

    @classmethod
    def of(cls, picture: tuple[int, int], side: int, sliding: Sliding | None) -> Layout:
        """For a picture of (rows, columns)."""
        if sliding is None:
            return cls(side, (side, side), ((0, 0),))
        factor = sliding.short_side * side / min(picture)
        rows, columns = (max(side, round(factor * length)) for length in picture)
        step = max(1, round(sliding.stride * side))
        tops, lefts = ([*range(0, length - side, step), length - side] for length in (rows, columns))
        return cls(side, (rows, columns), tuple((top, left) for top in tops for left in lefts))

    def cut(self, picture: Image.Image, preprocess: Preprocess) -> Tensor:
        """The windows of a picture as the model takes them, (W, 3, S, S)."""
        rows, columns = self.size
        scaled = picture.resize((columns, rows), Image.Resampling.BICUBIC)
        side = self.side
        return torch.stack(
            [preprocess(scaled.crop((left, top, left + side, top + side))) for top, left in self.corners]
        )

    def scores(self, patch_WRCD: Tensor, text_TD: Tensor, size: Sequence[int], box: Box = ALL) -> Tensor:
        """Scores of texts at each pixel of a mask of `size`, or of a box in it, (T, rows, columns).

        Where windows overlap it is their mean.
        """
        score_WTRC = torch.einsum("wrcd,td->wtrc", patch_WRCD, text_TD)
        if len(self.corners) == 1 and self.size == (self.side, self.side):
            return _scaled(score_WTRC[0], size, box)
        total_TYX = score_WTRC.new_zeros(len(text_TD), *self.size)
        times_YX = score_WTRC.new_zeros(self.size)
        for score_TRC, (top, left) in zip(score_WTRC, self.corners, strict=True):
            here = (slice(top, top + self.side), slice(left, left + self.side))
            total_TYX[:, *here] += _scaled(score_TRC, (self.side, self.side))
            times_YX[here] += 1
        return _scaled(total_TYX / times_YX, size, box)


def _scaled(score_TYX: Tensor, size: Sequence[int], box: Box = ALL) -> Tensor:
    """Bilinear, as two products: a quarter of the time of `F.interpolate`, which the tests compare it with."""
    down_YR, across_XC = (
        _interpolation(before, after, score_TYX.device)
        for before, after in zip(score_TYX.shape[-2:], size, strict=True)
    )
    return down_YR[:, box[0]].T @ (score_TYX @ across_XC[:, box[1]])


@lru_cache(maxsize=64)
def _interpolation(before: int, after: int, device: torch.device) -> Tensor:
    """How much of each of the old places is in each new one, (before, after)."""
    one_at_a_time = torch.eye(before, device=device)[None]
    return F.interpolate(one_at_a_time, size=after, mode="linear", align_corners=False)[0]
