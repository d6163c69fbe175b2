"""Relevance by covering: it lies where a branch reads, branch by branch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from evaluation.occlusion import GRID, relevance

SIDE = 20  # no multiple of the grid
QUARTERS = {"top left": (slice(0, 10), slice(0, 10)), "bottom right": (slice(10, 20), slice(10, 20))}
TEXT_HD = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def branches(image_BCSS: Tensor) -> Tensor:
    """Two branches point to the first text by how red a quarter is, each its own; a third reads nothing."""
    red_BH = torch.stack([image_BCSS[:, 0, rows, columns].mean(dim=(1, 2)) for rows, columns in QUARTERS.values()], 1)
    told_BH2 = torch.stack([red_BH, torch.ones_like(red_BH)], dim=-1)
    return torch.cat([told_BH2, torch.ones_like(told_BH2[:, :1])], dim=1)


def picture() -> Tensor:
    image_CSS = torch.zeros(3, SIDE, SIDE)
    for rows, columns in QUARTERS.values():
        image_CSS[0, rows, columns] = 1.0
    return image_CSS


def test_relevance_lies_where_the_branch_reads() -> None:
    found_HRC = relevance(branches, picture(), TEXT_HD, batch=7)
    assert found_HRC.shape == (3, GRID, GRID)
    half = GRID // 2
    for found_RC, (rows, columns) in zip(
        found_HRC, ((slice(half), slice(half)), (slice(half, None),) * 2), strict=False
    ):
        inside_RC = np.zeros((GRID, GRID), bool)
        inside_RC[rows, columns] = True
        assert found_RC[inside_RC].min() > 0
        assert found_RC[inside_RC].sum() > 0.7 * found_RC.sum()
        assert inside_RC.flat[found_RC.argmax()]
    assert np.abs(found_HRC[2]).max() == 0, "nothing moves a branch that reads nothing"


def test_what_speaks_against_the_text_has_negative_relevance() -> None:
    against_HD = torch.tensor([[-1.0, 0.0]]).expand(3, -1)
    assert relevance(branches, picture(), against_HD, batch=7)[0].max() <= 0


@pytest.mark.parametrize("batch", [1, 200])
def test_the_batch_changes_nothing(batch: int) -> None:
    torch.testing.assert_close(
        relevance(branches, picture(), TEXT_HD, batch), relevance(branches, picture(), TEXT_HD, 64)
    )
