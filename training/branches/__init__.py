"""Image towers with H branches on an open_clip ViT: one file per kind of branch.

    cls     H class tokens from the first block on (PAPER 1.2a)
    mlp     a second MLP layer per branch in the last blocks (PAPER 1.2b)
    query   one class token, which goes on as H queries in the last blocks (PAPER 5, idea 6)

A single branch has nothing to be told apart from: whatever the kind, it is plain CLIP.
"""

from torch import nn

from training.branches.class_tokens import ClassTokens
from training.branches.mlps import BranchMLPs
from training.branches.queries import BranchQueries
from training.branches.vit import BranchedViT
from training.config import BranchOptions

__all__ = ["BranchMLPs", "BranchQueries", "BranchedViT", "ClassTokens", "branched"]


def branched(vit: nn.Module, branches: int, options: BranchOptions) -> BranchedViT:
    """The image tower of an open_clip model with `branches` branches; takes over the tower's modules.

    Raises ConfigError where the tower is not open_clip's own ViT, or has fewer blocks than are to branch.
    """
    if options.kind == "cls" or branches == 1:
        return ClassTokens(vit, branches, options.projection, options.isolation)
    kind = BranchMLPs if options.kind == "mlp" else BranchQueries
    return kind(vit, branches, options.projection, options.blocks)
