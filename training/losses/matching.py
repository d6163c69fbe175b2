"""Which branch a caption looks at when it may choose: the weights of free matching (PAPER 1.3 b).

A weight says how much a branch of its own image stands for a caption; a caption's weights sum to one. They are decided
on the positive pairs alone, and no gradient goes through them.

    hard      the branch most similar to the caption (the released code)
    soft      each in proportion to exp(logit): early on all branches learn, later it is hard
    balanced  hard, but branches that many captions want cost more, so that all are used alike and none dies
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.features import Features

SINKHORN_ROUNDS = 50
# Of balanced matching, relative to how much the similarities differ. Lower is nearer to exact balance of hard choices,
# and needs more rounds.
SINKHORN_TEMPERATURE = 0.1
ABSENT = -1e4  # logarithm of the weight of a missing caption; finite, for a batch without any


def choosing_slots(features: Features) -> slice:
    """Slots beyond the branches choose; with fewer slots than branches, all do. No slot, where both are as many."""
    return slice(features.branches if features.slots >= features.branches else 0, None)


@torch.no_grad()
def hard(features: Features) -> Tensor:
    """(B, M, H), one-hot."""
    return _one_hot(_similarity(features.image_BHD, features.text_BMD))


@torch.no_grad()
def soft(features: Features) -> Tensor:
    """(B, M, H)."""
    return (features.scale * _similarity(features.image_BHD, features.text_BMD)).softmax(dim=2)


@torch.no_grad()
def balanced(features: Features) -> Tensor:
    """(B, M, H), one-hot, of branches used alike by the captions of all ranks."""
    similarity_NMH = _similarity(features.image_NHD, features.text_NMD)
    price_H = branch_prices(similarity_NMH.flatten(0, 1), features.mask_NM.flatten())
    return _one_hot(features.own(similarity_NMH) - price_H)


def branch_prices(similarity_KH: Tensor, present_K: Tensor) -> Tensor:
    """What to take off each branch's similarities (H,) so that captions, each choosing its best, use all alike.

    The dual of optimal transport from K captions to H branches of equal capacity, by Sinkhorn's iteration (Cuturi
    2013): a caption's choices are softened, and each branch's price is set so that its share of them is 1 / H.
    """
    H = similarity_KH.shape[1]
    centred_KH = similarity_KH - similarity_KH.mean(dim=1, keepdim=True)
    spread = (centred_KH.square() * present_K[:, None]).sum().div(present_K.sum().clamp(min=1) * H).sqrt()
    temperature = (SINKHORN_TEMPERATURE * spread).clamp(min=torch.finfo(spread.dtype).tiny)
    log_present_K1 = present_K.to(spread.dtype).log().clamp(min=ABSENT)[:, None]
    price_H = similarity_KH.new_zeros(H)
    for _ in range(SINKHORN_ROUNDS):
        log_share_KH = ((centred_KH - price_H) / temperature).log_softmax(dim=1) + log_present_K1
        price_H = price_H + temperature * log_share_KH.logsumexp(dim=0)
        price_H = price_H - price_H.mean()
    return price_H


def _similarity(image_BHD: Tensor, text_BMD: Tensor) -> Tensor:
    return torch.einsum("bhd,bmd->bmh", image_BHD, text_BMD)


def _one_hot(score_XH: Tensor) -> Tensor:
    return F.one_hot(score_XH.argmax(dim=-1), score_XH.shape[-1]).to(score_XH.dtype)
