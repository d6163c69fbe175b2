"""An open_clip vision transformer with H class tokens, one per branch.

Every branch is a class token with its own embedding; patches, blocks and final norm are shared, so H branches cost
little more than H tokens (PAPER 1.2a: 2 % more vision FLOPs at H=5). What the tokens may see decides how separate the
branches stay:

    none    everything sees everything
    tokens  class tokens do not see each other (the paper's intention); they still mix through the patches
    full    patches do not see class tokens either, so a branch's output depends on no other branch at all
    paper   the released code's behaviour: its boolean mask was cast to float and became a +1 bias *towards* the other
            class tokens

The projection into the joint space is one for all branches, as the paper has it, or one a branch. With its own a
branch can drop at once what its captions never mention; with a shared one the blocks must learn to tell branches apart
first, which takes far longer than a short run lasts.

Only the H class rows ever need a mask, so attention is split in two calls: patches attend without any mask (the fast
path of scaled_dot_product_attention), class tokens with an (H, L) one. No (L, L) mask exists.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ConfigError
from training.config import Isolation, Projection

# A warm start copies one class token to all branches; this much noise, relative to its own spread, tells them apart.
COPY_NOISE = 0.1


class BranchedViT(nn.Module):
    """Takes over the modules of an open_clip `VisionTransformer` under the same names and adds branches.

    Image in (B, 3, S, S), branches out (B, H, D), not normalised. With H=1 it computes what open_clip computes.
    """

    def __init__(self, vit: nn.Module, branches: int, isolation: Isolation, projection: Projection = "shared") -> None:
        super().__init__()
        _require_plain_vit(vit)
        self.conv1 = vit.conv1
        self.ln_pre = vit.ln_pre
        self.transformer = vit.transformer
        self.ln_post = vit.ln_post
        self.proj = vit.proj if projection == "shared" or branches == 1 else _own_projections(vit.proj, branches)
        self.positional_embedding = vit.positional_embedding  # (1 + patches, W): row 0 is shared by all class tokens
        width = vit.class_embedding.shape[0]
        self.class_embedding = nn.Parameter(width**-0.5 * torch.randn(branches, width))
        self.image_size, self.grid_size = vit.image_size, vit.grid_size
        self.branches = branches
        # One branch has nobody to be isolated from: it is plain CLIP whatever the setting.
        self.isolation: Isolation = isolation if branches > 1 else "none"
        patches = self.grid_size[0] * self.grid_size[1]
        self.register_buffer("class_mask_HL", class_mask(branches, patches, self.isolation), persistent=False)

    def forward(self, image_BCSS: Tensor) -> Tensor:
        class_BHW, _ = self.tokens(image_BCSS)
        if self.proj.ndim == 2:
            return class_BHW @ self.proj
        return torch.einsum("bhw,hwd->bhd", class_BHW, self.proj)

    def project_patches(self, patch_BNW: Tensor) -> Tensor:
        """Patch tokens in the joint space (B, N, D), where several projections exist by their mean."""
        return patch_BNW @ (self.proj if self.proj.ndim == 2 else self.proj.mean(dim=0))

    def tokens(self, image_BCSS: Tensor) -> tuple[Tensor, Tensor]:
        """The last layer's normed tokens: class tokens (B, H, W) and patch tokens (B, N, W), both before `proj`."""
        x_BLW = self._embed(image_BCSS)
        for block in self.transformer.resblocks:
            x_BLW = self._block(block, x_BLW)
        x_BLW = self.ln_post(x_BLW)
        return x_BLW[:, : self.branches], x_BLW[:, self.branches :]

    def class_attention(self, image_BCSS: Tensor) -> Tensor:
        """How much each class token looks at each patch in the last block, mean over heads: (B, H, rows, columns)."""
        x_BLW = self._embed(image_BCSS)
        *early, last = self.transformer.resblocks
        for block in early:
            x_BLW = self._block(block, x_BLW)
        q, k, _ = self._qkv(last, last.ln_1(x_BLW))
        logits = q[:, :, : self.branches] @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if self.class_mask_HL is not None:
            logits = logits + self.class_mask_HL
        weight_BHL = logits.softmax(dim=-1).mean(dim=1)
        return weight_BHL[:, :, self.branches :].unflatten(-1, self.grid_size)

    def _embed(self, image_BCSS: Tensor) -> Tensor:
        patch_BNW = self.conv1(image_BCSS).flatten(2).transpose(1, 2)
        position = self.positional_embedding.to(patch_BNW.dtype)
        class_HW = self.class_embedding.to(patch_BNW.dtype) + position[:1]
        class_BHW = class_HW.expand(len(patch_BNW), -1, -1)
        return self.ln_pre(torch.cat([class_BHW, patch_BNW + position[1:]], dim=1))

    def _block(self, block: nn.Module, x_BLW: Tensor) -> Tensor:
        x_BLW = x_BLW + block.ls_1(self._attend(block, block.ln_1(x_BLW)))
        return x_BLW + block.ls_2(block.mlp(block.ln_2(x_BLW)))

    def _attend(self, block: nn.Module, x_BLW: Tensor) -> Tensor:
        q, k, v = self._qkv(block, x_BLW)
        if self.isolation == "none":
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            H = self.branches
            class_out = F.scaled_dot_product_attention(q[:, :, :H], k, v, attn_mask=self.class_mask_HL.to(q.dtype))
            seen = slice(H, None) if self.isolation == "full" else slice(None)
            patch_out = F.scaled_dot_product_attention(q[:, :, H:], k[:, :, seen], v[:, :, seen])
            out = torch.cat([class_out, patch_out], dim=2)
        return block.attn.out_proj(out.transpose(1, 2).flatten(2))

    @staticmethod
    def _qkv(block: nn.Module, x_BLW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, heads, L, W / heads), from the weights of the block's own attention."""
        attn = block.attn
        qkv = F.linear(x_BLW, attn.in_proj_weight, attn.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, attn.num_heads, attn.head_dim)).permute(2, 0, 3, 1, 4)
        return q, k, v


