"""O2M: one vector against all captions of its image, the average of M CLIP losses (PAPER 2, baselines)."""

from torch import Tensor

from pipeline.errors import ConfigError
from training.losses.contrast import by_slot
from training.losses.features import Features
from training.losses.term import TermLoss, over_captions


def o2m(features: Features) -> TermLoss:
    """The one branch against every caption, each slot a contrast of its own."""
    return over_captions(features, of_single_branch(features, "o2m"))


def of_single_branch(features: Features, term: str) -> Tensor:
    """Loss of each caption, (B, M). Raises ConfigError where the model has several branches."""
    if features.branches != 1:
        raise ConfigError(
            f"train.losses: {term} needs one branch, but the model has {features.branches}; "
            "set train.branches to 1, or use m2m, free_matching or served"
        )
    image_BMD = features.image_BHD.expand(-1, features.slots, -1)
    image_NMD = features.image_NHD.expand(-1, features.slots, -1)
    return by_slot(features, image_BMD, image_NMD)
