"""Every caption against the branch of each image that fits it best: what is asked of an index that keeps all branches.

The best is soft, a log-sum-exp over branches at the model's own scale, so that all of them learn. An image's score for
a text is then as the readout `max` has it, and no branch may answer for an image that another text is true of. Scores
by the best of several vectors are those of late interaction (ColBERT), here with one vector on the side of the text.
"""

import torch

from training.losses.features import Features
from training.losses.term import TermLoss, over_captions
from training.losses.tiles import Matrix, log_sum_exp


def best_branch(features: Features) -> TermLoss:
    """Each slot a contrast of its own, in both directions."""
    branches, mask_MB, mask_MN = features.branches, features.mask_BM.T, features.mask_NM.T
    own_MBH = features.scale * torch.einsum("bmd,bhd->mbh", features.text_BMD, features.image_BHD)
    column_B = features.columns_B()
    slots = (features.slots, -1, -1)
    by_text = Matrix(
        features.text_BMD.transpose(0, 1),
        features.image_NHD.flatten(0, 1).expand(*slots),
        features.scale,
        mask_MB,
        mask_MN.repeat_interleave(branches, dim=1),
        column_B * branches,
    )
    by_image = Matrix(
        features.image_BHD.flatten(0, 1).expand(*slots),
        features.text_NMD.transpose(0, 1),
        features.scale,
        mask_MB.repeat_interleave(branches, dim=1),
        mask_MN,
        column_B.repeat_interleave(branches),
    )
    t2i_MB, _ = log_sum_exp(by_text)
    i2t_MX, _ = log_sum_exp(by_image)
    i2t_MB = i2t_MX.unflatten(1, (-1, branches)).logsumexp(dim=2)
    loss_MB = (t2i_MB + i2t_MB) / 2 - own_MBH.logsumexp(dim=2)
    return over_captions(features, loss_MB.T.masked_fill(~features.mask_BM, 0.0))
