"""The released MLP mechanism, written from its description (PAPER 1.2b), as the reference for cost and outputs.

Sequences first, (L, B, W). In the last blocks everything is shared but the second MLP layer, which is a list of H
linear layers called in a loop. The first such block makes H streams of one, for all tokens; in the later ones each
(image, branch) is a sequence of its own, and every token of it passes every block whole. At the end one class token is
kept of each sequence.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.branches import BranchMLPs
from training.branches.mlps import BranchLinear


class ReleasedMLPs(nn.Module):
    """Takes over the weights of a `BranchMLPs` tower, so the two must give the same branches (B, H, D)."""

    def __init__(self, tower: BranchMLPs) -> None:
        super().__init__()
        self.tower = tower
        self.branches, self.branched_blocks = tower.branches, tower.branched_blocks
        self.last_layers = nn.ModuleList(
            nn.ModuleList(_linear(block.mlp.c_proj, h) for h in range(self.branches))
            for block in tower.blocks[-self.branched_blocks :]
        )
        for block in tower.blocks:
            block.attn.batch_first = False

    def forward(self, image_BCSS: Tensor) -> Tensor:
        tower = self.tower
        x_LBW = tower.ln_pre(self._embed(image_BCSS)).permute(1, 0, 2)
        first = len(tower.blocks) - self.branched_blocks
        for index, block in enumerate(tower.blocks):
            y_LBW = block.ln_1(x_LBW)
            x_LBW = x_LBW + block.attn(y_LBW, y_LBW, y_LBW, need_weights=False)[0]
            hidden_LBF = block.mlp.gelu(block.mlp.c_fc(block.ln_2(x_LBW)))
            if index < first:
                x_LBW = x_LBW + block.mlp.c_proj(hidden_LBF)
            else:
                x_LBW = self._branch(self.last_layers[index - first], x_LBW, hidden_LBF, shared=index == first)
        class_XW = tower.ln_post(x_LBW.permute(1, 0, 2))[:, 0]
        return (class_XW @ tower.proj).view(len(image_BCSS), self.branches, -1)

    def _embed(self, image_BCSS: Tensor) -> Tensor:
        patch_BNW = self.tower.conv1(image_BCSS).flatten(2).transpose(1, 2)
        class_B1W = self.tower.class_embedding.expand(len(patch_BNW), 1, -1)
        return torch.cat([class_B1W, patch_BNW], dim=1) + self.tower.positional_embedding

    def _branch(self, layers: nn.ModuleList, x_LBW: Tensor, hidden_LBF: Tensor, *, shared: bool) -> Tensor:
        """The MLP's residual for every branch: (L, B · H, W), branch fastest."""
        if shared:
            x_LBHW = torch.stack([x_LBW + layer(hidden_LBF) for layer in layers], dim=2)
        else:
            streams = zip(
                layers,
                x_LBW.unflatten(1, (-1, self.branches)).unbind(2),
                hidden_LBF.unflatten(1, (-1, self.branches)).unbind(2),
                strict=True,
            )
            x_LBHW = torch.stack([x_LBW + layer(hidden_LBF) for layer, x_LBW, hidden_LBF in streams], dim=2)
        return x_LBHW.flatten(1, 2)


def _linear(grouped: BranchLinear, branch: int) -> nn.Linear:
    outs, ins = grouped.weight.shape[1:]
    layer = nn.Linear(ins, outs)
    layer.weight.data.copy_(grouped.weight.data[branch])
    layer.bias.data.copy_(grouped.bias.data[branch])
    return layer
