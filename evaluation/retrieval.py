"""Recall@k in both directions, with sets of right answers.

The definition is the usual one of multi-caption sets (CLIP_benchmark's): a query counts as answered at k if at least
one of the first k candidates is right for it. Text to image, every text is a query and all images are candidates;
image to text, every image is a query and all texts are. What is right is a set of (text, image) pairs, so captions
that do not single out an image are scored fairly: every image they are true for counts.

Rankings are the top k of one block of scores at a time; right answers are found by binary search in the sorted pairs.
No texts-by-images table of booleans exists, of whatever size the set is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.readouts import scores

BLOCK_SCORES = 2**24  # scores held at a time: 64 MB of float32


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

    def contains(self, ranking_QK: np.ndarray) -> np.ndarray:
        """Which of each query's ranked candidates are right, (Q, K)."""
        keys = np.sort(self.query_P * self.candidates + self.candidate_P)
        wanted = np.arange(self.queries)[:, None] * self.candidates + ranking_QK
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return keys[place] == wanted


def rank_images(vector_NGD: Tensor, text_TD: Tensor, depth: int) -> np.ndarray:
    """The `depth` best images for each text, best first, (T, depth)."""
    block = max(1, BLOCK_SCORES // (vector_NGD.shape[0] * vector_NGD.shape[1]))
    parts = [scores(vector_NGD, part_tD).T.topk(_depth(depth, len(vector_NGD))) for part_tD in text_TD.split(block)]
    return torch.cat([part.indices for part in parts]).cpu().numpy()


def rank_texts(vector_NGD: Tensor, text_TD: Tensor, depth: int) -> np.ndarray:
    """The `depth` best texts for each image, best first, (N, depth)."""
    block = max(1, BLOCK_SCORES // (len(text_TD) * vector_NGD.shape[1]))
    parts = [scores(part_nGD, text_TD).topk(_depth(depth, len(text_TD))) for part_nGD in vector_NGD.split(block)]
    return torch.cat([part.indices for part in parts]).cpu().numpy()


def _depth(depth: int, candidates: int) -> int:
    return min(depth, candidates)


def hits(ranking_QK: np.ndarray, relevance: Relevance, ks: Sequence[int]) -> dict[int, np.ndarray]:
    """For each k, whether each query that has a right answer at all found one among its first k."""
    right_QK: np.ndarray = relevance.contains(ranking_QK)[relevance.counts() > 0]
    return {k: np.asarray(right_QK[:, :k].any(axis=1)) for k in ks}


def chance(relevance: Relevance, k: int) -> float:
    """Expected recall@k of a random ranking.

    With r right answers among N candidates, k draws without replacement miss all of them with probability
    C(N-r, k) / C(N, k); at k=1 chance is the mean of r/N.
    """
    count_Q = relevance.counts()
    count_Q = count_Q[count_Q > 0].astype(np.float64)
    miss_Q = np.ones_like(count_Q)
    for drawn in range(min(k, relevance.candidates)):
        left = relevance.candidates - drawn
        miss_Q *= np.clip((left - count_Q) / left, 0, 1)
    return float(1 - miss_Q.mean())
