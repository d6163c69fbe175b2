"""What a loss term gives, and how the losses of captions become one number."""

from dataclasses import dataclass

from torch import Tensor

from training.losses.features import Features


@dataclass(frozen=True)
class TermLoss:
    """A term's value on this rank, of which the mean over ranks is that of the whole batch.

    slot_M: the same by slot, for terms whose captions keep their slots; NaN for a slot without a caption in the batch.
    """

    mean: Tensor
    slot_M: Tensor | None = None


def mean_over_captions(features: Features, loss_BM: Tensor) -> Tensor:
    """Mean over the captions of all ranks, from losses that are zero where a caption is missing.

    A batch without a single caption has loss zero (and gradient zero), not NaN.
    """
    captions = features.mask_NM.sum().clamp(min=1)
    return loss_BM.sum() * features.ranks / captions


def over_captions(features: Features, loss_BM: Tensor) -> TermLoss:
    """Every caption counts the same, whatever its slot."""
    of_slots_M = loss_BM.detach().sum(dim=0) * features.ranks / features.mask_NM.sum(dim=0)
    return TermLoss(mean_over_captions(features, loss_BM), of_slots_M)
