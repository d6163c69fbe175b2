"""What all kinds of branches share: an open_clip ViT taken over under its own names, a read-out, projections.

A tower's output is a few rows of its last block, the class rows, so the last block is computed for them alone: their
queries are carried back through the key matrix, which leaves neither keys nor values of the other tokens to compute
(`training.branches.blocks`). `tokens` computes the last block whole, for those who want the patches.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.errors import ConfigError
from training.config import Projection


class BranchedViT(nn.Module, ABC):
    """Image in (B, 3, S, S), branches out (B, H, D), not normalised.

    `branch_parameters` names the parameters that hold a row per branch; `noised_parameters` those among them that get
    a little noise where two branches start as copies of one, so that they can part.
    """

    branch_parameters: tuple[str, ...] = ()
    noised_parameters: tuple[str, ...] = ()

    def __init__(self, vit: nn.Module, branches: int, projection: Projection) -> None:
        super().__init__()
        _require_plain_vit(vit)
        self.conv1 = vit.conv1
        self.ln_pre = vit.ln_pre
        self.transformer = vit.transformer
        self.ln_post = vit.ln_post
        self.proj = vit.proj if projection == "shared" or branches == 1 else _own_projections(vit.proj, branches)
        self.positional_embedding = vit.positional_embedding  # (1 + patches, W): row 0 is shared by all class tokens
        self.image_size, self.grid_size = vit.image_size, vit.grid_size
        self.branches = branches
        self.makes_again = False  # whether activations of blocks are made again in backward
        self.width: int = vit.class_embedding.shape[0]
        if self.proj.ndim == 3:
            self.branch_parameters = ("proj",)

    @abstractmethod
    def up_to_last(self, image_BCSS: Tensor) -> Tensor:
        """All tokens as the last block gets them, in the kind's own layout."""

    @abstractmethod
    def class_rows(self, x: Tensor) -> Tensor:
        """The last block's class rows (B, H, W), from what `up_to_last` gives."""

    @abstractmethod
    def all_rows(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The last block whole: class rows (B, H, W) and patch rows (B, N, W)."""

    @abstractmethod
    def patch_sources(self, x: Tensor) -> Tensor:
        """What the last block's attention gives each class row from each patch, (B, H, N, W)."""

    def patch_rows(self, x: Tensor) -> Tensor:
        """The last block's patch rows of each branch, (G, B, N, W); G is 1 where all branches have the same."""
        return self.all_rows(x)[1][None]

    def forward(self, image_BCSS: Tensor) -> Tensor:
        return self.project(self.ln_post(self.class_rows(self.up_to_last(image_BCSS))))

    def tokens(self, image_BCSS: Tensor) -> tuple[Tensor, Tensor]:
        """The last layer's normed tokens: class tokens (B, H, W) and patch tokens (B, N, W), both before `proj`."""
        class_BHW, patch_BNW = self.all_rows(self.up_to_last(image_BCSS))
        return self.ln_post(class_BHW), self.ln_post(patch_BNW)

    def patch_maps(self, image_BCSS: Tensor) -> Tensor:
        """Patch tokens in the joint space for each branch, (B, G, rows, columns, D), not normalised.

        G is H where branches have patch rows or projections of their own, else 1.
        """
        patch_GBNW = self.ln_post(self.patch_rows(self.up_to_last(image_BCSS)))
        if self.proj.ndim == 3:
            patch_GBNW = patch_GBNW.expand(self.branches, -1, -1, -1)
            patch_GBND = torch.einsum("gbnw,gwd->gbnd", patch_GBNW, self.proj)
        else:
            patch_GBND = patch_GBNW @ self.proj
        return patch_GBND.movedim(0, 1).unflatten(2, self.grid_size)

    def attended_maps(self, image_BCSS: Tensor) -> Tensor:
        """What each branch's normalised vector is given by each patch in the last block: (B, H, rows, columns, D).

        The direct part alone: through the final norm, as it scales the branch's own row, and the projection. What the
        last MLP makes of it is left out (Gandelsman et al. 2024, section 3.2, take an image's vector apart this way).
        """
        x = self.up_to_last(image_BCSS)
        class_BHW, given_BHNW = self.class_rows(x), self.patch_sources(x)
        deviation_BH = (class_BHW.var(dim=-1, unbiased=False) + self.ln_post.eps).sqrt()
        length_BH = self.project(self.ln_post(class_BHW)).norm(dim=-1)
        centred_BHNW = (given_BHNW - given_BHNW.mean(dim=-1, keepdim=True)) * self.ln_post.weight
        scaled_BHNW = centred_BHNW / (deviation_BH * length_BH)[..., None, None]
        given_BHND = torch.einsum("bhnw,hwd->bhnd", scaled_BHNW, self.proj.expand(self.branches, -1, -1))
        return given_BHND.unflatten(2, self.grid_size)

    def project(self, class_BHW: Tensor) -> Tensor:
        """Branches in the joint space, (B, H, D)."""
        if self.proj.ndim == 2:
            return class_BHW @ self.proj
        return torch.einsum("bhw,hwd->bhd", class_BHW, self.proj)

    def project_patches(self, patch_BNW: Tensor) -> Tensor:
        """Patch tokens in the joint space (B, N, D), where several projections exist by their mean."""
        return patch_BNW @ (self.proj if self.proj.ndim == 2 else self.proj.mean(dim=0))

    def through(self, work: Callable[[nn.Module, Tensor], Tensor], blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
        """Tokens after these blocks, of which only the tokens between them are kept where `makes_again`."""
        for block in blocks:
            again = self.makes_again and torch.is_grad_enabled()
            x = checkpoint(work, block, x, use_reentrant=False) if again else work(block, x)
        return x

    @property
    def blocks(self) -> nn.ModuleList:
        blocks: nn.ModuleList = self.transformer.resblocks
        return blocks

    def embed(self, image_BCSS: Tensor, class_XW: Tensor) -> Tensor:
        """Class tokens (X, W) before the patches, with positions: (B, X + N, W)."""
        patch_BNW = self.conv1(image_BCSS).flatten(2).transpose(1, 2)
        position = self.positional_embedding.to(patch_BNW.dtype)
        class_BXW = (class_XW.to(patch_BNW.dtype) + position[:1]).expand(patch_BNW.shape[0], -1, -1)
        return self.ln_pre(torch.cat([class_BXW, patch_BNW + position[1:]], dim=1))

    def new_class_tokens(self, count: int) -> nn.Parameter:
        """Class tokens (count, W) at open_clip's own scale."""
        return nn.Parameter(self.width**-0.5 * torch.randn(count, self.width))

    def check_depth(self, blocks: int) -> None:
        """Kinds that branch in the last blocks need that many."""
        if blocks > len(self.blocks):
            raise ConfigError(
                f"train.branch_blocks is {blocks}, but the image tower has {len(self.blocks)} blocks; lower it"
            )


def _own_projections(proj_WD: Tensor, branches: int) -> nn.Parameter:
    """A projection for each branch (H, W, D): copies of one.

    They part as each learns from its own captions. Drawn apart, branches would start as vectors whose mean says
    nothing, and a short run does not make up for that (docs/study.md).
    """
    return nn.Parameter(proj_WD.detach().expand(branches, -1, -1).clone())


def _require_plain_vit(vit: nn.Module) -> None:
    """Branches need class tokens in open_clip's own ViT: say which feature stands in the way."""
    obstacle = None
    if not hasattr(vit, "class_embedding"):
        obstacle = f"an image tower of type {type(vit).__name__}"
    elif vit.attn_pool is not None or vit.pool_type != "tok":
        obstacle = f"pooling {vit.pool_type!r}"
    elif not isinstance(vit.patch_dropout, nn.Identity):
        obstacle = "patch dropout"
    elif type(vit.transformer.resblocks[0]) is not ResidualAttentionBlock:  # others have norms and scales of their own
        obstacle = f"blocks of type {type(vit.transformer.resblocks[0]).__name__}"
    if obstacle:
        raise ConfigError(
            f"train.model: found {obstacle}, but branches need open_clip's own ViT with class-token pooling; "
            "choose a ViT-* model such as ViT-B-32 or ViT-B-16"
        )
