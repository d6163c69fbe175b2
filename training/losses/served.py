"""The served term: O2M on the mean of the branches.

At inference the mean is all that is used (PAPER 1.4), yet without this term training never sees it (PAPER 5, idea 4).
"""

from torch import Tensor
from torch.nn import functional as F

from training.losses.contrast import by_slot
from training.losses.features import Features
from training.losses.term import TermLoss, over_captions
from training.losses.tiles import Matrix


def served(features: Features) -> TermLoss:
    """The served vector against every caption, each slot a contrast of its own."""
    served_BD, served_ND = served_vectors(features)
    image_BMD = served_BD[:, None].expand(-1, features.slots, -1)
    image_NMD = served_ND[:, None].expand(-1, features.slots, -1)
    return over_captions(features, by_slot(features, image_BMD, image_NMD))


def served_vectors(features: Features) -> tuple[Tensor, Tensor]:
    """The renormalised mean of the branches, of this rank's images (B, D) and of all ranks' (N, D)."""
    served_BD = F.normalize(features.image_BHD.mean(dim=1), dim=-1)
    if features.ranks == 1:
        return served_BD, served_BD
    return served_BD, F.normalize(features.image_NHD.mean(dim=1), dim=-1)


def captions_by_images(features: Features, image_ND: Tensor) -> Matrix:
    """This rank's captions of all slots in a row, K = B · M, against one vector of each image that has any caption."""
    return Matrix(
        features.text_BMD.flatten(0, 1)[None],
        image_ND[None],
        features.scale,
        features.mask_BM.flatten()[None],
        features.mask_NM.any(dim=1)[None],
        features.columns_B().repeat_interleave(features.slots),
    )
