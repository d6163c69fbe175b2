"""How alike captions are in words: the Jaccard index of their word n-grams.

Lexical similarity needs no model and no download, and what it misses (the same said in other words) is exactly
the diversity that more captions are asked for. The captions of many images are compared at once: n-grams are sorted,
and equal neighbours are what two captions share. It is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from captioning.curate.selection.ngrams import Ngrams, sorted_unique
from captioning.curate.selection.padding import ABSENT
from captioning.curate.text_rules.words import words

SPARSE = 8


def similarity(words_of: Callable[[int], Sequence[str]], rows_BM: np.ndarray, order: int) -> np.ndarray:
    """Jaccard index of the sets of word n-grams of all orders from 1 to `order`, (B, M, M) float32.

    `words_of` gives the words of each of the rows in `rows_BM` (see `padding`). The diagonal is one and all that is
    absent zero; texts without words are like nothing but themselves.
    """
    B, M = rows_BM.shape
    cells = np.flatnonzero(rows_BM.ravel() != ABSENT)
    ngrams = Ngrams([words_of(row) for row in rows_BM.ravel()[cells].tolist()])
    size = np.zeros(B * M, np.int64)
    shared = np.zeros(B * M * M, np.int64)
    for n in range(1, order + 1):
        code_N, text_N, codes = ngrams.of_order(n)
        image_N, column_N = np.divmod(cells[text_N], M)
        key_N = sorted_unique((image_N * codes + code_N) * M + column_N)
        ngram_N, column_N = np.divmod(key_N, M)
        cell_N = ngram_N // max(codes, 1) * M + column_N
        size += np.bincount(cell_N, minlength=B * M)
        shared += _pairs(ngram_N, cell_N * M, column_N, B * M * M)
    shared_BMM = shared.reshape(B, M, M)
    shared_BMM += shared_BMM.transpose(0, 2, 1)
    size_BM = size.reshape(B, M)
    union_BMM = size_BM[:, :, None] + size_BM[:, None, :] - shared_BMM
    found_BMM: np.ndarray = (shared_BMM / np.maximum(union_BMM, 1)).astype(np.float32)
    diagonal = np.arange(M)
    found_BMM[:, diagonal, diagonal] = rows_BM != ABSENT
    return found_BMM


def _pairs(ngram_N: np.ndarray, first_N: np.ndarray, second_N: np.ndarray, length: int) -> np.ndarray:
    """Count the pairs of neighbours with the same n-gram, at `first` of the one + `second` of the other."""
    counts = np.zeros(length, np.int64)
    left, distance = np.arange(len(ngram_N)), 0
    while len(left):
        distance += 1
        left = left[: np.searchsorted(left, len(ngram_N) - distance)]
        left = left[ngram_N[left] == ngram_N[left + distance]]
        pairs = first_N[left] + second_N[left + distance]
        if len(pairs) * SPARSE < length:  # of many captions few have a word so often
            np.add.at(counts, pairs, 1)
        else:
            counts += np.bincount(pairs, minlength=length)
    return counts


def similarity_matrix(texts: Sequence[str], order: int) -> np.ndarray:
    """The same of a few texts, (texts, texts)."""
    matrix: np.ndarray = similarity(lambda row: words(texts[row]), np.arange(len(texts))[None], order)[0]
    return matrix


def distinct(texts: Sequence[str], order: int) -> float | None:
    """distinct-n: how many of the n-grams of all texts together are different ones; None if there are none."""
    code_N, _, _ = Ngrams([words(text) for text in texts]).of_order(order)
    return len(sorted_unique(code_N)) / len(code_N) if len(code_N) else None
