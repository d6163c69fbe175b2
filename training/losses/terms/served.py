"""The served term: O2M on the mean of the branches.

At inference the mean is all that is used (PAPER 1.4), yet without this term training never sees it (PAPER 5, idea 4).
"""

from training.losses.contrast import by_slot
from training.losses.features import Features
from training.losses.served_vectors import served_vectors
from training.losses.term import TermLoss, over_captions


def served(features: Features) -> TermLoss:
    """The served vector against every caption, each slot a contrast of its own."""
    served_BD, served_ND = served_vectors(features)
    image_BMD = served_BD[:, None].expand(-1, features.slots, -1)
    image_NMD = served_ND[:, None].expand(-1, features.slots, -1)
    return over_captions(features, by_slot(features, image_BMD, image_NMD))
