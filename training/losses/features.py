"""What every loss term sees: this rank's embeddings as rows, all ranks' embeddings as columns.

The embeddings are gathered once per step, in one collective, and shared by all terms. A term computes the loss of its
own rows against all columns, weighted so that the *mean over ranks* is the loss of the whole batch: DDP averages
gradients over ranks, so values and gradients equal those of one process that holds everything.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Features:
    """Normalised embeddings of B local and N global samples, float32 or wider. Ranks may have unequal shares of them.

    image_BHD, text_BMD: this rank's branches and captions; mask_BM is True where a slot holds a caption. What text_BMD
    holds elsewhere has no influence, but must be numbers.
    image_NHD, text_NMD, mask_NM: the same of all ranks, this rank's rows beginning at `offset`.
    scale: exp(logit_scale).
    conditioned: of texts (X, D), and which of them for each of this rank's images (B, T), the cosines with what they
    find in the image (B, T); where the model has a second score.
    teacher: what the averaged weights make of whole pictures and the same captions, without a gradient, at the scale
    that they are to teach with. views: the student's views in place of branches and slots (`student_views`). Both
    where the recipe distils.
    negative_BND, negative_slot_BN: hard negatives of this rank's images, and the slot in whose softmax each stands, -1
    where there is none; where the recipe has any.
    token_BML, token_loss: the token ids of this rank's captions (the end token where there is none), and of vectors
    (X, D) with the tokens that each is to tell (X, L) the loss (X,); where the model has a token head.
    """

    image_BHD: Tensor
    text_BMD: Tensor
    mask_BM: Tensor
    image_NHD: Tensor
    text_NMD: Tensor
    mask_NM: Tensor
    scale: Tensor
    offset: int = 0
    ranks: int = 1
    conditioned: Callable[[Tensor, Tensor], Tensor] | None = None
    teacher: "Features | None" = None
    views: "Features | None" = None
    negative_BND: Tensor | None = None
    negative_slot_BN: Tensor | None = None
    token_BML: Tensor | None = None
    token_loss: Callable[[Tensor, Tensor], Tensor] | None = None

    @property
    def branches(self) -> int:
        return int(self.image_BHD.shape[1])

    @property
    def slots(self) -> int:
        return int(self.text_BMD.shape[1])

    def of_slots(self, chosen: slice) -> "Features":
        """The same samples with some of their slots."""
        return replace(
            self,
            text_BMD=self.text_BMD[:, chosen],
            mask_BM=self.mask_BM[:, chosen],
            text_NMD=self.text_NMD[:, chosen],
            mask_NM=self.mask_NM[:, chosen],
            token_BML=None if self.token_BML is None else self.token_BML[:, chosen],
            negative_slot_BN=None if self.negative_slot_BN is None else self._slots_within(chosen),
        )

    def _slots_within(self, chosen: slice) -> Tensor:
        """The slots of hard negatives, counted among these slots; -1 where they are of others."""
        assert self.negative_slot_BN is not None
        first, end, _ = chosen.indices(self.slots)
        is_within = (self.negative_slot_BN >= first) & (self.negative_slot_BN < end)
        return (self.negative_slot_BN - first).masked_fill(~is_within, -1)

    def with_negatives(self, negative_BND: Tensor, negative_slot_BN: Tensor | None) -> "Features":
        """With hard negatives, which no other rank needs."""
        return replace(self, negative_BND=at_least_float32(negative_BND), negative_slot_BN=negative_slot_BN)

    def columns_B(self) -> Tensor:
        """Where this rank's samples are among all."""
        return self.offset + torch.arange(len(self.image_BHD), device=self.image_BHD.device)

    def own(self, of_all_N: Tensor) -> Tensor:
        """This rank's rows of something that all ranks' samples have."""
        return of_all_N[self.offset : self.offset + len(self.image_BHD)]


def gather(
    image_BHD: Tensor, text_BMD: Tensor, mask_BM: Tensor, scale: Tensor, shares: Sequence[int] | None = None
) -> Features:
    """Features of this rank, with the other ranks' columns where torch.distributed runs.

    `shares` says how many samples each rank has; without it all have as many.
    """
    image_BHD, text_BMD, scale = at_least_float32(image_BHD), at_least_float32(text_BMD), at_least_float32(scale)
    if not (dist.is_available() and dist.is_initialized()):
        return Features(image_BHD, text_BMD, mask_BM, image_BHD, text_BMD, mask_BM, scale)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    shares = tuple(shares or [len(image_BHD)] * ranks)
    parts = [image_BHD.flatten(1), text_BMD.flatten(1), mask_BM.to(image_BHD.dtype)]
    gathered_NX = _GatherWithGrad.apply(torch.cat(parts, dim=1), shares)
    image_NX, text_NX, mask_NM = gathered_NX.split([part.shape[1] for part in parts], dim=1)
    return Features(
        image_BHD,
        text_BMD,
        mask_BM,
        image_NX.unflatten(1, image_BHD.shape[1:]),
        text_NX.unflatten(1, text_BMD.shape[1:]),
        mask_NM.detach() > 0,
        scale,
        offset=sum(shares[:rank]),
        ranks=ranks,
    )


def at_least_float32(x: Tensor) -> Tensor:
    """The same numbers, wide enough to be compared."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class _GatherWithGrad(torch.autograd.Function):
    """all_gather along the batch whose backward adds up what all ranks say about this rank's rows.

    Collectives want equal sizes of all: smaller shares are sent with empty rows behind.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, shares: tuple[int, ...]) -> Tensor:
        ctx.shares = shares
        rows = _padded(rows, max(shares))
        gathered = [torch.empty_like(rows) for _ in shares]
        dist.all_gather(gathered, rows)
        return torch.cat([part[:share] for part, share in zip(gathered, shares, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        largest = max(ctx.shares)
        of_each_rank = [_padded(part, largest) for part in grad.split(ctx.shares)]
        own = torch.empty_like(of_each_rank[0])
        dist.reduce_scatter(own, of_each_rank)
        return own[: ctx.shares[dist.get_rank()]], None


def _padded(rows: Tensor, count: int) -> Tensor:
    return F.pad(rows, (0, 0, 0, count - len(rows))).contiguous() if len(rows) < count else rows.contiguous()
