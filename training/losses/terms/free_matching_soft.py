"""Free matching, soft: each caption takes a mixture of branches, by likeness."""

from training.losses.features import Features
from training.losses.free_matching import MATCHINGS, by_choice
from training.losses.term import TermLoss


def free_matching_soft(features: Features) -> TermLoss:
    """Captions against what they chose."""
    return by_choice(features, MATCHINGS["free_matching_soft"])
