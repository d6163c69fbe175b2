"""Zero-shot classification: an image belongs to the class whose description it matches best.

A class is described by its name in every template: the mean of the normalised text embeddings, renormalised, as in
CLIP and open_clip. Accuracy is given plainly (share of images) and macro (mean over classes of the class's accuracy),
which a frequent class cannot carry.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from evaluation.readouts import scores


def class_vectors(prompt_CTD: Tensor) -> Tensor:
    """One vector per class (C, D) from its T normalised prompts (C, T, D)."""
    return F.normalize(prompt_CTD.mean(dim=1), dim=-1)


def predict(vector_NGD: Tensor, class_CD: Tensor) -> np.ndarray:
    """The best class of each image, (N,)."""
    predicted: np.ndarray = scores(vector_NGD, class_CD).argmax(dim=1).cpu().numpy()
    return predicted


def confusion(actual_N: np.ndarray, predicted_N: np.ndarray, classes: int) -> np.ndarray:
    """Counts by actual (row) and predicted (column) class, (C, C)."""
    return np.bincount(actual_N * classes + predicted_N, minlength=classes**2).reshape(classes, classes)
