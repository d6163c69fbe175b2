"""Every caption against the branch of each image that fits it best: what is asked of an index that keeps all branches.

The best is soft, a log-sum-exp over branches at the model's own scale, so that all of them learn. An image's score for
a text is then as the readout `max` has it: no branch of an image may be near a text of another image. Scores by the
best of several vectors are those of late interaction (ColBERT), here with one vector on the side of the text. There
are H times as many logits as in `m2m`.
"""

import torch
from torch import Tensor

from training.losses.contrast import with_negatives
from training.losses.features import Features
from training.losses.term import TermLoss, over_captions
from training.losses.tiles import Matrix, log_sum_exp, log_sum_exp_both_ways


def best_branch(features: Features) -> TermLoss:
    """Each slot a contrast of its own, in both directions. E are the branches of all images in a row, N · H."""
    by_text = Matrix(
        features.text_BMD.transpose(0, 1),
        _in_every_slot(features.image_NHD, features.slots),
        features.scale,
        features.mask_BM.T,
        features.mask_NM.T.repeat_interleave(features.branches, dim=1),
        features.columns_B() * features.branches,
    )
    if features.ranks == 1:  # one matrix serves both directions
        t2i_MB, i2t_ME, _ = log_sum_exp_both_ways(by_text)
    else:
        (t2i_MB, _), i2t_ME = log_sum_exp(by_text), _of_each_branch(features)
    i2t_MB = _over_branches(features, i2t_ME)
    own_BMH = features.scale * torch.einsum("bmd,bhd->bmh", features.text_BMD, features.image_BHD)
    loss_BM = (t2i_MB + i2t_MB).T / 2 - own_BMH.logsumexp(dim=2)
    return over_captions(features, loss_BM.masked_fill(~features.mask_BM, 0.0))


def _of_each_branch(features: Features) -> Tensor:
    """Log-sum-exp of each branch of this rank's images over all ranks' captions of a slot: (M, B · H)."""
    by_branch = Matrix(
        _in_every_slot(features.image_BHD, features.slots),
        features.text_NMD.transpose(0, 1),
        features.scale,
        features.mask_BM.T.repeat_interleave(features.branches, dim=1),
        features.mask_NM.T,
        features.columns_B().repeat_interleave(features.branches),
    )
    return log_sum_exp(by_branch)[0]


def _in_every_slot(image_XHD: Tensor, slots: int) -> Tensor:
    return image_XHD.flatten(0, 1).expand(slots, -1, -1)


def _over_branches(features: Features, i2t_ME: Tensor) -> Tensor:
    """The log-sum-exp over captions and branches, (M, B); hard negatives meet all branches of their image."""
    with_their_negatives = [
        with_negatives(features, features.image_BHD[:, h, None].expand(-1, features.slots, -1), i2t_MB)
        for h, i2t_MB in enumerate(i2t_ME.unflatten(1, (-1, features.branches)).unbind(dim=2))
    ]
    return torch.stack(with_their_negatives, dim=2).logsumexp(dim=2)
