"""Several captions of an image as one vector, and the views of the student as features (the term `distillation`)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.features import Features, at_least_float32, gather
from training.losses.served_vectors import served_vectors


def mean_captions(text_XMD: Tensor, part_XVM: Tensor) -> Tensor:
    """The renormalised mean of each part of an image's captions, (X, V, D); zero for a part that is empty."""
    return F.normalize(part_XVM.to(text_XMD.dtype) @ text_XMD, dim=-1)


def student_views(
    features: Features, crops: Sequence[Tensor], part_BVM: Tensor, shares: Sequence[int] | None = None
) -> Features:
    """Features whose branches and slots are views: its served vector, and the mean of the captions it holds.

    crops: the branches (B, H, D) of each view's smaller crop; without any the one view is of the step's own crop.
    """
    served = [F.normalize(at_least_float32(crop_BHD).mean(dim=1), dim=-1) for crop_BHD in crops]
    image_BVD = torch.stack(served or [served_vectors(features)[0]], dim=1)
    part_BVM = part_BVM & features.mask_BM[:, None]
    text_BVD = mean_captions(features.text_BMD, part_BVM)
    return gather(image_BVD, text_BVD, part_BVM.any(dim=2), features.scale, shares)
