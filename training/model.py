"""The multi-branch CLIP: open_clip's towers, with H branches on the image side.

It is a subclass of `open_clip.CLIP` with the same parameter names, so weights move between the two: any open_clip
checkpoint warm-starts it, and with one branch it computes what open_clip computes. Texts need not be padded to the
context length: the causal mask makes what follows the end token irrelevant, so a batch is as wide as its longest text.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import open_clip
from open_clip.transformer import text_global_pool
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ConfigError
from training.branches import branched
from training.config import BranchOptions
from training.text_pooling import TextConditionedPooling, rows_of

VOCABULARY = 49408  # of CLIP's tokenizer
TOWER_KEYS = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")


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

    def forward(self, image_BCSS: Tensor, text_groups: Sequence[Tensor]) -> "Encoded":
        """One training pass."""
        texts = [self.encode_text(text_TL, normalize=True) for text_TL in text_groups]
        if self.text_pooling is None:
            return Encoded(self.encode_branches(image_BCSS), texts, self.logit_scale.exp(), None)
        class_BHW, patch_BNW = self.visual.tokens(image_BCSS)
        branches_BHD = F.normalize(self.visual.project(class_BHW), dim=-1)
        return Encoded(branches_BHD, texts, self.logit_scale.exp(), self.visual.project_patches(patch_BNW))


def resolve_architecture(model: str | Mapping[str, Any], context_length: int | None = None) -> dict[str, Any]:
    """The towers as open_clip writes them (embed_dim, vision_cfg, text_cfg), from a registry name or spelled out.

    Raises ConfigError where the name is unknown or the towers are not open_clip's own ViT and text transformer.
    """
    if isinstance(model, str):
        architecture = open_clip.get_model_config(model)
        if architecture is None:
            raise ConfigError(
                f"train.model: {model!r} is not in open_clip's registry; "
                "see open_clip.list_models() or spell the towers out (embed_dim, vision_cfg, text_cfg)"
            )
    else:
        architecture = deepcopy(dict(model))
    missing = [key for key in TOWER_KEYS[:3] if key not in architecture]
    if missing:
        raise ConfigError(f"train.model: {', '.join(missing)} missing; expected embed_dim, vision_cfg and text_cfg")
    if strange := _strange_tower(architecture):
        name = model if isinstance(model, str) else "the model spelled out"
        raise ConfigError(
            f"train.model: {name} has {strange}, but branches need open_clip's own ViT and CLIP's text tower; choose "
            "one of open_clip's ViT-* models such as ViT-B-32 or ViT-B-16"
        )
    sides = architecture["vision_cfg"].get("image_size", 224)
    if not isinstance(sides, int) and len(set(sides)) > 1:
        raise ConfigError(
            f"train.model: found images of {' × '.join(map(str, sides))} px, but training cuts squares; set "
            "vision_cfg.image_size to one number"
        )
    text = architecture["text_cfg"]
    if context_length is not None:
        text["context_length"] = context_length
    return architecture


def _strange_tower(architecture: Mapping[str, Any]) -> str | None:
    """What of these towers is not open_clip's own ViT or CLIP's causal text transformer; None if all is."""
    vision, text = architecture["vision_cfg"], architecture["text_cfg"]
    if "timm_model_name" in vision:
        return f"timm's image tower {vision['timm_model_name']}"
    if not isinstance(vision.get("layers", 12), int):
        return "a ResNet as its image tower"
    if "hf_model_name" in text or "hf_tokenizer_name" in text or architecture.get("custom_text"):
        return "a text tower of its own"
    if text.get("vocab_size", VOCABULARY) != VOCABULARY:
        return f"a text tower of {text['vocab_size']} tokens, where CLIP's tokenizer has {VOCABULARY}"
    if text.get("no_causal_mask") or text.get("embed_cls") or text.get("pool_type", "argmax") not in ("argmax", "eos"):
        return "a text tower that does not end its texts with an end token under a causal mask"
    return None


def make_tokenizer(architecture: Mapping[str, Any]) -> open_clip.SimpleTokenizer:
    """CLIP's byte-pair tokenizer at the model's context length."""
    return open_clip.SimpleTokenizer(context_length=architecture["text_cfg"].get("context_length", 77))
