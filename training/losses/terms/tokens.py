"""Tokens: an image's vectors tell which tokens its captions hold (SuperCLIP, arXiv 2512.14480).

The targets are bags: the tokens of a caption, each once, weighted by how rare they are (`training.token_head`). A
branch is to tell the tokens of its own slot's caption, the served vector those of all captions of the image.
"""

from torch import Tensor

from pipeline.errors import ConfigError
from training.losses.features import Features
from training.losses.served_vectors import served_vectors
from training.losses.term import TermLoss, over_captions


def tokens(features: Features) -> TermLoss:
    """The mean over images for the served vector; of several branches the mean of that and of theirs over captions."""
    if features.token_loss is None or features.token_BML is None:
        raise ConfigError("train.losses: tokens needs a model with a token head, which the trainer makes")
    served_BD, _ = served_vectors(features)
    loss_B = features.token_loss(served_BD, features.token_BML.flatten(1))
    images = features.mask_NM.any(dim=1).sum().clamp(min=1)
    of_served = loss_B.sum() * features.ranks / images
    if features.branches == 1:
        return TermLoss(of_served)
    of_branches = _of_branches(features)
    is_whole = features.branches >= features.slots
    return TermLoss((of_served + of_branches.mean) / 2, of_branches.slot_M if is_whole else None)


def _of_branches(features: Features) -> TermLoss:
    """Every branch that bears a slot's name, against the caption in that slot."""
    named = features.of_slots(slice(min(features.branches, features.slots)))
    assert features.token_loss is not None
    assert named.token_BML is not None
    branch_XD = features.image_BHD[:, : named.slots].flatten(0, 1)
    loss_X: Tensor = features.token_loss(branch_XD, named.token_BML.flatten(0, 1))
    return over_captions(named, loss_X.view(-1, named.slots))
