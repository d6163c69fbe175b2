"""O2O, plain CLIP: one vector against one caption (PAPER 2, baselines)."""

from dataclasses import replace

from torch import Tensor

from training.losses.features import Features
from training.losses.term import TermLoss, mean_over_captions
from training.losses.terms.o2m import of_single_branch


def o2o(features: Features) -> TermLoss:
    """The one branch against each sample's first caption, whichever slot it fills."""
    first = _first_caption_only(features)
    return TermLoss(mean_over_captions(first, of_single_branch(first, "o2o")))


def _first_caption_only(features: Features) -> Features:
    """The same samples with a single slot, which holds each sample's first caption."""

    def first(text_XMD: Tensor, mask_XM: Tensor) -> tuple[Tensor, Tensor]:
        slot_X11 = mask_XM.int().argmax(dim=1)[:, None, None]
        text_X1D = text_XMD.gather(1, slot_X11.expand(-1, 1, text_XMD.shape[2]))
        return text_X1D, mask_XM.any(dim=1, keepdim=True)

    text_B1D, mask_B1 = first(features.text_BMD, features.mask_BM)
    text_N1D, mask_N1 = first(features.text_NMD, features.mask_NM)
    negative_slot_BN = features.negative_slot_BN
    if negative_slot_BN is not None:
        is_of_first = negative_slot_BN == features.mask_BM.int().argmax(dim=1, keepdim=True)
        negative_slot_BN = is_of_first.to(negative_slot_BN.dtype) - 1
    chosen = {"text_BMD": text_B1D, "mask_BM": mask_B1, "text_NMD": text_N1D, "mask_NM": mask_N1}
    return replace(features, negative_slot_BN=negative_slot_BN, **chosen)
