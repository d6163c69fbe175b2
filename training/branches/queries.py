"""Branches as queries: in the last blocks the class token goes on as H queries, each with a learned vector of its own.

A query reads the patches with the block's own weights and sees neither the other queries nor the class token it comes
from; nothing sees a query. So patches and class token stay what they are in plain CLIP, a branch depends on no other,
and a pretrained CLIP is an exact start: with all vectors zero every branch is CLIP's image vector. The first blocks
are computed once, and the last for the queries alone, so it is the cheapest kind.
"""

import torch
from torch import Tensor, nn

from training.branches.blocks import attend_rows, attend_split, feed_forward, plain_block, row_sources
from training.branches.vit import BranchedViT
from training.config import Projection


class BranchQueries(BranchedViT):
    """Tokens in the last `blocks` blocks: H queries, the class token, the patches."""

    def __init__(self, vit: nn.Module, branches: int, projection: Projection, blocks: int) -> None:
        super().__init__(vit, branches, projection)
        self.check_depth(blocks)
        self.class_embedding = self.new_class_tokens(1)
        self.branch_queries = self.new_class_tokens(branches)
        self.branch_parameters += ("branch_queries",)
        self.noised_parameters = ("branch_queries",)
        self.branched_blocks = blocks
        patches = self.grid_size[0] * self.grid_size[1]
        self.register_buffer("query_mask_HL", query_mask(branches, patches), persistent=False)

    def up_to_last(self, image_BCSS: Tensor) -> Tensor:
        x_BLW = self.embed(image_BCSS, self.class_embedding)
        x_BLW = self.through(plain_block, self.blocks[: -self.branched_blocks], x_BLW)
        x_BLW = torch.cat([x_BLW[:, :1] + self.branch_queries.to(x_BLW.dtype), x_BLW], dim=1)
        return self.through(self._block, self.blocks[-self.branched_blocks : -1], x_BLW)

    def class_rows(self, x_BLW: Tensor) -> Tensor:
        block = self.blocks[-1]
        return feed_forward(block, attend_rows(block, x_BLW, self.branches, self.query_mask_HL))

    def all_rows(self, x_BLW: Tensor) -> tuple[Tensor, Tensor]:
        x_BLW = self._block(self.blocks[-1], x_BLW)
        return x_BLW[:, : self.branches], x_BLW[:, self.branches + 1 :]

    def patch_sources(self, x_BLW: Tensor) -> Tensor:
        return row_sources(self.blocks[-1], x_BLW, self.branches, self.query_mask_HL)[:, :, self.branches + 1 :]

    def _block(self, block: nn.Module, x_BLW: Tensor) -> Tensor:
        x_BLW = attend_split(block, x_BLW, self.query_mask_HL, rest_sees_all=False)
        return feed_forward(block, x_BLW)


def query_mask(branches: int, patches: int) -> Tensor:
    """What is added to the queries' logits (H, H + 1 + patches): each sees itself and the patches."""
    mask_HL = torch.zeros(branches, branches + 1 + patches)
    mask_HL[:, : branches + 1] = float("-inf")
    mask_HL[:, :branches].fill_diagonal_(0.0)
    return mask_HL
