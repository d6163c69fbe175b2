"""What a gadget sees of a measure: numbers for rows of a draft, wherever they come from.

A gadget never learns which model measured, nor whether it did so now or a month ago; tests hand in a function.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from captioning.curate.draft import Draft


class Measured(Protocol):
    """A measure of captions, computed or remembered."""

    def __call__(self, draft: Draft, rows: Sequence[int]) -> np.ndarray:
        """Scores (rows,) or unit vectors (rows, D) of these rows, float32; NaN where nothing can be measured."""
        ...


def placed(embed: Measured | None, draft: Draft, rows: Sequence[int]) -> np.ndarray | None:
    """Vectors of these rows at their places in the draft, (all rows, D); None without a measure or without rows."""
    if embed is None or not rows:
        return None
    embedded = embed(draft, rows)
    vectors = np.zeros((len(draft), embedded.shape[1]), np.float32)
    vectors[rows] = embedded
    return vectors
