"""Zero-shot classification: an image belongs to the class whose description it matches best.

A class is described by its name in every template: the mean of the normalised text embeddings, renormalised, as in
CLIP and open_clip. Accuracy is given plainly (share of images) and macro (mean over classes of the class's accuracy),
which a frequent class cannot carry. Between classes of equal score (of the same name, for one) the choice is a random
one: each counts with its share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from evaluation.readouts import scores
from evaluation.retrieval import BLOCK_SCORES


def class_vectors(prompt_CTD: Tensor) -> Tensor:
    """One vector per class (C, D) from its T normalised prompts (C, T, D)."""
    return F.normalize(prompt_CTD.mean(dim=1), dim=-1)


@dataclass(frozen=True)
class Predictions:
    """The best class of each image, as (image, class) pairs: one pair, or several where classes tie."""

    image_P: np.ndarray
    class_P: np.ndarray
    share_P: np.ndarray  # 1, or 1 / the number of classes that tie

    def right(self, actual_N: np.ndarray) -> np.ndarray:
        """The chance of each image to be right, (N,)."""
        right_P = self.share_P * (self.class_P == actual_N[self.image_P])
        return np.bincount(self.image_P, right_P, minlength=len(actual_N))

    def single(self) -> np.ndarray:
        """The class of each image, (N,); -1 where classes tie."""
        first_N = np.unique(self.image_P, return_index=True)[1]
        return np.where(self.share_P[first_N] == 1, self.class_P[first_N], -1)

    def confusion(self, actual_N: np.ndarray, classes: int) -> np.ndarray:
        """Counts by actual (row) and predicted (column) class, (C, C)."""
        cell_P = actual_N[self.image_P] * classes + self.class_P
        return np.bincount(cell_P, self.share_P, minlength=classes**2).reshape(classes, classes)


def predict(vector_NGD: Tensor, class_CD: Tensor) -> Predictions:
    """The best class of each image; scores are held for a block of images at a time."""
    cells, first, classes = list[np.ndarray](), 0, len(class_CD)
    for part_nGD in vector_NGD.split(max(1, BLOCK_SCORES // (classes * vector_NGD.shape[1]))):
        score_nC = scores(part_nGD, class_CD)
        best_nC = (score_nC == score_nC.amax(dim=1, keepdim=True)).cpu().numpy()
        cells.append(np.flatnonzero(best_nC) + first * classes)  # flat: many times faster than of two dimensions
        first += len(part_nGD)
    image_P, class_P = np.divmod(np.concatenate(cells), classes)
    return Predictions(image_P, class_P, 1 / np.bincount(image_P)[image_P])
