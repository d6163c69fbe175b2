"""Free matching, hard: each caption chooses the branch that is most like it."""

from training.losses.features import Features
from training.losses.free_matching import MATCHINGS, by_choice
from training.losses.term import TermLoss


def free_matching(features: Features) -> TermLoss:
    """Captions against what they chose."""
    return by_choice(features, MATCHINGS["free_matching"])
