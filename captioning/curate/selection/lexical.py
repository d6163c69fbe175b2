"""How alike two captions are in words: the Jaccard index of their word n-grams.

Lexical similarity needs no model and no download, and what it misses (the same said in other words) is exactly
the diversity that more captions are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from captioning.curate.words import words

Ngrams = frozenset[tuple[str, ...]]


def ngrams(text: str, order: int) -> Ngrams:
    """The word n-grams of a text of all orders from 1 to `order`."""
    tokens = words(text)
    return frozenset(gram for n in range(1, order + 1) for gram in zip(*(tokens[i:] for i in range(n)), strict=False))


def jaccard(first: Ngrams, second: Ngrams) -> float:
    """Shared share of two sets, 0 to 1; two empty sets share nothing."""
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared) if shared else 0.0


def similarity_matrix(texts: Sequence[str], order: int) -> np.ndarray:
    """Pairwise similarity of texts, (texts, texts), symmetric with ones on the diagonal."""
    grams = [ngrams(text, order) for text in texts]
    matrix = np.eye(len(texts), dtype=np.float32)
    for i, first in enumerate(grams):
        for j in range(i):
            matrix[i, j] = matrix[j, i] = jaccard(first, grams[j])
    return matrix


def mean_pairwise(matrix: np.ndarray) -> float | None:
    """Mean similarity of different texts; None for fewer than two."""
    n = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (n * (n - 1))) if n > 1 else None


def distinct(texts: Sequence[str], order: int) -> float | None:
    """distinct-n: how many of the n-grams of all texts together are different ones; None if there are none."""
    grams = [gram for text in texts for gram in _exact(text, order)]
    return len(set(grams)) / len(grams) if grams else None


def _exact(text: str, order: int) -> list[tuple[str, ...]]:
    tokens = words(text)
    return list(zip(*(tokens[i:] for i in range(order)), strict=False))
