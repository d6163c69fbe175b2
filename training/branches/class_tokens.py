"""Branches as class tokens: each has its own embedding, and walks through all blocks beside the patches.

Patches, blocks and final norm are shared, so H branches cost little more than H tokens (PAPER 1.2a: 2 % more vision
FLOPs at H=5). What the tokens may see decides how separate the branches stay:

    none    everything sees everything
    tokens  class tokens do not see each other (the paper's intention); they still mix through the patches
    full    patches do not see class tokens either, so a branch's output depends on no other branch at all
    paper   the released code's behaviour: its boolean mask was cast to float and became a +1 bias *towards* the other
            class tokens

The projection into the joint space is one for all branches, as the paper has it, or one a branch. With its own a
branch soon drops what its captions never mention; with a shared one the blocks must learn to tell branches apart
first, which takes far longer than a short run lasts.
"""

import torch
from torch import Tensor, nn

from training.branches.blocks import attend, attend_rows, attend_split, feed_forward, row_sources
from training.branches.vit import BranchedViT
from training.config import Isolation, Projection


class ClassTokens(BranchedViT):
    """H class tokens; with H=1 it computes what open_clip computes."""

    def __init__(self, vit: nn.Module, branches: int, projection: Projection, isolation: Isolation) -> None:
        super().__init__(vit, branches, projection)
        self.class_embedding = self.new_class_tokens(branches)
        self.branch_parameters += ("class_embedding",)
        self.noised_parameters = ("class_embedding",)
        # One branch has nobody to be isolated from: it is plain CLIP whatever the setting.
        self.isolation: Isolation = isolation if branches > 1 else "none"
        patches = self.grid_size[0] * self.grid_size[1]
        self.register_buffer("class_mask_HL", class_mask(branches, patches, self.isolation), persistent=False)

    def up_to_last(self, image_BCSS: Tensor) -> Tensor:
        return self.through(self._block, self.blocks[:-1], self.embed(image_BCSS, self.class_embedding))

    def class_rows(self, x_BLW: Tensor) -> Tensor:
        block = self.blocks[-1]
        return feed_forward(block, attend_rows(block, x_BLW, self.branches, self.class_mask_HL))

    def all_rows(self, x_BLW: Tensor) -> tuple[Tensor, Tensor]:
        x_BLW = self._block(self.blocks[-1], x_BLW)
        return x_BLW[:, : self.branches], x_BLW[:, self.branches :]

    def patch_sources(self, x_BLW: Tensor) -> Tensor:
        return row_sources(self.blocks[-1], x_BLW, self.branches, self.class_mask_HL)[:, :, self.branches :]

    def _block(self, block: nn.Module, x_BLW: Tensor) -> Tensor:
        if self.class_mask_HL is None:
            x_BLW = attend(block, x_BLW)
        else:
            x_BLW = attend_split(block, x_BLW, self.class_mask_HL, rest_sees_all=self.isolation != "full")
        return feed_forward(block, x_BLW)


def class_mask(branches: int, patches: int, isolation: Isolation) -> Tensor | None:
    """What is added to the attention logits of the class rows, (H, H + patches); None where nothing is."""
    if isolation == "none":
        return None
    mask_HL = torch.zeros(branches, branches + patches)
    others = ~torch.eye(branches, dtype=torch.bool)
    mask_HL[:, :branches][others] = 1.0 if isolation == "paper" else float("-inf")
    return mask_HL
