"""The vector that is served at inference, the mean of the branches, and what terms on it have in common."""

from torch import Tensor
from torch.nn import functional as F

from training.losses.features import Features
from training.losses.tiles import Matrix


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
