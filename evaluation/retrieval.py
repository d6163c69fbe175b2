"""Ranks of right answers, for sets of them.

The definition is the usual one of multi-caption sets (CLIP_benchmark's): a query counts as answered at k if at least
one of the first k candidates is right for it. Text to image, every text is a query and all images are candidates;
image to text, every image is a query and all texts are. What is right is a set of (text, image) pairs, so captions
that do not single out an image are scored fairly: every image they are true for counts.

All that is needed of a query's scores is where its right answers stand (`evaluation.ranks`): how many candidates are
better, and how many are as good. That is counted in one block of scores at a time, and no texts-by-images table
exists, of whatever size the set is. `evaluation.both_ways` counts both directions in the same blocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.ranks import Ranks, miss
from evaluation.readouts import scores

BLOCK_SCORES = 2**22  # scores held at a time: 16 MB of float32
FEW = 8  # right answers of a query that are each compared with all candidates; with more, candidates are sorted
BYTE = 255


@dataclass(frozen=True)
class Relevance:
    """Which of `candidates` candidates are right for which of `queries` queries, as index pairs."""

    query_P: np.ndarray
    candidate_P: np.ndarray
    queries: int
    candidates: int

    def swapped(self) -> Relevance:
        """The same pairs asked the other way round."""
        return Relevance(self.candidate_P, self.query_P, self.candidates, self.queries)

    def counts(self) -> np.ndarray:
        """Number of right candidates of each query."""
        return np.bincount(self.query_P, minlength=self.queries)

    def in_order(self) -> tuple[np.ndarray, np.ndarray]:
        """The pairs by query."""
        order_P = np.argsort(self.query_P, kind="stable")
        return self.query_P[order_P], self.candidate_P[order_P]


def ranks(blocks: Iterable[Tensor], relevance: Relevance) -> Ranks:
    """Count in blocks of scores, (queries, candidates), of all queries in their order."""
    query_P, candidate_P = relevance.in_order()
    layer_P = layers(query_P)
    # Made first: what is kept of each block would lie between the memory of blocks, which then is not used again.
    above_P, tied_P = np.empty(len(query_P), dtype=np.int64), np.empty(len(query_P), dtype=np.int64)
    first = 0
    for score_qC in blocks:
        own = slice(*np.searchsorted(query_P, [first, first + len(score_qC)]))
        above_P[own], tied_P[own] = rank_rows(score_qC, query_P[own] - first, candidate_P[own], layer_P[own])
        first += len(score_qC)
    return Ranks(query_P, above_P, tied_P)


def rank_rows(
    score_qC: Tensor, query_p: np.ndarray, candidate_p: np.ndarray, layer_p: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of each right pair of these queries: candidates that are better, and as good."""
    right_p = score_qC[query_p, candidate_p]
    right_qL = score_qC.new_full((len(score_qC), int(layer_p.max(initial=0)) + 1), torch.inf)
    right_qL[query_p, layer_p] = right_p
    if right_qL.shape[1] <= FEW:
        columns = [right_qL[:, layer, None] for layer in range(right_qL.shape[1])]
        above_qL = np.stack([in_rows(score_qC > right_q1) for right_q1 in columns], axis=1)
        least_qL = np.stack([in_rows(score_qC >= right_q1) for right_q1 in columns], axis=1)
    else:
        sorted_qC = score_qC.sort(dim=1).values
        above_qL, least_qL = (
            score_qC.shape[1] - torch.searchsorted(sorted_qC, right_qL, right=right).cpu().numpy()
            for right in (True, False)
        )
    above_p = above_qL[query_p, layer_p]
    return above_p, least_qL[query_p, layer_p] - above_p


def layers(query_P: np.ndarray) -> np.ndarray:
    """For each pair how many of its query come before it, (P,)."""
    order_P = np.argsort(query_P, kind="stable")
    sorted_P = query_P[order_P]
    found_P = np.empty(len(query_P), dtype=np.int64)
    found_P[order_P] = np.arange(len(query_P)) - np.searchsorted(sorted_P, sorted_P)
    return found_P


def in_rows(mask_qC: Tensor) -> np.ndarray:
    """How many are true in each row; many times faster than torch's sum of booleans on a CPU."""
    if mask_qC.is_cuda:
        return np.asarray(mask_qC.sum(dim=1).cpu().numpy())
    return np.array([np.count_nonzero(row) for row in mask_qC.numpy()], dtype=np.int64)


def in_columns(mask_qC: Tensor) -> np.ndarray:
    """How many are true in each column; in bytes, as many rows as a byte can count at a time."""
    if mask_qC.is_cuda:
        return np.asarray(mask_qC.sum(dim=0).cpu().numpy())
    byte_qC = mask_qC.numpy().view(np.uint8)
    total_C = np.zeros(byte_qC.shape[1], dtype=np.int64)
    for first in range(0, len(byte_qC), BYTE):
        total_C += np.add.reduce(byte_qC[first : first + BYTE], axis=0, dtype=np.uint8)
    return total_C


def rank_images(vector_NGD: Tensor, text_TD: Tensor, depth: int) -> np.ndarray:
    """The `depth` best images for each text, best first, (T, depth): for showing them, as equal ones have no order."""
    block = max(1, BLOCK_SCORES // (vector_NGD.shape[0] * vector_NGD.shape[1]))
    depth = min(depth, len(vector_NGD))
    best_TK = np.empty((len(text_TD), depth), dtype=np.int64)  # made first, as in `ranks`
    for first in range(0, len(text_TD), block):
        best_tK = scores(vector_NGD, text_TD[first : first + block]).T.topk(depth).indices
        best_TK[first : first + block] = best_tK.cpu().numpy()
    return best_TK


def chance(relevance: Relevance, k: int) -> float:
    """Expected recall@k of a random ranking; at k=1 the mean share of right answers."""
    count_Q = relevance.counts()
    count_Q = count_Q[count_Q > 0]
    all_Q = np.full_like(count_Q, relevance.candidates)
    return float(1 - miss(count_Q, all_Q, np.full_like(count_Q, k)).mean())


def random_ranks(relevance: Relevance) -> Ranks:
    """Of a model to which all candidates are as good as any."""
    query_P, _ = relevance.in_order()
    return Ranks(query_P, np.zeros(len(query_P), dtype=np.int64), np.full(len(query_P), relevance.candidates))
