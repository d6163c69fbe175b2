"""Branch diversity: branches of an image may not all say the same (the released code's active term, PAPER 1.3 d)."""

from pipeline.errors import ConfigError
from training.losses.branch_cosines import branch_cosines, mean_off_diagonal
from training.losses.features import Features
from training.losses.term import TermLoss

MAX_COSINE = 0.7  # of the released code


def diversity(features: Features) -> TermLoss:
    """How far the mean cosine between branches is above 0.7, zero below."""
    if features.branches == 1:
        raise ConfigError("train.losses: diversity compares branches, but the model has one; leave it out")
    return TermLoss((mean_off_diagonal(branch_cosines(features)) - MAX_COSINE).clamp(min=0.0))
