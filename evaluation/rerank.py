"""The readout `rerank`: the served vector finds the first candidates, a second score puts them in order.

The second score of an image and a text is what the text finds in the image's patches (`training.text_pooling`): far
too dear for all pairs, affordable for the first few dozen. Candidates are ordered by the sum of both cosines; what the
served vector did not find stays unfound.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from evaluation import retrieval

BLOCK_PATCHES = 2**25  # numbers of patches held at a time: 128 MB of float32

SecondScore = Callable[[Tensor, Tensor], Tensor]  # patches (B, P, D), texts (B, T, D) -> cosines (B, T)


@torch.inference_mode()
def rank_images(second: SecondScore, served_ND: Tensor, patch_NPD: Tensor, text_TD: Tensor, depth: int) -> np.ndarray:
    """The `depth` best images of the served vector for each text, best of both scores first, (T, depth)."""
    first_TK = torch.from_numpy(retrieval.rank_images(served_ND[:, None], text_TD, depth)).to(served_ND.device)
    texts = max(1, BLOCK_PATCHES // (first_TK.shape[1] * patch_NPD[0].numel()))
    parts = []
    for index_tK, text_tD in zip(first_TK.split(texts), text_TD.split(texts), strict=True):
        served_tK = torch.einsum("tkd,td->tk", served_ND[index_tK], text_tD)
        patch_XPD = patch_NPD[index_tK.flatten()].float()
        text_X1D = text_tD.repeat_interleave(index_tK.shape[1], dim=0)[:, None]
        parts.append(_in_order(index_tK, served_tK + second(patch_XPD, text_X1D).view_as(served_tK)))
    return torch.cat(parts).cpu().numpy()


@torch.inference_mode()
def rank_texts(second: SecondScore, served_ND: Tensor, patch_NPD: Tensor, text_TD: Tensor, depth: int) -> np.ndarray:
    """The `depth` best texts of the served vector for each image, best of both scores first, (N, depth)."""
    first_NK = torch.from_numpy(retrieval.rank_texts(served_ND[:, None], text_TD, depth)).to(served_ND.device)
    images = max(1, BLOCK_PATCHES // (patch_NPD[0].numel() + first_NK.shape[1] * text_TD.shape[1]))
    parts = []
    for index_nK, served_nD, patch_nPD in zip(
        first_NK.split(images), served_ND.split(images), patch_NPD.split(images), strict=True
    ):
        text_nKD = text_TD[index_nK]
        served_nK = torch.einsum("nd,nkd->nk", served_nD, text_nKD)
        parts.append(_in_order(index_nK, served_nK + second(patch_nPD.float(), text_nKD)))
    return torch.cat(parts).cpu().numpy()


def _in_order(index_QK: Tensor, score_QK: Tensor) -> Tensor:
    return index_QK.gather(1, score_QK.argsort(dim=1, descending=True, stable=True))
