"""Recall@k in both directions, with sets of right answers.

The definition is the usual one of multi-caption sets (CLIP_benchmark's): a query counts as answered at k if at least
one of the first k candidates is right for it. Text to image, every text is a query and all images are candidates;
image to text, every image is a query and all texts are. What is right is a set of (text, image) pairs, so captions
that do not single out an image are scored fairly: every image they are true for counts.

Candidates of equal score have no order, so a query counts with its chance to be answered if they come in a random
one. A model that gives everything the same score reaches chance, and not what the order of files happens to give.

All that is needed of a query's scores is where its best right answer stands (`Standing`): how many candidates are
better, and how many are as good. That is counted in one block of scores at a time, and no texts-by-images table of
booleans exists, of whatever size the set is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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

    def in_order(self) -> tuple[np.ndarray, np.ndarray]:
        """The pairs by query."""
        order_P = np.argsort(self.query_P, kind="stable")
        return self.query_P[order_P], self.candidate_P[order_P]


@dataclass(frozen=True)
class Standing:
    """Where the best right answer of each query stands; only of queries that have a right answer at all."""

    above_Q: np.ndarray  # candidates that are better
    tied_Q: np.ndarray  # candidates that are as good, itself among them
    right_Q: np.ndarray  # right answers among those

    def hits(self, ks: Sequence[int]) -> dict[int, np.ndarray]:
        """For each k, the chance of each query to find a right answer among its first k."""
        return {k: 1 - _miss(self.right_Q, self.tied_Q, k - self.above_Q) for k in ks}


def stand_images(vector_NGD: Tensor, text_TD: Tensor, relevance: Relevance) -> Standing:
    """Texts are queries, images are candidates."""
    block = max(1, BLOCK_SCORES // (vector_NGD.shape[0] * vector_NGD.shape[1]))
    return standing((scores(vector_NGD, part_tD).T for part_tD in text_TD.split(block)), relevance)


def stand_texts(vector_NGD: Tensor, text_TD: Tensor, relevance: Relevance) -> Standing:
    """Images are queries, texts are candidates."""
    block = max(1, BLOCK_SCORES // (len(text_TD) * vector_NGD.shape[1]))
    return standing((scores(part_nGD, text_TD) for part_nGD in vector_NGD.split(block)), relevance)


def standing(blocks: Iterable[Tensor], relevance: Relevance) -> Standing:
    """Count in blocks of scores, (queries, candidates), of all queries in their order."""
    query_P, candidate_P = relevance.in_order()
    parts, first = [], 0
    for score_qC in blocks:
        own = slice(*np.searchsorted(query_P, [first, first + len(score_qC)]))
        query_p, candidate_p = (torch.from_numpy(index[own]).to(score_qC.device) for index in (query_P, candidate_P))
        parts.append(_stand(score_qC, query_p - first, candidate_p))
        first += len(score_qC)
    asked_Q = relevance.counts() > 0
    return Standing(*(torch.cat(counts).cpu().numpy()[asked_Q] for counts in zip(*parts, strict=True)))


def _stand(score_qC: Tensor, query_p: Tensor, candidate_p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    right_p = score_qC[query_p, candidate_p]
    best_q = score_qC.new_full((len(score_qC),), -torch.inf).scatter_reduce(0, query_p, right_p, "amax")
    right_q = torch.bincount(query_p[right_p == best_q[query_p]], minlength=len(score_qC))
    above_q, tied_q = (score_qC > best_q[:, None]).sum(dim=1), (score_qC == best_q[:, None]).sum(dim=1)
    return above_q, tied_q, right_q


def rank_images(vector_NGD: Tensor, text_TD: Tensor, depth: int) -> np.ndarray:
    """The `depth` best images for each text, best first, (T, depth): for showing them, as equal ones have no order."""
    block = max(1, BLOCK_SCORES // (vector_NGD.shape[0] * vector_NGD.shape[1]))
    depth = min(depth, len(vector_NGD))
    parts = [scores(vector_NGD, part_tD).T.topk(depth).indices for part_tD in text_TD.split(block)]
    return torch.cat(parts).cpu().numpy()


def chance(relevance: Relevance, k: int) -> float:
    """Expected recall@k of a random ranking; at k=1 the mean share of right answers."""
    count_Q = relevance.counts()
    count_Q = count_Q[count_Q > 0]
    all_Q = np.full_like(count_Q, relevance.candidates)
    return float(1 - _miss(count_Q, all_Q, np.full_like(count_Q, k)).mean())


def _miss(right_Q: np.ndarray, among_Q: np.ndarray, draws_Q: np.ndarray) -> np.ndarray:
    """The probability that so many draws without replacement hold no right one: C(N-r, k) / C(N, k)."""
    miss_Q = np.ones(len(right_Q))
    for drawn in range(int(np.minimum(draws_Q, among_Q).max(initial=0))):
        left_Q = np.maximum(among_Q - drawn, 1)
        share_Q = np.clip((left_Q - right_Q) / left_Q, 0, 1)
        miss_Q *= np.where((drawn < draws_Q) & (drawn < among_Q), share_Q, 1)
    return miss_Q
