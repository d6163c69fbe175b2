"""Branch diversity: branches of an image may not all say the same (the released code's active term, PAPER 1.3 d)."""

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from training.losses.features import Features
from training.losses.term import TermLoss

MAX_COSINE = 0.7  # of the released code


def diversity(features: Features) -> TermLoss:
    """How far the mean cosine between branches is above 0.7, zero below."""
    if features.branches == 1:
        raise ConfigError("train.losses: diversity compares branches, but the model has one; leave it out")
    return TermLoss((mean_off_diagonal(branch_cosines(features)) - MAX_COSINE).clamp(min=0.0))


def branch_cosines(features: Features) -> Tensor:
    """Cosine between each two branches (H, H), mean over all ranks' images that have a caption."""
    with_caption_N = features.mask_NM.any(dim=1).to(features.image_NHD.dtype)
    cosine_HH = torch.einsum("nhd,nkd,n->hk", features.image_NHD, features.image_NHD, with_caption_N)
    return cosine_HH / with_caption_N.sum().clamp(min=1)


def mean_off_diagonal(square_HH: Tensor) -> Tensor:
    """Mean of what is not on the diagonal."""
    H = len(square_HH)
    return (square_HH.sum() - square_HH.diagonal().sum()) / (H * (H - 1))
