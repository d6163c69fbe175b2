"""The one contrast all terms are made of: captions of a slot against image vectors, in both directions.

For slot m the batch is the set of samples that have a caption in m: a missing caption is neither row nor column, as if
the sample had been left out. Only captions of the same slot are negatives (PAPER 1.3 a), so a sample's other captions,
which are true of its image, are never pushed away.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.features import Features


def image_to_text(features: Features, image_BMD: Tensor) -> Tensor:
    """Loss of each (sample, slot) when its image vector has to find its caption among the slot's: (B, M).

    image_BMD holds the local image vector that stands for each slot.
    """
    logits_MBN = features.scale * torch.einsum("bmd,nmd->mbn", image_BMD, features.text_NMD)
    return _own_column_loss(features, logits_MBN)


def text_to_image(features: Features, image_NMD: Tensor) -> Tensor:
    """Loss of each (sample, slot) when its caption has to find its image: (B, M).

    image_NMD holds the vector that stands for each slot, of all ranks' images.
    """
    logits_MBN = features.scale * torch.einsum("bmd,nmd->mbn", features.text_BMD, image_NMD)
    return _own_column_loss(features, logits_MBN)


def text_to_assigned_image(features: Features, branch_BM: Tensor) -> Tensor:
    """As text_to_image, but each caption looks at the branch assigned to *it*, in every image: (B, M)."""
    rows = torch.arange(len(branch_BM), device=branch_BM.device)
    logits = []
    for m in range(branch_BM.shape[1]):
        of_all_branches_BHN = torch.einsum("bd,nhd->bhn", features.text_BMD[:, m], features.image_NHD)
        logits.append(of_all_branches_BHN[rows, branch_BM[:, m]])
    return _own_column_loss(features, features.scale * torch.stack(logits))


def mean_over_captions(features: Features, loss_BM: Tensor) -> Tensor:
    """Mean over the captions of all ranks, so weighted that the mean over ranks is the global mean.

    A batch without a single caption has loss zero (and gradient zero), not NaN.
    """
    captions = features.mask_NM.sum().clamp(min=1)
    return loss_BM.sum() * features.ranks / captions


def _own_column_loss(features: Features, logits_MBN: Tensor) -> Tensor:
    """Cross entropy of each local row to its own sample's column, zero where the caption is missing: (B, M)."""
    present_MB, present_MN = features.mask_BM.T, features.mask_NM.T
    # Rows of missing captions keep all their columns: a softmax over nothing would be NaN, even where it is not used.
    excluded_MBN = present_MB[:, :, None] & ~present_MN[:, None, :]
    logits_MBN = logits_MBN.masked_fill(excluded_MBN, float("-inf"))
    M, B, N = logits_MBN.shape
    labels = features.labels_B().repeat(M)
    loss_MB = F.cross_entropy(logits_MBN.reshape(M * B, N), labels, reduction="none").reshape(M, B)
    return loss_MB.masked_fill(~present_MB, 0.0).T
