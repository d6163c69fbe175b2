"""How much alike the branches of an image are."""

import torch
from torch import Tensor

from training.losses.features import Features


def branch_cosines(features: Features) -> Tensor:
    """Cosine between each two branches (H, H), mean over all ranks' images that have a caption."""
    with_caption_N = features.mask_NM.any(dim=1).to(features.image_NHD.dtype)
    cosine_HH = torch.einsum("nhd,nkd,n->hk", features.image_NHD, features.image_NHD, with_caption_N)
    return cosine_HH / with_caption_N.sum().clamp(min=1)


def mean_off_diagonal(square_HH: Tensor) -> Tensor:
    """Mean of what is not on the diagonal."""
    H = len(square_HH)
    return (square_HH.sum() - square_HH.diagonal().sum()) / (H * (H - 1))
