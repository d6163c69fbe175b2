"""The greedy most probable set of a determinantal point process: captions that are good and span much together.

The kernel is L = diag(quality) · similarity · diag(quality); the probability of a set is proportional to the
determinant of its part of L (Kulesza and Taskar, 2012). Each step adds the caption that raises the determinant most,
with an incrementally extended Cholesky factor, so that a step costs one product per caption (Chen, Zhang and Zhou,
2018).
"""

from __future__ import annotations

import numpy as np

NOTHING = 1e-9  # by less than this share of its own volume a caption adds nothing but rounding


class DeterminantalPointProcess:
    """The criterion for `greedy`. `similarity_BMM` is positive semi-definite with ones on the diagonal.

    Both similarities are: the Jaccard index is a kernel, and so is the cosine. Qualities, (B, M), are above 0.
    """

    def __init__(self, similarity_BMM: np.ndarray, quality_BM: np.ndarray) -> None:
        B, M = quality_BM.shape
        self.kernel_BMM = similarity_BMM * quality_BM[:, :, None] * quality_BM[:, None, :]
        self.own_BM = np.square(quality_BM, dtype=np.float64)
        self.gain_BM = self.own_BM.copy()  # by which factor each caption would multiply the determinant
        self.factor_BTM = np.zeros((B, M, M))  # rows of the Cholesky factor, one for each caption added
        self.step = 0

    def worth(self) -> np.ndarray:
        """The factor by which the determinant would grow."""
        return self.gain_BM

    def add(self, images: np.ndarray, chosen: np.ndarray) -> None:
        """Extend the Cholesky factor by the captions added; an image that is left out once gets no more."""
        every = np.arange(len(images))
        done_NTM = self.factor_BTM[images, : self.step]
        gain_N = self.gain_BM[images, chosen]
        rest_NM = self.kernel_BMM[images, chosen] - np.einsum("nt,ntm->nm", done_NTM[every, :, chosen], done_NTM)
        usable_N = gain_N > NOTHING * self.own_BM[images, chosen]
        row_NM = np.where(usable_N[:, None], rest_NM / np.sqrt(np.where(usable_N, gain_N, 1.0))[:, None], 0.0)
        self.factor_BTM[images, self.step] = row_NM
        self.gain_BM[images] = np.maximum(self.gain_BM[images] - np.square(row_NM), 0.0)
        self.step += 1
