"""Terms in which one vector stands for an image: O2O, O2M, and the served mean.

O2O is plain CLIP: one vector, one caption. O2M gives one vector all captions, which is the average of M CLIP losses
(PAPER 2, baselines). The served term is O2M on the mean of the branches: at inference the mean is all that is used,
yet without this term training never sees it.
"""

from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import ConfigError
from training.losses.contrast import image_to_text, mean_over_captions, text_to_image
from training.losses.features import Features


def o2o(features: Features) -> Tensor:
    """One branch against one caption: the first slot that is filled, whichever it is."""
    _require_one_branch(features, "o2o")
    return o2m(_first_caption_only(features))


def o2m(features: Features) -> Tensor:
    """One branch against every caption, each slot a contrast of its own."""
    _require_one_branch(features, "o2m")
    return _against_every_slot(features, features.image_BHD[:, 0], features.image_NHD[:, 0])


def served(features: Features) -> Tensor:
    """The renormalised mean of the branches against every caption: trains what is served."""
    mean_BD = F.normalize(features.image_BHD.mean(dim=1), dim=-1)
    mean_ND = F.normalize(features.image_NHD.mean(dim=1), dim=-1)
    return _against_every_slot(features, mean_BD, mean_ND)


def _against_every_slot(features: Features, image_BD: Tensor, image_ND: Tensor) -> Tensor:
    slots = features.text_BMD.shape[1]
    i2t_BM = image_to_text(features, image_BD[:, None].expand(-1, slots, -1))
    t2i_BM = text_to_image(features, image_ND[:, None].expand(-1, slots, -1))
    return mean_over_captions(features, (i2t_BM + t2i_BM) / 2)


def _first_caption_only(features: Features) -> Features:
    """The same samples with a single slot, which holds each sample's first caption."""

    def first(text_XMD: Tensor, mask_XM: Tensor) -> tuple[Tensor, Tensor]:
        slot_X11 = mask_XM.int().argmax(dim=1)[:, None, None]
        text_X1D = text_XMD.gather(1, slot_X11.expand(-1, 1, text_XMD.shape[2]))
        return text_X1D, mask_XM.any(dim=1, keepdim=True)

    text_B1D, mask_B1 = first(features.text_BMD, features.mask_BM)
    text_N1D, mask_N1 = first(features.text_NMD, features.mask_NM)
    return Features(
        features.image_BHD,
        text_B1D,
        mask_B1,
        features.image_NHD,
        text_N1D,
        mask_N1,
        features.scale,
        features.offset,
    )


def _require_one_branch(features: Features, term: str) -> None:
    branches = features.image_BHD.shape[1]
    if branches != 1:
        raise ConfigError(
            f"train.losses: {term} needs one branch, but the model has {branches}; "
            "set train.branches to 1, or use m2m, free_matching or served"
        )
