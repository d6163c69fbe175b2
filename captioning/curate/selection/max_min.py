"""Greedy max-min selection (farthest point first): the next caption is the least similar to its nearest selected one.

It is within a factor of two of the best possible minimum distance (Gonzalez, 1985) and needs nothing but similarity.
"""

from __future__ import annotations

import numpy as np

from captioning.curate.selection.padding import pairs_mask


class MaxMin:
    """The criterion for `greedy`. The first caption is the one that is least similar to all others."""

    def __init__(self, similarity_BMM: np.ndarray, open_BM: np.ndarray) -> None:
        self.similarity_BMM = similarity_BMM
        self.nearest_BM = np.full(open_BM.shape, -np.inf)
        self.to_others_BM = np.where(pairs_mask(open_BM), similarity_BMM, 0.0).sum(axis=2, dtype=np.float64)

    def worth(self) -> np.ndarray:
        """Unlikeness to the nearest selected caption; before the first, to all captions."""
        return -np.where(np.isneginf(self.nearest_BM), self.to_others_BM, self.nearest_BM)

    def add(self, images: np.ndarray, chosen: np.ndarray) -> None:
        """Keep the nearest of each caption."""
        self.nearest_BM[images] = np.maximum(self.nearest_BM[images], self.similarity_BMM[images, chosen])
