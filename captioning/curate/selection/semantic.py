"""How alike captions are in meaning: the cosine of their sentence embeddings.

It sees what words hide: two captions that say the same in other words are near each other.
"""

from __future__ import annotations

import numpy as np

from captioning.curate.selection.padding import ABSENT


def similarity(vectors: np.ndarray, rows_BM: np.ndarray) -> np.ndarray:
    """Cosines of unit vectors (N, D), (B, M, M) float32; ones on the diagonal, zeros where a caption is absent.

    `rows_BM` are positions in `vectors`. Products are taken image by image, so they are the same to the last bit
    whichever images are computed together.
    """
    present_BM = rows_BM != ABSENT
    vectors_BMD = np.where(present_BM[:, :, None], vectors[rows_BM], 0.0).astype(np.float32, copy=False)
    found_BMM: np.ndarray = np.clip(vectors_BMD @ vectors_BMD.transpose(0, 2, 1), -1.0, 1.0)
    diagonal = np.arange(rows_BM.shape[1])
    found_BMM[:, diagonal, diagonal] = present_BM
    return found_BMM
