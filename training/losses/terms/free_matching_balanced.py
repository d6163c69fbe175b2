"""Free matching, balanced: captions choose, and every branch is chosen about equally often."""

from training.losses.features import Features
from training.losses.free_matching import MATCHINGS, by_choice
from training.losses.term import TermLoss


def free_matching_balanced(features: Features) -> TermLoss:
    """Captions against what they chose."""
    return by_choice(features, MATCHINGS["free_matching_balanced"])
