"""Any model of open_clip's: by name with a tag or a path to weights, or a folder in its own form."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial

import open_clip
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.func import functional_call

from evaluation.encoder import Encoder
from evaluation.models.one_vector import BRANCH, OneVector, OneVectorAndPatches, upright_first
from evaluation.models.source import LOCAL_DIR, OPEN_CLIP, Source
from pipeline.errors import ConfigError, InputError
from pipeline.storage import Location


def load(name: str, source: Source) -> Encoder:
    """As `open_clip.create_model_and_transforms` and `open_clip.get_tokenizer` give it."""
    _require_known_weights(source)
    _require_same_gelu(source)
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(source.place, source.weights)
        tokenize = open_clip.get_tokenizer(source.place)
    except Exception as error:  # of open_clip, of torch's reader of weights, of whichever client fetches them
        where = "" if source.place.startswith(LOCAL_DIR) or source.weights is None else f" with {source.weights!r}"
        raise InputError(
            f"evaluate.models: open_clip cannot load {source.place!r}{where} "
            f"({(str(error).splitlines() or [type(error).__name__])[0]})"
        ) from error
    model.eval()
    cuts = _cuts_texts(model)
    encode = _encoders(model, partial(_cut_texts, model) if cuts else model.encode_text)
    identity = source.digest
    return Encoder(name, identity, identity, encode, upright_first(preprocess), _texts(tokenize), BRANCH, cuts)


def _cuts_texts(model: nn.Module) -> bool:
    """Whether the padding behind a text cannot reach its vector, so that it need not be encoded."""
    return type(model) is open_clip.CLIP and model.text_pool_type == "argmax" and model.attn_mask is not None


def _cut_texts(model: nn.Module, text_TL: Tensor) -> Tensor:
    """Vectors of texts that are narrower than the model's context: most of a text tower's work is padding."""
    width = text_TL.shape[1]
    narrow = {
        "positional_embedding": model.positional_embedding[:width],
        "attn_mask": model.attn_mask[:width, :width],
    }
    text_TD: Tensor = functional_call(model, narrow, kwargs={"text": text_TL})[1]
    return text_TD


def _encoders(model: nn.Module, encode_text: Callable[[Tensor], Tensor]) -> OneVector:
    """With patches of open_clip's own ViTs, unless they pool by attention, which does not bring patches to texts."""
    visual = model.visual
    if not isinstance(visual, VisionTransformer) or visual.attn_pool is not None or visual.proj is None:
        return OneVector(model, model.encode_image, encode_text)

    def patches(image_BCSS: Tensor) -> Tensor:
        found = visual.forward_intermediates(
            image_BCSS, indices=1, normalize_intermediates=True, intermediates_only=True
        )
        return found["image_intermediates"][-1].movedim(1, -1) @ visual.proj

    attention = visual.transformer.resblocks[-1].attn
    return OneVectorAndPatches(model, model.encode_image, encode_text, patches, attention)


def _texts(tokenize: Callable[[list[str]], Tensor]) -> Callable[[list[str]], Tensor]:
    return lambda texts: tokenize(list(texts))


def _require_known_weights(source: Source) -> None:
    """Of a model that open_clip knows: its tags stand in the message, and open_clip itself logs them as an error."""
    tags = open_clip.list_pretrained_tags_by_model(source.place)
    if source.weights is None or not tags or open_clip.get_pretrained_cfg(source.place, source.weights):
        return
    if Location.of(source.weights).exists():
        return
    close = difflib.get_close_matches(source.weights, tags, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ConfigError(
        f"evaluate.models: open_clip has no weights {source.weights!r} for {source.place}, and no file is there: "
        f"{hint}it has {', '.join(tags)}"
    )


def _require_same_gelu(source: Source) -> None:
    """open_clip only warns where a tag's weights were trained with another GELU, and the figures would be wrong."""
    known = open_clip.get_pretrained_cfg(source.place, source.weights) if source.weights else None
    if not known:
        return
    has, wants = (bool((found or {}).get("quick_gelu")) for found in (open_clip.get_model_config(source.place), known))
    if has != wants:
        other = f"{source.place}-quickgelu" if wants else source.place.removesuffix("-quickgelu")
        raise ConfigError(
            f"evaluate.models: the weights {source.weights!r} were trained with another GELU than {source.place} has; "
            f"name {OPEN_CLIP}{other}:{source.weights}"
        )
