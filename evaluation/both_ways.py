"""Ranks of right answers in both directions from one product of texts and images.

Texts by images is computed a block of texts at a time, and never kept. A text's row is then complete, so its ranks can
be counted at once. An image's column is complete only at the end, and what it is to be compared with, the score of its
right text, may come in a later block. So that score is computed first, for right pairs alone. Rounding can make it
differ from the product's by some units of the last place: what is clearly above is counted, and the few scores within
`MARGIN` are kept and compared in the end with the score that the product has. All figures are as if the whole
product had been there. Where that does not work (a model that gives everything the same score, a pair that is
rounded further apart), images are asked by a product of their own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from evaluation.ranks import Ranks
from evaluation.readouts import scores
from evaluation.retrieval import BLOCK_SCORES, FEW, Relevance, in_columns, layers, ranks

MARGIN = 5e-7  # of scores of unit vectors: how far a score may be rounded from the product's
MOST_KEPT = 2**22  # scores within the margin


def both_ways(vector_NGD: Tensor, text_TD: Tensor, relevance: Relevance) -> tuple[Ranks, Ranks]:
    """Ranks with texts as queries, and with images as queries; `relevance` asks by text."""
    columns = _Columns(vector_NGD, text_TD, relevance) if layers(relevance.candidate_P).max(initial=0) < FEW else None

    def blocks() -> Iterator[Tensor]:
        first = 0
        for score_tN in _products(vector_NGD, text_TD):
            if columns is not None:
                columns.add(score_tN, first)
            yield score_tN
            first += len(score_tN)

    by_text = ranks(blocks(), relevance)
    by_image = columns.ranks() if columns is not None else None
    return by_text, by_image or ranks(_image_blocks(vector_NGD, text_TD), relevance.swapped())


def _products(vector_NGD: Tensor, text_TD: Tensor) -> Iterator[Tensor]:
    """Blocks (t, N) of scores. All products have one shape, so that equal texts have equal scores in all of them."""
    n, groups, _ = vector_NGD.shape
    block = min(len(text_TD), max(1, BLOCK_SCORES // (n * groups)))
    vector_DX = vector_NGD.flatten(0, 1).T
    for part_tD in text_TD.split(block):
        filled_tD = part_tD
        if len(part_tD) < block:
            filled_tD = torch.cat([part_tD, part_tD.new_zeros(block - len(part_tD), part_tD.shape[1])])
        score_tX = (filled_tD @ vector_DX)[: len(part_tD)]
        yield score_tX if groups == 1 else score_tX.view(len(part_tD), n, groups).amax(dim=2)


def _image_blocks(vector_NGD: Tensor, text_TD: Tensor) -> Iterator[Tensor]:
    block = max(1, BLOCK_SCORES // (len(text_TD) * vector_NGD.shape[1]))
    return (scores(part_nGD, text_TD) for part_nGD in vector_NGD.split(block))


class _Columns:
    """Counts for images (columns), a block of texts (rows) at a time; L right texts an image at most."""

    def __init__(self, vector_NGD: Tensor, text_TD: Tensor, relevance: Relevance) -> None:
        asked = relevance.swapped()
        self.image_P, self.text_P = asked.in_order()
        self.layer_P = layers(self.image_P)
        self.by_text_P = np.argsort(self.text_P, kind="stable")
        near_P = _of_pairs(vector_NGD, text_TD, self.image_P, self.text_P)
        shape = (len(vector_NGD), int(self.layer_P.max(initial=0)) + 1)
        near_NL = near_P.new_full(shape, torch.inf)
        near_NL[self.image_P, self.layer_P] = near_P
        self.low_LN, self.high_LN = (near_NL.T - MARGIN).contiguous(), (near_NL.T + MARGIN).contiguous()
        self.above_LN, self.tied_LN = (np.zeros(shape[::-1], dtype=np.int64) for _ in range(2))
        self.exact_P = near_P.cpu().numpy().copy()
        # Scores within the margin, with their layers and images; made now for the reason that `ranks` has.
        self.layer_K, self.image_K = np.empty(MOST_KEPT, dtype=np.int8), np.empty(MOST_KEPT, dtype=np.int64)
        self.score_K = np.empty(MOST_KEPT, dtype=self.exact_P.dtype)
        self.kept, self.given_up = 0, False

    def add(self, score_tN: Tensor, first: int) -> None:
        """Count in the scores of texts `first` and on."""
        if self.given_up:
            return
        text_P = self.text_P[self.by_text_P]
        own_p = self.by_text_P[slice(*np.searchsorted(text_P, [first, first + len(score_tN)]))]
        image_p, layer_p = self.image_P[own_p], self.layer_P[own_p]
        self.exact_P[own_p] = score_tN[self.text_P[own_p] - first, image_p].cpu().numpy()
        for layer, (low_N, high_N) in enumerate(zip(self.low_LN, self.high_LN, strict=True)):
            above_N = in_columns(score_tN > high_N)
            within_N = in_columns(score_tN >= low_N) - above_N
            self.above_LN[layer] += above_N
            own_N = np.bincount(image_p[layer_p == layer], minlength=len(within_N))
            more = np.flatnonzero(within_N != own_N)
            self.tied_LN[layer] += np.where(within_N == own_N, own_N, 0)
            if len(more):
                self._keep(layer, more, score_tN[:, more], low_N[more], high_N[more])

    def _keep(self, layer: int, image_m: np.ndarray, score_tm: Tensor, low_m: Tensor, high_m: Tensor) -> None:
        row_k, place_k = torch.nonzero((score_tm >= low_m) & (score_tm <= high_m), as_tuple=True)
        kept = slice(self.kept, self.kept + len(row_k))
        self.kept = kept.stop
        self.given_up = self.kept > MOST_KEPT
        if not self.given_up:
            self.layer_K[kept] = layer
            self.image_K[kept] = image_m[place_k.cpu().numpy()]
            self.score_K[kept] = score_tm[row_k, place_k].cpu().numpy()

    def ranks(self) -> Ranks | None:
        """None where too many scores, or one that is rounded too far, make these counts no good."""
        low_P, high_P = (
            bound_LN.cpu().numpy()[self.layer_P, self.image_P] for bound_LN in (self.low_LN, self.high_LN)
        )
        if self.given_up or not ((low_P <= self.exact_P) & (self.exact_P <= high_P)).all():
            return None
        exact_LN = np.full(self.above_LN.shape, np.inf, dtype=self.exact_P.dtype)
        exact_LN[self.layer_P, self.image_P] = self.exact_P
        layer_k, image_k, score_k = self.layer_K[: self.kept], self.image_K[: self.kept], self.score_K[: self.kept]
        exact_k = exact_LN[layer_k, image_k]
        np.add.at(self.above_LN, (layer_k, image_k), score_k > exact_k)
        np.add.at(self.tied_LN, (layer_k, image_k), score_k == exact_k)
        above_P, tied_P = (count_LN[self.layer_P, self.image_P] for count_LN in (self.above_LN, self.tied_LN))
        return Ranks(self.image_P, above_P, tied_P)


def _of_pairs(vector_NGD: Tensor, text_TD: Tensor, image_P: np.ndarray, text_P: np.ndarray) -> Tensor:
    """Scores of pairs, (P,)."""
    step = max(1, BLOCK_SCORES // (vector_NGD.shape[1] * vector_NGD.shape[2]))
    parts = [
        torch.einsum("pgd,pd->pg", vector_NGD[image_P[i : i + step]], text_TD[text_P[i : i + step]]).amax(dim=1)
        for i in range(0, len(image_P), step)
    ]
    return torch.cat(parts)
