"""The one contrast most terms are made of: captions of a slot against image vectors, in both directions.

For slot m the batch is the set of samples that have a caption in m: a missing caption is neither row nor column, as if
the sample had been left out. Only captions of the same slot are negatives (PAPER 1.3 a), so a sample's other captions,
which are true of its image, are never pushed away.
"""

import torch
from torch import Tensor

from training.losses.features import Features
from training.losses.tiles import Matrix, log_sum_exp, log_sum_exp_both_ways


def by_slot(features: Features, image_BMD: Tensor, image_NMD: Tensor) -> Tensor:
    """Loss of each caption, (B, M): the mean of finding it by its image, and of finding its image by it.

    image_BMD, image_NMD: the vector that stands for each slot, of this rank's and of all ranks' images.
    """
    if features.ranks > 1:
        return (image_to_text(features, image_BMD) + text_to_image(features, features.text_BMD, image_NMD)) / 2
    # Rows and columns are the same samples: one matrix serves both directions.
    i2t_MB, t2i_MB, own_MB = log_sum_exp_both_ways(matrix(features, image_BMD, features.text_NMD))
    i2t_MB = with_negatives(features, image_BMD, i2t_MB)
    return _where_present(features, (i2t_MB + t2i_MB) / 2 - own_MB)


def image_to_text(features: Features, image_BMD: Tensor) -> Tensor:
    """Cross entropy of each caption among its slot's, found by the vector that stands for it in its image: (B, M)."""
    log_sum_MB, own_MB = log_sum_exp(matrix(features, image_BMD, features.text_NMD))
    log_sum_MB = with_negatives(features, image_BMD, log_sum_MB)
    return _where_present(features, log_sum_MB - own_MB)


def with_negatives(features: Features, image_BMD: Tensor, log_sum_MB: Tensor) -> Tensor:
    """Log-sum-exp (M, B) over captions and the image's own hard negatives, each in the softmax of its slot.

    They are columns of this one row: no other image meets them, and nothing is found by them.
    """
    if features.negative_BND is None or features.negative_slot_BN is None:
        return log_sum_MB
    logit_MBN = features.scale * torch.einsum("bmd,bnd->mbn", image_BMD, features.negative_BND)
    slot_M11 = torch.arange(len(log_sum_MB), device=log_sum_MB.device)[:, None, None]
    logit_MBN = logit_MBN.masked_fill(features.negative_slot_BN != slot_M11, -torch.inf)
    return torch.cat([log_sum_MB[:, :, None], logit_MBN], dim=2).logsumexp(dim=2)


def text_to_image(features: Features, query_BMD: Tensor, image_NMD: Tensor) -> Tensor:
    """Cross entropy of each caption's own image among all, found by a query made of the caption: (B, M)."""
    log_sum_MB, own_MB = log_sum_exp(matrix(features, query_BMD, image_NMD))
    return _where_present(features, log_sum_MB - own_MB)


def matrix(features: Features, rows_BMD: Tensor, columns_NMD: Tensor) -> Matrix:
    """Logits of a slot's rows and columns, slot by slot."""
    return Matrix(
        rows_BMD.transpose(0, 1),
        columns_NMD.transpose(0, 1),
        features.scale,
        features.mask_BM.T,
        features.mask_NM.T,
        features.columns_B(),
    )


def _where_present(features: Features, loss_MB: Tensor) -> Tensor:
    return loss_MB.T.masked_fill(~features.mask_BM, 0.0)
