"""What every loss term sees: this rank's embeddings as rows, all ranks' embeddings as columns.

The embeddings are gathered once per step, in one collective, and shared by all terms. A term computes the loss of its
own rows against all columns, weighted so that the *mean over ranks* is the loss of the whole batch: DDP averages
gradients over ranks, so values and gradients equal those of one process that holds everything.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """Normalised embeddings of B local and N = B · ranks global samples, float32 or wider.

    image_BHD, text_BMD: this rank's branches and captions; mask_BM is True where a slot holds a caption.
    image_NHD, text_NMD, mask_NM: the same of all ranks, this rank's rows beginning at `offset`.
    scale: exp(logit_scale).
    """

    image_BHD: Tensor
    text_BMD: Tensor
    mask_BM: Tensor
    image_NHD: Tensor
    text_NMD: Tensor
    mask_NM: Tensor
    scale: Tensor
    offset: int = 0

    @property
    def ranks(self) -> int:
        return len(self.image_NHD) // len(self.image_BHD)

    def labels_B(self) -> Tensor:
        """The column of each local row's own sample."""
        return self.offset + torch.arange(len(self.image_BHD), device=self.image_BHD.device)


def gather(image_BHD: Tensor, text_BMD: Tensor, mask_BM: Tensor, scale: Tensor) -> Features:
    """Features of this rank, with the other ranks' columns where torch.distributed runs. B is equal on all ranks."""
    image_BHD, text_BMD, scale = _at_least_float32(image_BHD), _at_least_float32(text_BMD), _at_least_float32(scale)
    if not (dist.is_available() and dist.is_initialized()):
        return Features(image_BHD, text_BMD, mask_BM, image_BHD, text_BMD, mask_BM, scale)
    H = image_BHD.shape[1]
    both_NXD = _GatherWithGrad.apply(torch.cat([image_BHD, text_BMD], dim=1))
    masks = [torch.empty_like(mask_BM) for _ in range(dist.get_world_size())]
    dist.all_gather(masks, mask_BM.contiguous())
    offset = dist.get_rank() * len(image_BHD)
    return Features(
        image_BHD, text_BMD, mask_BM, both_NXD[:, :H], both_NXD[:, H:], torch.cat(masks), scale, offset=offset
    )


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class _GatherWithGrad(torch.autograd.Function):
    """all_gather along the batch whose backward adds up what all ranks say about this rank's rows."""

    @staticmethod
    def forward(_ctx: torch.autograd.function.FunctionCtx, rows: Tensor) -> Tensor:
        gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(_ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad.chunk(dist.get_world_size())[dist.get_rank()]
