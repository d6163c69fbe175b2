"""Images side by side in arrays: captions of many images as (B, M), padded.

An image is padded to a width that only its own number of captions decides. So no sum and no matrix product over its
captions depends on which images are its neighbours, and results are equal to the last bit in any layout of shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

STEP = 4  # widths are multiples of it: a few blocks per shard, little padding
CELLS = 8_192  # captions of a block, so that its arrays stay in the cache
PAIRS = 1 << 21  # and pairs of them: arrays of a block take some 100 MB together
ABSENT = -1


def blocks(images: Sequence[Sequence[int]], cells: int = CELLS) -> Iterator[np.ndarray]:
    """Yield (B, M) arrays of rows, `ABSENT` beyond an image's last one; images without rows are left out.

    `images` has the rows of each image. All images of a block have the same width; within it they stay in order.
    """
    by_width: dict[int, list[Sequence[int]]] = {}
    for rows in images:
        if len(rows):
            by_width.setdefault(-(-len(rows) // STEP) * STEP, []).append(rows)
    for width, group in sorted(by_width.items()):
        size = max(1, min(cells // width, PAIRS // width**2))
        for start in range(0, len(group), size):
            chunk = group[start : start + size]
            yield _pad(chunk, width)


def _pad(images: Sequence[Sequence[int]], width: int) -> np.ndarray:
    lengths = np.fromiter(map(len, images), np.int64, len(images))
    rows_BM = np.full((len(images), width), ABSENT, np.int64)
    rows_BM[np.arange(width) < lengths[:, None]] = np.fromiter((row for rows in images for row in rows), np.int64)
    return rows_BM


def pairs_mask(open_BM: np.ndarray) -> np.ndarray:
    """Which (i, j) are two different captions that are there, (B, M, M)."""
    return open_BM[:, :, None] & open_BM[:, None, :] & ~np.eye(open_BM.shape[1], dtype=bool)


def mean_pairwise(similarity_BMM: np.ndarray, open_BM: np.ndarray) -> np.ndarray:
    """Mean similarity of the different open captions of each image, (B,) float64; NaN for fewer than two."""
    pairs_BMM = pairs_mask(open_BM)
    total_B = np.where(pairs_BMM, similarity_BMM, 0.0).sum(axis=(1, 2), dtype=np.float64)
    count_B = pairs_BMM.sum(axis=(1, 2))
    return np.where(count_B > 0, total_B / np.maximum(count_B, 1), np.nan)
