"""The readout `rerank`: the served vector finds the first candidates, a second score puts them in order.

The second score of an image and a text is what the text finds in the image's patches (`training.text_pooling`): far
too dear for all pairs, affordable for the first few dozen. These are ordered by the sum of both cosines; all others
follow in the order of the served vector. Where the last of the first few dozen tie with the one after them, the served
vector does not say which of them come first: they count among the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from evaluation.ranks import Ranks
from evaluation.readouts import scores
from evaluation.retrieval import BLOCK_SCORES, Relevance, ranks

BLOCK_PATCHES = 2**25  # numbers of patches held at a time: 128 MB of float32

SecondScore = Callable[[Tensor, Tensor], Tensor]  # patches (B, P, D), texts (B, T, D) -> cosines (B, T)


@torch.inference_mode()
def stand_images(
    second: SecondScore, served_ND: Tensor, patch_NPD: Tensor, text_TD: Tensor, depth: int, relevance: Relevance
) -> Ranks:
    """Texts are queries, the `depth` best images of the served vector get the second score."""
    depth = min(depth, len(served_ND))
    rows = min(BLOCK_SCORES // len(served_ND), BLOCK_PATCHES // (depth * patch_NPD[0].numel()))

    def blocks() -> Iterator[Tensor]:
        for text_tD in text_TD.split(max(1, rows)):
            score_tN = scores(served_ND[:, None], text_tD).T
            index_tK = score_tN.topk(depth).indices
            patch_XPD = patch_NPD[index_tK.flatten()].float()
            text_X1D = text_tD.repeat_interleave(depth, dim=0)[:, None]
            yield reordered(score_tN, index_tK, second(patch_XPD, text_X1D).view_as(index_tK))

    return ranks(blocks(), relevance)


@torch.inference_mode()
def stand_texts(
    second: SecondScore, served_ND: Tensor, patch_NPD: Tensor, text_TD: Tensor, depth: int, relevance: Relevance
) -> Ranks:
    """Images are queries, the `depth` best texts of the served vector get the second score."""
    depth = min(depth, len(text_TD))
    rows = min(BLOCK_SCORES // len(text_TD), BLOCK_PATCHES // (patch_NPD[0].numel() + depth * text_TD.shape[1]))

    def blocks() -> Iterator[Tensor]:
        for served_nD, patch_nPD in zip(served_ND.split(max(1, rows)), patch_NPD.split(max(1, rows)), strict=True):
            score_nT = scores(served_nD[:, None], text_TD)
            index_nK = score_nT.topk(depth).indices
            yield reordered(score_nT, index_nK, second(patch_nPD.float(), text_TD[index_nK]))

    return ranks(blocks(), relevance)


def reordered(score_QC: Tensor, index_QK: Tensor, second_QK: Tensor) -> Tensor:
    """Scores by which the first K candidates stand in their new order, before all others."""
    first_QK = score_QC.gather(1, index_QK)
    last_Q1 = first_QK[:, -1:]
    fits_Q1 = (score_QC >= last_Q1).sum(dim=1, keepdim=True) == index_QK.shape[1]  # nobody ties with the last
    both_QK = (first_QK + second_QK).double()  # lifted in doubles, as floats would lose digits and tie
    lift_Q1 = score_QC.amax(dim=1, keepdim=True) - both_QK.amin(dim=1, keepdim=True) + 1
    new_QK = torch.where(fits_Q1 | (first_QK > last_Q1), both_QK + lift_Q1, first_QK.double())
    return score_QC.double().scatter(1, index_QK, new_QK)
