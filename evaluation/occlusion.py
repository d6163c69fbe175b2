"""What in a picture moves a branch's score for a text: parts of it are covered, and the score is asked again.

A window of the picture's mean colour is moved over a grid. A cell's relevance is how far the cosine with the text
falls when the cell is covered, the mean over the windows that cover it. It asks nothing of a model but its branches,
so it holds for any kind of branch; one pass of covered pictures serves them all.
benchmarks/relevance.md says what it was chosen against, and by which figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

GRID, WINDOW = 8, 2  # cells a side, and how many of them a window covers a side
Branches = Callable[[Tensor], Tensor]  # pictures (B, 3, S, S) to branches (B, H, D)


@torch.inference_mode()
def relevance(branches: Branches, image_CSS: Tensor, text_HD: Tensor, batch: int) -> np.ndarray:
    """How far covering each cell lowers each branch's cosine with its own text: (H, GRID, GRID).

    The picture is as the model takes it, on the model's device, and texts are normalised; `batch` covered pictures
    are encoded together.
    """
    windows = list(_windows())
    covered = [_covered(image_CSS, rows, columns) for rows, columns in windows]
    pictures_BCSS = torch.stack([image_CSS, *covered])
    score_BH = torch.cat(
        [(F.normalize(branches(part).float(), dim=-1) * text_HD).sum(-1) for part in pictures_BCSS.split(batch)]
    )
    fall_WH = (score_BH[0] - score_BH[1:]).cpu().numpy()
    total_HRC, times_RC = np.zeros((fall_WH.shape[1], GRID, GRID)), np.zeros((GRID, GRID))
    for (rows, columns), fall_H in zip(windows, fall_WH, strict=True):
        total_HRC[:, rows, columns] += fall_H[:, None, None]
        times_RC[rows, columns] += 1
    return total_HRC / times_RC


def _windows() -> Iterator[tuple[slice, slice]]:
    """Every place of the window, over the edges too, so that each cell is covered equally often."""
    places = [slice(max(0, first), min(GRID, first + WINDOW)) for first in range(1 - WINDOW, GRID)]
    for rows in places:
        for columns in places:
            yield rows, columns


def _covered(image_CSS: Tensor, rows: slice, columns: slice) -> Tensor:
    covered_CSS = image_CSS.clone()
    top, bottom = (round(edge * image_CSS.shape[1] / GRID) for edge in (rows.start, rows.stop))
    left, right = (round(edge * image_CSS.shape[2] / GRID) for edge in (columns.start, columns.stop))
    covered_CSS[:, top:bottom, left:right] = image_CSS.mean(dim=(1, 2))[:, None, None]
    return covered_CSS
