"""Text-conditioned pairs: the score that `training.text_pooling` gives an image and a text, judged pair by pair.

As in FLAIR (PAPER 5, idea 3): an image is paired with all its own captions and with one caption of every other image,
each scored as ⟨v(i|t), t⟩, and a sigmoid says true or false. Patches stay on their rank, since the texts of all ranks
are here anyway. Which caption of the other image it is follows from the pair, and goes round: no random state to keep.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import ConfigError
from training.losses.features import Features
from training.losses.term import TermLoss, over_captions
from training.text_pooling import rows_of


def text_conditioned(features: Features) -> TermLoss:
    """For each caption its own pair, and its image's pairs with a caption of every other image that has any.

    The bias is the log odds of a true pair, as in the sigmoid term.
    """
    if features.conditioned is None:
        raise ConfigError("train.losses: text_conditioned needs a model with a second score; train one from the start")
    own_BM = features.scale * features.conditioned(*rows_of(features.text_BMD))
    which_BN, false_BN = one_of_each_other(features)
    false_logit_BN = features.scale * features.conditioned(features.text_NMD.flatten(0, 1), which_BN)
    bias_B1 = -false_BN.sum(dim=1, keepdim=True).clamp(min=1).log()
    as_false_B1 = F.softplus(false_logit_BN + bias_B1).masked_fill(~false_BN, 0.0).sum(dim=1, keepdim=True)
    loss_BM = F.softplus(-(own_BM + bias_B1)) + as_false_B1
    return over_captions(features, loss_BM.masked_fill(~features.mask_BM, 0.0))


def one_of_each_other(features: Features) -> tuple[Tensor, Tensor]:
    """A caption of every sample for each image (B, N), as its place among all N · M, and which are another image's.

    Image b gets the (b + n)-th of the captions that sample n has, counted round; false where it has none.
    """
    columns_B = features.columns_B()
    samples_N = torch.arange(len(features.mask_NM), device=columns_B.device)
    present_first_NM = (~features.mask_NM).to(torch.int8).argsort(dim=1, stable=True)
    count_N = features.mask_NM.sum(dim=1)
    place_BN = (columns_B[:, None] + samples_N) % count_N.clamp(min=1)
    slot_BN = present_first_NM[samples_N, place_BN]
    which_BN = samples_N * features.slots + slot_BN
    return which_BN, (columns_B[:, None] != samples_N) & (count_N > 0)
