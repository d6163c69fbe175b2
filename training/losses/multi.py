"""Terms that match several branches with several captions: M2M by slot, and free matching.

M2M ties branch m to slot m. Free matching lets each caption of a slot beyond the branches (or every caption, where
there are more branches than slots) choose the branch of its own image that fits it best (PAPER 1.3 b). The choice is
hard and carries no gradient.
"""

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from training.losses.contrast import image_to_text, mean_over_captions, text_to_assigned_image, text_to_image
from training.losses.features import Features


def m2m(features: Features) -> Tensor:
    """Branch m against the captions of slot m (PAPER 1.3 a)."""
    branches, slots = features.image_BHD.shape[1], features.text_BMD.shape[1]
    if branches != slots:
        raise ConfigError(
            f"train.losses: m2m pairs branches with slots, but there are {branches} branches and {slots} slots; "
            "use free_matching, or as many branches as slots"
        )
    i2t_BM = image_to_text(features, features.image_BHD)
    t2i_BM = text_to_image(features, features.image_NHD)
    return mean_over_captions(features, (i2t_BM + t2i_BM) / 2)


def free_matching(features: Features) -> Tensor:
    """Every caption against the branch it is assigned to, of its own image and of all others (PAPER 1.3 b)."""
    branch_BM = assign_hard(features)
    image_BMD = features.image_BHD.gather(1, branch_BM[:, :, None].expand(-1, -1, features.image_BHD.shape[2]))
    i2t_BM = image_to_text(features, image_BMD)
    t2i_BM = text_to_assigned_image(features, branch_BM)
    return mean_over_captions(features, (i2t_BM + t2i_BM) / 2)


@torch.no_grad()
def assign_hard(features: Features) -> Tensor:
    """The branch of each caption, (B, M): slots 0..H-1 keep their own if there are at least H, the rest take the best.

    The best is the branch most similar to the caption on the positive pair alone.
    """
    branches, slots = features.image_BHD.shape[1], features.text_BMD.shape[1]
    branch_BM = torch.einsum("bhd,bmd->bmh", features.image_BHD, features.text_BMD).argmax(dim=2)
    if slots >= branches:
        branch_BM[:, :branches] = torch.arange(branches, device=branch_BM.device)
    return branch_BM
