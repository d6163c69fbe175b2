"""M2M by slot: branch m against the captions of slot m (PAPER 1.3 a)."""

from pipeline.errors import ConfigError
from training.losses.contrast import by_slot
from training.losses.features import Features
from training.losses.term import TermLoss, over_captions


def m2m(features: Features) -> TermLoss:
    """Every branch learns its own kind of caption. Raises ConfigError where branches and slots differ in number."""
    if features.branches != features.slots:
        raise ConfigError(
            f"train.losses: m2m pairs branches with slots, but there are {features.branches} branches and "
            f"{features.slots} slots; use free_matching, or as many branches as slots"
        )
    return over_captions(features, by_slot(features, features.image_BHD, features.image_NHD))
