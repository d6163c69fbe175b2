"""Multi-positive softmax: all captions compete, an image's own are all right answers.

In the other terms a caption competes with captions of its own slot. Here the captions of all slots are in one softmax,
so that the served vector also learns to tell a long caption of its image from a short one of another, as an index of
mixed texts asks. As in supervised contrastive learning (Khosla et al. 2020, the sum outside the logarithm), each true
caption has a cross entropy of its own: with P true ones the image side cannot fall below log P.
"""

from dataclasses import replace

from torch import Tensor

from training.losses.contrast import with_negatives
from training.losses.features import Features
from training.losses.served_vectors import captions_by_images, served_vectors
from training.losses.term import TermLoss, over_captions
from training.losses.tiles import Matrix, log_sum_exp, log_sum_exp_both_ways


def multi_positive(features: Features) -> TermLoss:
    """The served vector against the captions of all slots, and each caption against all images that have any."""
    served_BD, served_ND = served_vectors(features)
    matrix = captions_by_images(features, served_ND)
    if features.ranks == 1:  # one matrix serves both directions
        t2i_1K, i2t_1B, own_1K = log_sum_exp_both_ways(matrix)
    else:
        t2i_1K, own_1K = log_sum_exp(matrix)
        i2t_1B = _over_all_captions(features, served_BD)
    i2t_1B = with_negatives(_in_one_softmax(features), served_BD[:, None], i2t_1B)
    t2i_BM, own_BM = t2i_1K.view_as(features.mask_BM), own_1K.view_as(features.mask_BM)
    loss_BM = (i2t_1B.T + t2i_BM) / 2 - own_BM
    return over_captions(features, loss_BM.masked_fill(~features.mask_BM, 0.0))


def _in_one_softmax(features: Features) -> Features:
    """The same with the hard negatives of all slots in the only softmax that there is."""
    slot_BN = features.negative_slot_BN
    return features if slot_BN is None else replace(features, negative_slot_BN=slot_BN.clamp(max=0))


def _over_all_captions(features: Features, image_BD: Tensor) -> Tensor:
    """Log-sum-exp of each image's logits with the captions of all ranks: (1, B)."""
    matrix = Matrix(
        image_BD[None],
        features.text_NMD.flatten(0, 1)[None],
        features.scale,
        features.mask_BM.any(dim=1)[None],
        features.mask_NM.flatten()[None],
        features.columns_B() * features.slots,  # the first of its captions, though none is asked for
    )
    return log_sum_exp(matrix)[0]