def class_mask(branches: int, patches: int, isolation: Isolation) -> Tensor | None:
    """What is added to the attention logits of the class rows, (H, H + patches); None where nothing is."""
    if isolation == "none":
        return None
    mask_HL = torch.zeros(branches, branches + patches)
    others = ~torch.eye(branches, dtype=torch.bool)
    mask_HL[:, :branches][others] = 1.0 if isolation == "paper" else float("-inf")
    return mask_HL


def copy_class_token(class_embedding_W: Tensor, branches: int) -> Tensor:
    """A single class token for every branch (H, W), told apart by a little noise where there are several."""
    copies = class_embedding_W.expand(branches, -1).clone()
    if branches > 1:
        copies += COPY_NOISE * class_embedding_W.std() * torch.randn_like(copies)
    return copies


def _own_projections(proj_WD: Tensor, branches: int) -> nn.Parameter:
    """A fresh projection for each branch (H, W, D), of the scale of the one they replace."""
    return nn.Parameter(proj_WD.std() * torch.randn(branches, *proj_WD.shape))


def _require_plain_vit(vit: nn.Module) -> None:
    """Branches need class tokens in open_clip's own ViT: say which feature stands in the way."""
    found = None
    if not hasattr(vit, "class_embedding"):
        found = f"an image tower of type {type(vit).__name__}"
    elif vit.attn_pool is not None or vit.pool_type != "tok":
        found = f"pooling {vit.pool_type!r}"
    elif not isinstance(vit.patch_dropout, nn.Identity):
        found = "patch dropout"
    elif not hasattr(vit.transformer.resblocks[0].attn, "in_proj_weight"):
        found = f"blocks of type {type(vit.transformer.resblocks[0]).__name__}"
    if found:
        raise ConfigError(
            f"train.model: found {found}, but branches need open_clip's own ViT with class-token pooling; "
            "choose a ViT-* model such as ViT-B-32 or ViT-B-16"
        )
