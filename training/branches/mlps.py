"""Branches as MLPs: the last blocks have a second MLP layer per branch (PAPER 1.2b).

Attention, norms and the MLP's first layer are shared. Up to the first branched block there is one sequence an image;
its MLP's second layer turns it into H, one a branch, which never meet again. The layers of all branches are one
grouped product, and the last block is computed for the class token alone, which is what most of the saving over the
released code comes from: there it was computed for all tokens of all branches.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.branches.blocks import attend, attend_rows, feed_forward, plain_block, row_sources
from training.branches.vit import BranchedViT
from training.config import Projection


class BranchLinear(nn.Module):
    """A linear layer per branch. In (G, B, L, F) with G=H, or G=1 for an input that all share; out (H, B, L, W)."""

    def __init__(self, layer: nn.Linear, branches: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(branches, layer.out_features, layer.in_features))
        self.bias = nn.Parameter(torch.empty(branches, layer.out_features))
        for weight_WF, bias_W in zip(self.weight, self.bias, strict=True):
            fresh = nn.Linear(layer.in_features, layer.out_features)  # each its own draw, as in the released code
            weight_WF.data.copy_(fresh.weight.data)
            bias_W.data.copy_(fresh.bias.data)

    def forward(self, x_GBLF: Tensor) -> Tensor:
        if len(x_GBLF) == 1:
            out_BLX = F.linear(x_GBLF[0], self.weight.flatten(0, 1), self.bias.flatten())
            return out_BLX.unflatten(-1, self.bias.shape).movedim(-2, 0)
        dtype = x_GBLF.dtype  # autocast's, where it is on: it does not reach into backward
        out_HNW = _Grouped.apply(x_GBLF.flatten(1, 2), self.weight.to(dtype), self.bias.to(dtype))
        return out_HNW.unflatten(1, x_GBLF.shape[1:3])


class _Grouped(torch.autograd.Function):
    """Rows (H, N, F), each branch's through its own layer: (H, N, W).

    Autograd's own backward makes the weights' gradient transposed, and bringing it into their layout costs a quarter
    of all three products at 197 rows and twice as much as they do at one. This one makes it where it belongs.
    """

    @staticmethod
    def forward(ctx: Any, x_HNF: Tensor, weight_HWF: Tensor, bias_HW: Tensor) -> Tensor:
        ctx.save_for_backward(x_HNF, weight_HWF)
        return torch.baddbmm(bias_HW[:, None], x_HNF, weight_HWF.mT)

    @staticmethod
    def backward(ctx: Any, grad_HNW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x_HNF, weight_HWF = ctx.saved_tensors
        return grad_HNW @ weight_HWF, grad_HNW.mT @ x_HNF, grad_HNW.sum(dim=1)


class BranchMLPs(BranchedViT):
    """One class token; in the last `blocks` blocks each branch has its own second MLP layer."""

    def __init__(self, vit: nn.Module, branches: int, projection: Projection, blocks: int) -> None:
        super().__init__(vit, branches, projection)
        self.check_depth(blocks)
        self.class_embedding = self.new_class_tokens(1)
        self.branched_blocks = blocks
        first = len(self.blocks) - blocks
        for block in self.blocks[first:]:
            block.mlp.c_proj = BranchLinear(block.mlp.c_proj, branches)
        layers = [f"transformer.resblocks.{index}.mlp.c_proj" for index in range(first, len(self.blocks))]
        self.noised_parameters = tuple(f"{layer}.weight" for layer in layers)
        self.branch_parameters += (*self.noised_parameters, *(f"{layer}.bias" for layer in layers))

    def up_to_last(self, image_BCSS: Tensor) -> Tensor:
        """(G, B, L, W), where G is H, or 1 if the last block is the first that branches."""
        x_BLW = self.embed(image_BCSS, self.class_embedding)
        x_BLW = self.through(plain_block, self.blocks[: -self.branched_blocks], x_BLW)
        return self.through(self._block, self.blocks[-self.branched_blocks : -1], x_BLW[None])

    def class_rows(self, x_GBLW: Tensor) -> Tensor:
        block = self.blocks[-1]
        x_XW = attend_rows(block, x_GBLW.flatten(0, 1), rows=1)
        return feed_forward(block, x_XW.unflatten(0, x_GBLW.shape[:2]))[:, :, 0].movedim(0, 1)

    def all_rows(self, x_GBLW: Tensor) -> tuple[Tensor, Tensor]:
        """Patch rows are the mean over the branches' own."""
        x_HBLW = self._block(self.blocks[-1], x_GBLW)
        return x_HBLW[:, :, 0].movedim(0, 1), x_HBLW[:, :, 1:].mean(dim=0)

    def patch_rows(self, x_GBLW: Tensor) -> Tensor:
        """Each branch's own."""
        return self._block(self.blocks[-1], x_GBLW)[:, :, 1:]

    def patch_sources(self, x_GBLW: Tensor) -> Tensor:
        given_X1LW = row_sources(self.blocks[-1], x_GBLW.flatten(0, 1), rows=1)
        given_GBLW = given_X1LW[:, 0].unflatten(0, x_GBLW.shape[:2])
        return given_GBLW.expand(self.branches, -1, -1, -1).movedim(0, 1)[:, :, 1:]

    @staticmethod
    def _block(block: nn.Module, x_GBLW: Tensor) -> Tensor:
        return feed_forward(block, attend(block, x_GBLW.flatten(0, 1)).unflatten(0, x_GBLW.shape[:2]))
