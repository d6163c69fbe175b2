"""The readout `weighted`: one vector for each image, the mean of its branches by weights that are learnt.

Weights are one for each branch, not negative, and sum to 1 (a softmax). They make the texts of one half of a benchmark
find their images (cross-entropy over images of that half, with a temperature that is learnt too), and are measured on
the other half, both ways round: no query is answered by weights that have seen it. Images are halved by seed; a text
belongs to the half of the first image that it is true for. A half with fewer than two images leaves weights equal.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from evaluation.both_ways import both_ways
from evaluation.ranks import Ranks
from evaluation.retrieval import Relevance

MOST = 256  # images of a half that weights are fitted on, and texts
STEPS, RATE = 100, 0.1
LOGIT_SCALE = 50.0  # to begin with


def cross_fitted(branch_NHD: Tensor, text_TD: Tensor, relevance: Relevance, seed: int) -> tuple[Ranks, Ranks]:
    """Ranks with texts as queries and with images as queries, each by the weights of the other half."""
    half_N, half_T = halves(relevance, seed)
    fitted = [fit(branch_NHD, text_TD, relevance, half_N == half, half_T == half, seed) for half in (1, 0)]
    found = [both_ways(weighted(branch_NHD, weight_H)[:, None], text_TD, relevance) for weight_H in fitted]
    first, second = found
    return _of_halves(first[0], second[0], half_T), _of_halves(first[1], second[1], half_N)


def weighted(branch_NHD: Tensor, weight_H: Tensor) -> Tensor:
    """Unit vectors (N, D)."""
    return F.normalize(torch.einsum("nhd,h->nd", branch_NHD.float(), weight_H.to(branch_NHD.device)), dim=-1)


def halves(relevance: Relevance, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The half, 0 or 1, of each image and of each text."""
    order_N = np.random.default_rng(seed).permutation(relevance.candidates)
    half_N = np.empty(relevance.candidates, dtype=np.int64)
    half_N[order_N] = np.arange(relevance.candidates) % 2
    text_P, image_P = relevance.in_order()
    half_T = np.zeros(relevance.queries, dtype=np.int64)
    known_T, first_T = np.unique(text_P, return_index=True)
    half_T[known_T] = half_N[image_P[first_T]]
    return half_N, half_T


@torch.enable_grad()
def fit(
    branch_NHD: Tensor, text_TD: Tensor, relevance: Relevance, own_N: np.ndarray, own_T: np.ndarray, seed: int
) -> Tensor:
    """Weights of the branches (H,), fitted on these images and texts."""
    branches = branch_NHD.shape[1]
    equal_H = torch.full((branches,), 1 / branches)
    image_n = _some(np.flatnonzero(own_N), seed)
    pair_P = np.isin(relevance.candidate_P, image_n) & own_T[relevance.query_P]
    text_t = _some(np.unique(relevance.query_P[pair_P]), seed)
    if len(image_n) < 2 or not len(text_t):
        return equal_H
    pair_P &= np.isin(relevance.query_P, text_t)
    branch_nHD, text_tD = branch_NHD[image_n].float().cpu(), text_TD[text_t].float().cpu()
    cosine_tnH = torch.einsum("nhd,td->tnh", branch_nHD, text_tD)
    product_nHH = branch_nHD @ branch_nHD.transpose(1, 2)
    right_tn = torch.zeros(len(text_t), len(image_n), dtype=torch.bool)
    row_p = np.searchsorted(text_t, relevance.query_P[pair_P])
    right_tn[row_p, np.searchsorted(image_n, relevance.candidate_P[pair_P])] = True
    logit_H = torch.zeros(branches, requires_grad=True)
    scale = torch.tensor(np.log(LOGIT_SCALE), dtype=torch.float32, requires_grad=True)
    adam = torch.optim.Adam([logit_H, scale], lr=RATE)
    for _ in range(STEPS):
        weight_H = logit_H.softmax(dim=0)
        length_n = torch.einsum("h,nhk,k->n", weight_H, product_nHH, weight_H).clamp_min(1e-12).sqrt()
        score_tn = scale.exp() * (cosine_tnH @ weight_H) / length_n
        of_right_t = score_tn.masked_fill(~right_tn, -torch.inf).logsumexp(dim=1)
        loss = (score_tn.logsumexp(dim=1) - of_right_t).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return logit_H.detach().softmax(dim=0)


def _some(index_X: np.ndarray, seed: int) -> np.ndarray:
    """`MOST` of these at most, ascending."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(index_X, MOST, replace=False)) if len(index_X) > MOST else index_X


def _of_halves(first: Ranks, second: Ranks, half_Q: np.ndarray) -> Ranks:
    """`first` for queries of half 0, `second` for those of half 1; both have the same pairs in order."""
    of_first_P = half_Q[first.query_P] == 0
    above_P = np.where(of_first_P, first.above_P, second.above_P)
    return Ranks(first.query_P, above_P, np.where(of_first_P, first.tied_P, second.tied_P))
