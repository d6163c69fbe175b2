"""Maximal marginal relevance: good captions first, unless they say again what is there.

Carbonell and Goldstein (1998): the next caption maximises λ · quality − (1 − λ) · similarity to the nearest selected.
"""

from __future__ import annotations

import numpy as np


class MaximalMarginalRelevance:
    """The criterion for `greedy`. The first caption is the one of the highest quality, (B, M), 0 to 1."""

    def __init__(self, similarity_BMM: np.ndarray, quality_BM: np.ndarray, tradeoff: float) -> None:
        self.similarity_BMM, self.quality_BM, self.tradeoff = similarity_BMM, quality_BM, tradeoff
        self.nearest_BM = np.zeros(quality_BM.shape)

    def worth(self) -> np.ndarray:
        """Quality against the similarity to the nearest selected caption, which is none at the beginning."""
        return self.tradeoff * self.quality_BM - (1 - self.tradeoff) * self.nearest_BM

    def add(self, images: np.ndarray, chosen: np.ndarray) -> None:
        """Keep the nearest of each caption."""
        self.nearest_BM[images] = np.maximum(self.nearest_BM[images], self.similarity_BMM[images, chosen])
