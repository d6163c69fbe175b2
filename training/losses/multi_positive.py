"""Multi-positive softmax: all captions compete, an image's own are all right answers.

In the other terms a caption competes with captions of its own slot. Here the captions of all slots are in one softmax,
so that the served vector also learns to tell a long caption of its image from a short one of another, as an index of
mixed texts asks. As in supervised contrastive learning (Khosla et al. 2020, the sum outside the logarithm), each true
caption has a cross entropy of its own: with P true ones the image side cannot fall below log P.
"""

from training.losses.contrast import cross_entropy
from training.losses.features import Features
from training.losses.served import served_vectors
from training.losses.term import TermLoss, over_captions
from training.losses.tiles import log_sum_exp, log_sum_exp_both_ways


def multi_positive(features: Features) -> TermLoss:
    """The served vector against the captions of all slots, and each caption against all images that have any."""
    served_BD, served_ND = served_vectors(features)
    with_caption_1B, with_caption_1N = features.mask_BM.any(dim=1)[None], features.mask_NM.any(dim=1)[None]
    text_1KD, present_1K = features.text_NMD.flatten(0, 1)[None], features.mask_NM.flatten()[None]
    if features.ranks == 1:  # one matrix serves both directions
        i2t_1B, t2i_1K = log_sum_exp_both_ways(served_BD[None], text_1KD, features.scale, with_caption_1B, present_1K)
    else:
        i2t_1B = log_sum_exp(served_BD[None], text_1KD, features.scale, with_caption_1B, present_1K)
        own_1KD, own_1K = features.text_BMD.flatten(0, 1)[None], features.mask_BM.flatten()[None]
        t2i_1K = log_sum_exp(own_1KD, served_ND[None], features.scale, own_1K, with_caption_1N)
    log_sum_BM = (i2t_1B[0][:, None] + t2i_1K.view_as(features.mask_BM)) / 2
    return over_captions(features, cross_entropy(features, served_BD[:, None], log_sum_BM))
