"""Multi-positive sigmoid: every pair of image and caption is judged by itself (SigLIP, Zhai et al. 2023).

No caption competes with another, so any number of true captions an image is natural, and there is one matrix instead
of one a direction. Almost all pairs are false; a bias keeps the start from being spent on learning that. SigLIP learns
it from -10 on. Here it is the log odds of a true pair, which are known: -10 is those of a batch of 22,000 images.
"""

from training.losses.features import Features
from training.losses.served_vectors import captions_by_images, served_vectors
from training.losses.term import TermLoss, over_captions
from training.losses.tiles import softplus_sum


def sigmoid(features: Features) -> TermLoss:
    """The served vector: for each caption the sum over all images, as SigLIP's loss for each of its pairs."""
    matrix = captions_by_images(features, served_vectors(features)[1])
    images = matrix.present_GN.sum()
    bias = -(images - 1).clamp(min=1).to(features.scale.dtype).log()
    as_if_false_1K, own_1K = softplus_sum(matrix, bias)
    # softplus(-x) = softplus(x) - x: what a true pair costs, from what it would cost as a false one.
    loss_BM = (as_if_false_1K - own_1K - bias).view_as(features.mask_BM)
    return over_captions(features, loss_BM.masked_fill(~features.mask_BM, 0.0))
