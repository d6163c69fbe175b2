"""Self-BLEU: how well each caption of an image is foretold by the others, in words (Zhu et al., Texygen, 2018).

BLEU-4 of every caption against the image's other captions as references, averaged. Clipped precisions and the brevity
penalty are those of Papineni et al. (2002); above single words one is added to matches and n-grams (Lin and Och, 2004:
smoothing 2 of Chen and Cherry, 2014), and orders that a short caption has no n-gram of are left out. 1 means that
every caption is part of another one, 0 that none shares a word.
"""

from __future__ import annotations

import numpy as np

from captioning.curate.selection.ngrams import Ngrams
from captioning.curate.selection.padding import pairs_mask

ORDERS = 4


def self_bleu(ngrams: Ngrams, open_BM: np.ndarray) -> np.ndarray:
    """Mean over the open captions of each image, (B,); NaN for fewer than two.

    `ngrams` has the open captions as texts, image by image.
    """
    cells = np.flatnonzero(open_BM.ravel())
    length_BM = np.zeros(open_BM.size, np.int64)
    length_BM[cells] = ngrams.length_T
    log_sum, orders = np.zeros(open_BM.size), np.zeros(open_BM.size, np.int64)
    for order in range(1, ORDERS + 1):
        total = np.maximum(length_BM - order + 1, 0)
        smoothing = 1 if order > 1 else 0
        matches = _clipped_matches(ngrams, cells, order, open_BM.shape)
        with np.errstate(divide="ignore"):
            log_sum += np.where(total > 0, np.log((matches + smoothing) / np.maximum(total + smoothing, 1)), 0.0)
        orders += total > 0
    precision = np.where(orders > 0, np.exp(log_sum / np.maximum(orders, 1)), 0.0).reshape(open_BM.shape)
    score_BM = precision * _brevity(length_BM.reshape(open_BM.shape), open_BM)
    count_B = open_BM.sum(axis=1)
    mean_B: np.ndarray = np.where(open_BM, score_BM, 0.0).sum(axis=1) / np.maximum(count_B, 1)
    return np.where(count_B > 1, mean_B, np.nan)


def _clipped_matches(ngrams: Ngrams, cells: np.ndarray, order: int, shape: tuple[int, ...]) -> np.ndarray:
    """How many n-grams of each caption are in another one, each at most as often as in the one that has it most."""
    M = shape[1]
    code_N, text_N, codes = ngrams.of_order(order)
    if not len(code_N):
        return np.zeros(shape).ravel()
    image_N, column_N = np.divmod(cells[text_N], M)
    key_U, count_U = _counts((image_N * codes + code_N) * M + column_N)
    ngram_U, column_U = np.divmod(key_U, M)
    starts = np.flatnonzero(np.diff(ngram_U, prepend=-1))
    run_U = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(key_U)))
    most = np.maximum.reduceat(count_U, starts)[run_U]
    is_most = count_U == most
    second = np.maximum.reduceat(np.where(is_most, 0, count_U), starts)[run_U]
    shared_most = np.add.reduceat(is_most.astype(np.int64), starts)[run_U] > 1
    elsewhere = np.where(is_most & ~shared_most, second, most)
    matched = np.minimum(count_U, elsewhere)
    return np.bincount(ngram_U // codes * M + column_U, weights=matched, minlength=shape[0] * M)


def _counts(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.sort(numbers)
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    return numbers[starts], np.diff(starts, append=len(numbers))


def _brevity(length_BM: np.ndarray, open_BM: np.ndarray) -> np.ndarray:
    """Penalty of captions that are shorter than the reference nearest in length, the shorter of two."""
    never = np.iinfo(np.int64).max // 4
    own, other = length_BM[:, :, None], length_BM[:, None, :]
    distance = np.where(pairs_mask(open_BM), 2 * np.abs(own - other) + (other > own), never)
    nearest_BM = np.take_along_axis(length_BM, distance.argmin(axis=2), axis=1)
    ratio = nearest_BM / np.maximum(length_BM, 1)
    return np.where(length_BM < nearest_BM, np.exp(1 - ratio), 1.0) * (length_BM > 0)
