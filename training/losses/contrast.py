"""The one contrast most terms are made of: captions of a slot against image vectors, in both directions.

For slot m the batch is the set of samples that have a caption in m: a missing caption is neither row nor column, as if
the sample had been left out. Only captions of the same slot are negatives (PAPER 1.3 a), so a sample's other captions,
which are true of its image, are never pushed away.

A cross entropy is a log-sum-exp over all columns minus the logit of the right one. The first is a reduction over the
matrix of logits (`tiles`), the second a product of each sample with itself.
"""

from torch import Tensor

from training.losses.features import Features
from training.losses.tiles import log_sum_exp, log_sum_exp_both_ways


def by_slot(features: Features, image_BMD: Tensor, image_NMD: Tensor) -> Tensor:
    """Loss of each caption, (B, M): the mean of finding it by its image, and of finding its image by it.

    image_BMD, image_NMD: the vector that stands for each slot, of this rank's and of all ranks' images.
    """
    present_MB, present_MN = features.mask_BM.T, features.mask_NM.T
    image_MBD, text_MBD = image_BMD.transpose(0, 1), features.text_BMD.transpose(0, 1)
    image_MND, text_MND = image_NMD.transpose(0, 1), features.text_NMD.transpose(0, 1)
    if features.ranks == 1:  # rows and columns are the same samples: one matrix serves both directions
        i2t_MB, t2i_MB = log_sum_exp_both_ways(image_MBD, text_MND, features.scale, present_MB, present_MN)
    else:
        i2t_MB = log_sum_exp(image_MBD, text_MND, features.scale, present_MB, present_MN)
        t2i_MB = log_sum_exp(text_MBD, image_MND, features.scale, present_MB, present_MN)
    return cross_entropy(features, image_BMD, (i2t_MB + t2i_MB).T / 2)


def cross_entropy(features: Features, image_BMD: Tensor, log_sum_BM: Tensor) -> Tensor:
    """Each caption's cross entropy with its own image, (B, M), zero where it is missing."""
    own_BM = features.scale * (image_BMD * features.text_BMD).sum(dim=2)
    return (log_sum_BM - own_BM).masked_fill(~features.mask_BM, 0.0)
