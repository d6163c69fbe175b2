"""The multi-branch CLIP: open_clip's towers, with H branches on the image side.

It is a subclass of `open_clip.CLIP` with the same parameter names, so weights move between the two: any open_clip
checkpoint warm-starts it, and with one branch it computes what open_clip computes. Texts need not be padded to the
context length: the causal mask makes what follows the end token irrelevant, so a batch is as wide as its longest text.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import open_clip
from open_clip.transformer import text_global_pool
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ConfigError
from training.branches import branched
from training.config import BranchOptions
from training.text_pooling import TextConditionedPooling, rows_of
from training.towers import TOWER_KEYS


class Encoded(NamedTuple):
    """What a training pass gives: normalised branches (B, H, D), the texts of each length group (T_g, D), the scale.

    patch_BND: patch tokens in the joint space, for models with a second score.
    """

    branches_BHD: Tensor
    texts: list[Tensor]
    scale: Tensor
    patch_BND: Tensor | None


class HolisticCLIP(open_clip.CLIP):
    """Text tower plain, image tower with one branch per slot.

    `slots` names the branches, in the order in which `encode_branches` returns them.
    """

    def __init__(
        self,
        architecture: Mapping[str, Any],
        slots: Sequence[str],
        options: BranchOptions | None = None,
        text_pooling: bool = False,
    ) -> None:
        super().__init__(**{key: architecture[key] for key in TOWER_KEYS if key in architecture})
        plain_vit: nn.Module = self._modules["visual"]
        self.architecture = dict(architecture)
        self.slots = tuple(slots)
        self.options = options or BranchOptions()
        self.visual = branched(plain_vit, len(self.slots), self.options)
        self.text_pooling = TextConditionedPooling(architecture["embed_dim"]) if text_pooling else None
        self.token_head: nn.Module | None = None  # `training.token_head` gives it to models in training

    def encode_branches(self, image_BCSS: Tensor, normalize: bool = True) -> Tensor:
        """All branches of each image, (B, H, D)."""
        branches_BHD = self.visual(image_BCSS)
        return F.normalize(branches_BHD, dim=-1) if normalize else branches_BHD

    def encode_image(self, image_BCSS: Tensor, normalize: bool = False) -> Tensor:
        """The served vector (B, D): the mean of the normalised branches, itself normalised on demand.

        Unnormalised it gives exactly the mean of the branches' logits (PAPER 1.4), which weighs images by how much
        their branches agree; an index serves the normalised one.
        """
        served_BD = self.encode_branches(image_BCSS).mean(dim=1)
        return F.normalize(served_BD, dim=-1) if normalize else served_BD

    def encode_patches(self, image_BCSS: Tensor, normalize: bool = True) -> Tensor:
        """Patch tokens in the shared space, (B, rows · columns, D), for dense comparisons with texts."""
        _, patch_BNW = self.visual.tokens(image_BCSS)
        patch_BND = self.visual.project_patches(patch_BNW)
        return F.normalize(patch_BND, dim=-1) if normalize else patch_BND

    def patch_maps(self, image_BCSS: Tensor) -> Tensor:
        """Patch tokens for each branch, (B, G, rows, columns, D): `training.branches.vit`."""
        maps: Tensor = self.visual.patch_maps(image_BCSS)
        return maps

    def attended_maps(self, image_BCSS: Tensor) -> Tensor:
        """What each branch's vector is given by each patch, (B, H, rows, columns, D)."""
        maps: Tensor = self.visual.attended_maps(image_BCSS)
        return maps

    @property
    def last_attention(self) -> nn.Module:
        """Of the image tower's last block."""
        attention: nn.Module = self.visual.blocks[-1].attn
        return attention

    def encode_text(self, text_TL: Tensor, normalize: bool = False) -> Tensor:
        """Texts (T, D) from token ids (T, L), L being at most the context length."""
        length = text_TL.shape[1]
        if length > self.context_length:
            raise ValueError(
                f"texts are {length} tokens wide, but the model's context length is {self.context_length}"
            )
        dtype = self.transformer.get_cast_dtype()
        x_TLW = self.token_embedding(text_TL).to(dtype) + self.positional_embedding[:length].to(dtype)
        mask_LL = None if self.attn_mask is None else self.attn_mask[:length, :length]
        x_TLW = self.ln_final(self.transformer(x_TLW, attn_mask=mask_LL))
        x_TW = text_global_pool(x_TLW, text_TL, self.text_pool_type, eos_token_id=self.text_eos_id)
        if self.text_projection is not None:
            projection = self.text_projection
            x_TW = projection(x_TW) if isinstance(projection, nn.Linear) else x_TW @ projection
        return F.normalize(x_TW, dim=-1) if normalize else x_TW

    def conditioned_cosines(self, patch_BND: Tensor, text_BTD: Tensor) -> Tensor:
        """The second score (B, T) of images, by `encode_patches(normalize=False)`, for normalised texts of each.

        Raises ConfigError for a model that was trained without the term text_conditioned.
        """
        if self.text_pooling is None:
            raise ConfigError("the model has no second score; train it with the loss term text_conditioned")
        cosines_BT: Tensor = self.text_pooling(patch_BND, *rows_of(text_BTD))
        return cosines_BT

    def make_activations_again(self) -> None:
        """In backward, where they are needed, instead of keeping those of all blocks (activation checkpointing)."""
        self.visual.makes_again = True
        self.transformer.grad_checkpointing = True

    def compile_towers(self) -> None:
        """Of both towers what is most of their work; weights keep their names."""
        self.visual.compile()
        self.transformer.compile()

    def forward(self, image_BCSS: Tensor, text_groups: Sequence[Tensor]) -> "Encoded":
        """One training pass. In place of images (B, 3, S, S) may be their branches (B, H, D), made before."""
        texts = [self.encode_text(text_TL, normalize=True) for text_TL in text_groups]
        if image_BCSS.ndim == 3:
            return Encoded(image_BCSS, texts, self.logit_scale.exp(), None)
        if self.text_pooling is None:
            return Encoded(self.encode_branches(image_BCSS), texts, self.logit_scale.exp(), None)
        class_BHW, patch_BNW = self.visual.tokens(image_BCSS)
        branches_BHD = F.normalize(self.visual.project(class_BHW), dim=-1)
        return Encoded(branches_BHD, texts, self.logit_scale.exp(), self.visual.project_patches(patch_BNW))


def make_tokenizer(architecture: Mapping[str, Any]) -> open_clip.SimpleTokenizer:
    """CLIP's byte-pair tokenizer at the model's context length."""
    return open_clip.SimpleTokenizer(context_length=architecture["text_cfg"].get("context_length", 77))
