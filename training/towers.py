"""Which towers a recipe's `model` means, and whether they can be built and branched.

Light on purpose: open_clip's descriptions are read from its files, as importing it would import torch, so a misspelt
name or an impossible number is found before anything was paid for.
"""

import difflib
import json
from collections.abc import Mapping
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from pipeline.config import Section, build
from pipeline.errors import ConfigError

VOCABULARY = 49408  # of CLIP's tokenizer
TOWER_KEYS = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")
HUB, FOLDER = "hf-hub:", "local-dir:"  # open_clip's words before a model that is described elsewhere
Size = Annotated[int, Field(ge=1, le=2**16)]
Ratio = Annotated[float, Field(gt=0, le=64)]


class _Blocks(Section):
    """What open_clip lets both towers have."""

    layers: Annotated[int, Field(ge=1, le=1000)] = 12
    mlp_ratio: Ratio = 4.0
    ls_init_value: float | None = None
    final_ln_after_pool: bool = False
    output_tokens: bool = False
    act_kwargs: dict[str, Any] | None = None
    norm_kwargs: dict[str, Any] | None = None
    block_type: str | None = None
    qk_norm: bool = False
    scaled_cosine_attn: bool = False
    scale_heads: bool = False
    scale_attn_inner: bool = False
    scale_attn: bool = False
    scale_fc: bool = False


class VisionTower(_Blocks):
    """`vision_cfg` of an open_clip ViT."""

    width: Size = 768
    head_width: Size = 64
    patch_size: Size = 16
    image_size: Size | tuple[Size, Size] = 224
    patch_dropout: float = Field(0.0, ge=0, lt=1)
    attentional_pool: bool = False
    attn_pooler_queries: Size = 256
    attn_pooler_heads: Size = 8
    no_ln_pre: bool = False
    pos_embed_type: str = "learnable"
    pool_type: str = "tok"

    @model_validator(mode="after")
    def _can_be_built(self) -> "VisionTower":
        heads = self.width // self.head_width
        if heads < 1 or self.width % heads:
            raise ValueError(f"width {self.width} cannot be cut into heads of width {self.head_width}")
        smallest = self.image_size if isinstance(self.image_size, int) else min(self.image_size)
        if self.patch_size > smallest:
            raise ValueError(f"patch_size {self.patch_size} is above image_size {smallest}")
        return self


class TextTower(_Blocks):
    """`text_cfg` of CLIP's text transformer."""

    context_length: Annotated[int, Field(ge=4, le=2**16)] = 77
    vocab_size: Size = VOCABULARY
    tokenizer_mode: str | None = None
    tokenizer_kwargs: dict[str, Any] | None = None
    width: Size = 512
    heads: Size = 8
    embed_cls: bool = False
    pad_id: int = 0
    eos_id: int = 2
    no_causal_mask: bool = False
    pool_type: str = "argmax"
    proj_bias: bool = False
    proj_type: str = "linear"

    @model_validator(mode="after")
    def _can_be_built(self) -> "TextTower":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be cut into {self.heads} heads")
        return self


class Towers(Section):
    """A model spelled out, as open_clip writes it."""

    embed_dim: Size
    vision_cfg: VisionTower
    text_cfg: TextTower
    quick_gelu: bool = False
    custom_text: bool = False


def resolve_architecture(model: str | Mapping[str, Any], context_length: int | None = None) -> dict[str, Any]:
    """The towers as open_clip writes them (embed_dim, vision_cfg, text_cfg), from a registry name or spelled out.

    Raises ConfigError where the name is unknown or the towers are not open_clip's own ViT and text transformer.
    """
    architecture = _described(model) if isinstance(model, str) else deepcopy(dict(model))
    missing = [key for key in TOWER_KEYS[:3] if key not in architecture]
    if missing:
        raise ConfigError(f"train.model: {', '.join(missing)} missing; expected embed_dim, vision_cfg and text_cfg")
    if strange := _strange_tower(architecture):
        name = model if isinstance(model, str) else "the model spelled out"
        raise ConfigError(
            f"train.model: {name} has {strange}, but branches need open_clip's own ViT and CLIP's text tower; choose "
            "one of open_clip's ViT-* models such as ViT-B-32 or ViT-B-16"
        )
    if not isinstance(model, str):
        build(Towers, architecture, source="train.model")
    sides = architecture["vision_cfg"].get("image_size", 224)
    if not isinstance(sides, int) and len(set(sides)) > 1:
        raise ConfigError(
            f"train.model: found images of {' × '.join(map(str, sides))} px, but training cuts squares; set "
            "vision_cfg.image_size to one number"
        )
    if context_length is not None:
        architecture["text_cfg"]["context_length"] = context_length
    return architecture


def can_be_looked_up(model: str | Mapping[str, Any]) -> bool:
    """Whether a look at the model costs nothing: it is spelled out, or described on this machine."""
    return not isinstance(model, str) or not (model.startswith(HUB) or _registry() is None)


def unknown_model(name: str) -> str | None:
    """Why open_clip would not know a model by this name; None where it does, or where it is not installed."""
    folder = _registry()
    known = [] if folder is None else [file.stem for file in folder.glob("*.json")]
    if not known or name in known or name.startswith((HUB, FOLDER)):
        return None
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"{name!r} is not in open_clip's registry" + (f"; did you mean {close[0]!r}?" if close else "")


def _registry() -> Path | None:
    """The folder of open_clip's descriptions."""
    spec = find_spec("open_clip")
    return Path(spec.origin).parent / "model_configs" if spec and spec.origin else None


def _described(name: str) -> dict[str, Any]:
    """open_clip's description of a model."""
    if name.startswith(HUB):
        import open_clip

        described: dict[str, Any] = open_clip.get_model_config(name)
        return described
    if why := unknown_model(name):
        raise ConfigError(f"train.model: {why}; name one of open_clip.list_models() or spell out {TOWER_KEYS[:3]}")
    folder, file = _registry() or Path(), f"{name}.json"
    if name.startswith(FOLDER):
        folder, file = Path(name.removeprefix(FOLDER)).expanduser(), "open_clip_config.json"
    try:
        content = json.loads((folder / file).read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"train.model: {name} has no readable {folder / file} ({error})") from error
    return dict(content.get("model_cfg", content))


def _strange_tower(architecture: Mapping[str, Any]) -> str | None:
    """What of these towers is not open_clip's own ViT or CLIP's causal text transformer; None if all is."""
    vision, text = architecture["vision_cfg"], architecture["text_cfg"]
    if not isinstance(vision, Mapping) or not isinstance(text, Mapping):
        return "a vision_cfg or text_cfg that is no mapping"
    if "timm_model_name" in vision:
        return f"timm's image tower {vision['timm_model_name']}"
    if isinstance(vision.get("layers", 12), (list, tuple)):
        return "a ResNet as its image tower"
    if "hf_model_name" in text or "hf_tokenizer_name" in text or architecture.get("custom_text"):
        return "a text tower of its own"
    if text.get("vocab_size", VOCABULARY) != VOCABULARY:
        return f"a text tower of {text['vocab_size']} tokens, where CLIP's tokenizer has {VOCABULARY}"
    if text.get("no_causal_mask") or text.get("embed_cls") or text.get("pool_type", "argmax") not in ("argmax", "eos"):
        return "a text tower that does not end its texts with an end token under a causal mask"
    if vision.get("attentional_pool") or vision.get("pool_type", "tok") != "tok":
        return f"pooling {vision.get('pool_type', 'tok')!r} in its image tower"
    if vision.get("patch_dropout"):
        return "patch dropout"
    return None
